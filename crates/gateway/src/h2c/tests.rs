//! Requests to a worker that the test plays by hand, with the `h2` crate's server or frame by frame.

use std::{future::poll_fn, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use lethe_model::roster::Address;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener},
    task::LocalSet,
};

use super::{Exchange, Failure, Lane};
use crate::{config::Limits, downstream::Piece, http2::Body};

/// Runs a test, with an end for one that hangs.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("test hangs") };
    LocalSet::new().block_on(&runtime, test);
}

/// A worker's listener, and a lane to it.
struct Lab {
    listener: TcpListener,
    lane: Rc<Lane>,
}

impl Lab {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lane = Lane::new(listener.local_addr().unwrap().into());
        Self { listener, lane }
    }

    async fn enter(&self) -> Exchange {
        self.lane.enter(&Limits::default()).await.unwrap()
    }

    /// A request that was begun: its head is given, and it has no body.
    async fn get(&self) -> Exchange {
        let mut exchange = self.enter().await;
        exchange.send_head(GET, true).unwrap();
        exchange
    }

    /// One whose body is to follow.
    async fn post(&self) -> Exchange {
        let mut exchange = self.enter().await;
        exchange.send_head(POST, false).unwrap();
        exchange
    }

    /// The next connection, served by the `h2` crate, which allows so many streams.
    async fn accept(&self, streams_max: u32) -> Worker {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(streams_max);
        Worker { connection: builder.handshake(stream).await.unwrap() }
    }

    /// The next connection, of which the test sees the bytes, up to the HEADERS of so many requests.
    async fn accept_raw(&self, requests: usize) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        read_requests(&mut stream, requests).await;
        stream
    }
}

struct Worker {
    connection: h2::server::Connection<TcpStream, Bytes>,
}

impl Worker {
    async fn request(&mut self) -> (Request<RecvStream>, SendResponse<Bytes>) {
        self.connection.accept().await.unwrap().unwrap()
    }

