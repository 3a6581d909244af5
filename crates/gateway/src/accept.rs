//! Accepts client connections and serves HTTP/1.1 on each, in a task of its own.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, Connection},
    service::{HttpService, Service},
};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    body::Body,
    client::{Client, ClientIo},
    core::Core,
    link::{BUFFER_BYTES_MIN, HYPER_HEADERS_MAX},
    request,
};

/// How long to wait when the process has no file descriptor left, or the last connection is open.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until dropped.
pub(crate) async fn run(core: &Rc<Core>, listener: &TcpListener) {
    let mut id = 0;
    loop {
        if !core.has_room() {
            // Those who wait do so in the kernel's queue. Another core may make room, hence the timeout.
            let _ = tokio::time::timeout(FULL_PAUSE, core.moved.notified()).await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                id += 1;
                start(core, id, stream, peer);
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; raise the limit of open files if it is reached");
                tokio::time::sleep(FULL_PAUSE).await;
            }
        }
    }
}

/// Takes what the kernel has accepted already, so that closing the listener resets nobody.
pub(crate) fn rest(core: &Rc<Core>, listener: TcpListener) {
    let Ok(listener) = listener.into_std() else { return };
    // Apart from those of `run`, which count upwards from 1.
    let mut id = u64::MAX;
    while core.has_room()
        && let Ok((stream, peer)) = listener.accept()
    {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            start(core, id, stream, peer);
            id -= 1;
        }
    }
}

/// Errors of the connection that would have been accepted, not of the listener (accept(2)).
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted)
}

fn start(core: &Rc<Core>, id: u64, stream: TcpStream, peer: std::net::SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "client connection ended before it began");
        return;
    }
    let client = Client::new(peer);
    let books = Books { core: Rc::clone(core), id };
    let task = tokio::task::spawn_local({
        let (core, client) = (Rc::clone(core), Rc::clone(&client));
        async move {
            let _books = books;
            serve(core, client, stream).await;
        }
    });
    core.opened(id, client, task.abort_handle());
}

/// Takes the connection out of the books, however its task ends.
struct Books {
    core: Rc<Core>,
    id: u64,
}

impl Drop for Books {
    fn drop(&mut self) {
        self.core.closed(self.id);
    }
}

async fn serve(core: Rc<Core>, client: Rc<Client>, stream: TcpStream) {
    let config = core.config();
    let limits = &config.limits;
    let mut builder = Builder::new();
    // The core's tick enforces the timeouts, so hyper gets no timer.
    builder
        .header_read_timeout(None)
        .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES_MIN))
        .max_header_size(limits.head_bytes_max);
    if limits.headers_max != HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    let requests = Requests { core: Rc::clone(&core), client: Rc::clone(&client) };
    let answer = |requests: &Requests, request| {
        request::answer(Rc::clone(&requests.core), Rc::clone(&requests.client), request)
    };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| answer(&requests, request));
    let connection = builder.serve_connection(ClientIo::new(stream, Rc::clone(&client)), service);
    let mut serving = Serving { connection, client: Rc::clone(&client), told: false };
    match (&mut serving).await {
        Ok(()) => {
            let tunnel = client.tunnel.take();
            // Upgraded connections do not outlast the begin of a drain.
            if let Some(tunnel) = tunnel
                && !client.draining.get()
            {
                let parts = serving.connection.into_parts();
                tunnel.run(parts.io.into_inner(), parts.read_buf).await;
            }
        }
        Err(error) => tracing::debug!(%error, "client connection ended"),
    }
}

/// What each request of a connection needs.
struct Requests {
    core: Rc<Core>,
    client: Rc<Client>,
}

/// A client connection being served; told once when the gateway drains, so that its next response is the last.
struct Serving<S: HttpService<Incoming>> {
    connection: Connection<ClientIo, S>,
    client: Rc<Client>,
    told: bool,
}

impl<S> Future for Serving<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    Self: Unpin,
{
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let this = &mut *self;
        this.client.remember(cx.waker());
        let end = Pin::new(&mut this.connection).poll(cx);
        if end.is_ready() || !this.client.draining.get() || this.told || !this.client.may_end() {
            return end;
        }
        this.told = true;
        Pin::new(&mut this.connection).graceful_shutdown();
        Pin::new(&mut this.connection).poll(cx)
    }
}
