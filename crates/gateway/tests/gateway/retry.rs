//! Each row of the retry table, with the worker lost at exactly that moment.

use std::time::Duration;

use lethe_model::gate::Fate;

use crate::lab::{FakeWorker, Lab, Message, run};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";

#[test]
fn not_connected_any_method_goes_to_another_worker() {
    run(async {
        let mut lab = Lab::new(2).await;
        lab.workers[0].die();
        let mut client = lab.send(POST).await;
        let (mut worker, request) = lab.workers[1].request().await;
        assert_eq!(request.text(), "hello");
        worker.answer("done").await;
        assert_eq!(client.response().await.text(), "done");
        // The worker that refused is passed over for a moment, and whoever asks it later loses nothing by it either.
        for _ in 0..2 {
            client.send(POST).await;
            assert_eq!(worker.request().await.text(), "hello");
            worker.answer("done").await;
            client.response().await;
        }
        let snapshot = lab.gateway.snapshot();
        let refusals = snapshot.workers[&lab.workers[0].entry.instance].failures;
        assert_eq!((snapshot.retries, snapshot.unknown), (refusals, 0));
        assert!(refusals >= 1);
    });
}

#[test]
fn a_kept_connection_that_the_worker_closed_meanwhile_costs_nothing() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.client().await;
        for reset in [false, true, false, true] {
            client.send(POST).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.answer("done").await;
            assert_eq!(client.response().await.status(), 200);
            if reset { worker.reset() } else { drop(worker) }
        }
        let snapshot = lab.gateway.snapshot();
        assert_eq!((snapshot.unknown, snapshot.retries), (0, 0));
    });
}

#[test]
fn sent_and_idempotent_goes_to_another_worker() {
    run(async {
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "PUT"] {
            let lab = Lab::new(2).await;
            let mut client = lab.send(format!("{method} /x HTTP/1.1\r\nhost: h\r\n\r\n")).await;
            let (worker, _) = lab.workers[0].request().await;
            worker.reset();
            let (mut worker, request) = lab.workers[1].request().await;
            assert_eq!(request.line, format!("{method} /x HTTP/1.1"));
            worker.answer("").await;
            assert_eq!(client.response().await.status(), 200, "{method}");
            assert_eq!(lab.gateway.snapshot().retries, 1);
        }
    });
}

#[test]
fn sent_and_not_idempotent_is_answered_as_unknown() {
    run(async {
        for half in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
            let lab = Lab::new(2).await;
            let mut client = lab.send(POST).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(half).await;
            drop(worker);
            let response = client.response().await;
            assert_eq!(response.status(), 502);
            assert_eq!(response.header("lethe-outcome"), Some("unknown"));
            assert_eq!(response.problem()["request_id"], response.header("x-request-id").unwrap());
            assert!(!lab.workers[1].is_called(), "a POST was sent twice");
            assert_eq!(lab.gateway.snapshot().unknown, 1);
            // The connection is still good.
            client.send(GET).await;
            lab.workers[1].request().await.0.answer("ok").await;
            assert_eq!(client.response().await.text(), "ok");
        }
    });
}

#[test]
fn a_key_or_the_route_makes_a_post_safe_to_repeat() {
    run(async {
        let keyed = POST.replace("\r\n\r\n", "\r\nidempotency-key: k-1\r\n\r\n");
        for (request, idempotent) in [(keyed.as_str(), false), (POST, true)] {
            let lab = Lab::with(2, |config| config.routes[0].idempotent = idempotent).await;
            let mut client = lab.send(request).await;
            let (worker, first) = lab.workers[0].request().await;
            drop(worker);
            let (mut worker, second) = lab.workers[1].request().await;
            assert_eq!((first.head, first.body), (second.head, second.body), "the same request twice");
            worker.answer("done").await;
            assert_eq!(client.response().await.text(), "done");
        }
    });
}

#[test]
fn a_small_response_that_dies_half_way_is_a_retry() {
    run(async {
        let lab = Lab::new(2).await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 201 Created\r\nx-first: 1\r\ncontent-length: 10\r\n\r\nhalf").await;
        drop(worker);
        let (mut worker, _) = lab.workers[1].request().await;
        worker.answer("whole").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.text()), (200, "whole"));
        assert_eq!(response.header("x-first"), None, "nothing of the first response was seen");
    });
}

