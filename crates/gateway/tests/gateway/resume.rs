//! Large answers whose worker is lost half-way: the rest is asked of another one, if that is sure to be the rest. Else
//! the client can tell that it did not get all.

use lethe_model::gate::Fate;
use tokio::task::JoinHandle;

use crate::lab::{Lab, Message, Peer, run};

const GET: &str = "GET /large HTTP/1.1\r\nhost: h\r\nx-mine: 1\r\n\r\n";
const BYTES: usize = 2 << 20;
/// Just above what is held back.
const LENGTH: usize = 300 << 10;

fn body() -> Vec<u8> {
    (0..BYTES as u32 / 4).flat_map(|number| number.to_be_bytes()).collect()
}

/// A client that reads as it comes: the head, the bytes that came, and whether they are all.
fn read(mut client: Peer) -> JoinHandle<(Message, Vec<u8>, Option<Peer>)> {
    tokio::spawn(async move {
        let head = client.head().await;
        let length: usize = head.header("content-length").unwrap().parse().unwrap();
        match client.exactly(length).await {
            Some(bytes) => (head, bytes, Some(client)),
            None => (head, client.rest().await, None),
        }
    })
}

/// Begins the answer to the first request, and is lost after so many bytes of the body.
async fn begin_and_die(mut worker: Peer, etag: &str, bytes: usize) {
    worker.send(format!("HTTP/1.1 200 OK\r\n{etag}content-length: {BYTES}\r\n\r\n")).await;
    worker.send(&body()[..bytes]).await;
}

/// From where on the rest is wanted.
fn from(request: &Message) -> usize {
    assert_eq!(request.line, "GET /large HTTP/1.1");
    assert_eq!((request.header("if-range"), request.header("x-mine")), (Some("\"a\""), Some("1")));
    let range = request.header("range").unwrap();
    range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
}

fn rest(from: usize) -> String {
    format!(
        "HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ncontent-range: bytes {from}-{}/{BYTES}\r\ncontent-length: {}\r\n\r\n",
        BYTES - 1,
        BYTES - from
    )
}

#[test]
fn the_rest_comes_from_another_worker() {
    run(async {
        for died_after in [0, 1, 1 << 16, 1_234_567, BYTES - 1] {
            let lab = Lab::new(2).await;
            let client = read(lab.send(GET).await);
            let (worker, _) = lab.workers[0].request().await;
            begin_and_die(worker, "etag: \"a\"\r\n", died_after).await;
            let (mut worker, request) = lab.workers[1].request().await;
            let from = from(&request);
            assert_eq!(from, died_after);
            worker.send(rest(from)).await;
            worker.send(&body()[from..]).await;
            let (head, bytes, client) = client.await.unwrap();
            assert_eq!((head.status(), head.header("content-range")), (200, None));
            assert!(bytes == body(), "other bytes came");
            let snapshot = lab.gateway.snapshot();
            assert_eq!((snapshot.cut, snapshot.retries, snapshot.responses[1]), (0, 1, 1));
            // Both connections go on.
            let mut client = client.unwrap();
            client.send(GET).await;
            lab.workers[0].request().await.0.answer("ok").await;
            assert_eq!(client.response().await.text(), "ok");
        }
    });
}

#[test]
fn workers_may_die_one_after_the_other() {
    run(async {
        let mut lab = Lab::new(6).await;
        let client = read(lab.send(GET).await);
        let (worker, _) = lab.workers[0].request().await;
        begin_and_die(worker, "etag: \"a\"\r\n", 100_000).await;
        lab.workers[0].entry.gate.ended(Fate::Killed);
        for turn in 1..5 {
            let (mut worker, request) = lab.workers[turn].request().await;
            let from = from(&request);
            assert_eq!(from, turn * 100_000);
            // One dies before it says anything, too.
            worker.send(rest(from)).await;
            worker.send(&body()[from..(turn + 1) * 100_000]).await;
            lab.workers[turn].entry.gate.ended(Fate::Killed);
            lab.workers[turn].die();
        }
        let (mut worker, request) = lab.workers[5].request().await;
        worker.send(rest(from(&request))).await;
        worker.send(&body()[500_000..]).await;
        let (_, bytes, _) = client.await.unwrap();
        assert!(bytes == body(), "other bytes came");
        assert_eq!(lab.gateway.snapshot().retries, 5);
    });
}

/// What cannot be continued for certain is cut, and no other worker is asked.
#[test]
fn what_is_not_sure_to_be_the_same_is_cut() {
    run(async {
        for (etag, request, resume) in [
            ("", GET.to_owned(), true),
            ("etag: W/\"a\"\r\n", GET.to_owned(), true),
            ("etag: \"a\"\r\n", GET.to_owned(), false),
            ("etag: \"a\"\r\n", GET.replace("GET", "POST"), true),
            ("etag: \"a\"\r\n", GET.replace("x-mine: 1", "range: bytes=0-"), true),
        ] {
            let lab = Lab::with(2, |config| config.routes[0].resume = resume).await;
            let client = read(lab.send(&request).await);
            let (worker, _) = lab.workers[0].request().await;
            begin_and_die(worker, etag, 1_000_000).await;
            let (_, bytes, client) = client.await.unwrap();
            assert!(client.is_none() && bytes.len() < BYTES, "{etag}{request}: not cut");
            lab.until(|snapshot| snapshot.cut == 1).await;
            assert!(!lab.workers[1].is_called(), "{etag}{request}");
        }
    });
}

