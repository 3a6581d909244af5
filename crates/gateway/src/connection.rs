//! A client connection from its first byte: whom a proxy says it speaks for, TLS, and which HTTP it speaks.

use std::{
    cell::Cell,
    io,
    net::{self, SocketAddr},
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use tokio::{io::ReadBuf, net::TcpStream};

use crate::{
    accept::Manner,
    admit::Length,
    buffer::{Buffer, LARGE_BYTES},
    client::Client,
    core::{Books, Core},
    forwarded::Scheme,
    head::RequestHead,
    http1,
    http2::{self, Spoken},
    problem::Failure,
    proxy_protocol,
    request::{self, Prepared},
    socket::{self, Socket},
    stats::Protocol,
    tls,
    watch::{Phase, Watched},
};

/// Serves a connection to its end.
pub(crate) async fn serve(
    core: Rc<Core>,
    watched: Rc<Watched>,
    manner: Manner,
    stream: net::TcpStream,
    peer: SocketAddr,
) {
    // Whoever goes before it has said anything is nobody's concern.
    match Box::pin(begin(&core, &watched, manner, stream, peer)).await {
        Ok(Some((client, io, input, Spoken::Http1 | Spoken::Unknown))) => {
            http1::serve(core, client, watched, io, input).await
        }
        Ok(Some((client, io, input, Spoken::Http2))) => {
            Box::pin(serve_http2(core, client, watched, io, input)).await;
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, %peer, "client connection ended before its first request"),
    }
}

type Begun = (Rc<Client>, Socket, Buffer, Spoken);

async fn begin(
    core: &Core,
    watched: &Watched,
    manner: Manner,
    stream: net::TcpStream,
    peer: SocketAddr,
) -> io::Result<Option<Begun>> {
    let (mut address, mut scheme) = (peer.ip(), Scheme::Http);
    if manner.tls.is_none() && !manner.proxy_protocol {
        let mut io = Socket::fresh(stream);
        let Some((input, speaks)) = listen(core, watched, &mut io).await? else { return Ok(None) };
        return Ok(Some((core.client(address, scheme), io, input, speaks)));
    }
    let mut stream = TcpStream::from_std(stream)?;
    if manner.proxy_protocol {
        if !core.trust.borrow().trusts(address.to_canonical()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a trusted proxy"));
        }
        if !is_heard(watched, &stream).await {
            return Ok(None);
        }
        let header = Box::pin(proxy_protocol::read(&mut stream)).await?;
        if let proxy_protocol::Header::Relayed { source, tls, .. } = header {
            address = source.ip();
            scheme = if tls { Scheme::Https } else { scheme };
        }
    }
    let Some(acceptor) = manner.tls else {
        let mut io = Socket::Tcp(stream);
        let Some((input, speaks)) = listen(core, watched, &mut io).await? else { return Ok(None) };
        return Ok(Some((core.client(address, scheme), io, input, speaks)));
    };
    if !is_heard(watched, &stream).await {
        return Ok(None);
    }
    // Kept apart, so that one that has said nothing yet does not have room for a handshake.
    let stream = Box::pin(acceptor.accept(stream)).await.inspect_err(|_| core.shard.tls_failed.add(1))?;
    core.shard.tls_handshakes.add(1);
    let speaks = match tls::protocol(&stream) {
        tls::Protocol::Http1 => Spoken::Http1,
        tls::Protocol::Http2 => Spoken::Http2,
    };
    let io = Socket::Tls(Box::new(stream));
    Ok(Some((core.client(address, Scheme::Https), io, Buffer::default(), speaks)))
}

/// Waits for a client to say something, or to end: false if the gateway is stopping and it has not.
async fn is_heard(watched: &Watched, stream: &TcpStream) -> bool {
    std::future::poll_fn(|cx| {
        watched.remember(cx.waker());
        match stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if watched.ends_idle() => Poll::Ready(!socket::is_quiet(stream)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Tells by the first bytes what a client speaks that has not agreed on it (RFC 9113, section 3.3).
async fn listen(core: &Core, watched: &Watched, io: &mut Socket) -> io::Result<Option<(Buffer, Spoken)>> {
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
        match http2::spoken(input.data()) {
            Spoken::Unknown => {}
            spoken => return Ok(Some((input, spoken))),
        }
    }
}

async fn serve_http2(core: Rc<Core>, client: Rc<Client>, watched: Rc<Watched>, io: Socket, input: Buffer) {
    core.shard.accepted(Protocol::Http2);
    watched.enter(Phase::Quiet);
    let open = Rc::new(Cell::new(0));
    let when = |is: fn(&Watched) -> bool| {
        let watched = Rc::clone(&watched);
        std::future::poll_fn(move |cx| {
            watched.remember(cx.waker());
            if is(&watched) { Poll::Ready(()) } else { Poll::Pending }
        })
    };
    let leaving = http2::Leaving {
        draining: when(|watched| watched.draining.get()),
        parting: when(Watched::ends_idle),
    };
    let limits = core.limits().clone();
    let mut input = input;
    let io = http2::Prefixed::new(Bytes::copy_from_slice(input.data()), io);
    input.consume(input.data().len());
    input.release(&core.pool);
    http2::serve(io, &limits, leaving, |request, stream| {
        let busy = Busy::begin(&watched, &open);
        let watched = Watched::new(Phase::Choosing);
        let books = Books::of_stream(&core);
        let id = books.id();
        let (serving_core, client, serving_watched) =
            (Rc::clone(&core), Rc::clone(&client), Rc::clone(&watched));
        let task = tokio::task::spawn_local(Box::pin(async move {
            let (_books, _busy) = (books, busy);
            answer_http2(serving_core, client, serving_watched, request, stream).await;
        }));
        core.joined(id, watched, task.abort_handle());
    })
    .await;
}

/// A stream of a connection, which is busy as long as it has one.
struct Busy {
    connection: Rc<Watched>,
    open: Rc<Cell<usize>>,
}

impl Busy {
    fn begin(connection: &Rc<Watched>, open: &Rc<Cell<usize>>) -> Self {
        if open.replace(open.get() + 1) == 0 {
            connection.enter(Phase::Busy);
        }
        Self { connection: Rc::clone(connection), open: Rc::clone(open) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.open.replace(self.open.get() - 1) == 1 {
            self.connection.enter(Phase::Quiet);
        }
    }
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
    prepared.connects = request.connects;
    // It was not refused as too large by the connection, so the same bound must not refuse its other notation.
    let bounds = core.bounds.get().loosened(request.head.len());
    let parsed = match head.parse(&request.head, bounds) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Malformed("The request's head is not valid.")),
        Err(fault) => Err(fault.into()),
    };
    let (record, found) = match parsed {
        Ok(()) => request::prepare(&core, &client, (&request.head, &head), Some(length), &mut prepared),
        Err(failure) => (request::unreadable(&core, &client, Protocol::Http2), Err(failure)),
    };
    match found {
        Ok(target) => request::answer(&core, &watched, &mut stream, &target, &prepared, record).await,
        Err(failure) => request::refuse(&core, &watched, &mut stream, failure, &prepared, &record).await,
    }
}
