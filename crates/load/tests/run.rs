//! Runs against real servers.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test may fail")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderName, StatusCode},
    response::IntoResponse,
    routing::get,
};
use lethe_journey::{destination::Destination, document, player::Limits};
use lethe_load::{
    plan::{Plan, WorkerName},
    report::{self, Summary},
    run::{self, Progress},
    schedule::Schedule,
};
use tokio::{net::TcpListener, sync::watch};

const MS: Duration = Duration::from_millis(1);

/// Serves `app` on a runtime of its own, which ends with the test.
fn serve(app: Router) -> (tokio::runtime::Runtime, Destination) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (runtime, Destination::tcp(address))
}

/// Users at so many a second; how late the generator is counts for nothing, since tests share the machine.
fn plan(destination: &Destination, journey: &str, rate: f64, duration: Duration) -> Plan {
    let journey = document::read(journey, "test.toml", "test", Path::new(".")).unwrap();
    Plan {
        journeys: vec![Arc::new(journey)],
        destination: destination.clone(),
        host: None,
        schedule: Schedule::constant(rate, duration).unwrap(),
        limits: Limits::default(),
        users_max: 1000,
        lag_max: Duration::from_secs(3600),
        threads: 2,
        worker: WorkerName::Header(HeaderName::from_static("x-worker")),
    }
}

fn summary(plan: &Plan) -> Summary {
    Summary::of(plan, &run::run(plan, &Arc::default()).unwrap())
}

#[test]
fn all_who_come_are_counted() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let answer = async move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        [("x-worker", format!("w-{}", number % 2))]
    };
    let app = Router::new().route("/", get(answer)).route(
        "/{user}",
        get(async || ([("lethe-outcome", "unknown")], StatusCode::BAD_GATEWAY).into_response()),
    );
    let (_runtime, destination) = serve(app);
    let journey =
        "[[steps]]\nget = \"/\"\n[[steps]]\nget = \"/\"\npause = \"5ms\"\n[[steps]]\nget = \"/{{identity}}\"";
    let plan = plan(&destination, journey, 100.0, MS * 500);
    let summary = summary(&plan);
    assert!(summary.valid, "{:?}", summary.invalid_because);
    assert_eq!((summary.users.arrived, summary.users.finished, summary.users.broken_off), (50, 0, 50));
    let requests = summary.requests;
    assert_eq!((requests.total, requests.ok, requests.unknown), (150, 100, 50));
    let steps: Vec<_> =
        summary.steps.iter().map(|step| (step.step, step.requests.total, step.title.as_str())).collect();
    assert_eq!(steps, [(1, 50, "GET /"), (2, 50, "GET /"), (3, 50, "GET /{{identity}}")]);
    let workers: Vec<_> =
        summary.workers.iter().map(|worker| (worker.name.as_str(), worker.requests.ok)).collect();
    assert_eq!(workers, [("w-0", 50), ("w-1", 50)]);
    assert_eq!(summary.problems[0].what, "step 3: status 502 with Lethe-Outcome: unknown");
    let timeline: u64 = summary.timeline.iter().map(|stretch| stretch.requests.total).sum();
    assert_eq!(timeline, 150);
    let mut report = report::empty(&plan, "there".into());
    report.run = Some(summary);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["version"], &json["run"]["requests"]["ok"]), (&1.into(), &100.into()));
}

/// Nobody is answered until the last one has come: who waited for an answer before sending the next would wait for ever, and who counted
/// from the sending would see that the last was answered at once.
#[test]
fn users_come_whether_or_not_those_before_them_are_served() {
    const ALL: usize = 40;
    let (arrived, _) = watch::channel(0);
    let answer = async move || {
        let mut others = arrived.subscribe();
        arrived.send_modify(|count| *count += 1);
        others.wait_for(|count| *count == ALL).await.unwrap();
    };
    let (_runtime, destination) = serve(Router::new().route("/", get(answer)));
    let plan = plan(&destination, "[[steps]]\nget = \"/\"", 100.0, MS * 10 * ALL as u32);
    let summary = summary(&plan);
    assert_eq!((summary.users.finished, summary.requests.ok), (ALL as u64, ALL as u64));
    // The first was planned 39 × 10 ms before the last, and half of them at least 20 × 10 ms before.
    assert!(summary.latency.max_us >= 389_000 && summary.latency.p50_us >= 189_000, "{:?}", summary.latency);
}

#[test]
fn who_cannot_be_let_in_makes_a_run_invalid() {
    // The two that are let in stay until all others have come.
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let answer = async move || {
        while seen.arrived.load(Ordering::Relaxed) < 10 {
            tokio::task::yield_now().await;
        }
    };
    let (_runtime, destination) = serve(Router::new().route("/", get(answer)));
    let mut plan = plan(&destination, "[[steps]]\nget = \"/\"", 100.0, MS * 100);
    plan.users_max = 2;
    let summary = Summary::of(&plan, &run::run(&plan, &progress).unwrap());
    assert_eq!((summary.users.turned_away, summary.users.finished), (8, 2));
    assert!(!summary.valid && summary.invalid_because[0].contains("8 users were turned away"), "{summary:?}");
}

#[test]
fn a_generator_that_is_late_makes_a_run_invalid() {
    let (_runtime, destination) = serve(Router::new().route("/", get(async || "")));
    let mut plan = plan(&destination, "[[steps]]\nget = \"/\"", 100.0, MS * 100);
    plan.lag_max = Duration::ZERO;
    let summary = summary(&plan);
    assert!(
        !summary.valid && summary.invalid_because[0].contains("after the planned instant"),
        "{summary:?}"
    );
    assert_eq!(summary.requests.ok, 10);
}

#[test]
fn a_run_that_is_stopped_lets_nobody_in_any_more() {
    let progress = Arc::new(Progress::default());
    let (stop, served) = (Arc::clone(&progress), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&served);
    let answer = async move || {
        count.fetch_add(1, Ordering::Relaxed);
        stop.stop.store(true, Ordering::Relaxed);
    };
    let (_runtime, destination) = serve(Router::new().route("/", get(answer)));
    let plan = plan(&destination, "[[steps]]\nget = \"/\"", 1.0, Duration::from_secs(3600));
    let run = run::run(&plan, &progress).unwrap();
    // Where the first is answered late, others may have come before.
    let served = served.load(Ordering::Relaxed) as u64;
    assert!(run.is_stopped && run.arrived == served && served < 3600, "{served}: {run:?}");
    assert!(Summary::of(&plan, &run).invalid_because[0].contains("stopped"));
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plan = plan(&Destination::tcp(nobody), "[[steps]]\nget = \"/\"", 100.0, MS * 50);
    let summary = summary(&plan);
    assert_eq!((summary.requests.failed, summary.latency.max_us), (5, 0));
    assert!(
        summary.problems[0].what.starts_with("step 1: cannot connect to 127.0.0.1:"),
        "{:?}",
        summary.problems
    );
}
