//! HTTP/2 without TLS to workers, with prior knowledge (RFC 9113, section 3.3), which gRPC needs. A core has few
//! connections to a worker, and on each many requests at a time. That nothing of a request was sent is known from the
//! socket, as with HTTP/1.1.

mod exchange;
mod head;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    io,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared},
};
use h2::client::{Builder, SendRequest};
use lethe_model::roster::Address;

pub(crate) use self::exchange::{Exchange, Failure};
use self::socket::Traffic;
use crate::{config::Limits, socket::Socket};

/// Connections of one core to one worker. A further one is made when all have as many streams as the worker allows;
/// beyond this number, requests wait for streams to end.
const CONNECTIONS_MAX: usize = 8;
/// Streams that a worker is taken to allow until it says so (RFC 9113, section 6.5.2, recommends no fewer).
const STREAMS_BEFORE_SETTINGS: usize = 100;
/// How much of one response is taken ahead of its client.
const STREAM_WINDOW: u32 = 128 << 10;
/// The connection's window must never hold a stream back because the clients of others are slow, so the streams' windows
/// are the only bound.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// How much of one request lies in the connection before its sender has to wait.
const SEND_BUFFER: usize = 64 << 10;
/// What small DATA frames that nobody has taken yet may cost in bookkeeping, on one connection.
const SMALL_FRAMES_BYTES_MAX: usize = 64 << 20;

/// Whether a head in HTTP/1.1's notation can be told in HTTP/2's, which knows fewer hosts.
pub(crate) fn is_told(head: &[u8]) -> bool {
    head::request(head).is_some()
}

/// What one core has towards one worker. Dropped, its connections end with their last requests.
pub(crate) struct Lane {
    address: Address,
    wires: RefCell<Vec<Rc<Wire>>>,
    /// The connection that is being made; whoever needs one waits for the same.
    connecting: RefCell<Option<Connecting>>,
}

type Connecting = Shared<LocalBoxFuture<'static, Result<(), Failed>>>;

/// Why there is no connection, for all who wait for it: an [`io::Error`] cannot be copied.
#[derive(Clone, Copy)]
struct Failed {
    kind: io::ErrorKind,
    errno: Option<i32>,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { kind: error.kind(), errno: error.raw_os_error() }
    }
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        failed.errno.map_or_else(|| failed.kind.into(), io::Error::from_raw_os_error)
    }
}

/// A connection.
struct Wire {
    sender: SendRequest<Bytes>,
    seen: Rc<Traffic>,
    /// Requests on it, or waiting for a stream.
    open: Cell<usize>,
    /// A response came on it.
    proven: Cell<bool>,
}

/// One of the requests on a connection.
struct Occupied {
    wire: Rc<Wire>,
}

impl Occupied {
    fn new(wire: &Rc<Wire>) -> Rc<Self> {
        wire.open.set(wire.open.get() + 1);
        Rc::new(Self { wire: Rc::clone(wire) })
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.wire.open.set(self.wire.open.get() - 1);
    }
}

impl Lane {
    pub(crate) fn new(address: Address) -> Rc<Self> {
        Rc::new(Self { address, wires: RefCell::default(), connecting: RefCell::default() })
    }

    /// A place for one request, on a connection that is there or is made now. Fails when none can be made, in
    /// `connect_timeout`; nothing was sent then. The head is best sent at once, before the worker can end the connection.
    /// Cancellation safe.
    pub(crate) async fn enter(self: &Rc<Self>, limits: &Limits) -> io::Result<Exchange> {
        loop {
            if let Some(wire) = self.pick() {
                return Ok(Exchange::new(Occupied::new(&wire), wire.sender.clone()));
            }
            let connecting = self.connecting.borrow_mut().get_or_insert_with(|| self.connect(limits)).clone();
            let mut waiting = Waiting { lane: self, connecting };
            (&mut waiting.connecting).await?;
        }
    }

    /// The connection with the fewest requests; none if a further one is to be made.
    fn pick(&self) -> Option<Rc<Wire>> {
        let mut wires = self.wires.borrow_mut();
        wires.retain(|wire| wire.is_live());
        let wire = wires.iter().min_by_key(|wire| wire.open.get())?;
        let free = wire.open.get() < wire.sender.current_max_send_streams();
        (free || wires.len() >= CONNECTIONS_MAX).then(|| Rc::clone(wire))
    }

    fn connect(self: &Rc<Self>, limits: &Limits) -> Connecting {
        let (lane, address, limits) = (Rc::downgrade(self), self.address.clone(), limits.clone());
        async move {
            let connecting = tokio::time::timeout(limits.connect_timeout, Socket::connect(&address));
            let socket = connecting.await.map_err(|elapsed| Failed::from(io::Error::from(elapsed)))?;
            open(lane, socket?, &limits).await
        }
        .boxed_local()
        .shared()
    }
}

/// One of those who wait for the connection that is being made.
struct Waiting<'a> {
    lane: &'a Lane,
    connecting: Connecting,
}

impl Drop for Waiting<'_> {
    /// What is done, or what nobody waits for any more, makes room for the next attempt.
    fn drop(&mut self) {
        self.lane.connecting.borrow_mut().take_if(|current| {
            // The other is the lane's own.
            let last = current.ptr_eq(&self.connecting) && current.strong_count() == Some(2);
            last || current.peek().is_some()
        });
    }
}

/// Makes a connection of a socket, with a task of its own, and adds it to its lane.
async fn open(lane: Weak<Lane>, socket: Socket, limits: &Limits) -> Result<(), Failed> {
    let seen = Rc::new(Traffic::default());
    let socket = socket::Socket::new(socket, Rc::clone(&seen));
    let (sender, connection) =
        builder(limits).handshake(socket).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to a worker ended");
        }
    });
    if let Some(lane) = lane.upgrade() {
        lane.wires.borrow_mut().push(Rc::new(Wire {
            sender,
            seen,
            open: Cell::new(0),
            proven: Cell::new(false),
        }));
    }
    Ok(())
}

impl Wire {
    /// Whether new requests may go there: the worker has not said that it ends, and it has not ended.
    fn is_live(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(())))
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES_BYTES_MAX);
    builder
}