    /// Drives the connection in the background from now on.
    fn run(mut self) {
        tokio::task::spawn_local(async move { while let Some(Ok(_)) = self.connection.accept().await {} });
    }
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\n\r\n";

fn response(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

async fn head(exchange: &mut Exchange) -> Result<String, Failure> {
    let mut text = Vec::new();
    poll_fn(|cx| exchange.poll_head(cx, &mut text)).await?;
    Ok(String::from_utf8(text).unwrap())
}

/// The rest of a body, and its trailers.
async fn body(exchange: &mut Exchange) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let mut body = Vec::new();
    loop {
        if let Piece::End(trailers) = poll_fn(|cx| exchange.poll_data(cx, &mut body, 1000)).await? {
            return Ok((body, trailers));
        }
    }
}

async fn send(exchange: &mut Exchange, mut data: &[u8]) {
    while !data.is_empty() {
        let taken = poll_fn(|cx| exchange.poll_send(cx, data)).await;
        data = &data[taken..];
    }
}

#[test]
fn requests_share_a_connection() {
    run(async {
        let lab = Lab::start().await;
        let (mut one, mut two) = (lab.get().await, lab.get().await);
        let mut worker = lab.accept(10).await;
        let (request, mut first) = worker.request().await;
        assert_eq!(request.uri(), "http://localhost/a");
        let (_, mut second) = worker.request().await;
        // The later one is answered first.
        second.send_response(response(204), true).unwrap();
        let mut sending = first.send_response(Response::new(()), false).unwrap();
        sending.send_data("hello".into(), true).unwrap();
        worker.run();
        assert_eq!(head(&mut two).await.unwrap(), "HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(two.body(), Body::None);
        assert_eq!(head(&mut one).await.unwrap(), "HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(body(&mut one).await.unwrap(), (b"hello".to_vec(), vec![]));
    });
}

#[test]
fn a_call_goes_both_ways_with_trailers_and_interim_heads() {
    run(async {
        let lab = Lab::start().await;
        let mut call = lab.post().await;
        let mut worker = lab.accept(10).await;
        let (request, mut respond) = worker.request().await;
        assert_eq!(request.headers()["te"], "trailers");
        let mut theirs = request.into_body();
        respond.send_informational(response(103)).unwrap();
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        worker.run();
        assert_eq!(head(&mut call).await.unwrap(), "HTTP/1.1 103 Early Hints\r\n\r\n");
        assert_eq!(head(&mut call).await.unwrap(), "HTTP/1.1 200 OK\r\n\r\n");
        for message in [&b"one"[..], b"two"] {
            send(&mut call, message).await;
            assert_eq!(theirs.data().await.unwrap().unwrap(), message);
            theirs.flow_control().release_capacity(message.len()).unwrap();
            sending.send_data(message.into(), false).unwrap();
            let mut echo = Vec::new();
            poll_fn(|cx| call.poll_data(cx, &mut echo, 100)).await.unwrap();
            assert_eq!(echo, message);
        }
        call.finish(b"x-sum: 2\r\n");
        assert!(theirs.data().await.is_none());
        assert_eq!(theirs.trailers().await.unwrap().unwrap()["x-sum"], "2");
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        sending.send_trailers(trailers).unwrap();
        assert_eq!(body(&mut call).await.unwrap(), (vec![], b"grpc-status: 0\r\n".to_vec()));
    });
}

#[test]
fn what_is_not_taken_holds_the_worker_back() {
    run(async {
        let lab = Lab::start().await;
        let mut slow = lab.get().await;
        let mut worker = lab.accept(10).await;
        let (_, mut respond) = worker.request().await;
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        sending.reserve_capacity(1 << 20);
        worker.run();
        head(&mut slow).await.unwrap();
        let granted = poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
        assert_eq!(granted, super::STREAM_WINDOW as usize);
        sending.send_data(vec![b'x'; granted].into(), false).unwrap();
        // The window opens when something is taken.
        let mut taken = Vec::new();
        while taken.len() < granted {
            poll_fn(|cx| slow.poll_data(cx, &mut taken, 16 << 10)).await.unwrap();
        }
        assert!(poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap() > 0);
    });
}

#[test]
fn a_request_that_is_dropped_is_taken_back() {
    run(async {
        let lab = Lab::start().await;
        let call = lab.post().await;
        let mut worker = lab.accept(10).await;
        let (_, mut respond) = worker.request().await;
        worker.run();
        drop(call);
        assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    });
}

#[test]
fn what_waits_for_a_stream_is_unsent_when_the_worker_dies() {
    run(async {
        let lab = Lab::start().await;
        // Both are given the one connection, before the worker has said that it allows one stream.
        let (mut first, mut waiting) = (lab.enter().await, lab.enter().await);
        first.send_head(POST, false).unwrap();
        let mut worker = lab.accept(1).await;
        let (_request, mut respond) = worker.request().await;
        respond.send_informational(response(103)).unwrap();
        tokio::select! {
            _ = worker.request() => panic!("a second request comes"),
            interim = head(&mut first) => assert_eq!(interim.unwrap(), "HTTP/1.1 103 Early Hints\r\n\r\n"),
        }
        waiting.send_head(GET, true).unwrap();
        drop(worker);
        assert_eq!(head(&mut first).await, Err(Failure::Lost));
        assert_eq!(head(&mut waiting).await, Err(Failure::Unsent));
        assert!(first.is_sent() && !waiting.is_sent());
    });
}

#[test]
fn a_worker_that_allows_few_streams_gets_more_connections() {
    run(async {
        let lab = Lab::start().await;
        let mut first = lab.post().await;
        let mut worker = lab.accept(1).await;
        let (_request, mut respond) = worker.request().await;
        respond.send_informational(response(103)).unwrap();
        worker.run();
        head(&mut first).await.unwrap();
        let _second = lab.get().await;
        let (_, mut respond) = lab.accept(1).await.request().await;
        respond.send_reset(Reason::INTERNAL_ERROR);
    });
}

#[test]
fn refused_is_not_reset() {
    run(async {
        for (reason, failure) in [
            (Reason::REFUSED_STREAM, Failure::Refused),
            (Reason::INTERNAL_ERROR, Failure::Reset),
            (Reason::CANCEL, Failure::Reset),
        ] {
            let lab = Lab::start().await;
            let mut call = lab.get().await;
            let mut worker = lab.accept(10).await;
            let (_request, mut respond) = worker.request().await;
            respond.send_reset(reason);
            worker.run();
            assert_eq!(head(&mut call).await, Err(failure));
        }
    });
}

/// A frame as bytes.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Reads up to the HEADERS of so many requests.
async fn read_requests(stream: &mut TcpStream, mut requests: usize) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    while requests > 0 {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        requests -= usize::from(head[3] == 0x1);
    }
}

#[test]
fn what_a_goaway_leaves_out_is_unsent_and_the_rest_goes_on() {
    run(async {
        let lab = Lab::start().await;
        let (mut kept, mut left_out) = (lab.get().await, lab.get().await);
        let mut worker = lab.accept_raw(2).await;
        let goaway = frame(0x7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
        worker.write_all(&[frame(0x4, 0, 0, &[]), goaway].concat()).await.unwrap();
        assert_eq!(head(&mut left_out).await, Err(Failure::Unsent));
        // New requests go to a new connection.
        let _next = lab.get().await;
        let (_, mut respond) = lab.accept(10).await.request().await;
        respond.send_reset(Reason::INTERNAL_ERROR);
        // ":status: 200" is number 8 of the static table.
        worker.write_all(&frame(0x1, 0x5, 1, &[0x88])).await.unwrap();
        assert_eq!(head(&mut kept).await.unwrap(), "HTTP/1.1 200 OK\r\n\r\n");
    });
}

#[test]
fn a_worker_that_dies_after_the_head_has_lost_it() {
    run(async {
        let lab = Lab::start().await;
        let mut call = lab.get().await;
        let mut worker = lab.accept_raw(1).await;
        let answer = [frame(0x4, 0, 0, &[]), frame(0x1, 0x4, 1, &[0x88]), frame(0x0, 0, 1, b"half")];
        worker.write_all(&answer.concat()).await.unwrap();
        head(&mut call).await.unwrap();
        drop(worker);
        assert_eq!(body(&mut call).await, Err(Failure::Lost));
        // The next request finds that out and connects anew.
        let mut next = lab.get().await;
        let worker = lab.accept_raw(1).await;
        drop(worker);
        assert_eq!(head(&mut next).await, Err(Failure::Lost));
    });
}

#[test]
fn a_worker_that_speaks_something_else_is_garbled() {
    run(async {
        let lab = Lab::start().await;
        let mut call = lab.get().await;
        let mut worker = lab.accept_raw(0).await;
        worker.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert!(matches!(head(&mut call).await, Err(Failure::Garbled(_))));
    });
}

#[test]
fn a_response_of_another_length_is_garbled() {
    run(async {
        let lab = Lab::start().await;
        let mut call = lab.get().await;
        let mut worker = lab.accept_raw(1).await;
        let fields = b"\x88\x00\x0econtent-length\x015";
        let answer = [frame(0x4, 0, 0, &[]), frame(0x1, 0x4, 1, fields), frame(0x0, 0x1, 1, b"four")];
        worker.write_all(&answer.concat()).await.unwrap();
        head(&mut call).await.unwrap();
        assert!(matches!(body(&mut call).await, Err(Failure::Garbled(_))));
    });
}

#[test]
fn a_worker_on_a_unix_socket() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let lane = Lane::new(Address::Unix(path.into()));
        let mut call = lane.enter(&Limits::default()).await.unwrap();
        call.send_head(GET, true).unwrap();
        let mut worker = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
        let (_, mut respond) = worker.accept().await.unwrap().unwrap();
        respond.send_response(response(204), true).unwrap();
        tokio::task::spawn_local(async move { while let Some(Ok(_)) = worker.accept().await {} });
        assert_eq!(head(&mut call).await.unwrap(), "HTTP/1.1 204 No Content\r\n\r\n");
    });
}

