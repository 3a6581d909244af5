//! The way to a worker for one request: an HTTP/1.1 connection, or a stream of an HTTP/2 one. It has no task of its own:
//! whoever holds it polls it, inside the task of the client, so that a request crosses the gateway without a switch of
//! tasks. What the kernel took is counted, which is how "nothing was sent" is known for certain.

mod h2c;
mod http1;

use std::{
    io,
    task::{Context, Poll},
    time::Instant,
};

pub(crate) use self::{h2c::H2c, http1::Http1};
use crate::{
    admit::Length,
    buffer::Pool,
    downstream::{Broken, Downstream},
    head::{Bounds, ResponseHead, Version},
    headers::Framing,
    upload::Upload,
    verdict::{Cause, Loss},
    via::Came,
    watch::Watched,
};

/// Most interim responses before the final one.
const INTERIM_MAX: u8 = 16;

/// A way to a worker, with at most one request on it. Some hundred bytes large, so it is kept boxed.
#[allow(clippy::large_enum_variant, reason = "it is only ever boxed as a whole")]
pub(crate) enum Link {
    /// A connection, idle or with a request on it.
    Http1(Http1),
    /// A stream; it is good for one request.
    H2c(H2c),
}

/// Why a request cannot be sent further.
pub(crate) enum Halt {
    /// The worker is lost.
    Lost(Loss),
    /// The client cut its body short.
    Broken(Broken),
}

/// What of a response's [`Framing`] is needed after its head was passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) is_events: bool,
}

impl From<Framing<'_>> for Shape {
    fn from(framing: Framing<'_>) -> Self {
        let Framing { close, keep_alive, length, chunked, is_events, .. } = framing;
        Self { close, keep_alive, length, chunked, is_events }
    }
}

macro_rules! each {
    ($self:ident, $link:ident => $call:expr) => {
        match $self {
            Link::Http1($link) => $call,
            Link::H2c($link) => $call,
        }
    };
}

impl Link {
    /// Begins a request. `careful` looks whether the worker has closed the connection meanwhile; then nothing was sent.
    pub(crate) fn begin(&mut self, head: &[u8], length: Length, careful: bool) -> Result<(), Loss> {
        match self {
            Self::Http1(link) => link.begin(head, length, careful),
            Self::H2c(link) => link.begin(head, length),
        }
    }

    /// What it means that the request ends by `cause`, before there was a response.
    pub(crate) fn loss(&self, cause: Cause) -> Loss {
        each!(self, link => link.loss(cause))
    }

    /// Sends what is there of the request, and asks the client for more. Ready once all of it is sent, or nothing more of it
    /// is wanted.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
        down: &mut impl Downstream,
        watched: &Watched,
    ) -> Poll<Result<(), Halt>> {
        each!(self, link => link.poll_send(cx, upload, down, watched))
    }

    /// Ready when the head of the response is whole, in [`Self::head`] and [`Self::head_bytes`]. Interim responses are
    /// passed on.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        pool: &Pool,
        bounds: Bounds,
        down: &mut impl Downstream,
    ) -> Poll<Result<(), Loss>> {
        match self {
            Self::Http1(link) => link.poll_head(cx, pool, bounds, down),
            Self::H2c(link) => link.poll_head(cx, bounds, down),
        }
    }

    /// Whether interim responses were passed on.
    pub(crate) fn has_informed(&self) -> bool {
        each!(self, link => link.interims > 0)
    }

    /// The response's head, once it is whole.
    pub(crate) fn head(&self) -> &ResponseHead {
        each!(self, link => &link.head)
    }

    /// What the response came by.
    pub(crate) fn came(&self) -> Came {
        match self {
            Self::H2c(_) => Came::Http2,
            Self::Http1(link) if link.head.version == Version::Http10 => Came::Http10,
            Self::Http1(_) => Came::Http11,
        }
    }

    /// The bytes that the head was read from; until the body is begun.
    pub(crate) fn head_bytes(&self) -> &[u8] {
        self.data()
    }

    /// What the response's body will be; `None` if the head contradicts itself.
    pub(crate) fn framing(&self) -> Option<Framing<'_>> {
        Framing::of(self.head_bytes(), self.head())
    }

    /// Ready once a body of `length` bytes is here, behind the head, together with it.
    pub(crate) fn poll_hold(
        &mut self,
        cx: &mut Context<'_>,
        pool: &Pool,
        length: usize,
    ) -> Poll<Result<(), Cause>> {
        match self {
            Self::Http1(link) => link.poll_hold(cx, pool, length),
            Self::H2c(link) => link.poll_hold(cx, length),
        }
    }

    /// Leaves the head behind: from now on the body is read. `bodiless` says that there is none, whatever the head says.
    pub(crate) fn begin_body(&mut self, shape: Shape, bodiless: bool, bounds: Bounds) {
        match self {
            Self::Http1(link) => link.begin_body(shape, bodiless, bounds),
            Self::H2c(link) => link.begin_body(bodiless),
        }
    }

    /// Ready when there is more of the body, at the start of [`Self::data`]: how many bytes, none at its end.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>, pool: &Pool) -> Poll<Result<usize, Cause>> {
        match self {
            Self::Http1(link) => link.poll_data(cx, pool),
            Self::H2c(link) => link.poll_data(cx),
        }
    }

    /// Bytes of the body, and perhaps what follows them.
    pub(crate) fn data(&self) -> &[u8] {
        each!(self, link => link.data())
    }

    /// So many bytes of the body were used.
    pub(crate) fn took(&mut self, bytes: usize) {
        each!(self, link => link.took(bytes))
    }

    /// The trailers, once the body has ended.
    pub(crate) fn trailers(&self) -> &[u8] {
        each!(self, link => link.trailers())
    }

    /// Whether the body has ended, and nothing needs to be polled to know.
    pub(crate) fn has_ended(&self) -> bool {
        each!(self, link => link.has_ended())
    }

    /// Makes it ready for another request; false if it cannot carry one.
    pub(crate) fn settle(&mut self, pool: &Pool) -> bool {
        match self {
            Self::Http1(link) => link.settle(pool),
            Self::H2c(_) => false,
        }
    }

    /// Whether it is one of several on a connection.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::H2c(_))
    }

    /// Its connection has carried a request before: the worker may have closed it since.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(link) => link.reused,
            Self::H2c(link) => link.is_reused(),
        }
    }

    /// Since when it is idle, as the core's tick saw it first; now, if it is asked for the first time.
    pub(crate) fn idle_since(&mut self, now: Instant) -> Instant {
        match self {
            Self::Http1(link) => *link.idle_since.get_or_insert(now),
            Self::H2c(_) => now,
        }
    }

    /// Whether something came on an idle connection: its end, or bytes that nobody asked for. Costs no system call.
    pub(crate) fn has_stirred(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Http1(link) => link.has_stirred(cx),
            Self::H2c(_) => true,
        }
    }

    /// After a 101, which only HTTP/1.1 has: reads bytes as they come; none at the end.
    pub(crate) fn poll_raw(&mut self, cx: &mut Context<'_>, pool: &Pool) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(link) => link.poll_raw(cx, pool),
            Self::H2c(_) => Poll::Ready(Ok(0)),
        }
    }

    /// After a 101: writes bytes as they are.
    pub(crate) fn poll_write_raw(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(link) => link.poll_write_raw(cx, data),
            Self::H2c(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// After a 101: the client sends no more.
    pub(crate) fn poll_end_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(link) => link.poll_end_raw(cx),
            Self::H2c(_) => Poll::Ready(Ok(())),
        }
    }
}
