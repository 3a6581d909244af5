//! A connection's socket, whatever it is made of, and how one to a worker is made.

use std::{
    io::{self, Read, Write},
    mem::MaybeUninit,
    net::{self, Shutdown},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use lethe_model::roster::Address;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

/// How long to wait before the next attempt at a unix socket whose line of connections to be accepted is full. A TCP
/// connection waits in the kernel then, but a unix one is refused with EAGAIN (connect(2)), and nothing tells when there
/// is room.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Most that is read of a connection before the runtime watches it.
const FIRST_READ_BYTES: usize = 16 << 10;

/// Whether a connection could not be made for want of something here: descriptors, ports or memory (connect(2),
/// socket(2)).
pub(crate) fn is_starved(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(|errno| {
        matches!(errno, Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL | Errno::NOMEM | Errno::NOBUFS)
    })
}

/// A connection to a client or a worker.
pub(crate) enum Socket {
    /// A client's, just accepted.
    Fresh(Fresh),
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Some kilobytes large, so it is kept boxed.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket that the runtime does not watch yet. A connection that carries one request alone is mostly over before it has
/// to wait for its client, and never pays for being watched; one that does wait, or is read for a second time, is watched
/// from then on.
pub(crate) struct Fresh {
    /// None once it is watched, or could not be.
    stream: Option<net::TcpStream>,
    was_read: bool,
}

impl Fresh {
    /// The runtime is to watch it. It fails when the kernel has no memory for that.
    fn watched(&mut self) -> io::Result<TcpStream> {
        TcpStream::from_std(self.stream.take().ok_or(io::ErrorKind::NotConnected)?)
    }
}

impl Socket {
    /// A client's that was just accepted, and does not block.
    pub(crate) fn fresh(stream: net::TcpStream) -> Self {
        Self::Fresh(Fresh { stream: Some(stream), was_read: false })
    }

    /// Whether nothing wakes the task when its client leaves or sends more.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(_))
    }

    /// The runtime is to watch it, if it does not yet.
    fn watch(&mut self) -> io::Result<()> {
        if let Self::Fresh(fresh) = self {
            *self = Self::Tcp(fresh.watched()?);
        }
        Ok(())
    }

    /// What `call` gives on a fresh socket. None if it would have to wait there, which is fresh no longer then, as it is for
    /// any other.
    fn try_fresh<T>(
        &mut self,
        call: impl FnOnce(&mut &net::TcpStream) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let Self::Fresh(Fresh { stream: Some(stream), .. }) = self else {
            return self.watch().err().map(Err);
        };
        match call(&mut &*stream) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.watch().err().map(Err)
            }
            done => Some(done),
        }
    }

    /// Connects to a worker. Takes as long as the worker leaves it waiting: the caller bounds it. Cancellation safe.
    pub(crate) async fn connect(address: &Address) -> io::Result<Self> {
        let path = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // The port of a worker that has just died may be drawn for this very connection, which then meets itself.
                if stream.local_addr()? == stream.peer_addr()? {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                stream.set_nodelay(true)?;
                return Ok(Self::Tcp(stream));
            }
            Address::Unix(path) => path,
        };
        loop {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(FULL_PAUSE).await
                }
                connected => return connected.map(Self::Unix),
            }
        }
    }

    /// Whether the kernel holds bytes that were not read, or the end of the stream.
    pub(crate) fn peek(&self) -> io::Result<usize> {
        match self {
            Self::Fresh(fresh) => peek(fresh.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?.as_fd()),
            Self::Tcp(stream) => peek(stream.as_fd()),
            Self::Unix(stream) => peek(stream.as_fd()),
            Self::Tls(stream) => peek(stream.get_ref().0.as_fd()),
        }
    }

    /// Ready when something came, or the end. Costs no system call. Not for a fresh one.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Fresh(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.get_ref().0.poll_read_ready(cx),
        }
    }

    /// Whether its end must be said before it is closed, since an end that is not said could be anybody's (TLS).
    pub(crate) fn says_goodbye(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether the kernel holds nothing that was not read.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.peek().is_ok_and(|bytes| bytes > 0)
    }
}

/// Whether the kernel holds nothing of this connection that was not read.
pub(crate) fn is_quiet(stream: &TcpStream) -> bool {
    !peek(stream.as_fd()).is_ok_and(|bytes| bytes > 0)
}

