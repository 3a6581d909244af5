//! Who a request is from: the PROXY protocol, and what trusted and other proxies say in the head.

use std::time::Duration;

use lethe_gateway::config::{AccessLog, Config, Network};

use crate::{
    lab::{Lab, Message, run},
    observe::lines,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
/// The signature of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn network(address: &str, prefix_bits: u8) -> Network {
    Network { address: address.parse().unwrap(), prefix_bits }
}

fn trusting(config: &mut Config) {
    config.trusted_proxies = vec![network("127.0.0.0", 8), network("10.0.0.0", 8)];
}

async fn behind_a_proxy() -> Lab {
    Lab::with(1, |config| {
        trusting(config);
        config.listeners[0].proxy_protocol = true;
    })
    .await
}

/// A header of version 2 with this command, family, and addresses.
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([0x20 | command, family]);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

/// 203.0.113.7:5555 to 10.0.0.1:80.
const IPV4: &[u8] = &[203, 0, 113, 7, 10, 0, 0, 1, 0x15, 0xb3, 0, 80];

/// What a worker gets of a request that is sent in these pieces.
async fn seen(lab: &Lab, pieces: &[&[u8]]) -> Message {
    let mut client = lab.client().await;
    for piece in pieces {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    let (mut worker, request) = lab.workers[0].request().await;
    worker.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.text(), "ok");
    request
}

#[test]
fn a_trusted_proxy_says_whom_it_speaks_for() {
    run(async {
        let lab = behind_a_proxy().await;
        let ipv6: Vec<u8> =
            [[0x20, 1, 0xd, 0xb8].as_slice(), &[0; 11], &[7], &[0; 16], &[1, 1, 2, 2]].concat();
        for (header, address) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 80\r\n".to_vec(), "203.0.113.7"),
            (b"PROXY TCP6 2001:db8::7 ::1 5555 80\r\n".to_vec(), "2001:db8::7"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
            (version_2(1, 0x11, IPV4), "203.0.113.7"),
            (version_2(1, 0x21, &ipv6), "2001:db8::7"),
            // Of itself.
            (version_2(0, 0, &[]), "127.0.0.1"),
        ] {
            let request = seen(&lab, &[&header, GET.as_bytes()]).await;
            assert_eq!(request.header("x-forwarded-for"), Some(address));
            assert_eq!(request.header("x-forwarded-proto"), Some("http"));
            // In one piece, and byte by byte.
            let whole = [&header, GET.as_bytes()].concat();
            assert_eq!(seen(&lab, &[&whole]).await.header("x-forwarded-for"), Some(address));
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            assert_eq!(seen(&lab, &bytes).await.header("x-forwarded-for"), Some(address));
        }
    });
}