#[test]
fn a_small_response_to_a_post_that_dies_half_way_is_unknown() {
    run(async {
        let lab = Lab::new(2).await;
        let mut client = lab.send(POST).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        drop(worker);
        let response = client.response().await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
        assert!(!lab.workers[1].is_called());
    });
}

#[test]
fn a_streamed_response_that_dies_half_way_is_cut() {
    run(async {
        for head in [
            "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_owned(),
            format!("content-length: {}\r\n\r\nhalf", (256 << 10) + 1),
            "content-type: text/event-stream; charset=utf-8\r\ncontent-length: 10\r\n\r\nhalf".to_owned(),
        ] {
            let lab = Lab::new(2).await;
            let mut client = lab.send(GET).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(format!("HTTP/1.1 200 OK\r\n{head}")).await;
            let mut response = client.head().await;
            worker.reset();
            assert!(!client.body(&mut response).await, "a cut response looked whole: {head}");
            lab.until(|snapshot| snapshot.cut == 1).await;
            assert!(!lab.workers[1].is_called());
        }
    });
}

#[test]
fn a_query_of_death_is_not_tried_a_third_time() {
    run(async {
        let lab = Lab::new(3).await;
        let mut client = lab.send(GET).await;
        for worker in &lab.workers[..2] {
            drop(worker.request().await);
        }
        let response = client.response().await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
        assert!(!lab.workers[2].is_called());
    });
}

#[test]
fn a_request_whose_workers_were_killed_from_outside_is_not_blamed() {
    run(async {
        let lab = Lab::new(3).await;
        let mut client = lab.send(GET).await;
        for worker in &lab.workers[..2] {
            let (connection, _) = worker.request().await;
            worker.entry.gate.ended(Fate::Killed);
            connection.reset();
        }
        let (mut worker, _) = lab.workers[2].request().await;
        worker.answer("saved").await;
        assert_eq!(client.response().await.text(), "saved");
        assert_eq!(lab.gateway.snapshot().retries, 2);
    });
}

#[test]
fn a_request_whose_workers_fell_is_blamed_at_once() {
    run(async {
        let lab = Lab::new(3).await;
        let mut client = lab.send(GET).await;
        for worker in &lab.workers[..2] {
            let (connection, _) = worker.request().await;
            worker.entry.gate.ended(Fate::Fell);
            connection.reset();
        }
        let response = client.response().await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
        assert!(!lab.workers[2].is_called());
    });
}

const KEYED: &str = "POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\ncontent-length: 2\r\n\
                     lethe-lost-instance: forged\r\nlethe_lost_instance: forged\r\n\r\nhi";

/// What keeps the answers under keys must not wait for one that never comes; and clients cannot say who died.
#[test]
fn a_worker_is_told_who_died_under_a_request_with_a_key() {
    run(async {
        let lab = Lab::new(3).await;
        let mut client = lab.send(KEYED).await;
        let mut told = Vec::new();
        for worker in &lab.workers[..2] {
            let (connection, head) = worker.request().await;
            told.push(lost(&head));
            worker.entry.gate.ended(Fate::Killed);
            connection.reset();
        }
        let (mut worker, head) = lab.workers[2].request().await;
        told.push(lost(&head));
        worker.answer("saved").await;
        assert_eq!(client.response().await.text(), "saved");
        let names: Vec<_> = lab.workers.iter().map(|worker| worker.entry.instance.to_string()).collect();
        assert_eq!(told, [Vec::new(), names[..1].to_vec(), names[..2].to_vec()]);
    });
}

/// A worker that only breaks off may still do what it was asked for.
#[test]
fn a_worker_that_lives_is_not_said_to_have_died() {
    run(async {
        for (request, dies) in [(KEYED, false), (GET, true)] {
            let lab = Lab::new(2).await;
            let mut client = lab.send(request).await;
            let (connection, _) = lab.workers[0].request().await;
            if dies {
                lab.workers[0].entry.gate.ended(Fate::Killed);
            }
            connection.reset();
            let (mut worker, head) = lab.workers[1].request().await;
            assert_eq!(lost(&head), Vec::<String>::new());
            worker.answer("saved").await;
            assert_eq!(client.response().await.text(), "saved");
        }
    });
}

