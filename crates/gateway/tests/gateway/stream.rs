//! Bodies on their way: chunks, large ones in bounded memory, answers that come early, clients that go.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Lab, Peer, run};

#[test]
fn chunks_pass_both_ways_as_they_come() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client =
            lab.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
        let mut worker = lab.workers[0].accept().await;
        let head = worker.head().await;
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        assert_eq!(worker.line().await.unwrap(), "3");
        assert_eq!(worker.exactly(5).await.unwrap(), b"one\r\n");
        // The answer begins while the request is still being sent.
        worker.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
        assert_eq!(client.head().await.header("transfer-encoding"), Some("chunked"));
        assert_eq!(client.line().await.unwrap(), "3");
        assert_eq!(client.exactly(5).await.unwrap(), b"uno\r\n");
        client.send("3\r\ntwo\r\n0\r\n\r\n").await;
        assert_eq!(worker.line().await.unwrap(), "3");
        assert_eq!(worker.exactly(5).await.unwrap(), b"two\r\n");
        assert_eq!(worker.exactly(5).await.unwrap(), b"0\r\n\r\n");
        worker.send("3\r\ndos\r\n0\r\n\r\n").await;
        assert_eq!(client.exactly(13).await.unwrap(), b"3\r\ndos\r\n0\r\n\r\n");
    });
}

#[test]
fn a_get_with_a_chunked_body_keeps_it() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab
            .send("GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
            .await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.text(), "hi");
        worker.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
    });
}

/// 64 MiB each way through a gateway whose memory for kept bodies is 1 MiB: what the process takes meanwhile is far
/// below the body.
#[test]
fn large_bodies_stream_in_bounded_memory() {
    const BYTES: usize = 64 << 20;
    run(async {
        let lab = Lab::new(1).await;
        let before = resident_bytes();
        let client = lab.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {BYTES}\r\n\r\n")).await;
        let (mut reading, mut writing) = client.stream.into_split();
        let piece = vec![7; 1 << 16];
        let upload = async {
            for _ in 0..BYTES / piece.len() {
                writing.write_all(&piece).await.unwrap();
            }
        };
        let worker = async {
            let mut worker = lab.workers[0].accept().await;
            worker.head().await;
            for _ in 0..BYTES / piece.len() {
                assert!(worker.exactly(piece.len()).await.unwrap() == piece);
            }
            let during = resident_bytes();
            worker.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n")).await;
            for _ in 0..BYTES / piece.len() {
                worker.send(&piece).await;
            }
            (worker, during)
        };
        let download = async {
            let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
            while bytes < BYTES {
                bytes += reading.read(&mut buffer).await.unwrap();
            }
        };
        let ((), (_worker, during), ()) = tokio::join!(upload, worker, download);
        for grown in [during.saturating_sub(before), resident_bytes().saturating_sub(before)] {
            assert!(grown < BYTES / 2, "grew by {grown} bytes");
        }
    });
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn an_answer_before_the_request_is_whole_reaches_the_client() {
    run(async {
        for closes in [false, true] {
            let lab = Lab::new(1).await;
            let mut client =
                lab.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\nsome").await;
            let mut worker = lab.workers[0].accept().await;
            worker.head().await;
            worker.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
            let kept = if closes {
                worker.reset();
                None
            } else {
                Some(worker)
            };
            if kept.is_some() {
                let response = client.response().await;
                assert_eq!((response.status(), response.text()), (413, "big"));
            } else {
                // A reset may overtake the answer; then nobody knows it.
                assert!(matches!(client.response().await.status(), 413 | 502));
            }
            // What is still sent is read, and then the connection is good for more.
            client.send(vec![b'x'; 1_000_000 - 4]).await;
            client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
            lab.workers[0].request().await.0.answer("ok").await;
            assert_eq!(client.response().await.text(), "ok");
        }
    });
}

#[test]
fn a_worker_that_answers_and_closes_without_reading_is_heard() {
    run(async {
        let lab = Lab::new(1).await;
        let body = vec![b'x'; 4 << 20];
        let client = lab.client().await;
        let (mut reading, mut writing) = client.stream.into_split();
        let upload = async {
            let head = format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
            writing.write_all(head.as_bytes()).await.unwrap();
            writing.write_all(&body).await.unwrap();
        };
        let worker = async {
            let mut worker = lab.workers[0].accept().await;
            worker.head().await;
            worker
                .send("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .await;
            // The gateway's writes begin to fail, with the answer already there.
            worker.stream.shutdown().await.unwrap();
        };
        let answer = async {
            let mut head = vec![0; 12];
            reading.read_exact(&mut head).await.unwrap();
            assert_eq!(head, b"HTTP/1.1 413");
        };
        tokio::join!(upload, worker, answer);
    });
}

#[test]
fn continue_is_said_by_the_gateway() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client =
            lab.send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
        assert_eq!(client.head().await.status(), 100);
        client.send("hi").await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!((request.text(), request.header("expect")), ("hi", None));
        worker.send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n").await;
        let hints = client.head().await;
        assert_eq!((hints.status(), hints.header("link")), (103, Some("x")), "passed on at once");
        worker.answer("ok").await;
        assert_eq!(client.response().await.text(), "ok");
        // Nothing is asked for that is not wanted.
        let lab = Lab::with(1, |config| config.routes[0].path = "/a".into()).await;
        let mut client =
            lab.send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
        let refused = client.response().await;
        assert_eq!((refused.status(), refused.header("connection")), (404, Some("close")));
        client.closed().await;
    });
}

