//! The gateway as clients that speak HTTP/2 see it: frame by frame, right and wrong, and whole requests through to
//! workers that the test plays by hand.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod chatty;
mod conformance;
mod exchange;
mod floods;
mod generic;
mod idle;
#[path = "../gateway/lab.rs"]
#[allow(dead_code, reason = "not every test needs all of it")]
mod lab;
mod lost;
#[allow(dead_code, reason = "not every test needs all of it")]
mod peer;
mod rfc7541;
mod rfc9113;
mod smuggling;
mod workers;

use self::lab::{FakeWorker, Lab, Peer, run};

/// Lets a worker answer each request with what came, as one that stands behind any gateway.
fn echo(worker: &mut FakeWorker) {
    let listener = worker.take_listener();
    tokio::spawn(async move {
        loop {
            let mut peer = Peer::new(listener.accept().await.unwrap().0);
            tokio::spawn(async move {
                while let Some(request) = peer.try_request().await {
                    let body = format!("{}{}", request.head, String::from_utf8_lossy(&request.body));
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    let body = if request.line.starts_with("HEAD") { "" } else { &body };
                    if !peer.try_send(format!("{head}{body}")).await {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn conforms() {
    run(async {
        let mut lab = Lab::with(1, |config| config.limits.streams_max = 100).await;
        echo(&mut lab.workers[0]);
        conformance::run(lab.address, 100).await;
    });
}

#[test]
fn floods_end_and_others_are_served() {
    run(async {
        let mut lab = Lab::new(1).await;
        echo(&mut lab.workers[0]);
        floods::run(lab.address).await;
        lab.until(|snapshot| snapshot.connections == 0).await;
    });
}
