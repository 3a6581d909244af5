//! Workers that speak HTTP/2 (`protocol = "h2c"`), through the whole gateway: calls as gRPC makes them, and each row of the
//! retry table, with the worker lost at exactly that moment.

use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use lethe_gateway::config::{Config, Service};
use lethe_model::{gate::Fate, roster::Protocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    exchange::{ask, begin, client, connect, pour, submit, try_whole, whole},
    lab::{self, FakeWorker, Lab, run},
    peer::{self, GOAWAY, frame, read_frame},
};

/// Requests that a worker has at a time in these tests are fewer.
const CALLS_MAX: usize = 64;

fn speaks_h2c(config: &mut Config) {
    config.services.insert(lab::service(), Service { protocol: Protocol::H2c, ..Service::default() });
}

/// A worker's end of one connection.
struct Worker {
    calls: mpsc::Receiver<(Request<RecvStream>, SendResponse<Bytes>)>,
    task: JoinHandle<()>,
}

impl Worker {
    /// Of the next connection.
    async fn accept(worker: &FakeWorker) -> Self {
        let mut connection = h2::server::handshake(worker.accept().await.stream).await.unwrap();
        let (sender, calls) = mpsc::channel(CALLS_MAX);
        let task = tokio::spawn(async move {
            while let Some(Ok(call)) = connection.accept().await {
                // Nobody has it when the test is over.
                let _ = sender.send(call).await;
            }
        });
        Self { calls, task }
    }

    async fn call(&mut self) -> Call {
        let (request, respond) = self.calls.recv().await.expect("the connection ends without a call");
        Call { request, respond }
    }

    /// Ends as a process that is killed: the kernel closes its sockets.
    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

struct Call {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Call {
    async fn body(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let (body, mut bytes) = (self.request.body_mut(), Vec::new());
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            bytes.extend(piece);
        }
        (bytes, body.trailers().await.unwrap())
    }

    fn begin(&mut self, fields: &[(&str, &str)]) -> h2::SendStream<Bytes> {
        let mut head = Response::builder();
        for (name, value) in fields {
            head = head.header(*name, *value);
        }
        self.respond.send_response(head.body(()).unwrap(), false).unwrap()
    }

    fn answer(mut self, body: &'static str) {
        let length = body.len().to_string();
        self.begin(&[("content-length", &length)]).send_data(body.into(), true).unwrap();
    }
}

/// A message as gRPC frames it: not compressed, and its length.
fn message(text: &str) -> Bytes {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat().into()
}

#[test]
fn a_call_passes_with_its_trailers() {
    run(async {
        let lab = Lab::with(1, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "9S")];
        let (response, mut sending) = begin(&mut client, "POST", &fields);
        sending.send_data(message("one"), false).unwrap();
        let mut worker = Worker::accept(&lab.workers[0]).await;
        let mut call = worker.call().await;
        for (name, value) in fields {
            assert_eq!(call.request.headers()[name], value);
        }
        // Both sides say something before either has ended.
        let mut answering = call.begin(&[("content-type", "application/grpc")]);
        answering.send_data(message("first"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), message("first"));
        sending.send_data(message("two"), false).unwrap();
        sending
            .send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "2".parse().unwrap())]))
            .unwrap();
        let (bytes, trailers) = call.body().await;
        assert_eq!(bytes, [message("one"), message("two")].concat());
        assert_eq!(trailers.unwrap()["x-sum"], "2");
        answering.send_data(message("second"), false).unwrap();
        let status = [("grpc-status", "0"), ("grpc-message", "fine")];
        let parse = |(name, value): (&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        answering.send_trailers(status.into_iter().map(parse).collect()).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), message("second"));
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"0".parse().unwrap(), &"fine".parse().unwrap())
        );
    });
}

