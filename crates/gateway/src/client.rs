//! One client connection: what it is doing now and since when, so that one tick of the core can enforce every
//! timeout of a connection without a timer for each request; and its socket, which notes that bytes move.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{config::Limits, upgrade::Tunnel};

/// What a client connection is doing. Head → Choosing → (Uploading →) Waiting → Answering → Idle → Head …, with a way
/// back from Waiting to Choosing when a worker was lost, and from Waiting to Tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A head is being received.
    Head,
    /// A worker is chosen, waited for and connected to, each with a timeout of its own.
    Choosing,
    /// A request body is being received and passed on.
    Uploading,
    /// The request is sent; the worker has the time of the route.
    Waiting,
    /// The response is being sent.
    Answering,
    /// Between requests.
    Idle,
    /// Upgraded: bytes are passed both ways.
    Tunnel,
}

/// What the tick must do to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// The client was too slow.
    Close,
    /// The worker was too slow.
    Answer,
}

/// The state of one client connection, shared by its socket, its requests and the core's tick.
pub(crate) struct Client {
    /// The client's address, as `X-Forwarded-For` shows it.
    pub(crate) address: HeaderValue,
    /// Set once the route's time is over; the request in hand answers 504.
    pub(crate) late: Cell<bool>,
    /// The gateway is stopping: the next response is the last one.
    pub(crate) draining: Cell<bool>,
    /// The other half of an upgrade that was agreed.
    pub(crate) tunnel: RefCell<Option<Tunnel>>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// The time of the route of the request in hand.
    timeout: Cell<Duration>,
    /// The client does not take what is written to it.
    blocked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    pub(crate) fn new(peer: SocketAddr, now: Instant) -> Rc<Self> {
        let address = peer.ip().to_canonical().to_string();
        Rc::new(Self {
            address: HeaderValue::from_str(&address).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            late: Cell::new(false),
            draining: Cell::new(false),
            tunnel: RefCell::new(None),
            phase: Cell::new(Phase::Head),
            since: Cell::new(now),
            timeout: Cell::new(Duration::MAX),
            blocked: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    pub(crate) fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.since.set(now);
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// An attempt begins: from the last byte of the request on, the worker will have `timeout`.
    pub(crate) fn expect(&self, timeout: Duration) {
        self.timeout.set(timeout);
        self.late.set(false);
    }

    /// Remembers how to wake the connection's task; a task's waker never changes.
    pub(crate) fn remember(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if slot.is_none() {
            *slot = Some(waker.clone());
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// What the tick at `now` must do, if anything.
    pub(crate) fn overdue(&self, now: Instant, limits: &Limits) -> Option<Overdue> {
        let age = now.saturating_duration_since(self.since.get());
        let (limit, overdue) = match self.phase.get() {
            Phase::Head => (limits.head_timeout, Overdue::Close),
            Phase::Uploading | Phase::Idle => (limits.idle_timeout, Overdue::Close),
            Phase::Waiting if self.late.get() => return None,
            Phase::Waiting => (self.timeout.get(), Overdue::Answer),
            Phase::Answering if self.blocked.get() => (limits.idle_timeout, Overdue::Close),
            Phase::Choosing | Phase::Answering | Phase::Tunnel => return None,
        };
        (age > limit).then_some(overdue)
    }

    /// The first bytes of a head came.
    fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head, Instant::now());
        }
    }

    /// A write came to an end, with or without success.
    fn wrote(&self, pending: bool) {
        if pending != self.blocked.replace(pending) && self.phase.get() == Phase::Answering {
            self.since.set(Instant::now());
        }
    }
}

/// The socket of a client connection.
pub(crate) struct ClientIo {
    inner: TokioIo<TcpStream>,
    client: Rc<Client>,
}

impl ClientIo {
    pub(crate) fn new(stream: TcpStream, client: Rc<Client>) -> Self {
        Self { inner: TokioIo::new(stream), client }
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.inner.into_inner()
    }
}

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            self.client.received();
        }
        read
    }
}

impl Write for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.client.wrote(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.client.wrote(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_limit() {
        let limits = Limits {
            head_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
            ..Limits::default()
        };
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let client = Client::new(([127, 0, 0, 1], 1).into(), start);
        assert_eq!(client.overdue(after(1), &limits), None);
        assert_eq!(client.overdue(after(2), &limits), Some(Overdue::Close));
        client.expect(Duration::from_secs(3));
        client.enter(Phase::Waiting, start);
        assert_eq!(client.overdue(after(3), &limits), None);
        assert_eq!(client.overdue(after(4), &limits), Some(Overdue::Answer));
        client.late.set(true);
        assert_eq!(client.overdue(after(4), &limits), None, "said once");
        client.enter(Phase::Answering, start);
        assert_eq!(client.overdue(after(99), &limits), None, "a quiet stream may last");
        client.blocked.set(true);
        assert_eq!(client.overdue(after(11), &limits), Some(Overdue::Close), "a client that takes nothing");
        client.enter(Phase::Idle, start);
        assert_eq!(client.overdue(after(11), &limits), Some(Overdue::Close));
        client.enter(Phase::Tunnel, start);
        assert_eq!(client.overdue(after(99), &limits), None);
    }
}
