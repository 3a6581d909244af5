//! One client connection: what it is doing now and since when, so that one tick of the core can enforce every
//! timeout of a connection without a timer for each request; and its socket, which notes that bytes move.

use std::{
    cell::{Cell, RefCell},
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
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
    /// The client was too slow, and nobody waits for an answer.
    Close,
    /// The worker or the client's request was too slow, which is to be answered.
    Answer,
}

/// The state of one client connection, shared by its socket, its requests and the core's tick.
pub(crate) struct Client {
    /// The client's address, as `X-Forwarded-For` shows it.
    pub(crate) address: HeaderValue,
    /// Set once the time of the request in hand is over; it is to be answered now.
    pub(crate) late: Cell<bool>,
    /// The gateway is stopping: the next response is the last one.
    pub(crate) draining: Cell<bool>,
    /// While draining: the kernel has bytes of this client that were not read yet.
    has_input: Cell<bool>,
    /// The client owes the next piece of its request body.
    pub(crate) owes: Cell<bool>,
    /// The other half of an upgrade that was agreed.
    pub(crate) tunnel: RefCell<Option<Tunnel>>,
    phase: Cell<Phase>,
    /// Since when, as the tick saw it first: requests do not ask the clock.
    since: Cell<Option<Instant>>,
    /// The time of the route of the request in hand.
    timeout: Cell<Duration>,
    /// The client does not take what is written to it.
    blocked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    pub(crate) fn new(peer: SocketAddr) -> Rc<Self> {
        let address = peer.ip().to_canonical().to_string();
        Rc::new(Self {
            address: HeaderValue::from_str(&address).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            late: Cell::new(false),
            draining: Cell::new(false),
            has_input: Cell::new(false),
            owes: Cell::new(false),
            tunnel: RefCell::new(None),
            phase: Cell::new(Phase::Head),
            since: Cell::new(None),
            timeout: Cell::new(Duration::MAX),
            blocked: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    /// Enters a phase, or begins the one it is in anew.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(None);
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// An attempt begins: from the last byte of the request on, the worker will have `timeout`.
    pub(crate) fn expect(&self, timeout: Duration) {
        self.timeout.set(timeout);
        self.late.set(false);
        self.owes.set(false);
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

    /// Whether the connection may be told to end: not while the head of a request is on its way, which a close
    /// would lose.
    pub(crate) fn may_end(&self) -> bool {
        !(self.has_input.get() && matches!(self.phase.get(), Phase::Head | Phase::Idle))
    }

    /// What the tick at `now` must do, if anything. Each phase is timed from the first tick that sees it.
    pub(crate) fn overdue(&self, now: Instant, limits: &Limits) -> Option<Overdue> {
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        let age = now.saturating_duration_since(since);
        let (limit, overdue) = match self.phase.get() {
            Phase::Head => (limits.head_timeout, Overdue::Close),
            Phase::Idle => (limits.idle_timeout, Overdue::Close),
            Phase::Uploading | Phase::Waiting if self.late.get() => return None,
            Phase::Uploading => (limits.idle_timeout, Overdue::Answer),
            Phase::Waiting => (self.timeout.get(), Overdue::Answer),
            Phase::Answering if self.blocked.get() => (limits.idle_timeout, Overdue::Close),
            Phase::Choosing | Phase::Answering | Phase::Tunnel => return None,
        };
        (age > limit).then_some(overdue)
    }

    /// The first bytes of a head came.
    fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// A write came to an end, with or without success.
    fn wrote(&self, pending: bool) {
        if pending != self.blocked.replace(pending)
            && matches!(self.phase.get(), Phase::Answering | Phase::Idle)
        {
            self.since.set(None);
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
        if self.client.draining.get() {
            let peeked = SockRef::from(self.inner.inner()).peek(&mut [MaybeUninit::uninit()]);
            self.client.has_input.set(peeked.is_ok_and(|bytes| bytes > 0));
        }
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
        let client = Client::new(([127, 0, 0, 1], 1).into());
        client.expect(Duration::from_secs(3));
        // What is said after so many seconds in a phase, by a tick that has seen its begin.
        let after = |seconds| {
            client.since.set(Some(start));
            client.overdue(start + Duration::from_secs(seconds), &limits)
        };
        assert_eq!((after(1), after(2)), (None, Some(Overdue::Close)));
        client.enter(Phase::Waiting);
        assert_eq!((after(3), after(4)), (None, Some(Overdue::Answer)));
        client.enter(Phase::Uploading);
        assert_eq!((after(10), after(11)), (None, Some(Overdue::Answer)));
        client.late.set(true);
        assert_eq!(after(11), None, "said once");
        client.enter(Phase::Answering);
        assert_eq!(after(99), None, "a quiet stream may last");
        client.blocked.set(true);
        assert_eq!(after(11), Some(Overdue::Close), "a client that takes nothing");
        client.enter(Phase::Idle);
        assert_eq!((after(10), after(11)), (None, Some(Overdue::Close)));
        client.enter(Phase::Tunnel);
        assert_eq!(after(99), None);
    }

    #[test]
    fn a_phase_is_timed_from_the_first_tick_that_sees_it() {
        let limits = Limits { head_timeout: Duration::from_secs(1), ..Limits::default() };
        let (client, start) = (Client::new(([127, 0, 0, 1], 1).into()), Instant::now());
        let second = |n| start + Duration::from_secs(n);
        assert_eq!(client.overdue(second(5), &limits), None);
        assert_eq!(client.overdue(second(6), &limits), None);
        assert_eq!(client.overdue(second(7), &limits), Some(Overdue::Close));
    }
}
