//! A client connection that speaks HTTP/1.x: one request after the other, each read, answered and left behind before the
//! next (pipelined ones wait in the buffer). While nothing is in hand the connection holds no buffer.

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    admit::Length,
    buffer::{Buffer, LARGE_BYTES},
    chunked::{self, Decoder, Step},
    client::Client,
    core::Core,
    downstream::{Answer, Broken, Downstream, Piece},
    head::{RequestHead, Version},
    outbox::Outbox,
    problem::Failure,
    request::{self, Prepared},
    socket::Socket,
    stats::Protocol,
    watch::{Phase, Watched},
};

/// How much of a body that nobody wants is read and thrown away before the connection is closed instead.
const LINGER_BYTES_MAX: u64 = 64 << 20;
/// Chunks are written when there is so much of them, or nothing more to come at once.
const GATHER_BYTES: usize = 16 << 10;
/// Room that is made at once for the head of a response.
const USUAL_HEAD_BYTES: usize = 256;
/// Memory that an idle connection keeps for the next heads, in each of a few places.
const KEPT_BYTES: usize = 1 << 10;

/// A connection, and the exchange in hand.
pub(crate) struct Connection {
    core: Rc<Core>,
    watched: Rc<Watched>,
    io: Socket,
    input: Buffer,
    outbox: Outbox,
    inbound: Inbound,
    reply: Reply,
    version: Version,
    /// The client waits for `100 Continue` before it sends its body.
    expects: bool,
    /// The client wants to go on after this exchange.
    keeps_alive: bool,
    /// This exchange is the last one.
    closes: bool,
    /// It is so by our word: the client may be sending more.
    lingers: bool,
    tunnels: bool,
}

/// What is left of the request's body.
enum Inbound {
    Ended,
    Sized(u64),
    Chunked(Box<Decoder>),
    /// Whatever comes, after an upgrade.
    Raw,
}

/// How the response's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    /// No response was begun.
    None,
    /// Without framing: its length was told, or its end is that of the connection, or there is no body.
    Plain,
    Chunked,
    /// It is whole; so is its framing.
    Whole,
}

/// Serves a connection to its end. `input` holds what was already read from it.
pub(crate) async fn serve(
    core: Rc<Core>,
    client: Rc<Client>,
    watched: Rc<Watched>,
    io: Socket,
    input: Buffer,
) {
    core.shard.accepted(Protocol::Http11);
    let mut connection = Connection::new(Rc::clone(&core), Rc::clone(&watched), io, input);
    let (mut head, mut prepared) = (RequestHead::default(), Prepared::default());
    loop {
        match connection.read_head(&mut head).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => {
                connection.keeps_alive = false;
                prepared = Prepared::default();
                let record = request::unreadable(&core, &client, Protocol::Http11);
                Box::pin(request::refuse(&core, &watched, &mut connection, failure, &prepared, &record))
                    .await;
                return connection.close().await;
            }
        }
        watched.enter(Phase::Choosing);
        let bytes = &connection.input.data()[..head.bytes];
        let (record, found) = request::prepare(&core, &client, (bytes, &head), None, &mut prepared);
        connection.input.consume(head.bytes);
        connection.begin(&prepared);
        match found {
            // Both kept apart, so that an idle connection does not have room for all that an exchange needs.
            Ok(target) => {
                Box::pin(request::answer(&core, &watched, &mut connection, &target, &prepared, record)).await;
            }
            Err(failure) => {
                Box::pin(request::refuse(&core, &watched, &mut connection, failure, &prepared, &record))
                    .await;
            }
        }
        if !connection.finish().await {
            return connection.close().await;
        }
        prepared.shrink(KEPT_BYTES);
        head.fields.shrink_to(KEPT_BYTES / size_of::<crate::head::Field>());
    }
}

impl Connection {
    fn new(core: Rc<Core>, watched: Rc<Watched>, io: Socket, input: Buffer) -> Self {
        Self {
            core,
            watched,
            io,
            input,
            outbox: Outbox::default(),
            inbound: Inbound::Ended,
            reply: Reply::None,
            version: Version::Http11,
            expects: false,
            keeps_alive: true,
            closes: false,
            lingers: false,
            tunnels: false,
        }
    }

