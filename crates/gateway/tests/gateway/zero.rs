//! A service without workers: requests wait for one to start, who runs the services is told, and nobody waits for what does
//! not come.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use lethe_gateway::{
    config::{self, Concurrency, Config},
    stats::Queue,
};
use lethe_model::roster::WorkerState;

use crate::lab::{FakeWorker, Lab, Peer, run, service};

const LONG: Duration = Duration::from_secs(3600);

/// A gateway whose service may have no worker, and has none. There is one worker that the roster does not have.
async fn empty(tweak: impl FnOnce(&mut config::Service, &mut config::Limits)) -> Lab {
    empty_with(|config| configure(config, tweak)).await
}

async fn empty_with(configure: impl FnOnce(&mut Config)) -> Lab {
    let lab = Lab::with(1, configure).await;
    lab.publish_entries(Vec::new());
    lab.until(|snapshot| snapshot.workers.is_empty()).await;
    lab
}

fn configure(config: &mut Config, tweak: impl FnOnce(&mut config::Service, &mut config::Limits)) {
    let mut settings = config::Service {
        from_zero: true,
        start_wait: Some(LONG),
        ..config.services.remove(&service()).unwrap_or_default()
    };
    config.cores = 2;
    tweak(&mut settings, &mut config.limits);
    config.services.insert(service(), settings);
}

async fn get(lab: &Lab) -> Peer {
    lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await
}

async fn waiting(lab: &Lab, count: u64) {
    lab.until_stats(|stats| stats.queued_timely == count).await;
}

/// The next one is told of.
async fn told(lab: &Lab) {
    assert_eq!(lab.gateway.wanted().await, [service()]);
}

/// Whether somebody wants a worker that was not told of yet.
async fn is_told(lab: &Lab) -> bool {
    let mut wanted = pin!(lab.gateway.wanted());
    poll_fn(|cx| Poll::Ready(wanted.as_mut().poll(cx).is_ready())).await
}

/// Asserts that it is a 503 that says so of the service.
async fn is_refused(mut client: Peer, says: &str) {
    let response = client.response().await;
    assert_eq!(response.status(), 503, "{response:?}");
    let retry_after: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry_after));
    let problem = response.problem();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("`shop`") && detail.contains(says), "{detail}");
}

#[test]
fn a_request_waits_until_a_worker_has_started() {
    run(async {
        let mut lab = empty(|_, limits| limits.queue_timeout = Duration::from_millis(1)).await;
        let mut client = get(&lab).await;
        told(&lab).await;
        // Told again for as long as it waits, which is longer than it waits for its turn.
        told(&lab).await;
        lab.workers[0].entry.state = WorkerState::Starting;
        lab.publish();
        told(&lab).await;
        waiting(&lab, 1).await;
        lab.workers[0].entry.state = WorkerState::Ready;
        lab.publish();
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("awake").await;
        let response = client.response().await;
        assert_eq!(response.text(), "awake");
        let timing = response.header("server-timing").unwrap();
        let took: f64 = timing.strip_prefix("start;dur=").unwrap().parse().unwrap();
        assert!(took > 0.0);
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        worker.request().await;
        worker.answer("again").await;
        assert_eq!(client.response().await.header("server-timing"), None, "it did not wait for a start");
    });
}

#[test]
fn all_who_wait_are_answered_by_the_one_that_starts() {
    run(async {
        const CLIENTS: u64 = 200;
        let mut lab = empty(|_, _| {}).await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(get(&lab).await);
        }
        waiting(&lab, CLIENTS).await;
        told(&lab).await;
        lab.publish();
        let listener = lab.workers[0].take_listener();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut peer = Peer::new(stream);
                    while peer.try_request().await.is_some() {
                        peer.answer("awake").await;
                    }
                });
            }
        });
        for client in &mut clients {
            let response = client.response().await;
            assert_eq!((response.status(), response.text()), (200, "awake"));
            assert!(response.header("server-timing").unwrap().starts_with("start;dur="));
        }
        waiting(&lab, 0).await;
    });
}

#[test]
fn more_than_may_wait_are_refused_at_once() {
    run(async {
        let lab = empty(|_, limits| limits.queue_max = 2).await;
        let (_first, _second) = (get(&lab).await, get(&lab).await);
        waiting(&lab, 2).await;
        is_refused(get(&lab).await, "is starting, and as many").await;
        assert_eq!(lab.stats().shed_timely, 1);
        assert_eq!(lab.gateway.queues()[&service()], Queue { waiting: 2, shed: 1 });
    });
}

