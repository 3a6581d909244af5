//! Workers on unix sockets: the same retry table as over TCP, whatever the kernel says of such a socket.

use std::{mem::MaybeUninit, path::PathBuf, time::Duration};

use lethe_gateway::config::{self, Health};
use lethe_model::roster::{Address, Protocol, Worker};
use socket2::SockRef;
use tempfile::TempDir;
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};

use crate::{
    choosing::treat,
    lab::{Lab, Message, Peer, entry, run, service},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";

/// A gateway and listeners of its workers, which are asked in order.
struct Stand {
    lab: Lab,
    listeners: Vec<Option<UnixListener>>,
    folder: TempDir,
}

impl Stand {
    async fn new(workers: u64, tweak: impl FnOnce(&mut config::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (1..=workers).map(|n| folder.path().join(n.to_string())).collect();
        let listeners = paths.iter().map(|path| Some(UnixListener::bind(path).unwrap())).collect();
        let mut protocol = Protocol::default();
        let lab = Lab::with(0, |config| {
            tweak(config);
            protocol = config.services.get(&service()).map(|how| how.protocol).unwrap_or_default();
        })
        .await;
        let entry = |(n, path): (u64, &PathBuf)| Worker {
            protocol,
            ..entry(n, Address::Unix(path.as_path().into()))
        };
        let entries = (1..).zip(&paths).map(entry);
        lab.publish_entries(entries.collect());
        lab.until(|snapshot| snapshot.workers.len() as u64 == workers).await;
        Self { lab, listeners, folder }
    }

    async fn accept(&self, number: usize) -> Peer<UnixStream> {
        Peer::over(self.listeners[number].as_ref().unwrap().accept().await.unwrap().0)
    }

    async fn request(&self, number: usize) -> (Peer<UnixStream>, Message) {
        let mut peer = self.accept(number).await;
        let request = peer.request().await;
        (peer, request)
    }
}

#[test]
fn requests_pass_on_one_connection() {
    run(async {
        let stand = Stand::new(1, |_| {}).await;
        let mut client = stand.lab.send(GET).await;
        let (mut worker, request) = stand.request(0).await;
        assert_eq!((request.line.as_str(), request.header("host")), ("GET / HTTP/1.1", Some("h")));
        worker.answer("one").await;
        assert_eq!(client.response().await.text(), "one");
        client.send(POST).await;
        assert_eq!(worker.request().await.text(), "hello");
        worker.answer("two").await;
        assert_eq!(client.response().await.text(), "two");
        // More than a socket's buffer holds, so that both sides must wait for room.
        let large = "x".repeat(4 << 20);
        client.send(GET).await;
        worker.request().await;
        tokio::join!(worker.answer(&large), async { assert_eq!(client.response().await.text(), large) });
        // Closed while it is idle, as a worker does that ends: another connection costs nothing.
        drop(worker);
        client.send(POST).await;
        stand.request(0).await.0.answer("three").await;
        assert_eq!(client.response().await.text(), "three");
        let snapshot = stand.lab.gateway.snapshot();
        assert_eq!((snapshot.responses, snapshot.retries, snapshot.unknown), ([0, 4, 0, 0, 0], 0, 0));
    });
}

/// Waits until something came, and leaves it unread. That a socket is said to be readable is not enough: a new one is
/// taken for it before anything came, and a request that was not sent goes to another worker.
async fn arrived(stream: &UnixStream) {
    let peek = || SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
    assert!(stream.async_io(Interest::READABLE, peek).await.unwrap() > 0);
}

#[test]
fn a_worker_that_dies_with_a_request() {
    run(async {
        // With the request read or not: the kernel says "end" in one case and "reset" in the other.
        for read in [true, false] {
            let stand = Stand::new(2, |_| {}).await;
            let mut client = stand.lab.send(GET).await;
            let mut worker = stand.accept(0).await;
            if read {
                worker.request().await;
            } else {
                arrived(&worker.stream).await;
            }
            drop(worker);
            stand.request(1).await.0.answer("another").await;
            assert_eq!(client.response().await.text(), "another");
            let snapshot = stand.lab.gateway.snapshot();
            assert_eq!((snapshot.retries, snapshot.unknown), (1, 0));

            let stand = Stand::new(2, |_| {}).await;
            let mut client = stand.lab.send(POST).await;
            let mut worker = stand.accept(0).await;
            if read {
                worker.request().await;
            } else {
                arrived(&worker.stream).await;
            }
            drop(worker);
            let response = client.response().await;
            assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
        }
    });
}

#[test]
fn a_worker_that_is_gone() {
    run(async {
        // Its file is left behind by a kill, and removed afterwards.
        for removed in [false, true] {
            let mut stand = Stand::new(2, |_| {}).await;
            stand.listeners[0] = None;
            if removed {
                std::fs::remove_file(stand.folder.path().join("1")).unwrap();
            }
            let mut client = stand.lab.send(POST).await;
            let (mut worker, request) = stand.request(1).await;
            assert_eq!(request.text(), "hello");
            worker.answer("done").await;
            assert_eq!(client.response().await.text(), "done");
        }
    });
}

#[test]
fn health_checks() {
    run(async {
        for protocol in [Protocol::Http1, Protocol::H2c] {
            let health = Health {
                path: "/check".into(),
                every: Duration::from_millis(5),
                timeout: Duration::from_secs(30),
                failures: 1,
                successes: 1,
            };
            let how = config::Service { protocol, health: Some(health), ..config::Service::default() };
            let stand = Stand::new(2, |config| treat(config, how)).await;
            for (status, out) in [(500, 1), (204, 0)] {
                let mut worker = stand.accept(0).await;
                if protocol == Protocol::Http1 {
                    let request = worker.request().await;
                    assert_eq!(request.line, "GET /check HTTP/1.1");
                    assert_eq!(request.header("host"), Some("localhost"));
                    worker.send(format!("HTTP/1.1 {status} x\r\n\r\n")).await;
                } else {
                    // SETTINGS, and HEADERS with `:status`.
                    worker.send(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01").await;
                    worker.send([if status == 500 { 0x8e } else { 0x89 }]).await;
                }
                stand.lab.until_stats(|stats| stats.out == out).await;
            }
        }
    });
}