/// The workers that a request names as dead.
fn lost(request: &Message) -> Vec<String> {
    let named = request.headers.iter().filter(|(name, _)| name.contains("lost"));
    named.map(|(_, value)| value.clone()).collect()
}

/// A process that ends closes its sockets one after the other: the listener may take the same request once more.
#[test]
fn a_worker_dies_only_once() {
    run(async {
        for dies in [true, false] {
            let lab = Lab::new(1).await;
            let mut client = lab.send(GET).await;
            let (worker, _) = lab.workers[0].request().await;
            drop(worker);
            let (mut worker, _) = lab.workers[0].request().await;
            if dies {
                lab.workers[0].entry.gate.ended(Fate::Fell);
                drop(worker);
                (worker, _) = lab.workers[0].request().await;
                worker.answer("saved").await;
            } else {
                // It may be a process whose children die of it.
                drop(worker);
            }
            assert_eq!(client.response().await.status(), if dies { 200 } else { 502 });
        }
    });
}

/// The broken connection is mostly seen before the end of the process is.
#[test]
fn the_word_on_how_a_worker_died_may_come_late() {
    run(async {
        let lab = Lab::new(3).await;
        let mut client = lab.send(GET).await;
        for worker in &lab.workers[..2] {
            drop(worker.request().await);
        }
        // The second loss is counted in the moment in which the verdict waits for word.
        let second = &lab.workers[1].entry;
        lab.until(|snapshot| snapshot.workers[&second.instance].failures == 1).await;
        second.gate.ended(Fate::Killed);
        let (mut worker, _) = lab.workers[2].request().await;
        worker.answer("saved").await;
        assert_eq!(client.response().await.text(), "saved");
    });
}

#[test]
fn attempts_end() {
    run(async {
        let lab = Lab::with(3, |config| {
            config.limits.attempts_max = 3;
            config.limits.deaths_max = 100;
        })
        .await;
        let mut client = lab.send(GET).await;
        for worker in &lab.workers {
            drop(worker.request().await);
        }
        assert_eq!(client.response().await.status(), 502);
        assert_eq!(lab.gateway.snapshot().retries, 2);
    });
}

#[test]
fn a_body_of_a_mebibyte_is_replayed() {
    run(async {
        let body: String = (0..1 << 16).map(|n: u32| format!("{n:015}\n")).collect();
        assert_eq!(body.len(), 1 << 20);
        for chunked in [false, true] {
            // The bound is on the bytes of the body.
            let lab = Lab::new(2).await;
            let request = if chunked {
                let chunks = body.as_bytes().chunks(10_000);
                let chunks: String = chunks
                    .map(|c| format!("{:x}\r\n{}\r\n", c.len(), std::str::from_utf8(c).unwrap()))
                    .collect();
                format!("PUT / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
            } else {
                format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            };
            let client = lab.send(request);
            let workers = async {
                let (worker, first) = lab.workers[0].request().await;
                assert!(first.text() == body, "the first worker got another body");
                worker.reset();
                let (mut worker, second) = lab.workers[1].request().await;
                assert!(second.text() == body, "the second worker got another body");
                worker.answer("done").await;
            };
            let (mut client, ()) = tokio::join!(client, workers);
            assert_eq!(client.response().await.text(), "done");
        }
    });
}

#[test]
fn a_body_over_the_limit_passes_and_is_not_replayed() {
    run(async {
        let lab = Lab::with(2, |config| config.limits.replay_bytes_max = 1000).await;
        let request =
            format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 1001\r\n\r\n{}", "x".repeat(1001));
        let mut client = lab.send(&request).await;
        let (mut worker, first) = lab.workers[0].request().await;
        assert_eq!(first.body.len(), 1001);
        worker.answer("done").await;
        assert_eq!(client.response().await.text(), "done");
        client.send(&request).await;
        let (worker, _) = lab.workers[1].request().await;
        drop(worker);
        let response = client.response().await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
    });
}

#[test]
fn the_memory_for_replays_is_bounded_in_all() {
    run(async {
        let lab = Lab::with(2, |config| config.limits.replay_total_bytes_max = 0).await;
        let mut client = lab.send("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi").await;
        let (worker, _) = lab.workers[0].request().await;
        drop(worker);
        assert_eq!(client.response().await.status(), 502, "nothing could be kept, so nothing was repeated");
    });
}

#[test]
fn a_late_worker_is_answered_for_and_not_repeated() {
    run(async {
        let lab = Lab::with(2, |config| config.routes[0].timeout = Duration::from_millis(150)).await;
        let mut client = lab.send(GET).await;
        let (worker, _) = lab.workers[0].request().await;
        assert_eq!(client.response().await.status(), 504);
        assert!(!lab.workers[1].is_called());
        worker.closed().await;
    });
}

#[test]
fn what_is_not_http_is_a_502() {
    run(async {
        for garbage in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"] {
            let lab = Lab::new(2).await;
            let mut client = lab.send(GET).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(garbage).await;
            assert_eq!(client.response().await.status(), 502, "{garbage}");
            assert!(!lab.workers[1].is_called());
        }
    });
}