#[test]
fn a_start_that_takes_too_long_is_not_waited_for() {
    run(async {
        let lab = empty(|service, limits| {
            service.start_wait = Some(Duration::from_millis(1));
            limits.queue_timeout = LONG;
        })
        .await;
        is_refused(get(&lab).await, "is starting, which takes longer").await;
    });
}

#[test]
fn who_waits_for_what_does_not_start_is_told_so() {
    run(async {
        let mut lab = empty(|_, _| {}).await;
        for _ in 0..2 {
            let client = get(&lab).await;
            told(&lab).await;
            waiting(&lab, 1).await;
            lab.gateway.not_started(&service());
            is_refused(client, "does not start").await;
        }
        let mut client = get(&lab).await;
        told(&lab).await;
        lab.publish();
        lab.workers[0].request().await.0.answer("after all").await;
        assert_eq!(client.response().await.text(), "after all");
    });
}

#[test]
fn who_goes_away_waits_no_more() {
    run(async {
        let lab = empty(|_, _| {}).await;
        let client = get(&lab).await;
        waiting(&lab, 1).await;
        drop(client);
        waiting(&lab, 0).await;
    });
}

/// The last worker leaves while a request waits for its turn at it.
#[test]
fn who_waits_for_a_turn_waits_for_a_start_when_the_last_one_leaves() {
    run(async {
        let mut lab = empty_with(|config| {
            configure(config, |service, limits| {
                service.concurrency = Concurrency::Limited(1);
                limits.queue_timeout = LONG;
            });
            // Where one request has met the worker, the next one knows of it.
            config.cores = 1;
        })
        .await;
        lab.publish();
        let mut busy = get(&lab).await;
        let (mut inside, _) = lab.workers[0].request().await;
        // It may have come before the worker was known.
        is_told(&lab).await;
        let mut client = get(&lab).await;
        waiting(&lab, 1).await;
        lab.workers[0].entry.gate.close();
        lab.workers[0].entry.state = WorkerState::Draining;
        lab.publish();
        told(&lab).await;
        lab.workers.push(FakeWorker::start(2).await);
        lab.publish();
        lab.workers[1].request().await.0.answer("by the next").await;
        let response = client.response().await;
        assert_eq!(response.text(), "by the next");
        assert!(response.header("server-timing").is_some());
        inside.answer("to the end").await;
        assert_eq!(busy.response().await.text(), "to the end");
    });
}

/// One whose first connection is refused, as of a worker that dies as soon as it is ready.
#[test]
fn one_that_dies_at_once_is_followed_by_the_next() {
    run(async {
        let mut lab = empty(|_, limits| limits.queue_timeout = LONG).await;
        let mut client = get(&lab).await;
        told(&lab).await;
        lab.workers[0].die();
        lab.publish();
        lab.until(|snapshot| snapshot.retries > 0).await;
        lab.publish_entries(Vec::new());
        told(&lab).await;
        lab.workers[0] = FakeWorker::start(2).await;
        lab.publish();
        lab.workers[0].request().await.0.answer("by the next").await;
        assert_eq!(client.response().await.text(), "by the next");
    });
}

#[test]
fn nobody_is_told_of_a_service_that_always_has_workers() {
    run(async {
        let lab = empty(|service, limits| {
            *service = config::Service::default();
            limits.queue_timeout = Duration::from_millis(1);
        })
        .await;
        let response = get(&lab).await.response().await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.problem()["detail"], "The service is not ready or busy. Try again in a moment.");
        assert!(!is_told(&lab).await);
    });
}

/// What may have no worker is no longer allowed to, while a request waits: it is answered when it has waited for so long.
#[test]
fn a_reload_may_change_it() {
    run(async {
        let lab = empty(|_, limits| limits.queue_timeout = Duration::from_millis(1)).await;
        let client = get(&lab).await;
        told(&lab).await;
        let config = Config {
            limits: config::Limits { queue_timeout: Duration::from_millis(1), ..config::Limits::default() },
            ..crate::lab::config()
        };
        lab.gateway.reload(config).await.unwrap();
        let mut client = client;
        assert_eq!(client.response().await.status(), 503);
    });
}
