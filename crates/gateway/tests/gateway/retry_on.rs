//! What a route may have tried again beside lost workers: a 503, and an answer that does not come in time. Both within the
//! budget, and never what may have run and may not run twice.

use std::time::Duration;

use lethe_gateway::{
    config::{Config, RetryOn},
    stats::Retry,
};

use crate::{
    desk::Clerk,
    lab::{Lab, Peer, run},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";

fn tries_again(config: &mut Config) {
    config.routes[0].retry_on = RetryOn { unavailable: true, timeout: true };
}

async fn unavailable(worker: &mut Peer) {
    worker.send("HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy").await;
}

#[test]
fn a_503_goes_to_another_worker() {
    run(async {
        let lab = Lab::with(2, tries_again).await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        unavailable(&mut worker).await;
        lab.workers[1].request().await.0.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
        let snapshot = lab.gateway.snapshot();
        assert_eq!((snapshot.retries, snapshot.retries_by[&Retry::Unavailable]), (1, 1));
        let first = &snapshot.workers[&lab.workers[0].entry.instance];
        assert_eq!(
            (first.requests, first.errors, first.failures),
            (1, 1, 0),
            "it is one attempt, and counts once"
        );
    });
}

#[test]
fn a_503_is_passed_on_where_it_may_not_be_repeated() {
    run(async {
        for (tweak, request) in [
            (tries_again as fn(&mut Config), POST),
            (|_| {}, GET),
            (
                |config| {
                    tries_again(config);
                    config.limits.retry_percent_max = 0;
                },
                GET,
            ),
            (
                |config| {
                    tries_again(config);
                    config.limits.attempts_max = 1;
                },
                GET,
            ),
        ] {
            let lab = Lab::with(2, tweak).await;
            let mut client = lab.send(request).await;
            let (mut worker, _) = lab.workers[0].request().await;
            unavailable(&mut worker).await;
            let response = client.response().await;
            assert_eq!(
                (response.status(), response.header("retry-after"), response.text()),
                (503, Some("7"), "busy")
            );
            assert!(!lab.workers[1].is_called());
        }
    });
}

/// Workers that are all overloaded get the budget's share more, whatever the attempts that each request may have: thirty
/// in ten seconds, since there are few requests. And the clients get the workers' own word.
#[test]
fn an_overload_is_not_multiplied() {
    const REQUESTS: usize = 60;
    run(async {
        let mut lab = Lab::with(2, |config| {
            tries_again(config);
            config.limits.attempts_max = 4;
        })
        .await;
        let clerks: Vec<_> = lab.workers.iter_mut().map(Clerk::at).collect();
        for clerk in &clerks {
            clerk.status.store(503, std::sync::atomic::Ordering::SeqCst);
        }
        let mut clients = Vec::new();
        for _ in 0..REQUESTS {
            clients.push(lab.send(GET).await);
        }
        for client in &mut clients {
            let response = client.response().await;
            assert_eq!((response.status(), response.header("lethe-outcome")), (503, None));
        }
        let answers = |clerk: &std::sync::Arc<Clerk>| clerk.answers.load(std::sync::atomic::Ordering::SeqCst);
        let asked: usize = clerks.iter().map(answers).sum();
        // The ten seconds may have begun anew.
        assert!(
            (REQUESTS + 30..=REQUESTS + 60).contains(&asked),
            "asked {asked} times for {REQUESTS} requests"
        );
    });
}

/// The worker has refused it, so it has surely not run: its client is not told that nobody knows.
#[test]
fn a_503_after_which_nobody_is_left_is_a_503() {
    run(async {
        let lab = Lab::with(1, |config| {
            tries_again(config);
            config.limits.queue_timeout = Duration::from_millis(200);
        })
        .await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        lab.publish_entries(Vec::new());
        lab.until(|snapshot| snapshot.workers.is_empty()).await;
        unavailable(&mut worker).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (503, None));
        assert!(response.header("retry-after").is_some());
        assert_eq!(lab.gateway.snapshot().unknown, 0);
    });
}

#[test]
fn a_worker_that_does_not_answer_is_followed_by_another() {
    run(async {
        let lab = Lab::with(2, |config| {
            tries_again(config);
            // It holds for the other worker too, which is played by hand.
            config.routes[0].timeout = Duration::from_secs(10);
        })
        .await;
        let mut client = lab.send(GET).await;
        let (silent, _) = lab.workers[0].request().await;
        lab.workers[1].request().await.0.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
        silent.closed().await;
        assert_eq!(lab.gateway.snapshot().retries_by[&Retry::Timeout], 1);
        // What may not be repeated is not.
        client.send(POST).await;
        let (_silent, _) = lab.workers[0].request().await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (504, Some("unknown")));
    });
}
