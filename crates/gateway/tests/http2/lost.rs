//! Each row of the retry table, for clients that speak HTTP/2: what is lost is lost for one stream alone.

use h2::Reason;

use std::time::Duration;

use lethe_gateway::config::ResponseStall;

use crate::{
    exchange::{ask, begin, client, submit, try_whole, whole},
    lab::{Lab, run},
    peer,
};

#[test]
fn unsent_goes_to_another_worker_whatever_its_method() {
    run(async {
        let mut lab = Lab::new(2).await;
        lab.workers[0].die();
        let mut client = client(lab.address).await;
        let response = submit(&mut client, "POST", &[], "hello");
        let (mut worker, request) = lab.workers[1].request().await;
        assert_eq!(request.text(), "hello");
        worker.answer("done").await;
        assert_eq!(whole(response).await.text(), "done");
    });
}

#[test]
fn what_may_be_repeated_goes_to_another_worker() {
    run(async {
        for (method, fields) in
            [("GET", &[][..]), ("PUT", &[]), ("DELETE", &[]), ("POST", &[("idempotency-key", "k-1")])]
        {
            let lab = Lab::new(2).await;
            let mut client = client(lab.address).await;
            let response = submit(&mut client, method, fields, "hello");
            let (worker, first) = lab.workers[0].request().await;
            worker.reset();
            let (mut worker, second) = lab.workers[1].request().await;
            assert_eq!((first.head, first.body), (second.head, second.body), "the same request twice");
            worker.answer("done").await;
            assert_eq!(whole(response).await.text(), "done", "{method}");
            assert_eq!(lab.gateway.snapshot().retries, 1);
        }
    });
}

#[test]
fn what_may_not_is_answered_as_unknown() {
    run(async {
        for half in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
            let lab = Lab::new(2).await;
            let mut client = client(lab.address).await;
            let response = submit(&mut client, "POST", &[], "hello");
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(half).await;
            drop(worker);
            let response = whole(response).await;
            assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
            assert_eq!(response.header("content-type"), Some("application/problem+json"));
            assert!(!lab.workers[1].is_called(), "a POST was sent twice");
            let response = ask(&mut client, "GET", "/");
            lab.workers[1].request().await.0.answer("ok").await;
            assert_eq!(whole(response).await.text(), "ok");
        }
    });
}

#[test]
fn a_small_response_that_dies_half_way_is_a_retry() {
    run(async {
        let lab = Lab::new(2).await;
        let mut client = client(lab.address).await;
        let response = ask(&mut client, "GET", "/");
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 201 Created\r\nx-first: 1\r\ncontent-length: 10\r\n\r\nhalf").await;
        drop(worker);
        lab.workers[1].request().await.0.answer("whole").await;
        let response = whole(response).await;
        assert_eq!((response.status(), response.text(), response.header("x-first")), (200, "whole", None));
    });
}

#[test]
fn a_streamed_response_that_dies_half_way_is_reset() {
    run(async {
        for framing in
            ["transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "content-length: 1000000\r\n\r\nhalf"]
        {
            let lab = Lab::new(2).await;
            let mut client = client(lab.address).await;
            let response = ask(&mut client, "GET", "/");
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "half");
            drop(worker);
            let error = body.data().await.unwrap().unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{framing}");
            assert!(!lab.workers[1].is_called());
            assert_eq!(lab.gateway.snapshot().cut, 1);
            let response = ask(&mut client, "GET", "/");
            lab.workers[1].request().await.0.answer("ok").await;
            assert_eq!(whole(response).await.text(), "ok", "the connection goes on");
        }
    });
}