#[test]
fn it_may_say_that_the_client_came_by_tls() {
    run(async {
        let lab = behind_a_proxy().await;
        // PP2_TYPE_SSL with PP2_CLIENT_SSL.
        let addresses = [IPV4, &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        let request = seen(&lab, &[&version_2(1, 0x11, &addresses), GET.as_bytes()]).await;
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    });
}

/// The proxy is trusted, and its client is not: what that claims in the head is replaced.
#[test]
fn whom_a_proxy_speaks_for_is_not_trusted_for_it() {
    run(async {
        let lab = behind_a_proxy().await;
        let claims =
            "GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 1.2.3.4\r\nforwarded: for=1.2.3.4\r\n\r\n";
        let header = b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 80\r\n";
        let request = seen(&lab, &[header, claims.as_bytes()]).await;
        assert_eq!(request.header("x-forwarded-for"), Some("203.0.113.7"));
        assert_eq!(request.header("forwarded"), Some("for=203.0.113.7;proto=http"));
        // Behind it stands another trusted one.
        let header = b"PROXY TCP4 10.1.1.1 10.0.0.1 5555 80\r\n";
        let request = seen(&lab, &[header, claims.as_bytes()]).await;
        assert_eq!(request.header("x-forwarded-for"), Some("1.2.3.4, 10.1.1.1"));
    });
}

#[test]
fn what_is_no_header_is_closed_without_a_word() {
    run(async {
        let lab = behind_a_proxy().await;
        let mut other_version = version_2(1, 0x11, IPV4);
        other_version[12] = 0x31;
        for bad in [
            GET.as_bytes().to_vec(),
            b"PROXY TCP4 203.0.113.7\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 80\n".to_vec(),
            b"PROXY TCP4 203.0.113.777 10.0.0.1 5555 80\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 99999\r\n".to_vec(),
            [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            version_2(1, 0x11, &IPV4[..8]),
            version_2(7, 0x11, IPV4),
            other_version,
        ] {
            let mut client = lab.send(&bad).await;
            // It may be closed already.
            client.try_send(GET).await;
            client.closed().await;
        }
        lab.until(|snapshot| snapshot.connections == 0).await;
        assert!(!lab.workers[0].is_called());
    });
}

#[test]
fn the_word_of_others_is_not_heard() {
    run(async {
        let lab = Lab::with(1, |config| {
            config.trusted_proxies = vec![network("10.0.0.0", 8)];
            config.listeners[0].proxy_protocol = true;
        })
        .await;
        let client = lab.send(version_2(1, 0x11, IPV4)).await;
        client.closed().await;
        assert!(!lab.workers[0].is_called());
    });
}

#[test]
fn a_header_that_never_ends_is_closed() {
    run(async {
        let lab = Lab::with(1, |config| {
            trusting(config);
            config.listeners[0].proxy_protocol = true;
            config.limits.head_timeout = Duration::from_millis(50);
        })
        .await;
        lab.client().await.closed().await;
        lab.send("PROXY TCP4 203").await.closed().await;
        lab.send(&version_2(1, 0x11, IPV4)[..20]).await.closed().await;
    });
}

#[test]
fn no_header_is_heard_where_none_is_expected() {
    run(async {
        let lab = Lab::with(1, trusting).await;
        let mut client = lab.send("PROXY TCP4 203.0.113.7 10.0.0.1 5555 80\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 400);
        client.closed().await;
    });
}

/// What a worker gets of these fields; nothing for those that are not there.
async fn origin(lab: &Lab, fields: &str) -> [Option<String>; 4] {
    let request = format!("GET / HTTP/1.1\r\nhost: h\r\n{fields}\r\n");
    let request = seen(lab, &[request.as_bytes()]).await;
    ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-host"]
        .map(|name| request.header(name).map(str::to_owned))
}

#[test]
fn trusted_proxies_are_followed_to_the_first_that_nobody_vouches_for() {
    run(async {
        let lab = Lab::with(1, trusting).await;
        for (fields, client) in [
            ("", "127.0.0.1"),
            ("X-Forwarded-For: 198.51.100.9\r\n", "198.51.100.9"),
            ("X-Forwarded-For: 198.51.100.9, 10.1.1.1\r\n", "198.51.100.9"),
            ("X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 10.1.1.1\r\n", "198.51.100.9"),
            // What the client itself has claimed ends at the client.
            ("X-Forwarded-For: 6.6.6.6, 198.51.100.9, 10.1.1.1\r\n", "198.51.100.9"),
            ("Forwarded: for=198.51.100.9;proto=https;host=shop.test\r\n", "198.51.100.9"),
            ("Forwarded: for=6.6.6.6, for=198.51.100.9, for=10.1.1.1\r\n", "198.51.100.9"),
            ("Forwarded: for=\"[2001:db8::7]:4711\"\r\n", "2001:db8::7"),
        ] {
            let [addresses, forwarded, ..] = origin(&lab, fields).await;
            let addresses = addresses.unwrap();
            assert_eq!(addresses.split(", ").next(), Some(client), "{fields}");
            assert!(!addresses.contains("6.6.6.6"), "{fields}");
            assert!(forwarded.unwrap().contains(client), "{fields}");
        }
        let fields = "Forwarded: for=198.51.100.9;proto=https;host=shop.test\r\n";
        let [.., scheme, host] = origin(&lab, fields).await;
        assert_eq!((scheme.as_deref(), host.as_deref()), (Some("https"), Some("shop.test")));
    });
}

#[test]
fn claims_of_others_are_replaced() {
    run(async {
        let lab = Lab::new(1).await;
        let claims = "Forwarded: for=6.6.6.6;proto=https;host=evil.test\r\nX-Forwarded-For: 6.6.6.6\r\n\
            X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nX-Real-IP: 6.6.6.6\r\n";
        let request = format!("GET / HTTP/1.1\r\nhost: h\r\n{claims}\r\n");
        let request = seen(&lab, &[request.as_bytes()]).await;
        assert!(!request.head.contains("6.6.6.6") && !request.head.contains("evil"), "{}", request.head);
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.header("x-forwarded-proto"), Some("http"));
        assert_eq!(request.header("x-forwarded-host"), Some("h"));
        assert_eq!(
            request.header("forwarded"),
            Some("for=127.0.0.1;proto=http"),
            "as much as from behind a proxy"
        );
    });
}

/// RFC 9110, section 7.6.3: said only where it is wished for.
#[test]
fn a_name_on_the_way() {
    run(async {
        let lab = Lab::new(1).await;
        let named = "GET / HTTP/1.1\r\nhost: h\r\nvia: 1.0 fred\r\n\r\n";
        assert_eq!(seen(&lab, &[named.as_bytes()]).await.header("via"), Some("1.0 fred"));
        let mut config = crate::lab::config();
        config.via = Some("edge-1".into());
        lab.gateway.reload(config).await.unwrap();
        let request = seen(&lab, &[named.as_bytes()]).await;
        assert!(request.head.contains("via: 1.0 fred\r\nvia: 1.1 edge-1\r\n"), "{}", request.head);
        let mut client = lab.send("GET / HTTP/1.0\r\nhost: h\r\n\r\n").await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.header("via"), Some("1.0 edge-1"));
        worker.answer("ok").await;
        assert_eq!(client.response().await.header("via"), Some("1.1 edge-1"));
        // Round and round.
        let circle = format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", "via: 1.1 edge-1\r\n".repeat(8));
        let response = lab.send(circle).await.response().await;
        assert_eq!((response.status(), &response.problem()["title"]), (508, &"Loop Detected".into()));
        assert!(!lab.workers[0].is_called());
    });
}

/// RFC 9110, section 7.6.2.
#[test]
fn no_further_than_it_may_be_forwarded() {
    run(async {
        let lab = Lab::new(1).await;
        let ask = |method: &str, left: u8| {
            format!("{method} / HTTP/1.1\r\nhost: h\r\nmax-forwards: {left}\r\n\r\n")
        };
        for (method, left, expected) in [("OPTIONS", 2, "1"), ("TRACE", 1, "0"), ("GET", 0, "0")] {
            let request = seen(&lab, &[ask(method, left).as_bytes()]).await;
            assert_eq!(request.header("max-forwards"), Some(expected), "{method}");
        }
        let response = lab.send(ask("OPTIONS", 0)).await.response().await;
        assert_eq!(
            (response.status(), response.header("content-length"), response.text()),
            (200, Some("0"), "")
        );
        assert_eq!(response.header("content-type"), None);
        assert_eq!(lab.send(ask("TRACE", 0)).await.response().await.status(), 501);
        assert!(!lab.workers[0].is_called());
    });
}

#[test]
fn trust_is_taken_up_by_a_reload() {
    run(async {
        let lab = Lab::new(1).await;
        let fields = "X-Forwarded-For: 198.51.100.9\r\n";
        assert_eq!(origin(&lab, fields).await[0].as_deref(), Some("127.0.0.1"));
        let mut config = crate::lab::config();
        trusting(&mut config);
        lab.gateway.reload(config).await.unwrap();
        assert_eq!(origin(&lab, fields).await[0].as_deref(), Some("198.51.100.9, 127.0.0.1"));
    });
}

/// The access log says whom a request is from as workers are told it, also of requests that no worker gets.
#[test]
fn the_log_names_the_client_behind_the_proxies() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let lab = Lab::with(1, |config| {
            trusting(config);
            config.access_log = AccessLog::File(path.clone());
            config.routes[0].path = "/shop".into();
        })
        .await;
        let forwarded =
            "x-forwarded-for: 198.51.100.9, 203.0.113.7, 10.0.0.2\r\nx-forwarded-proto: https\r\n";
        seen(&lab, &[format!("GET /shop HTTP/1.1\r\nhost: h\r\n{forwarded}\r\n").as_bytes()]).await;
        let mut other = lab.send(format!("GET /other HTTP/1.1\r\nhost: h\r\n{forwarded}\r\n")).await;
        assert_eq!(other.response().await.status(), 404);
        let lines = lines(&path, 2).await;
        for line in lines {
            assert_eq!((&line["client"], &line["tls"]), (&"203.0.113.7".into(), &true.into()), "{line}");
        }
    });
}
