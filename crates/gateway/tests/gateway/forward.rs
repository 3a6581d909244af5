//! What passes when nothing goes wrong: routes, fields, methods, balance, upgrades, drain.

use std::collections::BTreeMap;

use lethe_gateway::config::Balance;
use lethe_model::roster::WorkerState;

use crate::lab::{FakeWorker, Lab, run};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

#[test]
fn request_and_response_pass() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab
            .send("POST /a?b=c HTTP/1.1\r\nHost: shop.test\r\nX-One: 1\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!((request.line.as_str(), request.text()), ("POST /a?b=c HTTP/1.1", "hi"));
        assert_eq!(request.header("host"), Some("shop.test"));
        assert_eq!(request.header("x-one"), Some("1"));
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.header("x-forwarded-host"), Some("shop.test"));
        assert_eq!(request.header("x-forwarded-proto"), Some("http"));
        let id = request.header("x-request-id").unwrap();
        assert!(request.header("traceparent").unwrap().contains(id));
        worker
            .send("HTTP/1.1 418 I'm a teapot\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nkeep-alive: timeout=9\r\nconnection: x-gone\r\nx-gone: 1\r\ncontent-length: 3\r\n\r\ntea")
            .await;
        let response = client.response().await;
        assert_eq!((response.status(), response.text()), (418, "tea"));
        let cookies: Vec<_> = response.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
        assert_eq!(cookies.len(), 2);
        assert_eq!(response.header("x-gone"), None);
        assert_eq!(response.header("keep-alive"), None);
        assert_eq!(response.header("x-request-id"), Some(id));
        assert!(response.header("date").is_some());
        let snapshot = lab.gateway.snapshot();
        let stats = &snapshot.workers[&lab.workers[0].entry.instance];
        assert_eq!((snapshot.responses, stats.requests, stats.failures), ([0, 0, 0, 1, 0], 1, 0));
        assert_eq!(stats.latency_us.iter().map(|&(_, count)| count).sum::<u64>(), 1);
        assert_eq!(lab.workers[0].entry.gate.answered(), 1);
    });
}

#[test]
fn no_route_is_404() {
    run(async {
        let lab = Lab::with(1, |config| config.routes[0].path = "/shop".into()).await;
        let mut client = lab.send(GET.replace("/ ", "/other ")).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.problem()["status"].as_u64()), (404, Some(404)));
        client.send(GET.replace("/ ", "/shop/cart ")).await;
        lab.workers[0].request().await.0.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
        // A problem has no body for HEAD.
        client.send("HEAD /other HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
        assert_eq!(client.head().await.status(), 404);
        client.closed().await;
    });
}

#[test]
fn head_has_a_length_and_no_body() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n").await;
        assert_eq!(client.head().await.header("content-length"), Some("12345"));
        client.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        worker.request().await;
        worker.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        assert_ne!(client.head().await.header("content-length"), Some("0"), "nobody said so");
        // Both connections go on.
        client.send(GET).await;
        worker.request().await;
        worker.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
    });
}

#[test]
fn no_content_and_old_workers() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 204);
        client.send(GET).await;
        worker.request().await;
        // HTTP/1.0 ends its body by closing; the client gets chunks, of HTTP/1.1.
        worker.send("HTTP/1.0 200 OK\r\n\r\nold").await;
        drop(worker);
        let response = client.response().await;
        assert_eq!((response.line.as_str(), response.text()), ("HTTP/1.1 200 OK", "old"));
    });
}

#[test]
fn old_clients() {
    run(async {
        let lab = Lab::new(1).await;
        let client = lab.send("GET / HTTP/1.0\r\n\r\n").await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.line, "GET / HTTP/1.1");
        assert_eq!(request.header("host"), Some(""), "HTTP/1.1 needs a Host");
        worker.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nold\r\n0\r\n\r\n").await;
        let response = String::from_utf8(client.rest().await).unwrap();
        assert!(
            response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nold"),
            "{response}"
        );
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let lab = Lab::new(2).await;
        let mut client = lab.send([GET, GET, GET].concat()).await;
        let mut peers = BTreeMap::new();
        for (turn, body) in ["one", "two", "three"].into_iter().enumerate() {
            let peer = match peers.remove(&(turn % 2)) {
                None => lab.workers[turn % 2].accept().await,
                Some(peer) => peer,
            };
            let peer = peers.entry(turn % 2).or_insert(peer);
            peer.request().await;
            peer.answer(body).await;
            assert_eq!(client.response().await.text(), body);
        }
    });
}

#[test]
fn round_robin_is_even() {
    run(async {
        let lab = Lab::new(3).await;
        let mut client = lab.client().await;
        let mut peers = Vec::new();
        for worker in &lab.workers {
            client.send(GET).await;
            let (mut peer, _) = worker.request().await;
            peer.answer("ok").await;
            client.response().await;
            peers.push(peer);
        }
        for turn in 0..7 {
            client.send(GET).await;
            peers[turn % 3].request().await;
            peers[turn % 3].answer("ok").await;
            client.response().await;
        }
        let snapshot = lab.gateway.snapshot();
        let counts: Vec<u64> = snapshot.workers.values().map(|stats| stats.requests).collect();
        assert_eq!(counts, [4, 3, 3]);
    });
}

