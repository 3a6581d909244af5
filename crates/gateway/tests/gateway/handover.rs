//! A gateway gives its listeners to another one, as from one process to the next.

use lethe_gateway::gateway::{Bound, Error};
use tokio::net::TcpListener;

use crate::lab::{Lab, Peer, config, run};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
/// Connections that wait to be accepted: that all of them are in one of the two queues is 1 in 2^31.
const WAITING: usize = 32;

/// A client that was answered, and the worker's side of its connection.
async fn answered(lab: &Lab) -> (Peer, Peer) {
    let mut client = lab.send(GET).await;
    let (mut worker, _) = lab.workers[0].request().await;
    worker.answer("old").await;
    client.response().await;
    (client, worker)
}

/// A worker that says so to everybody.
fn answer_all(listener: TcpListener, text: &'static str) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut peer = Peer::new(stream);
            tokio::spawn(async move {
                while peer.try_request().await.is_some() {
                    peer.answer(text).await;
                }
            });
        }
    });
}

#[test]
fn nobody_notices() {
    // As many cores as the old one has, fewer, and more.
    for cores in [2, 1, 5] {
        run(async {
            let mut old = Lab::with(1, |config| {
                config.cores = 2;
                config.limits.connections_max = 3;
            })
            .await;
            let mut tunnel = old.send(UPGRADE).await;
            let (mut behind, _) = old.workers[0].request().await;
            behind.send(SWITCHED).await;
            tunnel.response().await;
            let mut quiet = old.send(GET).await;
            let (mut worker, _) = old.workers[0].request().await;
            // Closed, since the next client may be another core's, which has connections of its own to the worker.
            worker.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nold").await;
            quiet.response().await;
            let mut busy = old.send(GET).await;
            let (mut worker, _) = old.workers[0].request().await;
            answer_all(old.workers[0].take_listener(), "old");
            // The old one has no room for these any more, but for the next one of each core.
            let mut waiting = Vec::new();
            for _ in 0..WAITING {
                waiting.push(old.send(GET).await);
            }
            let mut new = Lab::after(&old, 1, |config| config.cores = cores).await;
            answer_all(new.workers[0].take_listener(), "new");
            let clients = async {
                let mut by_the_new = 0;
                for client in &mut waiting {
                    by_the_new += usize::from(client.response().await.text() == "new");
                }
                assert!(by_the_new >= WAITING - 2, "only {by_the_new}");
                // The last answer of the old one says that it is.
                worker.answer("old").await;
                let last = busy.response().await;
                assert_eq!((last.text(), last.header("connection")), ("old", Some("close")));
                busy.closed().await;
                quiet.closed().await;
                // The tunnel has time, and outlives an idle connection.
                behind.send("still").await;
                assert_eq!(tunnel.exactly(5).await.unwrap(), b"still");
                drop(behind);
                tunnel.closed().await;
            };
            tokio::join!(old.gateway.release(), clients);
            assert!(old.gateway.listeners().unwrap().is_empty());
            let mut later = new.send(GET).await;
            assert_eq!(later.response().await.text(), "new");
            new.gateway.drain().await;
            assert!(tokio::net::TcpStream::connect(new.address).await.is_err(), "nobody listens any more");
        });
    }
}

/// A request that arrives at an idle connection just as the listeners go is answered.
#[test]
fn an_idle_client_may_send_one_more_request() {
    run(async {
        let old = Lab::new(1).await;
        let (mut client, mut worker) = answered(&old).await;
        let _new = Lab::after(&old, 1, |_| {}).await;
        let more = async {
            // By then it was told to leave: both happen on this thread.
            tokio::task::yield_now().await;
            client.send(GET).await;
            worker.request().await;
            worker.answer("one more").await;
            let last = client.response().await;
            assert_eq!((last.text(), last.header("connection")), ("one more", Some("close")));
            client.closed().await;
        };
        tokio::join!(old.gateway.release(), more);
    });
}

#[test]
fn other_addresses_are_refused() {
    run(async {
        let old = Lab::new(0).await;
        let mut config = config();
        config.listeners[0].address = ([127, 0, 0, 2], 0).into();
        let refused = Bound::adopt(config, old.gateway.listeners().unwrap());
        let error = refused.err().expect("it is refused");
        assert!(matches!(error, Error::Moved { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.2:0; other addresses need a restart"), "{error}");
    });
}
