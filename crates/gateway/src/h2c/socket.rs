//! The socket under an HTTP/2 connection to a worker. It knows of which requests the kernel took the head, which is how
//! "nothing was sent" is known for certain, and whether the worker speaks HTTP/2 at all.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http2::frame::{Kind, Part, Parts};

/// What passed through the socket.
#[derive(Default)]
pub(super) struct Traffic {
    /// The highest stream of which the kernel took the head of a HEADERS frame. Streams are begun in the order of their
    /// numbers.
    sent: Cell<u32>,
    greeting: Cell<Greeting>,
}

/// What a worker says first. It must be SETTINGS (RFC 9113, section 3.4).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Greeting {
    #[default]
    None,
    Settings,
    Alien,
}

impl Traffic {
    /// Whether anything of this stream's request may have reached the worker.
    pub(super) fn is_sent(&self, stream: u32) -> bool {
        stream <= self.sent.get()
    }

    /// Whether the worker has said something that is not HTTP/2.
    pub(super) fn is_alien(&self) -> bool {
        self.greeting.get() == Greeting::Alien
    }
}

/// A socket that is looked at as it is read and written.
pub(super) struct Socket<S> {
    io: S,
    seen: Rc<Traffic>,
    written: Parts,
    read: Parts,
}

impl<S> Socket<S> {
    pub(super) fn new(io: S, seen: Rc<Traffic>) -> Self {
        Self { io, seen, written: Parts::after_preface(), read: Parts::new() }
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let sent = &self.seen.sent;
        self.written.feed(bytes, |part| {
            if let Part::Head(head) = part
                && head.is_headers()
            {
                sent.set(sent.get().max(head.stream));
            }
        });
    }

    fn saw(&mut self, bytes: &[u8]) {
        let greeting = &self.seen.greeting;
        if greeting.get() != Greeting::None {
            return;
        }
        self.read.feed(bytes, |part| {
            if let Part::Head(head) = part
                && greeting.get() == Greeting::None
            {
                let settings = head.kind == Kind::Settings;
                greeting.set(if settings { Greeting::Settings } else { Greeting::Alien });
            }
        });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.saw(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.wrote(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let mut left = taken;
        for buf in bufs {
            let part = left.min(buf.len());
            self.wrote(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
