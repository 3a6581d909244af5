//! HTTP/2 as clients see it, on real connections: a small server on `serve` in the engine's place.

#[path = "../../tests/http2/conformance.rs"]
mod conformance;
#[path = "../../tests/http2/floods.rs"]
mod floods;
#[path = "../../tests/http2/generic.rs"]
mod generic;
#[path = "../../tests/http2/peer.rs"]
mod peer;
#[path = "../../tests/http2/rfc7541.rs"]
mod rfc7541;
#[path = "../../tests/http2/rfc9113.rs"]
mod rfc9113;

use std::{future::poll_fn, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::LocalSet,
};

use super::{Request, Stream, serve};
use crate::{
    config::Limits,
    downstream::{Answer, Broken, Downstream, Piece},
};

use self::peer::*;

/// A server for tests.
struct Server {
    address: SocketAddr,
    drain: watch::Sender<bool>,
    /// A connection was ended.
    ended: Rc<Notify>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (drain, draining) = watch::channel(false);
        let limits = Rc::new(limits);
        let ended = Rc::new(Notify::new());
        let end = Rc::clone(&ended);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (limits, mut draining, end) = (Rc::clone(&limits), draining.clone(), Rc::clone(&end));
                tokio::task::spawn_local(async move {
                    let drained = async move {
                        let _ = draining.wait_for(|&draining| draining).await;
                    };
                    serve(stream, &limits, drained, answer).await;
                    end.notify_one();
                });
            }
        });
        Self { address, drain, ended }
    }
}

/// Answers with what came; or with what the path asks for.
async fn answer(request: Request, mut stream: Stream) {
    let head = String::from_utf8(request.head).unwrap();
    if head.starts_with("GET /chat") {
        return echo(stream).await;
    }
    if head.starts_with("PUT /hold") {
        return poll_fn(|cx| stream.poll_gone(cx)).await;
    }
    let mut body = Vec::new();
    let trailers = loop {
        match poll_fn(|cx| stream.poll_body(cx, &mut body, 16 << 10)).await {
            Ok(Piece::Data(_)) => {}
            Ok(Piece::End(trailers)) => break trailers,
            Err(Broken::Gone | Broken::Malformed(_)) => return,
        }
    };
    let text = format!("{head}{}", String::from_utf8_lossy(&body)).into_bytes();
    let text = if head.starts_with("GET /large") { vec![b'x'; 8 << 20] } else { text };
    let has_body = !head.starts_with("HEAD");
    let fields = [(&b"x-lab"[..], &b"1"[..])];
    let length = trailers.is_empty().then_some(text.len() as u64);
    let mut fields = fields.iter().copied();
    stream.respond(Answer {
        status: 200,
        reason: b"OK",
        fields: &mut fields,
        length,
        has_body,
        close: false,
    });
    let rest = if has_body { &text[..] } else { &[] };
    if write(&mut stream, rest).await.is_ok() {
        let _ = poll_fn(|cx| stream.poll_finish(cx, &trailers)).await;
    }
}

/// Grants an upgrade and gives back what comes.
async fn echo(mut stream: Stream) {
    let fields = [(&b"upgrade"[..], &b"websocket"[..]), (b"sec-websocket-accept", b"x")];
    let mut fields = fields.iter().copied();
    stream.respond(Answer {
        status: 101,
        reason: b"",
        fields: &mut fields,
        length: None,
        has_body: false,
        close: false,
    });
    stream.tunnel();
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    let mut body = Vec::new();
    while let Ok(Piece::Data(_)) = poll_fn(|cx| stream.poll_body(cx, &mut body, 1024)).await {
        write(&mut stream, &std::mem::take(&mut body)).await.unwrap();
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    }
    poll_fn(|cx| stream.poll_finish(cx, &[])).await.unwrap();
}

async fn write(stream: &mut Stream, mut rest: &[u8]) -> std::io::Result<()> {
    while !rest.is_empty() {
        let taken = poll_fn(|cx| stream.poll_write(cx, rest)).await?;
        rest = &rest[taken..];
    }
    Ok(())
}

/// Limits that no test reaches.
pub(super) fn large_limits() -> Limits {
    Limits { connect_timeout: Duration::from_secs(30), ..Limits::default() }
}

/// Runs a test, with an end for one that hangs.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("test hangs") };
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn conforms() {
    run(async {
        let limits = Limits { streams_max: 100, ..Limits::default() };
        let server = Server::start(limits).await;
        conformance::run(server.address, 100).await;
        drop(server.drain);
    });
}

#[test]
fn floods_end_and_others_are_served() {
    run(async {
        let server = Server::start(Limits::default()).await;
        floods::run(server.address).await;
    });
}