/// As gRPC says what went wrong before there was a message.
#[test]
fn a_head_that_is_all_passes() {
    run(async {
        let lab = Lab::with(1, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let response = submit(&mut client, "POST", &[("te", "trailers")], "call");
        let mut worker = Worker::accept(&lab.workers[0]).await;
        let mut call = worker.call().await;
        let head = Response::builder().header("grpc-status", "12").body(()).unwrap();
        call.respond.send_response(head, true).unwrap();
        let response = whole(response).await;
        assert_eq!(
            (response.status(), response.header("grpc-status"), response.text()),
            (200, Some("12"), "")
        );
    });
}

/// What HTTP/1.1 clients ask is the same to such a worker, and its answer to them.
#[test]
fn clients_of_http1_are_served() {
    run(async {
        let lab = Lab::with(1, speaks_h2c).await;
        let mut client = lab
            .send("PUT /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n")
            .await;
        let mut worker = Worker::accept(&lab.workers[0]).await;
        let mut call = worker.call().await;
        let (bytes, trailers) = call.body().await;
        assert_eq!((&bytes[..], &trailers.unwrap()["x-sum"]), (&b"hello"[..], &"1".parse().unwrap()));
        let mut answering = call.begin(&[]);
        answering.send_data("world".into(), false).unwrap();
        answering
            .send_trailers(HeaderMap::from_iter([("x-end".parse().unwrap(), "2".parse().unwrap())]))
            .unwrap();
        let response = client.response().await;
        assert_eq!((response.text(), &response.trailers[..]), ("world", &["x-end: 2".to_owned()][..]));
    });
}

#[test]
fn large_bodies_pass_both_ways() {
    const BYTES: usize = 3 << 20;
    run(async {
        let lab = Lab::with(1, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let bytes: Bytes = (0..BYTES as u32 / 4).flat_map(u32::to_be_bytes).collect();
        let (response, mut sending) = begin(&mut client, "POST", &[]);
        let response = tokio::spawn(try_whole(response));
        let sent = bytes.clone();
        tokio::spawn(async move { pour(&mut sending, sent, true).await });
        let mut worker = Worker::accept(&lab.workers[0]).await;
        let mut call = worker.call().await;
        assert!(call.body().await.0 == bytes, "other bytes came");
        pour(&mut call.begin(&[]), bytes.clone(), true).await;
        assert!(response.await.unwrap().unwrap().body == bytes, "other bytes came back");
    });
}

/// While a service goes over to HTTP/2, its workers are of both kinds: each is spoken to as it wants, before the gateway
/// knows of the change and after.
#[test]
fn each_worker_is_spoken_to_as_it_wants() {
    run(async {
        let mut lab = Lab::new(1).await;
        crate::echo(&mut lab.workers[0]);
        let mut client = client(lab.address).await;
        assert_eq!(whole(submit(&mut client, "POST", &[], "one")).await.status(), 200);
        let mut new = FakeWorker::start(2).await;
        new.entry.protocol = Protocol::H2c;
        lab.workers.push(new);
        lab.publish();
        lab.until(|snapshot| snapshot.workers.len() == 2).await;
        // Whoever has the next turn, both are asked.
        let responses = [(); 2].map(|()| submit(&mut client, "POST", &[], "two"));
        let mut worker = Worker::accept(&lab.workers[1]).await;
        worker.call().await.answer("two");
        for response in responses {
            assert_eq!(whole(response).await.status(), 200);
        }
        let mut config = lab::config();
        speaks_h2c(&mut config);
        lab.gateway.reload(config).await.unwrap();
        lab.workers.remove(0);
        lab.publish();
        lab.until(|snapshot| snapshot.workers.len() == 1).await;
        let response = submit(&mut client, "POST", &[("te", "trailers")], "three");
        let call = worker.call().await;
        assert_eq!(call.request.headers()["te"], "trailers");
        call.answer("three");
        assert_eq!(whole(response).await.text(), "three");
    });
}

/// HTTP/2 has another way to open one, which workers are not asked for; as a plain GET it would seem to be open.
#[test]
fn a_websocket_is_refused() {
    run(async {
        let lab = Lab::with(1, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let response = connect(&mut client).await;
        assert_eq!(whole(response).await.status(), 501);
        assert!(!lab.workers[0].is_called());
    });
}

#[test]
fn unsent_goes_to_another_worker_whatever_its_method() {
    run(async {
        let mut lab = Lab::with(2, speaks_h2c).await;
        lab.workers[0].die();
        let mut client = client(lab.address).await;
        let response = submit(&mut client, "POST", &[], "hello");
        let mut worker = Worker::accept(&lab.workers[1]).await;
        let mut call = worker.call().await;
        assert_eq!(call.body().await.0, b"hello");
        call.answer("done");
        assert_eq!(whole(response).await.text(), "done");
        assert_eq!(lab.gateway.snapshot().retries, 1);
    });
}

#[test]
fn what_may_be_repeated_goes_to_another_worker() {
    run(async {
        for (method, fields) in
            [("GET", &[][..]), ("PUT", &[]), ("DELETE", &[]), ("POST", &[("idempotency-key", "k-1")])]
        {
            let lab = Lab::with(2, speaks_h2c).await;
            let mut client = client(lab.address).await;
            let response = submit(&mut client, method, fields, "hello");
            let mut worker = Worker::accept(&lab.workers[0]).await;
            worker.call().await;
            worker.die().await;
            let mut worker = Worker::accept(&lab.workers[1]).await;
            let mut call = worker.call().await;
            assert_eq!(call.request.method(), method);
            assert_eq!(call.body().await.0, b"hello");
            call.answer("done");
            assert_eq!(whole(response).await.text(), "done", "{method}");
        }
    });
}

#[test]
fn what_may_not_is_answered_as_unknown() {
    run(async {
        for half in [false, true] {
            let lab = Lab::with(2, speaks_h2c).await;
            let mut client = client(lab.address).await;
            let response = submit(&mut client, "POST", &[], "hello");
            let mut worker = Worker::accept(&lab.workers[0]).await;
            let mut call = worker.call().await;
            if half {
                call.begin(&[("content-length", "10")]).send_data("half".into(), false).unwrap();
            }
            worker.die().await;
            let response = whole(response).await;
            assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
            assert!(!lab.workers[1].is_called(), "a POST was sent twice");
        }
    });
}

#[test]
fn a_small_response_that_dies_half_way_is_a_retry() {
    run(async {
        let lab = Lab::with(2, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let response = ask(&mut client, "GET", "/");
        let mut worker = Worker::accept(&lab.workers[0]).await;
        let mut call = worker.call().await;
        call.begin(&[("content-length", "10")]).send_data("half".into(), false).unwrap();
        worker.die().await;
        Worker::accept(&lab.workers[1]).await.call().await.answer("whole");
        assert_eq!(whole(response).await.text(), "whole");
    });
}

#[test]
fn a_streamed_response_that_dies_half_way_is_reset() {
    run(async {
        let lab = Lab::with(2, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let response = ask(&mut client, "GET", "/");
        let mut worker = Worker::accept(&lab.workers[0]).await;
        let mut call = worker.call().await;
        call.begin(&[]).send_data("half".into(), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "half");
        worker.die().await;
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert!(!lab.workers[1].is_called());
    });
}

#[test]
fn a_large_response_that_dies_half_way_is_continued() {
    const BYTES: usize = 1 << 20;
    run(async {
        let lab = Lab::with(2, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let bytes: Bytes = (0..BYTES as u32 / 4).flat_map(u32::to_be_bytes).collect();
        let response = tokio::spawn(try_whole(ask(&mut client, "GET", "/")));
        let mut worker = Worker::accept(&lab.workers[0]).await;
        let mut call = worker.call().await;
        let mut answering = call.begin(&[("etag", "\"a\""), ("content-length", &BYTES.to_string())]);
        pour(&mut answering, bytes.slice(..600_000), false).await;
        worker.die().await;
        let mut worker = Worker::accept(&lab.workers[1]).await;
        let mut call = worker.call().await;
        let range = call.request.headers()["range"].to_str().unwrap();
        let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        let (left, range) = (BYTES - from, format!("bytes {from}-{}/{BYTES}", BYTES - 1));
        let rest = Response::builder().status(206).header("etag", "\"a\"").header("content-range", range);
        let rest = rest.header("content-length", left).body(()).unwrap();
        let mut answering = call.respond.send_response(rest, false).unwrap();
        pour(&mut answering, bytes.slice(from..), true).await;
        assert!(response.await.unwrap().unwrap().body == bytes, "other bytes came");
    });
}

/// What a worker's crash is blamed on is not given a third one.
#[test]
fn a_query_of_death_ends() {
    run(async {
        let mut lab = Lab::with(3, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let response = ask(&mut client, "GET", "/");
        for victim in 0..2 {
            let mut worker = Worker::accept(&lab.workers[victim]).await;
            worker.call().await;
            lab.workers[victim].entry.gate.ended(Fate::Fell);
            lab.workers[victim].die();
            worker.die().await;
        }
        assert_eq!(whole(response).await.status(), 502);
        assert!(!lab.workers[2].is_called());
    });
}

/// "Not now" is asked again, elsewhere, after a pause; whatever the method, since nothing was done with it.
#[test]
fn a_refused_stream_goes_to_another_worker() {
    run(async {
        let lab = Lab::with(2, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let response = submit(&mut client, "POST", &[], "hello");
        let mut overloaded = Worker::accept(&lab.workers[0]).await;
        overloaded.call().await.respond.send_reset(Reason::REFUSED_STREAM);
        let mut worker = Worker::accept(&lab.workers[1]).await;
        let mut call = worker.call().await;
        assert_eq!(call.body().await.0, b"hello");
        call.answer("done");
        assert_eq!(whole(response).await.text(), "done");
        let snapshot = lab.gateway.snapshot();
        assert_eq!((snapshot.retries, snapshot.unknown), (1, 0));
    });
}

/// When all refuse, requests do not run from one to the other: each is told so after some pauses, and all together cost no
/// more than the service's budget for retries.
#[test]
fn workers_that_refuse_are_not_flooded() {
    const REQUESTS: usize = 40;
    run(async {
        let mut lab = Lab::with(2, |config| {
            speaks_h2c(config);
            config.limits.attempts_max = 4;
            config.limits.queue_timeout = Duration::from_secs(5);
        })
        .await;
        let (counted, mut count) = mpsc::channel(10_000);
        for worker in std::mem::take(&mut lab.workers) {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut connection = Worker::accept(&worker).await;
                loop {
                    connection.call().await.respond.send_reset(Reason::REFUSED_STREAM);
                    counted.send(()).await.unwrap();
                }
            });
        }
        let mut client = client(lab.address).await;
        let mut responses = Vec::new();
        for _ in 0..REQUESTS {
            client = client.ready().await.unwrap();
            responses.push(submit(&mut client, "POST", &[], "hello"));
        }
        for response in responses {
            let response = whole(response).await;
            assert_eq!((response.status(), response.header("lethe-outcome")), (503, None));
            assert!(response.header("retry-after").is_some());
        }
        let mut calls = 0;
        while count.try_recv().is_ok() {
            calls += 1;
        }
        // Each may ask the other worker at once; after that the budget allows thirty in ten seconds, which may have begun
        // anew once.
        assert!(calls <= 2 * REQUESTS + 60, "{calls} calls for {REQUESTS} requests");
        let shed = lab.gateway.snapshot().shed_by;
        assert_eq!(shed.values().sum::<u64>(), REQUESTS as u64, "{shed:?}");
    });
}

/// A worker's end of a connection, byte by byte.
struct RawWorker(TcpStream);

impl RawWorker {
    /// Of the next connection, up to its first request.
    async fn accept(worker: &FakeWorker) -> Self {
        let mut raw = Self(worker.accept().await.stream);
        raw.0.read_exact(&mut [0; peer::PREFACE.len()]).await.unwrap();
        raw.send(&peer::settings(&[])).await;
        raw
    }

    /// The stream of the next request.
    async fn request(&mut self) -> u32 {
        loop {
            let frame = read_frame(&mut self.0).await.expect("the connection ends without a request");
            if frame.kind == peer::HEADERS {
                return frame.stream;
            }
        }
    }

    /// Writes; whoever has gone needs it no more.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// ":status: 200" is number 8 of the static table.
    async fn answer(&mut self, stream: u32) {
        self.send(&frame(peer::HEADERS, peer::END_HEADERS | peer::END_STREAM, stream, [0x88])).await;
    }

    /// Ends the connection after the streams up to `last`.
    async fn go_away(&mut self, last: u32) {
        self.send(&frame(GOAWAY, 0, 0, [last.to_be_bytes(), [0; 4]].concat())).await;
    }

    /// Takes what comes until the other side has ended the connection too: whoever closes with something unread resets it,
    /// and the last words may be lost.
    async fn end(mut self) {
        let _ = tokio::io::copy(&mut self.0, &mut tokio::io::sink()).await;
    }
}

/// Servers end old connections, as gRPC's do by age. What comes too late for one goes to a new one, to the same worker.
#[test]
fn a_connection_that_ends_costs_nothing() {
    run(async {
        let lab = Lab::with(1, speaks_h2c).await;
        let mut client = client(lab.address).await;
        for _ in 0..3 {
            let response = submit(&mut client, "POST", &[], "hello");
            let mut worker = RawWorker::accept(&lab.workers[0]).await;
            let first = worker.request().await;
            worker.answer(first).await;
            assert_eq!(whole(response).await.status(), 200);
            let response = submit(&mut client, "POST", &[], "hello");
            worker.request().await;
            worker.go_away(first).await;
            let mut worker = RawWorker::accept(&lab.workers[0]).await;
            let stream = worker.request().await;
            worker.answer(stream).await;
            worker.go_away(stream).await;
            assert_eq!(whole(response).await.status(), 200);
        }
        assert_eq!(lab.gateway.snapshot().retries, 0);
    });
}

/// One that ends each connection before it answers anything has most likely no use for requests now.
#[test]
fn a_worker_that_ends_each_connection_is_not_flooded() {
    run(async {
        let mut lab = Lab::with(1, |config| {
            speaks_h2c(config);
            config.limits.queue_timeout = Duration::from_millis(500);
        })
        .await;
        let worker = lab.workers.remove(0);
        let (counted, mut count) = mpsc::channel(10_000);
        tokio::spawn(async move {
            loop {
                let mut connection = RawWorker::accept(&worker).await;
                connection.request().await;
                counted.send(()).await.unwrap();
                connection.go_away(0).await;
                tokio::spawn(connection.end());
            }
        });
        let mut client = client(lab.address).await;
        let response = whole(submit(&mut client, "POST", &[], "hello")).await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (503, None));
        let mut calls = 0;
        while count.try_recv().is_ok() {
            calls += 1;
        }
        assert!(calls < 50, "{calls} calls in half a second");
    });
}
