//! HTTP/1.1 and 1.0 to the letter, on both sides: what connections may carry, when they go on and when they do not, and
//! workers that do not keep to it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::lab::{Lab, Peer, run};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const UPGRADED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// Asks and is answered on two connections that may be in use already; whether the worker's went on.
async fn goes_on(lab: &Lab, client: &mut Peer, worker: &mut Peer) -> bool {
    client.send(GET).await;
    tokio::select! {
        request = worker.try_request() => match request {
            Some(_) => worker.answer("same").await,
            None => lab.workers[0].request().await.0.answer("other").await,
        },
        (mut other, _) = lab.workers[0].request() => other.answer("other").await,
    }
    client.response().await.text() == "same"
}

#[test]
fn trailers_pass_both_ways() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab
            .send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 1\r\nx-two: 2\r\n\r\n")
            .await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!((request.text(), request.trailers.join("|")), ("body", "X-Sum: 1|x-two: 2".to_owned()));
        worker
            .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: 1\r\n\r\n")
            .await;
        let response = client.response().await;
        assert_eq!((response.text(), response.trailers.join("|")), ("ok", "x-end: 1".to_owned()));
        assert!(goes_on(&lab, &mut client, &mut worker).await);
    });
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_order() {
    run(async {
        let mut lab = Lab::new(1).await;
        let listener = lab.workers[0].take_listener();
        tokio::spawn(async move {
            let mut peer = Peer::new(listener.accept().await.unwrap().0);
            while let Some(request) = peer.try_request().await {
                peer.answer(&format!("{} {}", request.line, request.text())).await;
            }
        });
        let requests: Vec<String> = (0..100)
            .map(|number| match number % 3 {
                0 => format!("GET /{number} HTTP/1.1\r\nhost: h\r\n\r\n"),
                1 => format!("POST /{number} HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi"),
                _ => format!(
                    "PUT /{number} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n"
                ),
            })
            .collect();
        let mut client = lab.send(requests.concat()).await;
        for (number, request) in requests.iter().enumerate() {
            let line = request.lines().next().unwrap();
            let body = ["", "hi", "ho"][number % 3];
            assert_eq!(client.response().await.text(), format!("{line} {body}"));
        }
    });
}

#[test]
fn what_follows_a_request_that_is_refused_is_not_served() {
    run(async {
        let lab = Lab::new(1).await;
        let bad = "GET / HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n";
        let mut client = lab.send([GET, bad, GET].concat()).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
        assert_eq!(client.response().await.status(), 400);
        client.closed().await;
        assert!(!lab.workers[0].is_called());
    });
}

#[test]
fn what_follows_connection_close_is_not_served() {
    run(async {
        let lab = Lab::new(1).await;
        let last = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        let mut client = lab.send([last, GET].concat()).await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.header("connection"), None, "the worker's connection is another matter");
        worker.answer("ok").await;
        let response = client.response().await;
        assert_eq!((response.text(), response.header("connection")), ("ok", Some("close")));
        client.closed().await;
        let mut client = lab.client().await;
        assert!(goes_on(&lab, &mut client, &mut worker).await);
    });
}

#[test]
fn http_1_0_keeps_alive_when_it_asks_to_and_the_length_is_known() {
    run(async {
        let lab = Lab::new(1).await;
        let request = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
        let mut client = lab.send(request).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("one").await;
        let response = client.response().await;
        assert_eq!((response.text(), response.header("connection")), ("one", Some("keep-alive")));
        client.send(request).await;
        worker.request().await;
        worker
            .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nx: 1\r\n\r\n")
            .await;
        let head = client.head().await;
        assert_eq!((head.header("connection"), head.header("transfer-encoding")), (Some("close"), None));
        assert_eq!(client.rest().await, b"two");
        // And no interim responses, which it does not know.
        let mut client = lab.send("GET / HTTP/1.0\r\n\r\n").await;
        worker.request().await;
        worker.send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n").await;
        worker.answer("three").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("connection")), (200, Some("close")));
        client.closed().await;
    });
}

#[test]
fn workers_that_speak_http_1_0() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(client.response().await.text(), "ok");
        assert!(goes_on(&lab, &mut client, &mut worker).await);
        client.send(GET).await;
        worker.request().await;
        worker.send("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(client.response().await.text(), "ok");
        worker.closed().await;
    });
}