/// Limits under which a test sees timeouts at once; only what is being tested is short.
fn impatient(change: impl FnOnce(&mut Limits, Duration)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits, Duration::from_millis(100));
    limits
}

/// Expects the connection to end, with this code if it says why.
async fn ends(peer: Peer, code: u32) {
    let frames = peer.exchange(&[], |_| false).await;
    let said = frames.iter().find(|frame| frame.kind == GOAWAY).and_then(|frame| frame.code());
    assert_eq!(said, Some(code));
}

#[test]
fn a_silent_client_is_closed() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.head_timeout = short)).await;
        let mut silent = Peer::connect(server.address).await;
        while silent.frame().await.is_some() {}
        let mut slow = Peer::greet(server.address).await;
        slow.send(&frame(HEADERS, END_STREAM, 1, request("GET", &[]))).await;
        ends(slow, NO_ERROR).await;
    });
}

#[test]
fn an_idle_client_is_closed() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.idle_timeout = short)).await;
        let mut idle = Peer::greet(server.address).await;
        idle.send(&get(1)).await;
        idle.body(1).await;
        ends(idle, NO_ERROR).await;
    });
}

#[test]
fn a_client_that_opens_no_window_is_reset() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.stall_timeout = short)).await;
        let mut stalled = Peer::greet(server.address).await;
        stalled.send(&settings(&[(4, 10)])).await;
        for number in 0..100 {
            stalled.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, large())).await;
        }
        for _ in 0..100 {
            let reset = stalled.until(|frame| frame.kind == RST_STREAM).await;
            assert_eq!(reset.code(), Some(0x2));
        }
        // The connection is still good for a client that has learned.
        stalled.send(&settings(&[(4, 65_535)])).await;
        stalled.send(&get(501)).await;
        assert!(!stalled.body(501).await.is_empty());
    });
}

#[test]
fn a_client_that_sends_no_body_is_reset() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.stall_timeout = short)).await;
        let mut stalled = Peer::greet(server.address).await;
        stalled.send(&post(1)).await;
        let reset = stalled.until(|frame| frame.kind == RST_STREAM).await;
        assert_eq!((reset.stream, reset.code()), (1, Some(0x2)));
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.stall_timeout = short)).await;
        let mut deaf = Peer::greet(server.address).await;
        deaf.send(&[settings(&[(4, 1 << 30)]), window_update(0, 1 << 30)].concat()).await;
        for number in 0..8 {
            deaf.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, large())).await;
        }
        server.ended.notified().await;
    });
}

/// A GET of 8 MiB.
fn large() -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":path", "/large"), (":authority", "localhost")])
}

#[test]
fn a_large_response_comes_whole() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        peer.send(&[settings(&[(4, 1 << 30)]), window_update(0, 1 << 30)].concat()).await;
        peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, large())).await;
        assert_eq!(peer.body(1).await.len(), 8 << 20);
    });
}

#[test]
fn a_body_is_only_taken_as_it_is_read() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        // Nobody reads the body of this one; what may be sent ahead is the stream's window.
        let hold = [(":method", "PUT"), (":scheme", "http"), (":path", "/hold"), (":authority", "localhost")];
        peer.send(&frame(HEADERS, END_HEADERS, 1, block(&hold))).await;
        for _ in 0..(256 << 10) / (16 << 10) {
            peer.send(&frame(DATA, 0, 1, vec![0; 16 << 10])).await;
        }
        peer.send(&frame(PING, 0, 0, [7; 8])).await;
        peer.until(|frame| {
            assert!(frame.kind != WINDOW_UPDATE || frame.stream != 1, "the window opens");
            frame.kind == PING
        })
        .await;
        // A byte more is too much.
        peer.send(&frame(DATA, 0, 1, b"x")).await;
        let reset = peer.until(|frame| frame.kind == RST_STREAM).await;
        assert_eq!(reset.code(), Some(FLOW_CONTROL_ERROR));
    });
}

#[test]
fn a_draining_server_ends_what_is_open_and_closes() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        peer.send(&post(1)).await;
        peer.send(&frame(PING, 0, 0, [7; 8])).await;
        peer.until(|frame| frame.kind == PING).await;
        server.drain.send(true).unwrap();
        let first = peer.until(|frame| frame.kind == GOAWAY).await;
        assert_eq!((first.code(), &first.payload[..4]), (Some(NO_ERROR), &[0x7f, 0xff, 0xff, 0xff][..]));
        let ping = peer.until(|frame| frame.kind == PING && frame.flags & ACK == 0).await;
        peer.send(&frame(PING, ACK, 0, ping.payload)).await;
        let second = peer.until(|frame| frame.kind == GOAWAY).await;
        assert_eq!((second.code(), &second.payload[..4]), (Some(NO_ERROR), &[0, 0, 0, 1][..]));
        peer.send(&frame(DATA, END_STREAM, 1, b"body")).await;
        assert!(peer.body(1).await.ends_with(b"body"));
        while peer.frame().await.is_some() {}
    });
}

