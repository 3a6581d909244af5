//! The socket that a worker listens on, which is a TCP port's or a unix one, and the connections to it.

use std::io;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection to it.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// The next connection. Cancellation safe.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(socket) => Stream::Tcp(socket.accept().await?.0),
            Self::Unix(socket) => Stream::Unix(socket.accept().await?.0),
        })
    }

    /// What has already arrived, one connection at each call, and an error when there is no more. It is asked for without
    /// the runtime, whose knowledge of the socket may be older than the last arrival.
    pub(super) fn into_arrivals(self) -> io::Result<Box<dyn FnMut() -> io::Result<Stream>>> {
        Ok(match self {
            Self::Tcp(socket) => {
                let socket = socket.into_std()?;
                Box::new(move || {
                    let (stream, _) = socket.accept()?;
                    stream.set_nonblocking(true)?;
                    TcpStream::from_std(stream).map(Stream::Tcp)
                })
            }
            Self::Unix(socket) => {
                let socket = socket.into_std()?;
                Box::new(move || {
                    let (stream, _) = socket.accept()?;
                    stream.set_nonblocking(true)?;
                    UnixStream::from_std(stream).map(Stream::Unix)
                })
            }
        })
    }

    /// Where it listens, for people.
    pub(super) fn place(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(socket) => format!("http://{}", socket.local_addr()?),
            Self::Unix(socket) => match socket.local_addr()?.as_pathname() {
                Some(path) => format!("unix:{}", path.display()),
                None => "a unix socket".into(),
            },
        })
    }
}