#[test]
fn a_body_up_to_the_end_of_the_connection_is_passed_on_as_chunks() {
    run(async {
        let lab = Lab::new(1).await;
        for whole in [true, false] {
            let mut client = lab.send(GET).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send("HTTP/1.1 200 OK\r\n\r\nhello").await;
            let mut response = client.head().await;
            assert_eq!(response.header("transfer-encoding"), Some("chunked"));
            if whole {
                drop(worker);
                assert!(client.body(&mut response).await);
                assert_eq!(response.text(), "hello");
                continue;
            }
            // A reset is not an end.
            assert_eq!(client.exactly(10).await.unwrap(), b"5\r\nhello\r\n");
            worker.reset();
            client.closed().await;
        }
    });
}

#[test]
fn events_pass_one_by_one() {
    run(async {
        for framing in ["transfer-encoding: chunked\r\n", "", "content-length: 1000\r\n"] {
            let lab = Lab::new(1).await;
            let mut client = lab.send(GET).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n")).await;
            let head = client.head().await;
            let chunked = |event: &str| format!("{:x}\r\n{event}\r\n", event.len());
            for number in 0..10 {
                let event = format!("data: {number}\n\n");
                let sent = if framing.starts_with("transfer") { chunked(&event) } else { event.clone() };
                worker.send(sent).await;
                let comes = if head.header("content-length").is_none() { chunked(&event) } else { event };
                assert_eq!(client.exactly(comes.len()).await.unwrap(), comes.as_bytes());
            }
        }
    });
}

/// The connection of a worker that says more than it was asked for, or less clearly, is not used again.
#[test]
fn workers_connections_that_are_not_used_again() {
    run(async {
        for (answer, expected) in [
            ("connection: close\r\ncontent-length: 2\r\n\r\nok", "ok"),
            ("content-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", "ok"),
            ("content-length: 2\r\n\r\nok more", "ok"),
            ("content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
            ("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "ok"),
        ] {
            let lab = Lab::new(1).await;
            let mut client = lab.send(GET).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(format!("HTTP/1.1 200 OK\r\n{answer}")).await;
            let response = client.response().await;
            assert_eq!((response.text(), response.header("connection")), (expected, None), "{answer}");
            worker.rest().await;
            client.send(GET).await;
            lab.workers[0].request().await.0.answer("next").await;
            assert_eq!(client.response().await.text(), "next", "{answer}");
        }
    });
}

#[test]
fn a_body_where_none_may_be_is_not_passed_on() {
    run(async {
        for (method, status) in [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")] {
            let lab = Lab::new(1).await;
            let mut client = lab.send(GET.replace("GET", method)).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker
                .send(format!("HTTP/1.1 {status}\r\ncontent-length: 38\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
                .await;
            client.head().await;
            worker.rest().await;
            client.send(GET).await;
            lab.workers[0].request().await.0.answer("next").await;
            assert_eq!(client.response().await.text(), "next", "{method} {status}");
        }
    });
}

/// What comes on a connection that nobody asks anything is not taken for the next answer.
#[test]
fn an_answer_that_nobody_asked_for_is_not_given_to_the_next() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("ok").await;
        client.response().await;
        worker.answer("poison").await;
        // The gateway has seen it once it has closed the connection, or looks at it for the next request.
        client.send(GET).await;
        lab.workers[0].request().await.0.answer("next").await;
        assert_eq!(client.response().await.text(), "next");
    });
}

#[test]
fn what_cannot_be_passed_on_is_a_502_of_unknown_outcome() {
    run(async {
        let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(40 << 10));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: 1\r\n".repeat(200));
        for garbage in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 99 Low\r\n\r\n",
            "HTTP/1.1 2000 High\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
            "\0\0\0\0\r\n\r\n",
            &flood,
            &long,
            &many,
        ] {
            let lab = Lab::new(2).await;
            let mut client = lab.send(GET).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.try_send(garbage).await;
            let mut response = client.response().await;
            while response.status() == 103 {
                response = client.response().await;
            }
            let garbage = &garbage[..garbage.len().min(60)];
            assert_eq!(response.status(), 502, "{garbage:?}");
            assert_eq!(response.header("lethe-outcome"), Some("unknown"), "{garbage:?}");
            worker.rest().await;
            assert!(!lab.workers[1].is_called(), "{garbage:?}");
            client.send(GET).await;
            lab.workers[1].request().await.0.answer("ok").await;
            assert_eq!(client.response().await.text(), "ok", "{garbage:?}");
        }
    });
}

