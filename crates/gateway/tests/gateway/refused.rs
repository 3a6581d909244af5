//! Workers that speak HTTP/2, live, and refuse requests (RFC 9113, section 8.7): nothing is lost, and nobody is put out
//! for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use http::Response;
use lethe_gateway::config::{self, Config, Ejection};
use lethe_model::roster::Protocol;

use crate::{
    choosing::treat,
    lab::{FakeWorker, Lab, run},
};

const POST: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";

/// Lets a worker refuse its first requests, so many of them, and answer those that follow with what they sent. Returns
/// how many it has refused.
fn refusing(worker: &mut FakeWorker, first: usize) -> Arc<AtomicUsize> {
    let (listener, refused) = (worker.take_listener(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&refused);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                    if count
                        .fetch_update(SeqCst, SeqCst, |count| (count < first).then_some(count + 1))
                        .is_ok()
                    {
                        respond.send_reset(Reason::REFUSED_STREAM);
                        continue;
                    }
                    tokio::spawn(async move {
                        let mut text = Vec::new();
                        while let Some(Ok(data)) = request.body_mut().data().await {
                            text.extend_from_slice(&data);
                        }
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data(Bytes::from(text), true).unwrap();
                    });
                }
            });
        }
    });
    refused
}

fn strict(config: &mut Config) {
    let ejection = Ejection { failures: 1, out_percent_max: 100, ..Ejection::default() };
    treat(config, config::Service { protocol: Protocol::H2c, ejection, ..config::Service::default() });
}

#[test]
fn what_one_refuses_another_one_does_whatever_the_method() {
    run(async {
        let mut lab = Lab::with(2, strict).await;
        let refused = refusing(&mut lab.workers[0], usize::MAX);
        refusing(&mut lab.workers[1], 0);
        let mut client = lab.client().await;
        for _ in 0..20 {
            client.send(POST).await;
            let response = client.response().await;
            assert_eq!((response.status(), response.text()), (200, "hello"));
        }
        assert!(refused.load(SeqCst) > 0);
        assert_eq!(lab.stats().ejections, 0, "it lives");
        assert_eq!(lab.workers[1].entry.gate.answered(), 20);
    });
}

#[test]
fn the_only_one_is_asked_again() {
    run(async {
        let mut lab = Lab::with(1, strict).await;
        let refused = refusing(&mut lab.workers[0], 5);
        let mut client = lab.send(POST).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.text()), (200, "hello"));
        assert_eq!((refused.load(SeqCst), lab.gateway.snapshot().retries, lab.stats().ejections), (5, 5, 0));
    });
}

#[test]
fn who_refuses_everything_is_not_hammered_at() {
    run(async {
        let mut lab = Lab::with(1, |config| {
            strict(config);
            config.limits.queue_timeout = Duration::from_millis(200);
        })
        .await;
        let refused = refusing(&mut lab.workers[0], usize::MAX);
        let mut client = lab.send(POST).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (503, None), "it has not run");
        assert!(response.header("retry-after").is_some());
        // At once, at once again, after a pause, and then once after each time that it was passed over.
        let refused = refused.load(SeqCst);
        assert!((2..=8).contains(&refused), "{refused} times in 200 ms");
        assert_eq!(lab.stats().ejections, 0);
    });
}