/// The other worker has something else, or says something else: not a byte of it reaches the client.
#[test]
fn what_is_not_the_rest_is_not_passed_on() {
    run(async {
        let good = rest(1000);
        let wrong = |what: &str, by: &str| {
            assert!(good.contains(what));
            good.replace(what, by)
        };
        for head in [
            wrong("etag: \"a\"", "etag: \"b\""),
            wrong("etag: \"a\"", "etag: W/\"a\""),
            wrong("etag: \"a\"\r\n", ""),
            wrong("206 Partial Content", "200 OK"),
            wrong("206 Partial Content", "416 Range Not Satisfiable"),
            wrong("bytes 1000-", "bytes 0-"),
            wrong("bytes 1000-", "bytes 1001-"),
            wrong("/2097152", "/2097153"),
            wrong("/2097152", "/*"),
            wrong("content-range", "x-range"),
            wrong("content-length: 2096152", "content-length: 2096153"),
            wrong("content-length: 2096152\r\n", ""),
            // Nobody knows how long it will be.
            wrong("content-length: 2096152", "transfer-encoding: chunked"),
            "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "SSH-2.0-x\r\n\r\n".to_owned(),
        ] {
            let lab = Lab::new(2).await;
            let client = read(lab.send(GET).await);
            let (worker, _) = lab.workers[0].request().await;
            begin_and_die(worker, "etag: \"a\"\r\n", 1000).await;
            let (mut worker, _) = lab.workers[1].request().await;
            worker.send(&head).await;
            worker.try_send("EVIL".repeat(1000)).await;
            let (_, bytes, client) = client.await.unwrap();
            assert!(client.is_none(), "not cut: {head}");
            let came = bytes.len();
            assert!(bytes == body()[..came] && came <= 1000, "{came} bytes: {head}");
            assert_eq!(lab.gateway.snapshot().cut, 1, "{head}");
        }
    });
}

/// A client that does not take the rest is cut off like any other.
#[test]
fn a_client_that_takes_nothing_of_the_rest_is_cut_off() {
    run(async {
        let lab = Lab::with(2, |config| {
            config.limits.stall_timeout = std::time::Duration::from_millis(200);
        })
        .await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        const HUGE: usize = 1 << 30;
        worker.send(format!("HTTP/1.1 200 OK\r\netag: \"a\"\r\ncontent-length: {HUGE}\r\n\r\nx")).await;
        client.head().await;
        drop(worker);
        let (mut worker, _) = lab.workers[1].request().await;
        worker
            .send(format!(
                "HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ncontent-range: bytes 1-{}/{HUGE}\r\ncontent-length: {}\r\n\r\n",
                HUGE - 1,
                HUGE - 1
            ))
            .await;
        let piece = vec![b'x'; 1 << 20];
        while worker.try_send(&piece).await {}
        lab.until(|snapshot| snapshot.connections == 0).await;
    });
}

/// The head arrives together with the end of the connection, so that there is no moment at which only the head is there:
/// the client has seen nothing, and it must not be left without a byte.
#[test]
fn a_large_response_that_dies_behind_its_head_was_not_begun() {
    run(async {
        for framing in [format!("content-length: {LENGTH}"), "transfer-encoding: chunked".into()] {
            for (method, status, asked) in [("GET", 200, true), ("POST", 502, false)] {
                let lab = Lab::new(2).await;
                let mut client = lab.send(format!("{method} / HTTP/1.1\r\nhost: h\r\n\r\n")).await;
                let (mut worker, _) = lab.workers[0].request().await;
                socket2::SockRef::from(&worker.stream).set_tcp_cork(true).unwrap();
                worker.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
                drop(worker);
                if asked {
                    let (mut worker, _) = lab.workers[1].request().await;
                    worker.answer("saved").await;
                }
                let response = client.response().await;
                assert_eq!(response.status(), status, "{method} {framing}");
                assert_eq!(response.header("lethe-outcome").is_some(), !asked, "{method} {framing}");
                assert_eq!(lab.gateway.snapshot().cut, 0);
            }
        }
    });
}

/// What a worker says before its final response is for the beginning of a response, and there is no other place for it.
#[test]
fn an_interim_response_is_not_put_into_the_rest_of_a_body() {
    run(async {
        let lab = Lab::new(2).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let body = "0123456789".repeat(LENGTH / 10);
        let length = body.len();
        let (half, rest) = body.split_at(length / 2);
        let (mut worker, _) = lab.workers[0].request().await;
        worker
            .send(format!("HTTP/1.1 200 OK\r\netag: \"a\"\r\ncontent-length: {length}\r\n\r\n{half}"))
            .await;
        drop(worker);
        let (mut worker, request) = lab.workers[1].request().await;
        assert_eq!(request.header("range"), Some(&*format!("bytes={}-", half.len())));
        assert_eq!(request.header("if-range"), Some("\"a\""));
        worker.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
        let range = format!("bytes {}-{}/{length}", half.len(), length - 1);
        worker
            .send(format!(
                "HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ncontent-range: {range}\r\ncontent-length: {}\r\n\r\n{rest}",
                rest.len()
            ))
            .await;
        let response = client.response().await;
        assert!(response.text() == body, "the body is another");
    });
}