#[test]
fn a_draining_server_does_not_wait_for_a_client_that_does_not_listen() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let peer = Peer::greet(server.address).await;
        server.drain.send(true).unwrap();
        // Its PING stays without an answer.
        ends(peer, NO_ERROR).await;
    });
}

#[test]
fn a_draining_server_does_not_wait_for_a_client_that_has_not_begun() {
    run(async {
        let server =
            Server::start(Limits { head_timeout: Duration::from_secs(3600), ..Limits::default() }).await;
        let mut silent = Peer::connect(server.address).await;
        // The settings show that it is being served.
        assert_eq!(silent.frame().await.map(|frame| frame.kind), Some(SETTINGS));
        server.drain.send(true).unwrap();
        assert_eq!(silent.frame().await, None);
    });
}

#[test]
fn a_client_that_waits_is_told_to_continue() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let expects = request("POST", &[("expect", "100-Continue")]);
        peer.send(&frame(HEADERS, END_HEADERS, 1, expects)).await;
        let interim = peer.until(|frame| frame.kind == HEADERS).await;
        assert_eq!(interim.flags & END_STREAM, 0);
        // ":status: 100" is a literal of number 8 of the static table.
        assert!(interim.payload.starts_with(&[0x48]) || interim.payload.starts_with(&[0x08]), "{interim:?}");
        peer.send(&frame(DATA, END_STREAM, 1, b"body")).await;
        assert!(peer.body(1).await.ends_with(b"body"));
    });
}

#[test]
fn a_websocket_is_a_stream() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let connect = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/chat"),
            (":authority", "localhost"),
            ("sec-websocket-version", "13"),
        ];
        peer.send(&frame(HEADERS, END_HEADERS, 1, block(&connect))).await;
        let head = peer.until(|frame| frame.kind == HEADERS).await;
        // ":status: 200" is number 8 of the static table.
        assert_eq!((head.payload[0], head.flags & END_STREAM), (0x88, 0));
        for text in [&b"one"[..], b"two"] {
            peer.send(&frame(DATA, 0, 1, text)).await;
            let echo = peer.until(|frame| frame.kind == DATA).await;
            assert_eq!((&echo.payload[..], echo.flags & END_STREAM), (text, 0));
        }
        peer.send(&frame(DATA, END_STREAM, 1, [])).await;
        assert!(peer.until(|frame| frame.kind == DATA).await.ends_stream());
    });
}

#[test]
fn trailers_go_both_ways() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let path =
            [(":method", "POST"), (":scheme", "http"), (":path", "/trailers"), (":authority", "localhost")];
        peer.send(&frame(HEADERS, END_HEADERS, 1, block(&path))).await;
        peer.send(&frame(DATA, 0, 1, b"body")).await;
        peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, block(&[("x-sum", "1")]))).await;
        // They come back as they were sent; the worker of this test puts them into the body too.
        let head = peer.until(|frame| frame.kind == HEADERS).await;
        assert_eq!(head.flags & END_STREAM, 0);
        let data = peer.until(|frame| frame.kind == DATA).await;
        assert!(data.payload.ends_with(b"body"), "{data:?}");
        let trailers = peer.until(|frame| frame.kind == HEADERS).await;
        assert!(trailers.ends_stream());
    });
}

#[test]
fn requests_that_are_taken_back_while_they_are_answered_are_counted() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let hold = [(":method", "PUT"), (":scheme", "http"), (":path", "/hold"), (":authority", "localhost")];
        // Each lot has begun when its PING is answered, so that h2 counts none of them.
        let mut number = 0;
        loop {
            for _ in 0..50 {
                peer.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, block(&hold))).await;
                number += 1;
            }
            peer.send(&frame(PING, 0, 0, [1; 8])).await;
            for taken_back in number - 50..number {
                peer.send(&reset(2 * taken_back + 1, CANCEL)).await;
            }
            let last = peer.until(|frame| matches!(frame.kind, PING | GOAWAY)).await;
            if last.kind == GOAWAY {
                assert_eq!(last.code(), Some(ENHANCE_YOUR_CALM));
                break;
            }
        }
        assert!((500..5000).contains(&number), "{number}");
    });
}