#[test]
fn a_body_cut_short_is_not_passed_on_as_whole() {
    run(async {
        for (framing, body) in
            [("content-length: 10", "half"), ("transfer-encoding: chunked", "4\r\nhalf\r\n")]
        {
            let lab = Lab::new(2).await;
            let mut client = lab.send(format!("PUT / HTTP/1.1\r\nhost: h\r\n{framing}\r\n\r\n{body}")).await;
            let mut worker = lab.workers[0].accept().await;
            worker.head().await;
            worker.exactly(4).await.unwrap();
            client.stream.shutdown().await.unwrap();
            let rest = worker.rest().await;
            assert!(!rest.ends_with(b"0\r\n\r\n"), "ended as if whole");
            assert_eq!(client.response().await.status(), 400);
            client.closed().await;
            assert!(!lab.workers[1].is_called(), "tried again without a client");
            lab.until(|snapshot| snapshot.connections == 0).await;
        }
    });
}

#[test]
fn a_client_that_goes_cancels_the_work() {
    run(async {
        let lab = Lab::new(1).await;
        // While the worker thinks.
        let client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (worker, _) = lab.workers[0].request().await;
        drop(client);
        worker.closed().await;
        // While its answer is held until it is whole.
        let client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        lab.until(|_| lab.workers[0].entry.gate.answered() == 1).await;
        drop(client);
        worker.closed().await;
        // While it answers.
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
        client.head().await;
        drop(client);
        worker.closed().await;
        let gate = &lab.workers[0].entry.gate;
        gate.close();
        gate.emptied().await;
        assert_eq!(lab.gateway.snapshot().cut, 0, "nothing was lost");
    });
}

/// What does not fit into the outbox of its connection waits with the worker, and all of it comes in the end.
#[test]
fn a_slow_reader_gets_all_of_a_chunked_body() {
    const CHUNKS: usize = 400;
    run(async {
        let lab = Lab::new(1).await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // A small window, so that the gateway's writes are cut at any place.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = Peer::new(socket.connect(lab.address).await.unwrap());
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        let chunk = |number: usize| vec![number as u8; 1 + number * 37 % 20_000];
        let answer = async {
            worker.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: t\r\n\r\n").await;
            for number in 0..CHUNKS {
                let chunk = chunk(number);
                worker.send(format!("{:x}\r\n", chunk.len())).await;
                worker.send(chunk).await;
                worker.send("\r\n").await;
            }
            worker.send("0\r\nt: last\r\n\r\n").await;
        };
        let read = async {
            let mut response = client.head().await;
            assert!(client.body(&mut response).await, "it was cut");
            response
        };
        let ((), response) = tokio::join!(answer, read);
        let whole = (0..CHUNKS).flat_map(chunk).collect::<Vec<_>>();
        assert!(response.body == whole, "{} of {} bytes, or others", response.body.len(), whole.len());
        assert_eq!(response.trailers, ["t: last"]);
    });
}