fn peek(socket: BorrowedFd<'_>) -> io::Result<usize> {
    SockRef::from(&socket).peek(&mut [MaybeUninit::uninit()])
}

/// Passes a call on to what the socket is made of; to a fresh one by `$direct`, as long as that needs not wait.
macro_rules! each {
    ($self:ident, $direct:expr, $stream:ident => $call:expr) => {{
        let this = $self.get_mut();
        if this.is_fresh()
            && let Some(done) = this.try_fresh($direct)
        {
            return Poll::Ready(done);
        }
        match this {
            // It is watched by now.
            Socket::Fresh(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
            Socket::Tls($stream) => {
                let $stream = &mut **$stream;
                $call
            }
        }
    }};
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Self::Fresh(fresh) = &mut *self
            && std::mem::replace(&mut fresh.was_read, true)
        {
            self.watch()?;
        }
        let read = |stream: &mut &net::TcpStream| {
            let room = buf.remaining().min(FIRST_READ_BYTES);
            let count = stream.read(buf.initialize_unfilled_to(room))?;
            buf.advance(count);
            Ok(())
        };
        each!(self, read, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, |stream| stream.write(buf), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, |stream| stream.write_vectored(bufs), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has all that was written.
        each!(self, |_| Ok(()), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, |stream| stream.shutdown(Shutdown::Write), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Two ends of a connection on which each read gives what one write has taken.
    pub(crate) fn whole_writes() -> (UnixStream, UnixStream) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let stream = |end: std::os::fd::OwnedFd| UnixStream::from_std(end.into()).unwrap();
        (stream(one), stream(other))
    }

    #[test]
    fn what_is_wanting_here_is_not_the_workers_fault() {
        for (errno, ours) in
            [(24, true), (23, true), (99, true), (12, true), (105, true), (111, false), (104, false)]
        {
            assert_eq!(is_starved(&io::Error::from_raw_os_error(errno)), ours, "{errno}");
        }
        assert!(!is_starved(&io::ErrorKind::TimedOut.into()));
    }

    #[tokio::test]
    async fn a_fresh_socket_is_watched_once_it_has_to_wait() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            Socket::fresh(stream)
        };
        let mut fresh = accepted();
        client.write_all(b"ask").unwrap();
        while fresh.peek().is_err() {
            std::thread::yield_now();
        }
        assert_eq!(fresh.read(&mut [0; 8]).now_or_never().unwrap().unwrap(), 3);
        fresh.write_all(b"answer").now_or_never().unwrap().unwrap();
        assert!(fresh.is_fresh(), "nothing was waited for");
        client.read_exact(&mut [0; 6]).unwrap();
        let mut next = [0; 8];
        let mut reading = pin!(fresh.read(&mut next));
        assert!((&mut reading).now_or_never().is_none());
        client.write_all(b"more").unwrap();
        assert_eq!(reading.await.unwrap(), 4);
        assert!(!fresh.is_fresh());
        drop(client);
        assert_eq!(fresh.read(&mut [0; 8]).await.unwrap(), 0);

        // One whose client says nothing at first, and takes nothing.
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut fresh = accepted();
        let written = pin!(async {
            let piece = [0; 64 << 10];
            let mut bytes = 0;
            while let Some(count) = fresh.write(&piece).now_or_never() {
                bytes += count.unwrap();
            }
            fresh.write_all(&piece).await.unwrap();
            fresh.shutdown().await.unwrap();
            (bytes + piece.len(), fresh)
        });
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all.len()
        });
        let (bytes, fresh) = written.await;
        assert!(!fresh.is_fresh());
        assert_eq!(reader.join().unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_unix_socket_whose_line_is_full_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let at = socket2::SockAddr::unix(&path).unwrap();
        let new = || {
            socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM.nonblocking(), None).unwrap()
        };
        let listener = new();
        listener.bind(&at).unwrap();
        listener.listen(0).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            let socket = new();
            match socket.connect(&at) {
                Ok(()) => waiting.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let address = Address::Unix(path.as_path().into());
        let mut connecting = pin!(Socket::connect(&address));
        assert!((&mut connecting).now_or_never().is_none(), "it waits");
        for _ in waiting {
            listener.accept().unwrap();
        }
        let socket = connecting.await.unwrap();
        assert!(socket.is_quiet());
        drop(listener.accept().unwrap());
        assert!(
            !socket.peek().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            "its end is seen"
        );
        drop(listener);
        let refused = Socket::connect(&address).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