#[test]
fn the_last_worker_died_and_the_request_waits_for_the_next() {
    run(async {
        let mut lab = Lab::new(1).await;
        let mut client = lab.send(GET).await;
        let (worker, _) = lab.workers[0].request().await;
        lab.workers[0].die();
        worker.reset();
        lab.until(|snapshot| snapshot.queued == 1).await;
        lab.workers = vec![FakeWorker::start(2).await];
        lab.publish();
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("saved").await;
        assert_eq!(client.response().await.text(), "saved");
        lab.until(|snapshot| snapshot.queued == 0).await;
    });
}

#[test]
fn no_other_worker_after_something_was_sent_is_unknown() {
    run(async {
        let mut lab = Lab::with(1, |config| config.limits.queue_timeout = Duration::from_millis(100)).await;
        let mut client = lab.send(POST.replace("\r\n\r\n", "\r\nidempotency-key: k-1\r\n\r\n")).await;
        let (worker, _) = lab.workers[0].request().await;
        lab.workers[0].die();
        drop(worker);
        let response = client.response().await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
    });
}

/// The time to look for a worker is not used up by the workers that it was inside.
#[test]
fn a_long_request_is_saved_each_time() {
    run(async {
        let queue_timeout = Duration::from_millis(100);
        let lab = Lab::with(3, |config| config.limits.queue_timeout = queue_timeout).await;
        let mut client = lab.send(GET).await;
        for worker in &lab.workers[..2] {
            let (connection, _) = worker.request().await;
            // Time itself is what must not count.
            tokio::time::sleep(2 * queue_timeout).await;
            worker.entry.gate.ended(Fate::Killed);
            drop(connection);
        }
        let (mut worker, _) = lab.workers[2].request().await;
        worker.answer("saved").await;
        assert_eq!(client.response().await.text(), "saved");
    });
}

/// A worker that accepts and resets at once: nothing can be sent to it, and the request must not spin.
#[test]
fn a_worker_that_resets_each_connection_ends_in_a_503() {
    run(async {
        let lab = Lab::with(1, |config| config.limits.queue_timeout = Duration::from_millis(200)).await;
        let mut client = lab.client().await;
        client.send(POST).await;
        let mut connections = 0;
        let resetting = async {
            loop {
                lab.workers[0].accept().await.reset();
                connections += 1;
            }
        };
        let status = tokio::select! {
            () = resetting => 0,
            response = client.response() => response.status(),
        };
        // Which of the two it is depends on whether the reset came before the first byte.
        assert!(matches!(status, 502 | 503), "{status}");
        assert!(connections < 50, "{connections} connections in 200 ms");
    });
}

#[test]
fn a_worker_that_refused_is_asked_again_after_a_while() {
    run(async {
        let mut lab = Lab::new(1).await;
        lab.workers[0].die();
        let mut client = lab.send(POST).await;
        lab.until(|snapshot| snapshot.queued == 1).await;
        lab.workers[0].revive().await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("back").await;
        assert_eq!(client.response().await.text(), "back");
    });
}
