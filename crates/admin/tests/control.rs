//! The control API and the operator's endpoint, with a real supervisor and real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in what its functions share")]

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, SystemTime},
};

use lethe_admin::{
    Handles,
    api::{self, Logs, Problem, ServiceScale},
    client::{Client, Error},
    control,
    exposition::Exposition,
    handles::{Reload, Scaling, Upgrade},
    operator,
    peer::Peers,
    stop::{Stop, Wish},
};
use lethe_gateway::stats::{Snapshot, WorkerStats};
use lethe_model::{
    roster::{Protocol, WorkerState},
    service::{InstanceId, ServiceName},
};
use lethe_supervisor::{
    logs::Source,
    service::{Listener, Spec},
    supervisor::{self, Supervisor},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

/// After so long without the awaited event, a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a worker runs: this test program again, as the one "test" that listens and never ends.
#[test]
#[ignore = "it is a worker for the tests below"]
fn worker() {
    let Ok(port) = std::env::var("PORT") else { return };
    let listener = std::net::TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    println!("hello from {}", std::env::var("LETHE_INSTANCE").unwrap());
    listener.incoming().for_each(drop);
}

/// A shop of two workers.
struct Place {
    folder: TempDir,
    handles: Arc<Handles>,
    client: Client,
    server: JoinHandle<()>,
}

/// Takes over if it is `/bin/true`.
fn upgrade() -> Upgrade {
    Arc::new(|upgrade| {
        let outcome = if upgrade.binary == Path::new("/bin/true") {
            Ok(api::Upgraded { before: 1, pid: 2, version: format!("{} s", upgrade.timeout_s) })
        } else {
            let detail = "it exited".into();
            Err(api::Problem { status: 500, title: "Not upgraded".into(), detail })
        };
        Box::pin(async { outcome })
    })
}

/// Decides about the shop, and wants whatever is set.
#[derive(Default)]
struct Load(AtomicBool);

impl Scaling for Load {
    fn range(&self, service: &str) -> Option<ServiceScale> {
        (service == "shop").then(|| ServiceScale { min: 1, max: 2, pinned: self.0.load(Ordering::Relaxed) })
    }

    fn look(&self, service: &str) -> Option<api::Scaling> {
        let decision = api::Decision {
            number: 7,
            at: SystemTime::now().into(),
            from: 1,
            to: 2,
            reasons: vec!["emails".into()],
            error: None,
            notes: Vec::new(),
        };
        Some(api::Scaling {
            scale: self.range(service)?,
            service: ServiceName::new("shop").unwrap(),
            wanted: 2,
            metrics: vec![api::ScalingMetric { name: "emails".into(), ratio: Some(1.5), failing: None }],
            decisions: vec![decision],
        })
    }

    fn case(&self, _: &str, number: u64) -> Option<String> {
        (number == 7).then(|| "{\"replicas\":1}".into())
    }

    fn pin(&self, service: &str, is_pinned: bool) -> Option<()> {
        self.range(service)?;
        self.0.store(is_pinned, Ordering::Relaxed);
        Some(())
    }

    fn tell(&self, service: &str, metric: &str, number: &str) -> Option<Result<(), Problem>> {
        self.range(service)?;
        let detail = format!("{metric} is {number}");
        let is_right = metric == "emails" && number == "17";
        let problem = || Problem { status: 404, title: "No such metric".into(), detail };
        Some(is_right.then_some(()).ok_or_else(problem))
    }

    fn measure(&self, text: &mut Exposition) {
        text.family("lethe_scale_min_workers", lethe_admin::exposition::Kind::Gauge, "Few.").sample(&[], 1);
    }
}

impl Place {
    async fn new() -> Self {
        let program = std::env::current_exe().unwrap();
        let program = program.to_str().expect("a path that is UTF-8");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let spec = Spec {
            name: ServiceName::new("shop").unwrap(),
            command: [program, "--ignored", "--exact", "worker", "--nocapture"].map(String::from).into(),
            instances: 2,
            ready: None,
            warm_up: Vec::new(),
            listener: Listener::Port,
            protocol: Protocol::Http1,
            drain: Duration::from_secs(5),
            env: Default::default(),
            release: 0,
            withheld: [].into(),
            directory: folder.path().join("work"),
            resources: Default::default(),
        };
        // The guard's work is done here by the test's end, which leaves no worker behind.
        let guard = folder.path().join("guard");
        std::fs::write(&guard, "#!/bin/sh\nexec cat\n").unwrap();
        std::fs::set_permissions(&guard, std::fs::Permissions::from_mode(0o700)).unwrap();
        let config = supervisor::Config {
            services: vec![spec],
            sockets: "/nowhere".into(),
            state_urls: None,
            homes: None,
            guard,
        };
        let supervisor = Supervisor::start(config).await.unwrap();
        let stats =
            WorkerStats { requests: 42, failures: 1, latency_us: vec![(900, 42)], ..WorkerStats::default() };
        let snapshot = Snapshot {
            responses: [0, 42, 0, 0, 0],
            workers: [(InstanceId::from(String::from("shop-1")), stats)].into(),
            ..Snapshot::default()
        };
        let node = api::Node {
            pid: std::process::id(),
            version: "0.1.0".into(),
            listen: ([127, 0, 0, 1], 80).into(),
            tls: None,
            admin: None,
            state_dir: folder.path().into(),
            state: None,
            started_at: SystemTime::now().into(),
        };
        let reloads = AtomicU16::new(0);
        // Done, wrong, refused, and so on again.
        let reload: Reload = Arc::new(move |_| {
            let outcome = match reloads.fetch_add(1, Ordering::Relaxed) % 3 {
                0 => Ok(api::Reloaded { changes: vec!["limits: changed".into()], notices: Vec::new() }),
                number => Err(api::Problem {
                    status: [422, 409][usize::from(number) - 1],
                    title: "No".into(),
                    detail: "lethe.toml:1:1: no".into(),
                }),
            };
            Box::pin(async { outcome })
        });
        let traffic = Arc::new(move || snapshot.clone());
        let handles = Handles::new(
            supervisor,
            traffic,
            reload,
            upgrade(),
            Arc::new(Load::default()),
            Arc::new(|_| {}),
            node,
            Stop::new(),
        );
        let socket = folder.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(control::serve(listener, Arc::clone(&handles)));
        Self { folder, handles, client: Client::new(socket), server }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Waits until `count` workers are ready; looks again at each change of the roster.
    async fn ready(&self, count: usize) {
        let mut roster = self.handles.supervisor.roster();
        let wait = roster.wait_for(|roster| roster.ready("shop").count() == count);
        tokio::time::timeout(PATIENCE, wait).await.expect("workers are ready in time").unwrap();
    }

    async fn names(&self) -> Vec<String> {
        let status = self.client.status().await.unwrap();
        status.workers.iter().map(|worker| worker.instance.to_string()).collect()
    }

    async fn end(self) {
        self.server.abort();
        self.handles.supervisor.stop().await;
    }
}

fn problem<T: std::fmt::Debug>(answer: Result<T, Error>) -> Problem {
    match answer {
        Err(Error::Problem(problem)) => problem,
        other => panic!("not a problem: {other:?}"),
    }
}

/// Sends `request` as it is and returns all of the answer.
async fn raw(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn post(place: &Place, path: &str, body: &str) -> String {
    let stream = tokio::net::UnixStream::connect(place.socket()).await.unwrap();
    let length = body.len();
    raw(stream, &format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")).await
}

#[tokio::test]
async fn another_user_is_not_answered() {
    let place = Place::new().await;
    let socket = place.folder.path().join("other.sock");
    let own = rustix::process::geteuid().as_raw();
    let listener = UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(control::serve_for(Peers::only(&[own + 1]), listener, place.handles.clone()));
    assert!(matches!(Client::new(&socket).status().await, Err(Error::Broken(_))));
    server.abort();
    let socket = place.folder.path().join("own.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(control::serve_for(Peers::only(&[own]), listener, place.handles.clone()));
    Client::new(&socket).status().await.unwrap();
    server.abort();
    place.end().await;
}

#[tokio::test]
async fn status_shows_workers_and_their_traffic() {
    let place = Place::new().await;
    place.ready(2).await;
    let status = place.client.status().await.unwrap();
    assert_eq!((status.node.pid, status.services[0].ready, status.workers.len()), (std::process::id(), 2, 2));
    let first = &status.workers[0];
    assert_eq!((first.instance.as_str(), first.requests, first.failures), ("shop-1", 42, 1));
    assert_eq!(first.state, WorkerState::Ready);
    assert!(first.pid.is_some() && first.memory_bytes > 0, "{first:?}");
    assert_eq!(status.workers[1].p99_us, None);
    place.end().await;
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_its_lines_stay() {
    let place = Place::new().await;
    place.ready(2).await;
    let logs = Logs { name: Some("shop-1".into()), follow: true, ..Logs::default() };
    let mut lines = place.client.logs(&logs).await.unwrap();
    place.client.kill("shop-1", 9).await.unwrap();
    // The follower sees what was printed before it came, once, and then the death.
    let mut printed = Vec::new();
    let died = async {
        loop {
            let line = lines.next().await.unwrap().expect("the lines go on");
            assert_eq!(line.instance.as_str(), "shop-1");
            match line.source {
                Source::Lethe if line.text.to_lowercase().contains("kill") => return,
                Source::Lethe => {}
                // The test harness prints around it.
                _ if line.text.contains("hello") => printed.push(line.text),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, died).await.expect("its death is told");
    // Where there is one core, it prints before it too.
    assert!(printed.len() == 1 && printed[0].ends_with("hello from shop-1"), "{printed:?}");
    place.ready(2).await;
    let names = place.names().await;
    assert!(!names.contains(&"shop-1".into()) && names.len() == 2, "{names:?}");
    let logs = Logs { name: Some("shop-1".into()), ..Logs::default() };
    let mut past = place.client.logs(&logs).await.unwrap();
    let mut texts = Vec::new();
    while let Some(line) = past.next().await.unwrap() {
        texts.push(line.text);
    }
    assert!(texts.contains(&"hello from shop-1".into()), "{texts:?}");
    place.end().await;
}

#[tokio::test]
async fn drain_scale_and_restart() {
    let place = Place::new().await;
    place.ready(2).await;
    place.client.drain("shop-2").await.unwrap();
    assert_eq!(place.names().await, ["shop-1", "shop-3"]);
    let scaled = place.client.scale("shop", 3).await.unwrap();
    assert_eq!(
        scaled.notices,
        [
            "shop: 3 stays, which is outside of 1..2, whatever the load; `lethe scale shop=auto` lets load decide again"
        ]
    );
    assert_eq!(place.names().await, ["shop-1", "shop-3", "shop-4"]);
    assert_eq!(place.client.restart("shop").await.unwrap(), 3);
    assert_eq!(place.names().await, ["shop-5", "shop-6", "shop-7"]);
    place.client.scale("shop", 0).await.unwrap();
    assert_eq!(place.names().await, Vec::<String>::new());
    place.end().await;
}

#[tokio::test]
async fn load_decides() {
    let place = Place::new().await;
    place.ready(2).await;
    let is_pinned = async || place.client.status().await.unwrap().services[0].scale.unwrap().pinned;
    place.client.scale("shop", 1).await.unwrap();
    assert!(is_pinned().await, "what was set by hand stays");
    place.client.scale_by_load("shop").await.unwrap();
    assert!(!is_pinned().await);
    let scaling = place.client.scaling("shop").await.unwrap();
    assert_eq!((scaling.scale.max, scaling.metrics[0].ratio, scaling.decisions[0].number), (2, Some(1.5), 7));
    assert_eq!(place.client.scaling_case("shop", 7).await.unwrap(), serde_json::json!({ "replicas": 1 }));
    let missing = problem(place.client.scaling_case("shop", 8).await);
    assert_eq!(
        (missing.status, missing.detail.as_str()),
        (404, "shop has no decision 8; those from 7 to 7 are kept")
    );
    assert_eq!(problem(place.client.scaling("mail").await).status, 404);

    assert!(
        problem(place.client.tell_metric("shop", "mails", "17.5").await).detail.contains("mails is 17.5")
    );
    for (body, status, wanted) in [
        ("17", "204", ""),
        (" 17\n", "204", ""),
        ("\"17\"", "204", ""),
        ("{\"value\":17}", "204", ""),
        ("NaN", "404", "emails is NaN"),
        ("{}", "400", "has no `value`"),
        (&"1".repeat(300), "400", "at most 256 bytes"),
    ] {
        let stream = tokio::net::UnixStream::connect(place.socket()).await.unwrap();
        let length = body.len();
        let head = "PUT /v1/services/shop/metrics/emails HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length:";
        let answer = raw(stream, &format!("{head} {length}\r\n\r\n{body}")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(wanted),
            "{body}: {answer}"
        );
    }
    place.end().await;
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let place = Place::new().await;
    let client = &place.client;
    for (problem, status, wanted) in [
        (problem(client.kill("shop-99", 9).await), 404, "shop-99"),
        (problem(client.drain("a b/../c?").await), 404, "a b/../c?"),
        (problem(client.scale("mail", 1).await), 404, "there are: shop"),
        (problem(client.restart("mail").await), 404, "there are: shop"),
        (problem(client.kill("shop-1", 65).await), 400, "1 to 64"),
        (problem(client.scale("shop", 1_000_000).await), 400, "at most 1000"),
        (problem(client.down(Wish::Run).await), 400, "`drain` or `now`"),
    ] {
        assert_eq!(problem.status, status, "{problem:?}");
        assert!(problem.detail.contains(wanted), "{problem:?}");
    }
    for (name, wanted) in [("mail", "no service and no worker `mail`"), ("shop-99", "no worker `shop-99`")] {
        let logs = Logs { name: Some(name.into()), ..Logs::default() };
        let problem = problem(client.logs(&logs).await.map(drop));
        assert_eq!(problem.status, 404);
        assert!(problem.detail.contains(wanted), "{problem:?}");
    }
    place.end().await;
}

#[tokio::test]
async fn malformed_requests_get_a_problem() {
    let place = Place::new().await;
    for (path, body, status, wanted) in [
        ("/v1/workers/shop-1/kill", "{", "400", "the body"),
        ("/v1/workers/shop-1/kill", r#"{"signal":"KILL"}"#, "400", "invalid type"),
        ("/v1/workers/shop-1/kill", r#"{"sig":9}"#, "400", "unknown field `sig`"),
        ("/v1/services/shop/scale", "", "400", "say `instances`, or `auto`: true"),
        (
            "/v1/services/shop/scale",
            r#"{"instances":1,"auto":true}"#,
            "400",
            "say `instances`, or `auto`: true",
        ),
        ("/v1/services/mail/scale", r#"{"auto":true}"#, "404", "there are: shop"),
        ("/v1/services/shop/scale", &" ".repeat(20_000), "400", "limit"),
        ("/v1/status", "", "405", "POST"),
        ("/v2/status", "", "404", "/v2/status"),
    ] {
        let answer = post(&place, path, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {body:.40}: {answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        assert!(answer.contains(wanted), "{path} {body:.40}: {answer}");
    }
    let stream = tokio::net::UnixStream::connect(place.socket()).await.unwrap();
    let answer = raw(stream, "GET /v1/logs?lines=many HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("problem+json"), "{answer}");
    place.end().await;
}

#[tokio::test]
async fn down_turns_the_switch() {
    let place = Place::new().await;
    let answer = post(&place, "/v1/down", "").await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(place.handles.stop.wish(), Wish::Drain);
    let answer = post(&place, "/v1/down", r#"{"how":"now"}"#).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(place.handles.stop.wish(), Wish::Now);
    place.end().await;
}

#[tokio::test]
async fn nobody_there() {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::new(folder.path().join("control.sock")).status().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn the_operators_endpoint() {
    let place = Place::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(operator::serve(listener, Arc::clone(&place.handles)));
    let get = async |path: &str| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        raw(stream, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    };
    place.ready(2).await;
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200 "));
    let ready = get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("ready\n"), "{ready}");
    let metrics = get("/metrics").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(
        metrics.contains("lethe_worker_requests_total{service=\"shop\",instance=\"shop-1\"} 42\n"),
        "{metrics}"
    );
    assert!(get("/v1/status").await.starts_with("HTTP/1.1 404 "));

    place.client.scale("shop", 0).await.unwrap();
    let none_wanted = get("/readyz").await;
    assert!(none_wanted.starts_with("HTTP/1.1 200 "), "{none_wanted}");
    // Wanted and not there: no worker can start without its directory.
    std::fs::remove_dir(place.folder.path().join("work")).unwrap();
    place.client.scale("shop", 1).await.unwrap_err();
    let unready = get("/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503 ") && unready.contains("shop (0 of 1"), "{unready}");
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200 "));
    place.handles.stop.ask(Wish::Drain);
    assert!(get("/readyz").await.contains("stopping"));
    server.abort();
    place.end().await;
}

#[tokio::test]
async fn reload() {
    let place = Place::new().await;
    assert_eq!(place.client.reload().await.unwrap().changes, ["limits: changed"]);
    for status in [422, 409] {
        let Err(Error::Problem(problem)) = place.client.reload().await else { panic!("it was refused") };
        assert_eq!((problem.status, problem.detail.as_str()), (status, "lethe.toml:1:1: no"));
    }
    place.end().await;
}

#[tokio::test]
async fn upgrade_says_what_came_of_it() {
    let place = Place::new().await;
    let to = |binary: &str| api::Upgrade { binary: binary.into(), timeout_s: 7 };
    let upgraded = place.client.upgrade(&to("/bin/true")).await.unwrap();
    assert_eq!((upgraded.before, upgraded.pid, &*upgraded.version), (1, 2, "7 s"));
    let Err(Error::Problem(problem)) = place.client.upgrade(&to("/bin/false")).await else {
        panic!("it was refused")
    };
    assert_eq!((problem.status, &*problem.title, &*problem.detail), (500, "Not upgraded", "it exited"));
}
