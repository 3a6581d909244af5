//! Routes and limits that change while requests are in hand: none fails by it.

use std::time::Duration;

use futures_util::FutureExt as _;
use lethe_gateway::config::Route;

use crate::lab::{FakeWorker, Lab, Peer, config, run};

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

#[test]
fn a_smaller_memory_for_replays_is_kept_to_when_what_was_kept_is_gone() {
    const LARGE: usize = 600 << 10;
    const MIDDLE: usize = 200 << 10;
    const SMALL: usize = 50 << 10;
    let put = |bytes| {
        let head = format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {bytes}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; bytes]].concat()
    };
    run(async {
        let lab = Lab::with(2, |config| config.limits.replay_total_bytes_max = 1 << 20).await;
        let (mut client, (mut first, _)) = tokio::join!(lab.send(put(LARGE)), lab.workers[0].request());
        let mut config = config();
        config.limits.replay_total_bytes_max = 100 << 10;
        lab.gateway.reload(config).await.unwrap();
        first.answer("done").await;
        assert_eq!(client.response().await.text(), "done");
        let (mut client, (worker, _)) = tokio::join!(lab.send(put(MIDDLE)), lab.workers[1].request());
        drop(worker);
        assert_eq!(client.response().await.status(), 502, "it was not kept, so it was not repeated");
        // What fits is repeated.
        let (mut client, _) = tokio::join!(lab.send(put(SMALL)), first.request());
        first.reset();
        let (mut worker, request) = lab.workers[1].request().await;
        assert_eq!(request.body.len(), SMALL);
        worker.answer("saved").await;
        assert_eq!(client.response().await.text(), "saved");
    });
}

/// Each reload is with all cores when it returns, one that nobody waited for too, and the last one counts.
#[test]
fn the_last_of_several_counts_on_every_core() {
    const CLIENTS: usize = 16;
    run(async {
        let mut lab = Lab::with(1, |config| config.cores = 4).await;
        answer(&mut lab);
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(lab.client().await);
        }
        let leading_to = |path: String| {
            let mut config = config();
            config.routes[0].path = path;
            config
        };
        for turn in 0..10 {
            // Given up before it is with any core.
            let hasty = lab.gateway.reload(leading_to(format!("/hasty/{turn}")));
            assert!(hasty.now_or_never().is_none_or(|done| done.is_ok()));
            let last = lab.gateway.reload(leading_to(format!("/{turn}")));
            let ended = tokio::time::timeout(Duration::from_secs(30), last).await;
            ended.unwrap_or_else(|_| panic!("reload {turn} does not end")).unwrap();
            for client in &mut clients {
                for (path, status) in [(format!("/hasty/{turn}"), 404), (format!("/{turn}"), 200)] {
                    client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
                    assert_eq!(client.response().await.status(), status, "{path}");
                }
            }
        }
    });
}
