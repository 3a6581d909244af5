//! HTTP/2 as clients see it, on real connections: a small server on `serve` in the engine's place.

#[path = "../../tests/http2/conformance.rs"]
mod conformance;
#[path = "../../tests/http2/floods.rs"]
mod floods;
#[path = "../../tests/http2/generic.rs"]
mod generic;
mod limits;
mod messages;
#[path = "../../tests/http2/peer.rs"]
#[allow(dead_code, reason = "not every test needs all of it")]
mod peer;
#[path = "../../tests/http2/rfc7541.rs"]
mod rfc7541;
#[path = "../../tests/http2/rfc9113.rs"]
mod rfc9113;
mod writes;

use std::{cell::Cell, future::poll_fn, net::SocketAddr, rc::Rc, sync::OnceLock, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::LocalSet,
};

use super::{Leaving, Request, Stream, serve};
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

/// A response that no buffer holds.
static LARGE: OnceLock<Vec<u8>> = OnceLock::new();

thread_local! {
    /// Bytes of response bodies that this test's server could get rid of.
    static TAKEN: Cell<usize> = const { Cell::new(0) };
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
                    let mut parting = draining.clone();
                    let leaving = Leaving {
                        draining: async move {
                            let _ = draining.wait_for(|&draining| draining).await;
                        },
                        parting: async move {
                            let _ = parting.wait_for(|&parting| parting).await;
                        },
                    };
                    let on_request = |request, stream| {
                        tokio::task::spawn_local(answer(request, stream));
                    };
                    serve(stream, &limits, leaving, on_request).await;
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
    let text = if head.starts_with("GET /large") { LARGE.get_or_init(|| vec![b'x'; 8 << 20]) } else { &text };
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
    let rest = if has_body { text } else { &[][..] };
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
        TAKEN.set(TAKEN.get() + taken);
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

/// A GET of 8 MiB.
fn large() -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":path", "/large"), (":authority", "localhost")])
}
