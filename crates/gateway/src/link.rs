//! A connection to a worker. It has no task of its own: whoever holds it drives it, inside the task of the client
//! connection, so that a request crosses the gateway without a switch of tasks. Its socket counts what the kernel
//! took, which is how "nothing was sent" is known for certain.

use std::{
    cell::Cell,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, Connection, SendRequest},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    config::Limits,
    relay::Relay,
    replay::RequestBody,
    verdict::{Cause, Loss, Stage},
};

/// hyper's own limit on header fields; telling it the same would only make it slower.
pub(crate) const HYPER_HEADERS_MAX: usize = 100;
/// Buffers are at least this large, so that big bodies move in big pieces.
pub(crate) const BUFFER_BYTES_MIN: usize = 64 << 10;

/// A connection to a worker, idle or with one request on it. Some hundred bytes large, so it is kept boxed.
pub(crate) struct Link {
    sender: SendRequest<RequestBody>,
    connection: Driven,
    relay: Relay,
    progress: Rc<Progress>,
    /// It has carried a request before: the worker may have closed it since.
    pub(crate) reused: bool,
    /// Since when it is idle, as the core's tick saw it first.
    pub(crate) idle_since: Option<Instant>,
}

/// What the socket saw of the request in hand.
#[derive(Default)]
struct Progress {
    /// Bytes that the kernel took.
    written: Cell<u64>,
    /// Before the first byte, look whether the worker has closed.
    probe: Cell<bool>,
}

impl Link {
    /// Connects to a worker.
    pub(crate) async fn connect(address: SocketAddr, limits: &Limits) -> io::Result<Box<Self>> {
        let stream = match tokio::time::timeout(limits.connect_timeout, TcpStream::connect(address)).await {
            Ok(stream) => stream?,
            Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
        };
        // The port of a worker that has just died may be drawn for this very connection, which then meets itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        let progress = Rc::new(Progress::default());
        let socket = Socket { inner: TokioIo::new(stream), progress: Rc::clone(&progress), broken: false };
        let mut builder = Builder::new();
        builder
            .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES_MIN))
            .max_header_size(limits.head_bytes_max);
        if limits.headers_max != HYPER_HEADERS_MAX {
            builder.max_headers(limits.headers_max);
        }
        let (sender, connection) = builder.handshake(socket).await.map_err(io::Error::other)?;
        let connection = Driven::Live(connection);
        Ok(Box::new(Self {
            sender,
            connection,
            relay: Relay::new(),
            progress,
            reused: false,
            idle_since: None,
        }))
    }

    /// Sends a request and waits for the head of its response, or until `late` says that the time is over.
    /// `careful` looks, before the first byte, whether the worker has closed the connection meanwhile. Not
    /// cancellation safe: a link whose exchange was dropped is only good for dropping.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        careful: bool,
        late: &Cell<bool>,
    ) -> Result<Response<Incoming>, Loss> {
        self.progress.written.set(0);
        self.progress.probe.set(careful && self.reused);
        let mut answer = pin!(self.sender.try_send_request(request));
        let (connection, relay) = (&mut self.connection, &self.relay);
        let mut round = |cx: &mut Context<'_>| {
            connection.drive(cx);
            match answer.as_mut().poll(cx) {
                Poll::Pending if late.get() => Poll::Ready(Err(Cause::Late)),
                Poll::Pending if connection.is_live() => Poll::Pending,
                // It ended before it took the request, as an idle connection does that the worker closed.
                Poll::Pending => Poll::Ready(Err(Cause::Gone)),
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(cause(error.error()))),
            }
        };
        let answer = std::future::poll_fn(|cx| relay.drive(cx, &mut round)).await;
        answer.map_err(|cause| {
            let stage = if self.progress.written.get() == 0 { Stage::Unsent } else { Stage::Sent };
            Loss { stage, cause }
        })
    }

    /// The next piece of the response's body, driving the connection as needed.
    pub(crate) fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let connection = &mut self.connection;
        self.relay.drive(cx, |cx| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            connection.drive(cx);
            Pin::new(&mut *body).poll_frame(cx)
        })
    }

    /// Drives the connection after a whole response, and tells whether it may carry another request.
    pub(crate) fn settle(&mut self, cx: &mut Context<'_>) -> bool {
        let connection = &mut self.connection;
        let _ = self.relay.drive(cx, |cx| {
            connection.drive(cx);
            Poll::<()>::Pending
        });
        self.relay.release();
        self.connection.is_live() && self.sender.is_ready()
    }

    /// The bare socket, and what was already read from it, after a 101; `None` when the worker has gone.
    pub(crate) async fn into_upgraded(mut self) -> Option<(TcpStream, Bytes)> {
        let (connection, relay) = (&mut self.connection, &self.relay);
        let mut round = |cx: &mut Context<'_>| {
            connection.drive(cx);
            if connection.is_live() { Poll::Pending } else { Poll::Ready(()) }
        };
        std::future::poll_fn(|cx| relay.drive(cx, &mut round)).await;
        let Driven::Ended(connection) = self.connection else { return None };
        let parts = connection.into_parts();
        Some((parts.io.inner.into_inner(), parts.read_buf))
    }
}

/// hyper's half of a link. Live → Ended (as it should, or by an upgrade) | Failed.
enum Driven {
    Live(Connection<Socket, RequestBody>),
    Ended(Connection<Socket, RequestBody>),
    Failed,
}

impl Driven {
    /// Moves the connection on; must be called until it has nothing more to do.
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Self::Live(connection) = self else { return };
        let Poll::Ready(end) = Pin::new(connection).poll(cx) else { return };
        *self = match (end, std::mem::replace(self, Self::Failed)) {
            (Ok(()), Self::Live(connection)) => Self::Ended(connection),
            _ => Self::Failed,
        };
    }

    fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }
}

fn cause(error: &hyper::Error) -> Cause {
    if error.is_parse() || error.is_parse_too_large() { Cause::Garbled } else { Cause::Gone }
}

/// The socket of a link.
struct Socket {
    inner: TokioIo<TcpStream>,
    progress: Rc<Progress>,
    /// A write failed after the first byte.
    broken: bool,
}

impl Socket {
    /// Looks before the first byte of a request, if asked to, whether the worker has already closed.
    fn probe(&self) -> io::Result<()> {
        if !self.progress.probe.take() {
            return Ok(());
        }
        match SockRef::from(self.inner.inner()).peek(&mut [MaybeUninit::uninit()]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn poll_counted(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        write: impl FnOnce(Pin<&mut TokioIo<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.probe()?;
        if self.broken {
            return Poll::Ready(Ok(wanted));
        }
        let result = ready!(write(Pin::new(&mut self.inner), cx));
        Poll::Ready(self.wrote(wanted, result))
    }

    /// Notes the end of a write. Once something was sent, a failing write is not the end: a worker may answer
    /// without reading the whole body and close, and that answer is still to be read. The reading side sees the
    /// end of the connection in any case.
    fn wrote(&mut self, wanted: usize, result: io::Result<usize>) -> io::Result<usize> {
        let written = self.progress.written.get();
        match result {
            Ok(n) => {
                self.progress.written.set(written + n as u64);
                Ok(n)
            }
            Err(_) if written > 0 => {
                self.broken = true;
                Ok(wanted)
            }
            Err(error) => Err(error),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_counted(cx, buf.len(), |inner, cx| inner.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_counted(cx, wanted, |inner, cx| inner.poll_write_vectored(cx, bufs))
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