    /// Waits for the next head: false when the connection ends without one.
    async fn read_head(&mut self, head: &mut RequestHead) -> Result<bool, Failure> {
        let bounds = self.core.bounds.get();
        let (mut seen, mut parsed) = (0, 0);
        loop {
            let here = self.input.data();
            if !here.is_empty() {
                self.watched.received();
                // It is read from its begin each time, so not for each byte of one that comes byte by byte: only when a line
                // has ended, or it has grown to twice as much, or can grow no more.
                let is_full = here.len() >= bounds.head_bytes_max;
                if is_full || here.len() >= 2 * parsed || here[seen..].contains(&b'\n') {
                    if head.parse(here, bounds)? {
                        return Ok(true);
                    }
                    parsed = here.len();
                }
                seen = here.len();
            }
            let read = std::future::poll_fn(|cx| {
                self.watched.remember(cx.waker());
                let read = self.input.poll_fill(cx, &mut self.io, &self.core.pool, bounds.head_bytes_max);
                // A request that is already here, or on its way, is answered before the connection ends.
                if read.is_pending()
                    && self.watched.ends_idle()
                    && self.input.is_empty()
                    && self.io.is_quiet()
                {
                    return Poll::Ready(Ok(0));
                }
                read
            });
            match read.await {
                Ok(count) if count > 0 => {}
                _ => return Ok(false),
            }
        }
    }

    /// An exchange begins.
    fn begin(&mut self, prepared: &Prepared) {
        self.version = prepared.version;
        self.expects = prepared.expects && prepared.version == Version::Http11;
        self.keeps_alive = prepared.keeps_alive;
        (self.closes, self.lingers) = (false, false);
        self.reply = Reply::None;
        self.inbound = match prepared.length {
            Length::None => Inbound::Ended,
            Length::Sized(bytes) => Inbound::Sized(bytes),
            Length::Chunked => Inbound::Chunked(Box::new(Decoder::new(self.core.bounds.get()))),
        };
    }

    /// The exchange is over: whether another may follow. What the client still sends of its body is thrown away.
    async fn finish(&mut self) -> bool {
        if self.reply != Reply::Whole || self.tunnels {
            return false;
        }
        if self.closes || !self.discard().await {
            return false;
        }
        self.input.release(&self.core.pool);
        self.outbox.shrink(KEPT_BYTES);
        self.watched.enter(if self.input.is_empty() { Phase::Idle } else { Phase::Head });
        true
    }

    /// Reads the rest of the body; false if it is too long, or does not end as it should.
    async fn discard(&mut self) -> bool {
        if matches!(self.inbound, Inbound::Ended) {
            return true;
        }
        // It was told that this is the end.
        if self.expects {
            return false;
        }
        self.watched.enter(Phase::Lingering);
        let (mut scrap, mut bytes) = (Vec::new(), 0);
        loop {
            scrap.clear();
            match std::future::poll_fn(|cx| self.poll_body(cx, &mut scrap, LARGE_BYTES)).await {
                Ok(Piece::Data(count)) => bytes += count as u64,
                Ok(Piece::End(_)) => return true,
                Err(_) => return false,
            }
            if bytes > LINGER_BYTES_MAX {
                return false;
            }
        }
    }

    /// Closes, but not before the client had time to read its answer: a close with unread bytes resets the connection. One
    /// that has said itself that it sends no more needs no such time.
    async fn close(mut self) {
        if self.reply != Reply::Whole || self.tunnels {
            return;
        }
        let is_last = !self.keeps_alive && !self.lingers;
        if is_last && matches!(self.inbound, Inbound::Ended) && self.input.is_empty() {
            if self.io.says_goodbye() {
                let _ = std::future::poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
            }
            return;
        }
        self.watched.enter(Phase::Lingering);
        let _ = std::future::poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
        let mut left = LINGER_BYTES_MAX;
        self.input = Buffer::default();
        loop {
            let fill =
                |cx: &mut Context<'_>| self.input.poll_fill(cx, &mut self.io, &self.core.pool, LARGE_BYTES);
            match std::future::poll_fn(fill).await {
                Ok(count) if count > 0 && left > count as u64 => left -= count as u64,
                _ => break,
            }
            let all = self.input.data().len();
            self.input.consume(all);
        }
        self.input.release(&self.core.pool);
    }

    fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        room: usize,
    ) -> Poll<Result<usize, Broken>> {
        let here = self.input.data();
        if !here.is_empty() {
            let count = here.len().min(room);
            into.extend_from_slice(&here[..count]);
            self.input.consume(count);
            return Poll::Ready(Ok(count));
        }
        // Straight to where it is wanted.
        into.reserve(room.min(LARGE_BYTES));
        let space = into.spare_capacity_mut();
        let room = room.min(space.len());
        let mut space = ReadBuf::uninit(&mut space[..room]);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut space));
        let count = space.filled().len();
        if read.is_err() || count == 0 {
            return Poll::Ready(Err(Broken::Gone));
        }
        // SAFETY: `space` is the spare capacity of `into`, and its first `count` bytes were filled.
        unsafe { into.set_len(into.len() + count) };
        Poll::Ready(Ok(count))
    }

    /// After an upgrade. Through a buffer of the core's, since it may be long until something comes; none at the end.
    fn poll_raw(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>, room: usize) -> Poll<io::Result<usize>> {
        if self.input.is_empty() {
            ready!(self.input.poll_fill(cx, &mut self.io, &self.core.pool, LARGE_BYTES))?;
        }
        let here = self.input.data();
        let count = here.len().min(room);
        into.extend_from_slice(&here[..count]);
        self.input.consume(count);
        Poll::Ready(Ok(count))
    }

    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        room: usize,
    ) -> Poll<Result<Piece, Broken>> {
        loop {
            let Inbound::Chunked(decoder) = &mut self.inbound else { return Poll::Ready(Err(Broken::Gone)) };
            match decoder.step(self.input.data()) {
                Ok(Step::Data { skip, bytes }) => {
                    let count = bytes.min(room);
                    into.extend_from_slice(&self.input.data()[skip..skip + count]);
                    decoder.took(count);
                    self.input.consume(skip + count);
                    return Poll::Ready(Ok(Piece::Data(count)));
                }
                Ok(Step::End { skip }) => {
                    self.input.consume(skip);
                    let trailers = decoder.take_trailers();
                    self.inbound = Inbound::Ended;
                    return Poll::Ready(Ok(Piece::End(trailers)));
                }
                Ok(Step::More) => {
                    let all = self.input.data().len();
                    self.input.consume(all);
                }
                Err(fault) => return Poll::Ready(Err(Broken::Malformed(fault))),
            }
            match ready!(self.input.poll_fill(cx, &mut self.io, &self.core.pool, LARGE_BYTES)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(Err(Broken::Gone)),
            }
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut moved = false;
        let wrote = self.outbox.poll_write(cx, &mut self.io, data, |_| moved = true);
        if moved {
            // However slow it is, its time begins anew.
            self.watched.wrote(false);
        }
        self.watched.wrote(wrote.is_pending());
        wrote
    }
}

