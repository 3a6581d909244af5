//! Both halves together, without the engine between: what comes from a client goes to a worker and back, as gRPC has it.

use std::{
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, client::SendRequest};
use http::{HeaderMap, Request as Head, Response};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::{
    Body, Leaving, Prefixed, Request, Spoken, Stream, fields, serve, spoken,
    tests::{large_limits, run},
};
use crate::{
    downstream::{Answer, Broken, Downstream, Piece},
    h2c::{Exchange, Failure, Lane},
};

/// Carries one exchange between its two sides.
struct Carrier {
    stream: Stream,
    call: Exchange,
    up: Vec<u8>,
    up_ended: bool,
    down: Vec<u8>,
    trailers: Option<Vec<u8>>,
    answered: bool,
}

impl Carrier {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_up(cx).is_err() {
            return Poll::Ready(());
        }
        match ready!(self.poll_down(cx)) {
            Ok(()) => {}
            Err(Failure::Reset) if self.answered => self.stream.cut(),
            Err(_) if self.answered => self.stream.cut(),
            Err(_) => {
                let status = Answer {
                    status: 502,
                    reason: b"",
                    fields: &mut std::iter::empty(),
                    length: None,
                    has_body: false,
                    close: false,
                };
                self.stream.respond(status);
                let _ = self.stream.poll_finish(cx, &[]);
            }
        }
        Poll::Ready(())
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        loop {
            if !self.up.is_empty() {
                let Poll::Ready(taken) = self.call.poll_send(cx, &self.up) else { return Ok(()) };
                self.up.drain(..taken);
            } else if self.up_ended {
                return if self.stream.poll_gone(cx).is_ready() { Err(Broken::Gone) } else { Ok(()) };
            } else {
                match self.stream.poll_body(cx, &mut self.up, 16 << 10) {
                    Poll::Ready(Ok(Piece::Data(_))) => {}
                    Poll::Ready(Ok(Piece::End(trailers))) => {
                        self.call.finish(&trailers);
                        self.up_ended = true;
                    }
                    Poll::Ready(Err(broken)) => return Err(broken),
                    Poll::Pending => return Ok(()),
                }
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.answered {
            let mut head = Vec::new();
            ready!(self.call.poll_head(cx, &mut head))?;
            self.answer(&head);
        }
        loop {
            if !self.down.is_empty() {
                let Ok(taken) = ready!(self.stream.poll_write(cx, &self.down)) else {
                    return Poll::Ready(Err(Failure::Lost));
                };
                self.down.drain(..taken);
            } else if let Some(trailers) = &self.trailers {
                let _ = ready!(self.stream.poll_finish(cx, trailers));
                return Poll::Ready(Ok(()));
            } else {
                let piece = self.call.poll_data(cx, &mut self.down, 16 << 10);
                if piece.is_pending() {
                    let _ = self.stream.poll_flush(cx);
                }
                if let Piece::End(trailers) = ready!(piece)? {
                    self.trailers = Some(trailers);
                }
            }
        }
    }

    fn answer(&mut self, head: &[u8]) {
        let status = std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap();
        let fields: Vec<_> = fields::lines_of(head).filter(|(name, _)| *name != b"content-length").collect();
        if status < 200 {
            return self.stream.inform(status, &mut fields.iter().copied());
        }
        self.answered = true;
        let has_body = self.call.body() != Body::None;
        let mut fields = fields.iter().copied();
        let answer =
            Answer { status, reason: b"", fields: &mut fields, length: None, has_body, close: false };
        self.stream.respond(answer);
    }
}

async fn carry(lane: Rc<Lane>, request: Request, stream: Stream) {
    let Ok(mut call) = lane.enter(&large_limits()).await else { return };
    call.send_head(&request.head, request.body == Body::None).unwrap();
    let up_ended = request.body == Body::None;
    let mut carrier =
        Carrier { stream, call, up: Vec::new(), up_ended, down: Vec::new(), trailers: None, answered: false };
    poll_fn(|cx| carrier.poll(cx)).await;
}

/// A bridge to the worker there.
async fn bridge(worker: SocketAddr, listener: TcpListener) {
    let lane = Lane::new(worker.into());
    while let Ok((mut stream, _)) = listener.accept().await {
        let lane = Rc::clone(&lane);
        tokio::task::spawn_local(async move {
            let limits = large_limits();
            let mut first = BytesMut::new();
            while spoken(&first) == Spoken::Unknown {
                if stream.read_buf(&mut first).await.is_ok_and(|read| read == 0) {
                    return;
                }
            }
            assert_eq!(spoken(&first), Spoken::Http2);
            let stream = Prefixed::new(first.freeze(), stream);
            let forward = |request, stream| {
                tokio::task::spawn_local(carry(Rc::clone(&lane), request, stream));
            };
            serve(
                stream,
                &limits,
                Leaving { draining: std::future::pending(), parting: std::future::pending() },
                forward,
            )
            .await;
        });
    }
}

/// A client, and the worker that its requests come to.
struct Pair {
    client: SendRequest<Bytes>,
    worker: h2::server::Connection<TcpStream, Bytes>,
}

impl Pair {
    async fn start() -> Self {
        let workers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(bridge(workers.local_addr().unwrap(), listener));
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        // The worker's connection is made for the first request, which is only that.
        let (first, _) = client.send_request(Head::get("http://localhost/").body(()).unwrap(), true).unwrap();
        let mut worker = h2::server::handshake(workers.accept().await.unwrap().0).await.unwrap();
        let (_, mut respond) = worker.accept().await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        tokio::select! { _ = worker.accept() => panic!("a second request"), response = first => drop(response.unwrap()) }
        Self { client, worker }
    }
}

fn call() -> Head<()> {
    Head::post("http://localhost/lab.Lab/Call").header("te", "trailers").body(()).unwrap()
}

#[test]
fn calls_go_both_ways() {
    run(async {
        let Pair { mut client, mut worker } = Pair::start().await;
        let (response, mut sending) = client.send_request(call(), false).unwrap();
        let (request, mut respond) = worker.accept().await.unwrap().unwrap();
        assert_eq!(
            (request.uri().path(), &request.headers()["te"]),
            ("/lab.Lab/Call", &"trailers".parse().unwrap())
        );
        let mut theirs = request.into_body();
        let mut answering = respond.send_response(Response::new(()), false).unwrap();
        tokio::task::spawn_local(async move { while let Some(Ok(_)) = worker.accept().await {} });
        let mut ours = response.await.unwrap().into_body();
        for message in ["one", "two", "three"] {
            sending.send_data(message.into(), false).unwrap();
            assert_eq!(theirs.data().await.unwrap().unwrap(), message);
            answering.send_data(message.into(), false).unwrap();
            assert_eq!(ours.data().await.unwrap().unwrap(), message);
        }
        sending.send_data(Bytes::new(), true).unwrap();
        assert!(theirs.data().await.is_none_or(|last| last.unwrap().is_empty()));
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        answering.send_trailers(trailers).unwrap();
        assert!(ours.data().await.is_none());
        assert_eq!(ours.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn a_response_of_trailers_only_is_one_head() {
    run(async {
        let Pair { mut client, mut worker } = Pair::start().await;
        let (response, mut sending) = client.send_request(call(), false).unwrap();
        sending.send_data("message".into(), true).unwrap();
        let (_request, mut respond) = worker.accept().await.unwrap().unwrap();
        respond
            .send_response(Response::builder().header("grpc-status", "5").body(()).unwrap(), true)
            .unwrap();
        tokio::task::spawn_local(async move { while let Some(Ok(_)) = worker.accept().await {} });
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "5");
        assert!(response.body().is_end_stream());
    });
}

#[test]
fn a_call_that_is_taken_back_is_taken_back_from_the_worker() {
    run(async {
        let Pair { mut client, mut worker } = Pair::start().await;
        let (_response, mut sending) = client.send_request(call(), false).unwrap();
        let (_request, mut respond) = worker.accept().await.unwrap().unwrap();
        tokio::task::spawn_local(async move { while let Some(Ok(_)) = worker.accept().await {} });
        sending.send_reset(Reason::CANCEL);
        assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    });
}

#[test]
fn a_worker_that_breaks_off_is_seen_by_the_client() {
    run(async {
        let Pair { mut client, mut worker } = Pair::start().await;
        let (response, _sending) = client.send_request(call(), false).unwrap();
        let (_request, mut respond) = worker.accept().await.unwrap().unwrap();
        let mut answering = respond.send_response(Response::new(()), false).unwrap();
        answering.send_data("half".into(), false).unwrap();
        let served =
            tokio::task::spawn_local(async move { while let Some(Ok(_)) = worker.accept().await {} });
        let mut ours = response.await.unwrap().into_body();
        assert_eq!(ours.data().await.unwrap().unwrap(), "half");
        served.abort();
        assert!(ours.data().await.unwrap().unwrap_err().is_reset());
    });
}

#[test]
fn large_bodies_go_both_ways() {
    run(async {
        let Pair { mut client, mut worker } = Pair::start().await;
        let (response, mut sending) = client.send_request(call(), false).unwrap();
        let (request, mut respond) = worker.accept().await.unwrap().unwrap();
        tokio::task::spawn_local(async move { while let Some(Ok(_)) = worker.accept().await {} });
        let (mut theirs, total) = (request.into_body(), 4 << 20);
        tokio::task::spawn_local(async move {
            let mut answering = respond.send_response(Response::new(()), false).unwrap();
            while let Some(piece) = theirs.data().await {
                let piece = piece.unwrap();
                theirs.flow_control().release_capacity(piece.len()).unwrap();
                send(&mut answering, piece).await;
            }
            answering.send_data(Bytes::new(), true).unwrap();
        });
        tokio::task::spawn_local(async move {
            for number in 0..total / 65_536 {
                send(&mut sending, vec![number as u8; 65_536].into()).await;
            }
            sending.send_data(Bytes::new(), true).unwrap();
        });
        let mut ours = response.await.unwrap().into_body();
        let mut came = 0;
        while let Some(piece) = ours.data().await {
            let piece = piece.unwrap();
            ours.flow_control().release_capacity(piece.len()).unwrap();
            for byte in piece {
                assert_eq!(byte, (came / 65_536) as u8);
                came += 1;
            }
        }
        assert_eq!(came, total);
    });
}

async fn send(sending: &mut h2::SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        sending.reserve_capacity(data.len());
        let granted = match sending.capacity() {
            0 => poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap(),
            granted => granted,
        };
        sending.send_data(data.split_to(granted.min(data.len())), false).unwrap();
    }
}

/// For gRPC's own clients and servers: `tests/http2/grpc_calls.py` sets both addresses and runs it.
#[test]
#[ignore = "serves until it is ended"]
fn bridge_for_grpc() {
    let address = |name| std::env::var(name).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listen: SocketAddr = address("BRIDGE_LISTEN");
        bridge(address("BRIDGE_WORKER"), TcpListener::bind(listen).await.unwrap()).await;
    });
}
