//! All that a `lethe.toml` can say about the gateway, and what comes of it.

use std::{net::SocketAddr, time::Duration};

use lethe_gateway::config::{
    self as gateway,
    limit::{By, Limit, Outage},
};

use super::{
    Overrides,
    tests::{folder, load_path},
};

#[test]
fn everything_about_the_gateway_can_be_said() {
    let toml = r#"
        cores = 3
        proxy-protocol = true
        trusted-proxies = ["10.0.0.0/8", "::1"]
        via = "edge-1"
        access-log = "access.log"
        [tls]
        listen = "0.0.0.0:8443"
        certificates = [{ chain = "a.pem", key = "a.key" }]
        [limits]
        head-bytes-max = "64KiB"
        replay-bytes-max = 4096
        queue-max = 0
        retry-percent-max = 10
        idle-timeout = "5m"
        [services.web]
        command = "sh"
        protocol = "h2c"
        concurrency = 40
        slow-start = "10s"
        start-wait = "5s"
        eject = { failures = 3, shortest = "2s", longest = "1m", out-percent = 30 }
        health = { path = "/up", every = "1s", timeout = "500ms", failures = 4, successes = 1 }
        [services.blog]
        command = "sh"
        instances = "0..2"
        concurrency = "adaptive"
        eject = "off"
        health = "/up"
        [services.wiki]
        command = "sh"
        concurrency = { max = 7 }
        eject = { shortest = "40s" }
        [[routes]]
        service = "web"
        balance = "random"
        class = "batch"
        response-stall-timeout = "off"
        retry-on = ["503", "timeout"]
        resume = false
        server-timing = true
        limit = [
            { rate = "600/min", burst = 50 },
            { rate = "20/10s", by = "header:X-Api-Key", name = "key", leased = false, on-outage = "refuse", timeout = "2s" },
        ]
        [[routes]]
        service = "web"
        path = "/sign-in"
        limit = { rate = "5/min", by = "session" }
        [[routes]]
        service = "web"
        path = "/all"
        limit = "7/day"
        [[routes]]
        service = "wiki"
        path = "/wiki"
        limit = [{ rate = "20/10s", by = "header:x-api-key", name = "key", leased = false, on-outage = "refuse", timeout = "2s" }]
    "#;
    let pem = [("a.pem", "-----BEGIN CERTIFICATE-----\n"), ("a.key", "-----BEGIN EC PRIVATE KEY-----\n")];
    let (_kept, path) = folder(&[("lethe.toml", toml), pem[0], pem[1]]);
    let gateway = load_path(&path, Overrides::default()).unwrap().gateway;
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let listener = |address, tls| gateway::Listener { address, tls, proxy_protocol: true };
    assert_eq!(
        gateway.listeners,
        [listener(at("127.0.0.1:8080"), false), listener(at("0.0.0.0:8443"), true)]
    );
    let files = gateway::CertificateFiles { chain: path.join("a.pem"), key: path.join("a.key") };
    assert_eq!(gateway.tls, Some(gateway::Tls::Files(vec![files])));
    assert_eq!((gateway.cores, gateway.trusted_proxies.len()), (3, 2));
    assert_eq!(gateway.via.as_deref(), Some("edge-1"));
    assert_eq!(gateway.access_log, gateway::AccessLog::File(path.join("access.log")));
    let limits = gateway::Limits {
        head_bytes_max: 64 << 10,
        replay_bytes_max: 4096,
        queue_max: 0,
        retry_percent_max: 10,
        idle_timeout: Duration::from_secs(300),
        ..gateway::Limits::default()
    };
    assert_eq!(gateway.limits, limits);
    let web = gateway::Service {
        protocol: lethe_model::roster::Protocol::H2c,
        concurrency: gateway::Concurrency::Limited(40),
        slow_start: Duration::from_secs(10),
        start_wait: Some(Duration::from_secs(5)),
        from_zero: false,
        ejection: gateway::Ejection {
            failures: 3,
            shortest: Duration::from_secs(2),
            longest: Duration::from_secs(60),
            out_percent_max: 30,
        },
        health: Some(gateway::Health {
            path: "/up".into(),
            every: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            failures: 4,
            successes: 1,
        }),
    };
    assert_eq!(gateway.services["web"], web);
    let (blog, wiki) = (&gateway.services["blog"], &gateway.services["wiki"]);
    assert_eq!((blog.from_zero, blog.start_wait), (true, Some(Duration::from_secs(30))));
    assert_eq!((wiki.from_zero, wiki.start_wait), (false, None));
    assert_eq!(blog.concurrency, gateway::Concurrency::Adaptive { min: 2, max: 1000 });
    assert_eq!((blog.ejection.failures, blog.health.as_ref().unwrap().path.as_str()), (0, "/up"));
    assert_eq!(wiki.concurrency, gateway::Concurrency::Adaptive { min: 2, max: 7 });
    // What is said of one bound moves the default of the other along.
    assert_eq!(
        (wiki.ejection.shortest, wiki.ejection.longest),
        (Duration::from_secs(40), Duration::from_secs(40))
    );
    let route = &gateway.routes[0];
    assert_eq!((route.balance, route.class), (gateway::Balance::Random, gateway::Class::Batch));
    assert_eq!(route.response_stall, gateway::ResponseStall::Never);
    assert_eq!(route.retry_on, gateway::RetryOn { unavailable: true, timeout: true });
    assert_eq!((route.resume, route.server_timing), (false, true));
    let limit = |name: &str, calls, seconds, by| Limit {
        name: name.into(),
        calls,
        period: Duration::from_secs(seconds),
        burst: calls,
        by,
        leased: true,
        on_outage: Outage::Allow,
        timeout: lethe_http::limit::TIMEOUT_DEFAULT,
    };
    let key = By::Header("x-api-key".into());
    let key = Limit {
        leased: false,
        on_outage: Outage::Refuse,
        timeout: Duration::from_secs(2),
        ..limit("key", 20, 10, key)
    };
    let limits = gateway.routes.iter().map(|route| route.limits.clone()).collect::<Vec<_>>();
    let expected = [
        vec![Limit { burst: 50, ..limit("web-address", 600, 60, By::Address) }, key.clone()],
        vec![limit("web-sign-in-session", 5, 60, By::Session)],
        vec![limit("web-all-address", 7, 86_400, By::Address)],
        // Counted together with the other one of its name.
        vec![key],
    ];
    assert_eq!(limits, expected);
}