/// A client must be able to tell a response that is not whole.
#[test]
fn a_response_that_breaks_is_cut_visibly() {
    run(async {
        for (framing, sent, last) in [
            ("content-length: 1000000", "half", &b"half"[..]),
            ("transfer-encoding: chunked", "4\r\nhalf\r\n", b"4\r\nhalf\r\n"),
            ("transfer-encoding: chunked", "4\r\nhalf\r\nzz\r\n", b"4\r\nhalf\r\n"),
            ("transfer-encoding: chunked", "4\r\nhalf\r\n0\r\nx: 1\r\n", b"4\r\nhalf\r\n"),
        ] {
            let lab = Lab::new(1).await;
            let mut client = lab.send(GET).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{sent}")).await;
            client.head().await;
            assert_eq!(client.exactly(last.len()).await.unwrap(), last);
            drop(worker);
            client.closed().await;
            lab.until(|snapshot| snapshot.cut == 1).await;
        }
    });
}

#[test]
fn long_targets_and_large_heads() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send(GET.replace("/ ", &format!("/{} ", "x".repeat(17 << 10)))).await;
        assert_eq!(client.response().await.status(), 414);
        client.closed().await;
        // What is allowed passes, both ways, as it is.
        let fields: String = (0..90).map(|number| format!("x-{number}: {}\r\n", "y".repeat(100))).collect();
        assert!(fields.len() > 10_000 - 500);
        let mut client = lab.send(GET.replace("\r\n\r\n", &format!("\r\n{fields}\r\n"))).await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert!(request.head.contains(&fields));
        worker.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n")).await;
        assert!(client.response().await.head.contains(&fields));
        assert!(goes_on(&lab, &mut client, &mut worker).await);
    });
}

/// RFC 9112, section 2.2, and RFC 9110, section 5.5.
#[test]
fn odd_but_allowed() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client =
            lab.send("\r\nGET / HTTP/1.1\r\nHOST:h\r\nX-Name: \tcaf\u{e9} \t\r\nx-empty:\r\n\r\n").await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.header("x-name"), Some("caf\u{e9}"));
        assert_eq!(request.header("x-empty"), Some(""));
        worker.send("HTTP/1.1 200 \u{e9}t\u{e9}\r\nx-name:caf\u{e9}\r\ncontent-length: 2\r\n\r\nok").await;
        let response = client.response().await;
        assert_eq!(
            (response.line.as_str(), response.header("x-name")),
            ("HTTP/1.1 200 \u{e9}t\u{e9}", Some("caf\u{e9}"))
        );
        // No reason, which needs its space, and a line end too much after a body, as old clients have it.
        client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi\r\n").await;
        worker.request().await;
        worker.send("HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(client.response().await.line, "HTTP/1.1 200 ");
        assert!(goes_on(&lab, &mut client, &mut worker).await);
    });
}

/// Each drips a byte of its head from time to time, which does not give it more time.
#[test]
fn slow_clients_are_ended_while_others_are_served() {
    const SLOW: usize = 200;
    run(async {
        // They must all be there before the first of them has had its time.
        let lab = Lab::with(1, |config| config.limits.head_timeout = Duration::from_secs(10)).await;
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("ok").await;
        client.response().await;
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            slow.push(lab.send("GET / HTTP/1.1\r\nhost: h\r\nx: ").await);
        }
        lab.until(|snapshot| snapshot.connections == SLOW as u64 + 1).await;
        while lab.gateway.snapshot().connections > 1 {
            for slow in &mut slow {
                slow.try_send("x").await;
            }
            assert!(goes_on(&lab, &mut client, &mut worker).await);
        }
        assert!(goes_on(&lab, &mut client, &mut worker).await);
    });
}