#[test]
fn a_large_response_that_dies_half_way_is_continued() {
    const BYTES: usize = 2 << 20;
    run(async {
        let lab = Lab::new(2).await;
        let mut client = client(lab.address).await;
        let body: Vec<u8> = (0..BYTES as u32 / 4).flat_map(|n| n.to_be_bytes()).collect();
        let response = tokio::spawn(try_whole(ask(&mut client, "GET", "/")));
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send(format!("HTTP/1.1 200 OK\r\netag: \"a\"\r\ncontent-length: {BYTES}\r\n\r\n")).await;
        worker.send(&body[..1_234_567]).await;
        drop(worker);
        let (mut worker, request) = lab.workers[1].request().await;
        let range = request.header("range").unwrap();
        let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        assert!(from <= 1_234_567);
        worker
            .send(format!(
                "HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{BYTES}\r\n\r\n",
                BYTES - from,
                BYTES - 1
            ))
            .await;
        worker.send(&body[from..]).await;
        let response = response.await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.body == body, "other bytes came");
    });
}

/// A body is replayed from what was kept of it, also while the client is still sending.
#[test]
fn a_body_in_the_making_is_replayed() {
    run(async {
        let lab = Lab::new(2).await;
        let mut client = client(lab.address).await;
        let (response, mut sending) = begin(&mut client, "PUT", &[]);
        sending.send_data("one".into(), false).unwrap();
        let mut first = lab.workers[0].accept().await;
        first.head().await;
        assert_eq!(first.exactly(8).await.unwrap(), b"3\r\none\r\n");
        first.reset();
        let mut second = lab.workers[1].accept().await;
        second.head().await;
        assert_eq!(second.exactly(8).await.unwrap(), b"3\r\none\r\n");
        sending.send_data("two".into(), true).unwrap();
        assert_eq!(second.exactly(13).await.unwrap(), b"3\r\ntwo\r\n0\r\n\r\n");
        second.answer("done").await;
        assert_eq!(whole(response).await.text(), "done");
    });
}

/// One worker dies with many streams of one connection inside: each gets what the table says.
#[test]
fn all_that_wait_on_a_worker_are_saved_or_told() {
    const STREAMS: usize = 40;
    run(async {
        let mut lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let mut responses = Vec::new();
        for number in 0..STREAMS {
            client = client.ready().await.unwrap();
            let method = if number % 2 == 0 { "GET" } else { "POST" };
            responses.push(submit(&mut client, method, &[], "hello"));
        }
        let mut waiting = Vec::new();
        for _ in 0..STREAMS {
            waiting.push(lab.workers[0].request().await);
        }
        lab.workers[0].die();
        lab.workers[0].entry.gate.ended(lethe_model::gate::Fate::Killed);
        waiting.into_iter().for_each(|(worker, _)| worker.reset());
        lab.workers = vec![crate::lab::FakeWorker::start(2).await];
        crate::echo(&mut lab.workers[0]);
        lab.publish();
        for (number, response) in responses.into_iter().enumerate() {
            let response = whole(response).await;
            if number % 2 == 0 {
                assert!(response.status() == 200 && response.text().starts_with("GET / "));
            } else {
                assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
            }
        }
        assert_eq!(lab.gateway.snapshot().unknown as usize, STREAMS / 2);
    });
}

/// A client that opens no window keeps the response waiting, not its worker; one worker that does stand still is cut.
#[test]
fn a_client_that_takes_nothing_is_not_taken_for_a_worker_that_gives_nothing() {
    run(async {
        let stall = ResponseStall::After(Duration::from_millis(200));
        let lab = Lab::with(1, |config| config.routes[0].response_stall = stall).await;
        let mut client = peer::Peer::greet(lab.address).await;
        client.send(&peer::settings(&[(peer::INITIAL_WINDOW_SIZE, 0)])).await;
        client.send(&peer::get(1)).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        worker.send("6\r\nsecond\r\n0\r\n\r\n").await;
        let other = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut stalled, _) = lab.workers[0].request().await;
        stalled.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        other.rest().await;
        assert_eq!(lab.gateway.snapshot().cut, 1);
        client.send(&peer::window_update(1, 100)).await;
        assert_eq!(client.body(1).await, b"firstsecond");
    });
}
