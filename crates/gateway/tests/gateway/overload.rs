//! More requests than the workers may have: limits over all cores, the line with its two classes, and who is sent away.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use lethe_gateway::config::{self, Class, Concurrency, Config, Network, Route};

use crate::{
    desk::{Clerk, Desk},
    lab::{FakeWorker, Lab, Peer, run, service},
};

fn limited(config: &mut Config, concurrency: Concurrency) {
    config.cores = 2;
    config.services.insert(service(), config::Service { concurrency, ..config::Service::default() });
}

async fn lab(limit: u32, tweak: impl FnOnce(&mut Config)) -> (Lab, Desk) {
    let mut lab = Lab::with(1, |config| {
        limited(config, Concurrency::Limited(limit));
        tweak(config);
    })
    .await;
    let desk = Desk::at(&mut lab.workers[0]);
    (lab, desk)
}

/// A request on a connection of its own, so on any core.
async fn get(lab: &Lab, path: &str, class: &str) -> Peer {
    lab.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\nlethe-class: {class}\r\n\r\n")).await
}

async fn is_shed(mut client: Peer) {
    let response = client.response().await;
    assert_eq!(response.status(), 503, "{response:?}");
    let retry_after: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry_after));
    assert_eq!(response.problem()["status"], 503);
}

/// A request is not given at once to a worker that it was lost with, when another one is merely busy; but neither does it wait
/// for that one for ever.
#[test]
fn who_was_tried_is_asked_again_when_the_others_stay_busy() {
    run(async {
        let lab = Lab::with(2, |config| {
            limited(config, Concurrency::Limited(1));
            config.cores = 1;
        })
        .await;
        let _busy = get(&lab, "/busy", "timely").await;
        let (_for_ever, _) = lab.workers[0].request().await;
        let mut client = get(&lab, "/lost", "timely").await;
        lab.workers[1].request().await.0.reset();
        lab.until_stats(|stats| stats.queued_timely == 1).await;
        lab.workers[1].request().await.0.answer("again").await;
        assert_eq!(client.response().await.text(), "again");
    });
}

#[test]
fn a_worker_never_gets_more_than_its_limit() {
    run(async {
        let (lab, mut desk) = lab(3, |_| {}).await;
        let mut clients = Vec::new();
        for number in 0..20 {
            clients.push(get(&lab, &format!("/{number}"), "timely").await);
        }
        lab.until_stats(|stats| stats.queued_timely == 17).await;
        assert_eq!(lab.gateway.snapshot().queued, 17);
        assert_eq!(lab.stats().concurrency_limit, Some(3));
        let mut inside = vec![desk.next().await, desk.next().await, desk.next().await];
        for _ in 0..17 {
            assert!(desk.is_empty());
            assert_eq!(lab.workers[0].entry.gate.in_flight(), 3);
            inside.remove(0).answer();
            inside.push(desk.next().await);
        }
        inside.into_iter().for_each(|arrival| arrival.answer());
        for client in &mut clients {
            assert_eq!(client.response().await.status(), 200);
        }
        assert_eq!(lab.workers[0].entry.gate.in_flight(), 0);
        assert_eq!(lab.stats().queued_timely, 0);
    });
}

#[test]
fn timely_ones_first_and_each_class_in_order() {
    run(async {
        let (lab, mut desk) = lab(1, |config| {
            // Only they may say that theirs are timely.
            config.trusted_proxies = vec![Network { address: [127, 0, 0, 1].into(), prefix_bits: 32 }];
            config.routes.push(Route {
                path: "/batch".into(),
                class: Class::Batch,
                ..config.routes[0].clone()
            });
        })
        .await;
        let _first = get(&lab, "/first", "timely").await;
        let mut inside = desk.next().await;
        let mut clients = Vec::new();
        // The route says batch for two of them, the field for the others, and one is batch by its route but for its field.
        for (waiting, (path, class)) in [
            ("/b1", "batch"),
            ("/t1", "timely"),
            ("/batch/b2", ""),
            ("/t2", ""),
            ("/b3", "batch"),
            ("/batch/t3", "timely"),
        ]
        .into_iter()
        .enumerate()
        {
            clients.push(get(&lab, path, class).await);
            lab.until(|snapshot| snapshot.queued == waiting as u64 + 1).await;
        }
        assert_eq!((lab.stats().queued_timely, lab.stats().queued_batch), (3, 3));
        for path in ["/t1", "/t2", "/batch/t3", "/b1", "/batch/b2", "/b3"] {
            inside.answer();
            inside = desk.next().await;
            assert_eq!(inside.path(), path);
        }
        inside.answer();
        for client in &mut clients {
            assert_eq!(client.response().await.status(), 200);
        }
    });
}

#[test]
fn batch_leaves_slots_for_timely_ones() {
    run(async {
        let (lab, mut desk) = lab(5, |_| {}).await;
        let mut batch = Vec::new();
        for _ in 0..8 {
            batch.push(get(&lab, "/batch", "batch").await);
        }
        lab.until_stats(|stats| stats.queued_batch == 4).await;
        let mut inside = Vec::new();
        for _ in 0..4 {
            inside.push(desk.next().await);
        }
        // However many batch ones wait, a timely one goes at once, and then the next.
        for _ in 0..3 {
            let mut timely = get(&lab, "/timely", "timely").await;
            let arrival = desk.next().await;
            assert_eq!(arrival.path(), "/timely");
            arrival.answer();
            assert_eq!(timely.response().await.status(), 200);
        }
        assert!(desk.is_empty() && lab.stats().queued_batch == 4, "the last slot is not for batch");
        for _ in 0..4 {
            inside.remove(0).answer();
            inside.push(desk.next().await);
        }
        inside.into_iter().for_each(|arrival| arrival.answer());
        for client in &mut batch {
            assert_eq!(client.response().await.status(), 200);
        }
    });
}

