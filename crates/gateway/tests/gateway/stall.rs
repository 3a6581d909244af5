//! Workers that live and stop in the middle of a response: they are given up, and what can be continued is.

use std::time::Duration;

use lethe_gateway::config::ResponseStall;

use crate::lab::{Lab, run};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const BYTES: usize = 400 << 10;
const STALL: Duration = Duration::from_secs(1);

async fn lab(workers: u64, stall: Duration) -> Lab {
    Lab::with(workers, |config| config.routes[0].response_stall = ResponseStall::After(stall)).await
}

fn head(more: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n{more}\r\n")
}

#[test]
fn it_is_cut_and_leaves_its_worker() {
    run(async {
        for head in [head(""), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n".into()] {
            let lab = lab(2, STALL).await;
            let client = lab.send(GET).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(format!("{head}half")).await;
            assert!(
                client.rest().await.ends_with(b"half") || head.ends_with("4\r\n"),
                "what came is passed on"
            );
            worker.closed().await;
            assert_eq!(lab.workers[0].entry.gate.in_flight(), 0);
            assert!(!lab.workers[1].is_called());
            let snapshot = lab.gateway.snapshot();
            let worker = &snapshot.workers[&lab.workers[0].entry.instance];
            assert_eq!((snapshot.cut, worker.requests, worker.errors, worker.failures), (1, 1, 1, 0));
        }
    });
}

#[test]
fn it_is_continued_by_another_worker() {
    run(async {
        let lab = lab(2, STALL).await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        let from = BYTES / 2;
        worker.send(head("etag: \"a\"\r\n") + &"x".repeat(from)).await;
        let (mut other, request) = lab.workers[1].request().await;
        assert_eq!(request.header("range"), Some(format!("bytes={from}-").as_str()));
        let (last, left) = (BYTES - 1, BYTES - from);
        let rest = format!(
            "HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ncontent-range: bytes {from}-{last}/{BYTES}\r\ncontent-length: {left}\r\n\r\n"
        );
        other.send(rest + &"x".repeat(left)).await;
        assert_eq!(client.response().await.body.len(), BYTES);
        assert_eq!(lab.gateway.snapshot().cut, 0);
    });
}

/// One that stands still at each worker ends.
#[test]
fn it_is_not_tried_without_end() {
    run(async {
        let lab = lab(3, STALL).await;
        let client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send(head("etag: \"a\"\r\n")).await;
        let (mut other, _) = lab.workers[1].request().await;
        let last = BYTES - 1;
        let rest = format!(
            "HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ncontent-range: bytes 0-{last}/{BYTES}\r\ncontent-length: {BYTES}\r\n\r\n"
        );
        other.send(rest).await;
        client.rest().await;
        assert!(!lab.workers[2].is_called());
        assert_eq!(lab.gateway.snapshot().cut, 1);
    });
}

/// A client that sends no more of its body keeps the worker waiting, not the other way round; and a response of which
/// something comes now and then stands still at no time. Both outlast one that does.
#[test]
fn others_are_waited_for() {
    run(async {
        let lab = lab(1, STALL * 10).await;
        let begin = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let mut call =
            lab.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
        let mut called = lab.workers[0].accept().await;
        called.head().await;
        called.send(begin).await;
        let mut events = lab.send(GET).await;
        let (mut slow, _) = lab.workers[0].request().await;
        slow.send(begin).await;
        let still = lab.send(GET).await;
        let (mut stalled, _) = lab.workers[0].request().await;
        stalled.send(begin).await;
        let mut pieces = 0;
        let mut ended = std::pin::pin!(still.rest());
        loop {
            tokio::select! {
                _ = &mut ended => break,
                () = tokio::time::sleep(STALL / 20) => {
                    slow.send("4\r\nmore\r\n").await;
                    pieces += 1;
                }
            }
        }
        call.send("0\r\n\r\n").await;
        for (client, worker) in [(&mut events, &mut slow), (&mut call, &mut called)] {
            worker.send("3\r\nend\r\n0\r\n\r\n").await;
            assert!(client.response().await.text().ends_with("end"), "after {pieces} pieces");
        }
    });
}
