//! A client connection from its first byte: whom a proxy says it speaks for, TLS, and which HTTP it speaks.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    accept::Manner,
    admit::Length,
    buffer::{Buffer, LARGE_BYTES},
    client::Client,
    core::{Books, Core},
    forwarded::Scheme,
    head::RequestHead,
    http1, http2,
    problem::Failure,
    proxy_protocol,
    request::{self, Prepared},
    socket::Socket,
    tls,
    watch::{Phase, Watched},
};

/// Serves a connection to its end.
pub(crate) async fn serve(
    core: Rc<Core>,
    watched: Rc<Watched>,
    manner: Manner,
    stream: TcpStream,
    peer: SocketAddr,
) {
    // Whoever goes before it has said anything is nobody's concern.
    match Box::pin(begin(&core, &watched, manner, stream, peer)).await {
        Ok(Some((client, io, input, Speaks::Http1))) => http1::serve(core, client, watched, io, input).await,
        Ok(Some((client, io, input, Speaks::Http2))) => {
            Box::pin(serve_http2(core, client, watched, io, input)).await;
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, %peer, "client connection ended before its first request"),
    }
}

enum Speaks {
    Http1,
    Http2,
}

type Begun = (Rc<Client>, Socket, Buffer, Speaks);

async fn begin(
    core: &Core,
    watched: &Watched,
    manner: Manner,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<Option<Begun>> {
    let (mut address, mut scheme) = (peer.ip(), Scheme::Http);
    if manner.proxy_protocol {
        if !core.trust.borrow().trusts(address.to_canonical()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a trusted proxy"));
        }
        if let proxy_protocol::Header::Relayed { source, tls, .. } = proxy_protocol::read(&mut stream).await?
        {
            address = source.ip();
            scheme = if tls { Scheme::Https } else { scheme };
        }
    }
    let Some(acceptor) = manner.tls else {
        let mut io = Socket::Tcp(stream);
        let Some((input, speaks)) = listen(core, watched, &mut io).await? else { return Ok(None) };
        return Ok(Some((core.client(address, scheme), io, input, speaks)));
    };
    let stream = acceptor.accept(stream).await.inspect_err(|_| core.shard.tls_failed.add(1))?;
    let speaks = match tls::protocol(&stream) {
        tls::Protocol::Http1 => Speaks::Http1,
        tls::Protocol::Http2 => Speaks::Http2,
    };
    let io = Socket::Tls(Box::new(stream));
    Ok(Some((core.client(address, Scheme::Https), io, Buffer::default(), speaks)))
}

/// Tells by the first bytes what a client speaks that has not agreed on it (RFC 9113, section 3.3).
async fn listen(core: &Core, watched: &Watched, io: &mut Socket) -> io::Result<Option<(Buffer, Speaks)>> {
    let mut input = Buffer::default();
    loop {
        let read = std::future::poll_fn(|cx| {
            watched.remember(cx.waker());
            let read = input.poll_fill(cx, io, &core.pool, LARGE_BYTES);
            if read.is_pending() && watched.ends_idle() && input.is_empty() && io.is_quiet() {
                return Poll::Ready(Ok(0));
            }
            read
        });
        if read.await? == 0 {
            return Ok(None);
        }
        let seen = input.data().len().min(http2::PREFACE.len());
        if input.data()[..seen] != http2::PREFACE[..seen] {
            return Ok(Some((input, Speaks::Http1)));
        }
        if seen == http2::PREFACE.len() {
            return Ok(Some((input, Speaks::Http2)));
        }
    }
}

async fn serve_http2(core: Rc<Core>, client: Rc<Client>, watched: Rc<Watched>, io: Socket, input: Buffer) {
    watched.enter(Phase::Busy);
    let draining = {
        let watched = Rc::clone(&watched);
        std::future::poll_fn(move |cx| {
            watched.remember(cx.waker());
            if watched.draining.get() { Poll::Ready(()) } else { Poll::Pending }
        })
    };
    let limits = core.limits().clone();
    let mut input = input;
    let io = Resumed { read: input.data().to_vec(), at: 0, io };
    input.consume(input.data().len());
    input.release(&core.pool);
    http2::serve(io, &limits, draining, |request, stream| {
        let watched = Watched::new(Phase::Choosing);
        let books = Books::of_stream(&core);
        let id = books.id();
        let answering =
            answer_http2(Rc::clone(&core), Rc::clone(&client), Rc::clone(&watched), request, stream);
        let task = tokio::task::spawn_local(async move {
            let _books = books;
            answering.await;
        });
        core.joined(id, watched, task.abort_handle());
        std::future::ready(())
    })
    .await;
}

async fn answer_http2(
    core: Rc<Core>,
    client: Rc<Client>,
    watched: Rc<Watched>,
    request: http2::Request,
    mut stream: http2::Stream,
) {
    let (mut head, mut prepared) = (RequestHead::default(), Prepared::default());
    let length = match request.body {
        http2::Body::None => Length::None,
        http2::Body::Sized(0) => Length::None,
        http2::Body::Sized(bytes) => Length::Sized(bytes),
        http2::Body::Streamed => Length::Chunked,
    };
    // It was not refused as too large by the connection, so the same bound must not refuse its other notation.
    let bounds = core.bounds.get().loosened(request.head.len());
    let parsed = match head.parse(&request.head, bounds) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Malformed("The request's head is not valid.")),
        Err(fault) => Err(fault.into()),
    };
    let found = parsed
        .and_then(|()| request::prepare(&core, &client, &request.head, &head, Some(length), &mut prepared));
    match found {
        Ok(target) => request::answer(&core, &watched, &mut stream, &target, &prepared).await,
        Err(failure) => request::refuse(&core, &watched, &mut stream, failure, &prepared).await,
    }
}

/// A socket of which the first bytes were already read.
struct Resumed {
    read: Vec<u8>,
    at: usize,
    io: Socket,
}

impl AsyncRead for Resumed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.read[self.at..];
        if left.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = left.len().min(buf.remaining());
        buf.put_slice(&left[..count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Resumed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