#[test]
fn several_services_may_share_a_route() {
    let toml = "[services.web]\ncommand = 'sh'\n[services.next]\ncommand = 'sh'\n[services.old]\ncommand = 'sh'\n\
                [[routes]]\ntimeout = '9s'\nservice = { web = 9, next = 1, old = 0 }\n[[routes]]\npath = '/a'\nservice = 'web'\n";
    let (_kept, path) = folder(&[("lethe.toml", toml)]);
    let config = load_path(&path, Overrides::default()).unwrap();
    let mut routes: Vec<_> =
        config.gateway.routes.iter().map(|route| (route.service.as_str(), route.weight)).collect();
    routes.sort_unstable();
    assert_eq!(routes, [("next", Some(1)), ("web", None), ("web", Some(9))]);
    assert!(config.gateway.routes[..2].iter().all(|route| route.timeout == Duration::from_secs(9)));
    assert!(
        config.notices.iter().any(|notice| notice.contains("`old`: no route leads to it")),
        "{:?}",
        config.notices
    );
}

#[test]
fn tls_is_spoken_in_one_place() {
    const CERTIFICATES: &str = "certificates = [{ chain = 'a.pem', key = 'a.pem' }]";
    let check = |tls: &str, self_signed: bool, expected: &[(&str, bool)]| {
        let toml = format!("listen = '127.0.0.2:80'\n[services.shop]\ncommand = 'sh'\n{tls}");
        let pem = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";
        let (_kept, path) = folder(&[("lethe.toml", &toml), ("a.pem", pem)]);
        let gateway = load_path(&path, Overrides { tls_self_signed: self_signed, ..Overrides::default() })
            .unwrap()
            .gateway;
        let listeners =
            gateway.listeners.iter().map(|it| (it.address.to_string(), it.tls)).collect::<Vec<_>>();
        let expected: Vec<_> = expected.iter().map(|(address, tls)| ((*address).to_owned(), *tls)).collect();
        assert_eq!(listeners, expected, "{tls} {self_signed}");
        gateway.tls
    };
    assert_eq!(check("", false, &[("127.0.0.2:80", false)]), None);
    let names = ["localhost", "127.0.0.1", "::1", "127.0.0.2"].map(String::from).to_vec();
    assert_eq!(check("", true, &[("127.0.0.2:80", true)]), Some(gateway::Tls::SelfSigned(names.clone())));
    let files = check(&format!("[tls]\n{CERTIFICATES}"), false, &[("127.0.0.2:80", true)]);
    assert!(matches!(files, Some(gateway::Tls::Files(_))), "{files:?}");
    let own = format!("[tls]\nlisten = 8443\n{CERTIFICATES}");
    check(&own, false, &[("127.0.0.2:80", false), ("127.0.0.1:8443", true)]);
    let both = check(&own, true, &[("127.0.0.2:80", false), ("127.0.0.1:8443", true)]);
    assert_eq!(
        both,
        Some(gateway::Tls::SelfSigned(names)),
        "the command line wins over the file's certificates"
    );
    let clash = format!(
        "listen = '0.0.0.0:8080'\n[services.shop]\ncommand = 'sh'\n[tls]\nlisten = 8080\n{CERTIFICATES}"
    );
    let (_kept, path) = folder(&[
        ("lethe.toml", &clash),
        ("a.pem", "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"),
    ]);
    let said = load_path(&path, Overrides::default()).unwrap_err();
    assert!(
        said.contains(
            "lethe.toml:5:10: `listen` in [tls]: `127.0.0.1:8080` is where the gateway listens without TLS"
        ),
        "{said}"
    );
}