#[test]
fn a_full_line_sheds_batch_first() {
    run(async {
        let (lab, mut desk) = lab(1, |config| config.limits.queue_max = 2).await;
        let _first = get(&lab, "/first", "timely").await;
        let inside = desk.next().await;
        let mut one = get(&lab, "/1", "timely").await;
        lab.until(|snapshot| snapshot.queued == 1).await;
        let batch = get(&lab, "/batch", "batch").await;
        lab.until(|snapshot| snapshot.queued == 2).await;
        is_shed(get(&lab, "/late-batch", "batch").await).await;
        let mut two = get(&lab, "/2", "timely").await;
        is_shed(batch).await;
        is_shed(get(&lab, "/late", "timely").await).await;
        assert_eq!((lab.stats().shed_timely, lab.stats().shed_batch), (1, 2));
        assert_eq!(lab.gateway.snapshot().shed, 3);
        inside.answer();
        for (path, client) in [("/1", &mut one), ("/2", &mut two)] {
            let arrival = desk.next().await;
            assert_eq!(arrival.path(), path);
            arrival.answer();
            assert_eq!(client.response().await.status(), 200);
        }
    });
}

#[test]
fn a_wait_for_a_busy_worker_ends() {
    run(async {
        let (lab, mut desk) = lab(1, |config| config.limits.queue_timeout = Duration::from_millis(50)).await;
        let mut first = get(&lab, "/first", "timely").await;
        let inside = desk.next().await;
        is_shed(get(&lab, "/timely", "timely").await).await;
        is_shed(get(&lab, "/batch", "batch").await).await;
        assert_eq!(lab.gateway.snapshot().queued, 0);
        inside.answer();
        assert_eq!(first.response().await.status(), 200);
        let mut next = get(&lab, "/next", "timely").await;
        desk.next().await.answer();
        assert_eq!(next.response().await.status(), 200);
    });
}

#[test]
fn who_goes_leaves_its_place_to_the_next() {
    run(async {
        let (lab, mut desk) = lab(1, |_| {}).await;
        let _first = get(&lab, "/first", "timely").await;
        let inside = desk.next().await;
        let gone = get(&lab, "/gone", "timely").await;
        lab.until(|snapshot| snapshot.queued == 1).await;
        let mut last = get(&lab, "/last", "timely").await;
        lab.until(|snapshot| snapshot.queued == 2).await;
        drop(gone);
        lab.until(|snapshot| snapshot.queued == 1).await;
        inside.answer();
        let arrival = desk.next().await;
        assert_eq!(arrival.path(), "/last");
        arrival.answer();
        assert_eq!(last.response().await.status(), 200);
    });
}

#[test]
fn those_who_waited_for_a_worker_respect_its_limit() {
    run(async {
        let mut lab = Lab::with(0, |config| limited(config, Concurrency::Limited(2))).await;
        let mut clients = Vec::new();
        for number in 0..12 {
            clients.push(get(&lab, &format!("/{number}"), "timely").await);
        }
        lab.until(|snapshot| snapshot.queued == 12).await;
        let mut worker = FakeWorker::start(1).await;
        let mut desk = Desk::at(&mut worker);
        lab.workers.push(worker);
        lab.publish();
        let mut inside = vec![desk.next().await, desk.next().await];
        for _ in 0..10 {
            assert!(lab.workers[0].entry.gate.in_flight() <= 2);
            inside.remove(0).answer();
            inside.push(desk.next().await);
        }
        inside.into_iter().for_each(|arrival| arrival.answer());
        for client in &mut clients {
            assert_eq!(client.response().await.status(), 200);
        }
    });
}

#[test]
fn a_slot_of_a_worker_that_leaves_is_nobodys() {
    run(async {
        let (mut lab, mut desk) = lab(1, |_| {}).await;
        let mut first = get(&lab, "/first", "timely").await;
        let inside = desk.next().await;
        let mut second = get(&lab, "/second", "timely").await;
        lab.until(|snapshot| snapshot.queued == 1).await;
        let gate = Arc::clone(&lab.workers[0].entry.gate);
        gate.close();
        inside.answer();
        assert_eq!(first.response().await.status(), 200);
        gate.emptied().await;
        let mut worker = FakeWorker::start(2).await;
        let mut other = Desk::at(&mut worker);
        lab.workers[0] = worker;
        lab.publish();
        other.next().await.answer();
        assert_eq!(second.response().await.status(), 200);
        assert!(desk.is_empty());
    });
}

#[test]
fn an_adaptive_limit_follows_the_latency() {
    run(async {
        const CLIENTS: usize = 40;
        let mut lab =
            Lab::with(1, |config| limited(config, Concurrency::Adaptive { min: 2, max: 100 })).await;
        let clerk = Clerk::at(&mut lab.workers[0]);
        assert_eq!(lab.stats().concurrency_limit, Some(20));
        clerk.pause_us.store(2_000, SeqCst);
        let address = lab.address;
        let load = async move {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..CLIENTS {
                clients.spawn(async move {
                    let mut client = Peer::new(tokio::net::TcpStream::connect(address).await.unwrap());
                    loop {
                        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
                        assert_eq!(client.response().await.status(), 200);
                    }
                });
            }
            clients.join_next().await.unwrap().unwrap()
        };
        let watch = async {
            lab.until_stats(|stats| stats.concurrency_limit > Some(21)).await;
            clerk.pause_us.store(100_000, SeqCst);
            lab.until_stats(|stats| stats.concurrency_limit < Some(18)).await;
        };
        tokio::select! {
            () = load => {}
            () = watch => {}
        }
    });
}
