//! Every bound: heads, time, connections, the queue.

use std::time::Duration;

use lethe_model::roster::WorkerState;

use crate::lab::{FakeWorker, Lab, run};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

#[test]
fn heads_that_are_too_large_get_431() {
    run(async {
        let lab = Lab::new(1).await;
        for head in [
            format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(33 << 10)),
            format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", "x: 1\r\n".repeat(100)),
            // Never ends.
            format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}", "x".repeat(1 << 20)),
        ] {
            let mut client = lab.client().await;
            // The gateway may close before all of it was sent.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, head.as_bytes()).await;
            let answer = client.rest().await;
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{answer:?}");
            if head.len() < 64 << 10 {
                assert!(!answer.is_empty(), "no answer to a head of {}", head.len());
            }
        }
        assert!(!lab.workers[0].is_called());
        // The largest that are allowed.
        let mut client = lab
            .send(format!(
                "GET / HTTP/1.1\r\nhost: h\r\n{}x: {}\r\n\r\n",
                "x: 1\r\n".repeat(98),
                "x".repeat(30 << 10)
            ))
            .await;
        lab.workers[0].request().await.0.answer("ok").await;
        assert_eq!(client.response().await.status(), 200);
    });
}

#[test]
fn a_client_that_never_ends_its_head_is_closed() {
    run(async {
        let lab = Lab::with(1, |config| config.limits.head_timeout = Duration::from_millis(50)).await;
        lab.client().await.closed().await;
        lab.send("GET / HTTP/1.1\r\nhost:").await.closed().await;
    });
}

#[test]
fn an_idle_connection_is_closed() {
    run(async {
        let lab = Lab::with(1, |config| config.limits.idle_timeout = Duration::from_millis(50)).await;
        let mut client = lab.send(GET).await;
        lab.workers[0].request().await.0.answer("ok").await;
        assert_eq!(client.response().await.status(), 200);
        client.closed().await;
        lab.until(|snapshot| snapshot.connections == 0).await;
    });
}

#[test]
fn a_client_that_stops_in_its_body_gets_408_and_the_worker_no_whole_request() {
    run(async {
        let lab = Lab::with(1, |config| config.limits.stall_timeout = Duration::from_millis(50)).await;
        let mut client = lab.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nhalf").await;
        let mut worker = lab.workers[0].accept().await;
        assert!(worker.try_request().await.is_none());
        assert_eq!(client.response().await.status(), 408);
        client.closed().await;
    });
}

#[test]
fn connections_over_the_limit_wait() {
    run(async {
        let lab = Lab::with(1, |config| config.limits.connections_max = 1).await;
        let first = lab.client().await;
        lab.until(|snapshot| snapshot.connections == 1).await;
        let mut second = lab.send(GET).await;
        drop(first);
        lab.workers[0].request().await.0.answer("ok").await;
        assert_eq!(second.response().await.status(), 200);
        assert_eq!(lab.gateway.snapshot().connections, 1);
    });
}

#[test]
fn who_is_idle_leaves_for_those_who_wait() {
    run(async {
        let lab = Lab::with(1, |config| config.limits.connections_max = 1).await;
        let mut first = lab.send(GET).await;
        lab.workers[0].request().await.0.answer("ok").await;
        assert_eq!(first.response().await.status(), 200);
        let mut second = lab.send(GET).await;
        first.closed().await;
        lab.workers[0].request().await.0.answer("ok").await;
        assert_eq!(second.response().await.status(), 200);
    });
}

#[test]
fn requests_wait_for_a_worker_and_are_shed_when_too_many() {
    run(async {
        let mut lab = Lab::with(0, |config| config.limits.queue_max = 2).await;
        let (mut first, mut second) = (lab.send(GET).await, lab.send(GET).await);
        lab.until(|snapshot| snapshot.queued == 2).await;
        let mut third = lab.send(GET).await;
        let response = third.response().await;
        assert_eq!((response.status(), response.header("retry-after")), (503, Some("1")));
        assert_eq!(response.problem()["status"], 503);
        lab.workers.push(FakeWorker::start(1).await);
        lab.workers[0].entry.state = WorkerState::Starting;
        lab.publish();
        lab.until(|snapshot| snapshot.workers.len() == 1).await;
        assert_eq!(lab.gateway.snapshot().queued, 2, "a starting worker gets nothing");
        lab.workers[0].entry.state = WorkerState::Ready;
        lab.publish();
        for _ in 0..2 {
            lab.workers[0].request().await.0.answer("ok").await;
        }
        assert_eq!((first.response().await.status(), second.response().await.status()), (200, 200));
        let snapshot = lab.gateway.snapshot();
        assert_eq!((snapshot.queued, snapshot.shed, snapshot.responses), (0, 1, [0, 2, 0, 0, 1]));
    });
}

#[test]
fn a_wait_ends() {
    run(async {
        let lab = Lab::with(0, |config| config.limits.queue_timeout = Duration::from_millis(20)).await;
        let response = lab.send(GET).await.response().await;
        assert_eq!((response.status(), response.header("retry-after")), (503, Some("1")));
    });
}

#[test]
fn a_client_that_goes_leaves_the_queue() {
    run(async {
        let lab = Lab::new(0).await;
        let client = lab.send(GET).await;
        lab.until(|snapshot| snapshot.queued == 1).await;
        drop(client);
        lab.until(|snapshot| snapshot.queued == 0 && snapshot.connections == 0).await;
    });
}

/// Responses are held in a memory of their own; what finds no room there is passed on as it comes.
#[test]
fn all_that_is_held_is_bounded() {
    const BYTES: usize = 100 << 10;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n");
    let (half, whole) = (vec![b'x'; BYTES / 2], vec![b'x'; BYTES]);
    run(async {
        let lab = Lab::with(1, |config| config.limits.hold_total_bytes_max = BYTES * 3 / 2).await;
        let get = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        let mut first = lab.send(get).await;
        let (mut holding, _) = lab.workers[0].request().await;
        holding.send(&head).await;
        holding.send(&half).await;
        // Its memory is taken by the time that another one's worker is asked, since one core serves both.
        let mut second = lab.send(get).await;
        let (mut passing, _) = lab.workers[0].request().await;
        passing.send(&head).await;
        passing.send(&half).await;
        assert_eq!(second.head().await.status(), 200, "there is no room to hold it");
        passing.send(&half).await;
        assert_eq!(second.exactly(BYTES).await.unwrap(), whole);
        holding.send(&half).await;
        assert_eq!(first.response().await.body, whole);
        // There is room again: what dies half-way is another worker's to answer, and nobody sees it.
        second.send(get).await;
        holding.request().await;
        holding.send(&head).await;
        holding.send(&half).await;
        drop(holding);
        passing.request().await;
        passing.answer("again").await;
        assert_eq!(second.response().await.text(), "again");
        assert_eq!(lab.gateway.snapshot().cut, 0);
    });
}
