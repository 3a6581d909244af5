//! Where a step is sent: an address, a unix socket, or whatever else gives a stream of bytes, such as a port in another network namespace.

use std::{fmt, io, net::SocketAddr, path::PathBuf, pin::Pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// A stream of bytes to a server.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Where steps are sent. Clones are the same destination: a kept connection to one serves the other.
#[derive(Clone)]
pub struct Destination(Arc<Inner>);

struct Inner {
    name: String,
    connect: Box<dyn Fn() -> Connecting + Send + Sync>,
}

impl Destination {
    /// A TCP address.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::by(address.to_string(), move || async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// A unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self::by(path.display().to_string(), move || UnixStream::connect(path.clone()))
    }

    /// Whatever `connect` leads to; `name` is for messages.
    pub fn by<S, F>(name: impl Into<String>, connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        S: Stream + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        let connect = Box::new(move || -> Connecting {
            let connecting = connect();
            Box::pin(async move { Ok(Box::new(connecting.await?) as Box<dyn Stream>) })
        });
        Self(Arc::new(Inner { name: name.into(), connect }))
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Opens a stream to it. Cancellation safe: a stream that is not yet there is given up.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        (self.0.connect)().await
    }

    /// Whether both are the same, so that a connection to one is one to the other.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Destination").field(&self.0.name).finish()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}
