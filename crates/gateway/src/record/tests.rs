//! Records as their readers get them, and an eventful one for the tests of those.

use std::{net::Ipv4Addr, sync::Arc};

use super::*;
use crate::{
    config::Route,
    service::{
        Service,
        tests::{route_to, service, worker},
    },
    shard::Shard,
    stats::snapshot,
};

/// Workers 1 and 2 of the shop, as requests meet them.
pub(crate) fn workers() -> [Rc<Upstream>; 2] {
    let service: Rc<Service> = service("shop");
    let workers = [1, 2].map(|number| worker(number, lethe_model::roster::WorkerState::Ready));
    crate::service::tests::apply(&service, &workers);
    [0, 1].map(|_| crate::service::tests::turn(&service).unwrap())
}

/// A route of `shop.example/api` with its own counts.
pub(crate) fn target(shard: &Shard) -> Rc<Target> {
    let route = Route {
        host: Some("shop.example".into()),
        path: "/api".into(),
        server_timing: true,
        ..route_to("shop")
    };
    let stats = shard.set_routes(std::slice::from_ref(&route)).remove(0);
    Rc::new(Target { route, service: service("shop"), stats, judge: None, clerk: None })
}

/// A request that was lost with one worker and answered by another: a second in the queue, then two seconds each
/// to connect, send and wait, with the first; three with the second, one of holding, four of streaming.
pub(crate) fn eventful(observer: &Rc<Observer>) -> (Record, Instant) {
    let started = Instant::now();
    let at = |seconds| started + Duration::from_secs(seconds);
    let record = Record::begin(observer, started, Protocol::Http2);
    record.is_timed.set(true);
    record.client(Ipv4Addr::new(192, 0, 2, 7).into(), true);
    record.request(b"PUT", b"shop.example:8443", b"/api/cart?token=secret", Some(b"curl/8"));
    record.routed(&target(&observer.shard));
    record.received(7);
    let step = |phase, second| record.enter_at(phase, at(second));
    let [first, second] = workers();
    // What these do by themselves takes no time that could be told beforehand, and is put right afterwards.
    let begin = |upstream: &Rc<Upstream>, second: u64| {
        record.enter_at(Phase::Connect, at(second));
        record.attempt(upstream);
        record.since.set(at(second));
        record.detailed(|detail| {
            let attempt = detail.attempts.last_mut().unwrap();
            (attempt.begun, attempt.spent) = (Duration::from_secs(second), Spent::default());
        });
    };
    begin(&first, 1);
    step(Phase::Send, 3);
    step(Phase::Wait, 5);
    step(Phase::Queue, 7);
    record.attempt_ended(AttemptResult::Lost);
    record.since.set(at(7));
    record.retried(Retry::Lost);
    begin(&second, 7);
    record.connected(true);
    record.since.set(at(7));
    step(Phase::Wait, 7);
    record.worker_said(200);
    step(Phase::Hold, 10);
    record.responded(200, at(11));
    record.attempted(|attempt| {
        attempt.result = AttemptResult::Answered;
        attempt.ended = Some(Duration::from_secs(11));
    });
    record.sent(1000);
    record.end(Outcome::Answered);
    (record, at(15))
}

#[test]
fn phases_add_up() {
    let observer = Observer::new(Arc::default());
    let (record, end) = eventful(&observer);
    let spent = record.spent(end);
    let seconds = |phase| spent.of(phase).as_secs_f64().round() as u64;
    use Phase::*;
    assert_eq!([Queue, Connect, Send, Wait, Hold, Stream].map(seconds), [1, 2, 2, 5, 1, 4]);
    let all: Duration = spent.0.iter().sum();
    assert!(end.duration_since(record.started).abs_diff(all) < Duration::from_millis(100));
}

#[test]
fn nothing_is_kept_that_nobody_reads() {
    let observer = Observer::new(Arc::default());
    let record = Record::begin(&observer, Instant::now(), Protocol::Http11);
    record.request(b"GET", b"h", b"/", None);
    record.attempt(&workers()[0]);
    assert!(record.detail.borrow().is_none());
    assert_eq!(record.spent(Instant::now()), Spent::default(), "the clock is not asked");
}

#[test]
fn what_is_counted() {
    let observer = Observer::new(Arc::default());
    drop(eventful(&observer));
    for outcome in
        [Outcome::Unknown("lost"), Outcome::Cut, Outcome::ClientGone, Outcome::Shed(Shed::QueueFull)]
    {
        let record = Record::begin(&observer, Instant::now(), Protocol::Http11);
        record.end(outcome);
    }
    // Dropped in the middle of things.
    drop(Record::begin(&observer, Instant::now(), Protocol::Http11));
    let sum = snapshot([&observer.shard], Default::default());
    assert_eq!((sum.unknown, sum.cut, sum.client_gone, sum.shed), (1, 1, 2, 1));
    assert_eq!((sum.retries_by[&Retry::Lost], sum.upstream_reused), (1, 1));
    let route = &sum.routes["shop.example/api"];
    assert_eq!((route.responses, route.bytes_in, route.bytes_out), ([0, 1, 0, 0, 0], 7, 1000));
    assert_eq!((route.latency_sum_us, sum.responses), (11_000_000, [0, 1, 0, 0, 0]));
}