#[test]
fn nobody_there_is_an_error_for_all_who_wait() {
    run(async {
        // Bound, so that nobody else gets the port, and not listening.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (lane, limits) = (Lane::new(socket.local_addr().unwrap().into()), Limits::default());
        let (one, two) = tokio::join!(lane.enter(&limits), lane.enter(&limits));
        for outcome in [one, two] {
            assert_eq!(outcome.err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
        }
        // Once it is there again, it is found.
        let listener = socket.listen(8).unwrap();
        let mut call = lane.enter(&limits).await.unwrap();
        call.send_head(GET, true).unwrap();
        let (mut worker, _) = listener.accept().await.unwrap();
        read_requests(&mut worker, 1).await;
    });
}

#[test]
fn a_connection_that_nobody_waits_for_is_given_up() {
    run(async {
        let lab = Lab::start().await;
        let limits = Limits::default();
        let (mut one, mut two) = (Box::pin(lab.lane.enter(&limits)), Box::pin(lab.lane.enter(&limits)));
        assert!((&mut one).now_or_never().is_none());
        assert!((&mut two).now_or_never().is_none());
        drop(one);
        assert!(lab.lane.connecting.borrow().is_some(), "the second still waits");
        drop(two);
        assert!(lab.lane.connecting.borrow().is_none());
        // And the next one gets a connection of its own.
        lab.enter().await.send_head(GET, true).unwrap();
        assert!(lab.lane.connecting.borrow().is_none());
    });
}