impl Downstream for Connection {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        room: usize,
    ) -> Poll<Result<Piece, Broken>> {
        if self.expects {
            self.expects = false;
            if self.input.is_empty() && self.reply == Reply::None && !matches!(self.inbound, Inbound::Ended) {
                self.outbox.bytes().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
        if !self.outbox.is_empty() && self.reply == Reply::None {
            // What does not go out now goes out before the response.
            if let Poll::Ready(Err(_)) = self.poll_out(cx, b"") {
                return Poll::Ready(Err(Broken::Gone));
            }
        }
        match self.inbound {
            Inbound::Ended => Poll::Ready(Ok(Piece::End(Vec::new()))),
            Inbound::Chunked(_) => self.poll_chunk(cx, into, room),
            Inbound::Sized(left) => {
                let room = room.min(usize::try_from(left).unwrap_or(usize::MAX));
                let count = ready!(self.poll_read_into(cx, into, room))?;
                let left = left - count as u64;
                self.inbound = if left == 0 { Inbound::Ended } else { Inbound::Sized(left) };
                Poll::Ready(Ok(Piece::Data(count)))
            }
            Inbound::Raw => match ready!(self.poll_raw(cx, into, room)) {
                Ok(count) if count > 0 => Poll::Ready(Ok(Piece::Data(count))),
                _ => {
                    self.inbound = Inbound::Ended;
                    Poll::Ready(Ok(Piece::End(Vec::new())))
                }
            },
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Its body or its next request may wait here already; then its end is not looked for.
        if !self.input.is_empty() {
            return Poll::Pending;
        }
        if self.io.is_fresh() && self.watched.is_brief() {
            self.input.release(&self.core.pool);
            return Poll::Pending;
        }
        match self.input.poll_fill(cx, &mut self.io, &self.core.pool, self.core.bounds.get().head_bytes_max) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    fn inform(&mut self, status: u16, fields: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        // Within the final response it would be taken for a part of that.
        if self.version == Version::Http10 || self.reply != Reply::None {
            return;
        }
        push_status(self.outbox.bytes(), status, b"");
        for (name, value) in fields {
            crate::headers::push_field(self.outbox.bytes(), name, value);
        }
        self.outbox.bytes().extend_from_slice(b"\r\n");
    }

    fn respond(&mut self, answer: Answer<'_, '_>) {
        let unknown = answer.has_body && answer.length.is_none();
        let chunked = unknown && self.version == Version::Http11;
        // What was not asked for may come or not: there would be no telling where the next request begins.
        let unasked = self.expects && !matches!(self.inbound, Inbound::Ended);
        self.closes |= answer.close
            || !self.keeps_alive
            || self.watched.draining.get()
            || unasked
            || (unknown && !chunked);
        self.lingers |= answer.close || self.watched.draining.get();
        let out = self.outbox.bytes();
        out.reserve(USUAL_HEAD_BYTES);
        push_status(out, answer.status, answer.reason);
        for (name, value) in answer.fields {
            crate::headers::push_field(out, name, value);
        }
        // Writing to a vector cannot fail.
        match answer.length {
            Some(length) => drop(write!(out, "content-length: {length}\r\n")),
            None if chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            None => {}
        }
        if answer.status != 101 {
            if self.closes {
                out.extend_from_slice(b"connection: close\r\n");
            } else if self.version == Version::Http10 {
                out.extend_from_slice(b"connection: keep-alive\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
        self.reply = if chunked { Reply::Chunked } else { Reply::Plain };
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.reply != Reply::Chunked {
            return self.poll_out(cx, data);
        }
        // The framing goes around a copy; what is not taken by the kernel waits, and more is not taken before.
        if self.outbox.bytes().len() > LARGE_BYTES {
            ready!(self.poll_out(cx, b""))?;
        }
        chunked::push_chunk(self.outbox.bytes(), data);
        // Small ones go out together: by the flush that follows when there are no more, or by the end.
        if self.outbox.bytes().len() >= GATHER_BYTES {
            let _ = self.poll_out(cx, b"")?;
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx, b""))?;
        // TLS takes more than its socket does.
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watched.wrote(flushed.is_pending());
        flushed
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>, trailers: &[u8]) -> Poll<io::Result<()>> {
        if self.tunnels {
            ready!(self.poll_flush(cx))?;
            return Pin::new(&mut self.io).poll_shutdown(cx);
        }
        if self.reply == Reply::Chunked {
            chunked::push_end(self.outbox.bytes(), trailers);
        }
        // The framing is whole already when a wait for the client begins.
        if self.reply != Reply::Whole {
            self.reply = Reply::Whole;
        }
        self.poll_flush(cx)
    }

    fn cut(&mut self) {
        self.closes = true;
        self.reply = Reply::None;
    }

    fn tunnel(&mut self) {
        self.inbound = Inbound::Raw;
        self.tunnels = true;
    }
}

fn push_status(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    let digit = |by: u16| b'0' + (status / by % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}