#[test]
fn least_loaded_prefers_the_idle_worker() {
    run(async {
        let lab = Lab::with(2, |config| config.routes[0].balance = Balance::LeastLoaded).await;
        // Other cores' requests count too: they are in the gate.
        let _busy = lab.workers[0].entry.gate.enter().unwrap();
        let mut client = lab.client().await;
        client.send(GET).await;
        let (mut peer, _) = lab.workers[1].request().await;
        peer.answer("ok").await;
        client.response().await;
        for _ in 0..20 {
            client.send(GET).await;
            peer.request().await;
            peer.answer("ok").await;
            client.response().await;
        }
        assert!(!lab.workers[0].is_called());
    });
}

#[test]
fn upgrades_pass_both_ways() {
    run(async {
        let lab = Lab::new(1).await;
        // What follows the request at once belongs to the new protocol.
        let mut client = lab
            .send("GET /ws HTTP/1.1\r\nhost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nsec-websocket-key: k\r\n\r\nearly")
            .await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.header("connection"), Some("upgrade"));
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.header("sec-websocket-key"), Some("k"));
        worker
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nsec-websocket-accept: a\r\n\r\nhello")
            .await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("upgrade")), (101, Some("websocket")));
        assert_eq!(response.header("connection"), Some("upgrade"));
        assert_eq!(response.header("sec-websocket-accept"), Some("a"));
        assert_eq!(client.exactly(5).await.unwrap(), b"hello");
        assert_eq!(worker.exactly(5).await.unwrap(), b"early");
        let gate = lab.workers[0].entry.gate.clone();
        for _ in 0..3 {
            client.send("ping").await;
            assert_eq!(worker.exactly(4).await.unwrap(), b"ping");
            worker.send("pong").await;
            assert_eq!(client.exactly(4).await.unwrap(), b"pong");
            assert_eq!(gate.in_flight(), 1, "it counts as a request inside");
        }
        drop(worker);
        client.closed().await;
        gate.close();
        gate.emptied().await;
    });
}

#[test]
fn an_upgrade_that_is_refused_is_an_ordinary_answer() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client =
            lab.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("no").await;
        assert_eq!(client.response().await.text(), "no");
        client.send(GET).await;
        worker.request().await;
        worker.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
    });
}

#[test]
fn drain_lets_open_requests_end() {
    run(async {
        let lab = Lab::new(1).await;
        let mut idle = lab.send(GET).await;
        let (mut peer, _) = lab.workers[0].request().await;
        peer.answer("ok").await;
        idle.response().await;
        let mut busy = lab.send(GET).await;
        peer.request().await;
        let mut tunnel =
            lab.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let (mut other, _) = lab.workers[0].request().await;
        other
            .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await;
        tunnel.response().await;
        let client = async {
            idle.closed().await;
            tunnel.closed().await;
            peer.answer("last").await;
            let response = busy.response().await;
            assert_eq!((response.text(), response.header("connection")), ("last", Some("close")));
            busy.closed().await;
        };
        tokio::join!(lab.gateway.drain(), client);
        assert!(tokio::net::TcpStream::connect(lab.address).await.is_err(), "still accepts");
        lab.gateway.drain().await;
        assert_eq!(lab.gateway.snapshot().connections, 0);
    });
}

#[test]
fn drain_does_not_wait_for_a_tunnel_that_would_begin() {
    run(async {
        let lab = Lab::with(1, |config| {
            config.limits.drain_timeout = std::time::Duration::from_secs(1000);
        })
        .await;
        let mut idle = lab.send(GET).await;
        let (mut peer, _) = lab.workers[0].request().await;
        peer.answer("ok").await;
        idle.response().await;
        let mut tunnel =
            lab.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        peer.request().await;
        let client = async {
            // That is how it is known that the drain has begun.
            idle.closed().await;
            peer.send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            )
            .await;
            let response = tunnel.response().await;
            assert_eq!((response.status(), response.header("retry-after")), (503, Some("1")));
            assert_eq!(
                (response.header("connection"), response.header("lethe-outcome")),
                (Some("close"), None)
            );
            tunnel.closed().await;
            peer.closed().await;
        };
        tokio::join!(lab.gateway.drain(), client);
    });
}

#[test]
fn drain_ends() {
    run(async {
        let lab =
            Lab::with(1, |config| config.limits.drain_timeout = std::time::Duration::from_millis(20)).await;
        let client = lab.send(GET).await;
        let (worker, _) = lab.workers[0].request().await;
        lab.gateway.drain().await;
        client.closed().await;
        worker.closed().await;
    });
}

#[test]
fn a_leaving_worker_gets_nothing_new_and_its_idle_connections_are_closed() {
    run(async {
        let mut lab = Lab::new(1).await;
        let mut client = lab.send(GET).await;
        let (mut old, _) = lab.workers[0].request().await;
        old.answer("old").await;
        client.response().await;
        lab.workers[0].entry.state = WorkerState::Draining;
        lab.workers.push(FakeWorker::start(2).await);
        lab.publish();
        old.closed().await;
        client.send(GET).await;
        lab.workers[1].request().await.0.answer("new").await;
        assert_eq!(client.response().await.text(), "new");
        assert!(!lab.workers[0].is_called());
        lab.workers.remove(0);
        lab.publish();
        lab.until(|snapshot| snapshot.workers.len() == 1).await;
    });
}
