//! Routes and limits that change while requests are in hand: none fails by it.

use lethe_gateway::config::{self, Protocol, Route};

use crate::{
    choosing::treat,
    lab::{FakeWorker, Lab, Peer, config, run},
};

/// Lets the worker answer each request with its first line.
fn answer(lab: &mut Lab) {
    let listener = lab.workers[0].take_listener();
    tokio::spawn(async move {
        loop {
            let mut peer = Peer::new(listener.accept().await.unwrap().0);
            tokio::spawn(async move {
                while let Some(request) = peer.try_request().await {
                    peer.answer(&request.line).await;
                }
            });
        }
    });
}

#[test]
fn routes_and_limits_change_under_load() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 500;
    run(async {
        let mut lab = Lab::with(1, |config| config.cores = 2).await;
        answer(&mut lab);
        let mut load = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let mut peer = lab.client().await;
            load.spawn(async move {
                for number in 0..REQUESTS {
                    peer.send(format!("GET /{client}/{number} HTTP/1.1\r\nhost: shop.test\r\n\r\n")).await;
                    let response = peer.response().await;
                    assert_eq!(response.status(), 200);
                    assert_eq!(response.text(), format!("GET /{client}/{number} HTTP/1.1"));
                }
            });
        }
        let mut reloads = 0;
        while !load.is_empty() {
            let mut config = config();
            config.cores = 2;
            reloads += 1;
            // Now by its host, now by parts of its path; always somewhere.
            let route = config.routes[0].clone();
            if reloads % 2 == 0 {
                config.routes = vec![Route { host: Some("shop.test".into()), ..route.clone() }];
            }
            for part in 0..reloads % 5 {
                config.routes.push(Route { path: format!("/{part}"), ..route.clone() });
            }
            config.limits.pool_idle_max = reloads % 3;
            config.limits.hold_bytes_max = reloads % 100;
            config.limits.headers_max = 50 + reloads % 10;
            lab.gateway.reload(config).await.unwrap();
            while let Some(done) = load.try_join_next() {
                done.unwrap();
            }
            tokio::task::yield_now().await;
        }
        let snapshot = lab.gateway.snapshot();
        assert_eq!(snapshot.responses, [0, (CLIENTS * REQUESTS) as u64, 0, 0, 0]);
        assert!(reloads > 10, "{reloads} reloads are no load");
    });
}

#[test]
fn what_is_in_hand_keeps_its_route() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send("GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        let mut config = config();
        config.routes[0].path = "/b".into();
        lab.gateway.reload(config).await.unwrap();
        let mut other = lab.send("GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert_eq!(other.response().await.status(), 404);
        worker.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
        client.send("GET /b HTTP/1.1\r\nhost: h\r\n\r\n").await;
        worker.request().await;
        worker.answer("kept").await;
        assert_eq!(client.response().await.text(), "kept");
    });
}

#[test]
fn a_service_that_was_not_there_before_is_found() {
    run(async {
        let mut lab = Lab::with(0, |config| config.routes.clear()).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 404);
        // The roster knows it already.
        lab.workers.push(FakeWorker::start(1).await);
        lab.publish();
        lab.gateway.reload(config()).await.unwrap();
        lab.until(|snapshot| snapshot.workers.len() == 1).await;
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        lab.workers[0].request().await.0.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
    });
}

/// The next connection to the worker is one of HTTP/2, and its first request is answered.
async fn answer_over_http2(
    worker: &FakeWorker,
) -> h2::server::Connection<tokio::net::TcpStream, bytes::Bytes> {
    let mut connection = h2::server::handshake(worker.accept().await.stream).await.unwrap();
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    respond.send_response(http::Response::builder().status(204).body(()).unwrap(), true).unwrap();
    connection
}

#[test]
fn a_service_that_speaks_otherwise_now_gets_new_connections() {
    const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    let speaks = |protocol| {
        let mut config = config();
        treat(&mut config, config::Service { protocol, ..config::Service::default() });
        config
    };
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("over HTTP/1.1").await;
        assert_eq!(client.response().await.text(), "over HTTP/1.1");
        // One more is in hand while it changes.
        let mut other = lab.send(GET).await;
        worker.request().await;
        lab.gateway.reload(speaks(Protocol::H2c)).await.unwrap();
        worker.answer("still").await;
        assert_eq!(other.response().await.text(), "still");
        worker.closed().await;
        client.send(GET).await;
        let mut connection = answer_over_http2(&lab.workers[0]).await;
        let response = async { assert_eq!(client.response().await.status(), 204) };
        let driven = tokio::spawn(async move { while let Some(Ok(_)) = connection.accept().await {} });
        response.await;
        lab.gateway.reload(speaks(Protocol::Http1)).await.unwrap();
        driven.await.unwrap();
        client.send(GET).await;
        lab.workers[0].request().await.0.answer("and back").await;
        assert_eq!(client.response().await.text(), "and back");
    });
}

#[test]
fn idle_connections_of_another_protocol_are_closed() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
        let mut config = config();
        treat(&mut config, config::Service { protocol: Protocol::H2c, ..config::Service::default() });
        lab.gateway.reload(config).await.unwrap();
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let _connection = answer_over_http2(&lab.workers[0]).await;
        worker.closed().await;
    });
}