#[test]
fn each_direction_of_a_tunnel_ends_by_itself() {
    run(async {
        for client_first in [true, false] {
            let lab = Lab::new(1).await;
            let mut client = lab.send(UPGRADE).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(UPGRADED).await;
            assert_eq!(client.response().await.status(), 101);
            let (first, second) =
                if client_first { (&mut client, &mut worker) } else { (&mut worker, &mut client) };
            first.send("last words").await;
            first.stream.shutdown().await.unwrap();
            assert_eq!(second.exactly(10).await.unwrap(), b"last words");
            assert!(second.exactly(1).await.is_none(), "the end passes");
            for _ in 0..3 {
                second.send("still here").await;
                assert_eq!(first.exactly(10).await.unwrap(), b"still here");
            }
            assert_eq!(lab.workers[0].entry.gate.in_flight(), 1);
            second.stream.shutdown().await.unwrap();
            assert!(first.exactly(1).await.is_none());
            lab.until(|snapshot| snapshot.connections == 0).await;
            assert_eq!(lab.workers[0].entry.gate.in_flight(), 0);
        }
    });
}

#[test]
fn a_tunnel_on_which_nothing_moves_is_closed() {
    run(async {
        let lab = Lab::with(1, |config| config.limits.tunnel_timeout = Duration::from_millis(300)).await;
        let mut client = lab.send(UPGRADE).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send(UPGRADED).await;
        client.response().await;
        client.closed().await;
        worker.closed().await;
        lab.until(|snapshot| snapshot.connections == 0).await;
    });
}

/// Time itself is looked at: longer than the timeout in all. Each pause is a twentieth of it.
#[test]
fn bytes_in_either_direction_keep_a_tunnel_open() {
    run(async {
        let timeout = Duration::from_secs(5);
        let lab = Lab::with(1, |config| config.limits.tunnel_timeout = timeout).await;
        let mut tunnels = Vec::new();
        for client_speaks in [true, false] {
            let mut client = lab.send(UPGRADE).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(UPGRADED).await;
            client.response().await;
            tunnels.push(if client_speaks { (client, worker) } else { (worker, client) });
        }
        let begun = std::time::Instant::now();
        while begun.elapsed() < timeout * 3 / 2 {
            for (speaker, listener) in &mut tunnels {
                speaker.send("more").await;
                assert_eq!(listener.exactly(4).await.unwrap(), b"more");
            }
            tokio::time::sleep(timeout / 20).await;
        }
    });
}

#[test]
fn a_client_that_goes_in_the_midst_of_its_body_frees_the_worker() {
    run(async {
        let lab = Lab::new(1).await;
        let client = lab.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nhalf").await;
        let mut worker = lab.workers[0].accept().await;
        worker.head().await;
        assert_eq!(worker.exactly(4).await.unwrap(), b"half");
        client.reset();
        worker.closed().await;
        let gate = &lab.workers[0].entry.gate;
        gate.close();
        gate.emptied().await;
        lab.until(|snapshot| snapshot.connections == 0).await;
    });
}

#[test]
fn what_must_not_have_a_body_and_tells_of_one_is_the_last_on_its_connection() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send("GET /1 HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 204 No Content\r\ncontent-length: 40\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 204);
        client.send("GET /2 HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut other, request) = lab.workers[0].request().await;
        assert_eq!(request.line, "GET /2 HTTP/1.1");
        other.answer("mine").await;
        assert_eq!(client.response().await.text(), "mine");
    });
}

#[test]
fn a_broken_upload_does_not_put_an_answer_into_one_that_was_begun() {
    run(async {
        let lab = Lab::new(2).await;
        let head = "GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut client = lab.send(format!("{head}3\r\nabc\r\n")).await;
        let mut worker = lab.workers[0].accept().await;
        worker.head().await;
        worker.send("HTTP/1.1 200 OK\r\netag: \"a\"\r\ncontent-length: 1000000\r\n\r\n").await;
        worker.send(vec![b'x'; 400_000]).await;
        let response = client.head().await;
        assert_eq!(response.status(), 200);
        client.exactly(400_000).await.unwrap();
        // The worker is lost, and the rest is asked of another one; then the body breaks.
        drop(worker);
        let mut other = lab.workers[1].accept().await;
        other.head().await;
        client.send("zz\r\n").await;
        let rest = client.rest().await;
        assert!(rest.is_empty(), "after the beginning came {:?}", String::from_utf8_lossy(&rest));
    });
}
