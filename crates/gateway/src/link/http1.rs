//! A connection to a worker that speaks HTTP/1.1.

#[cfg(test)]
mod tests;

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use lethe_model::roster::Address;
use tokio::io::AsyncWrite;

use super::{Halt, INTERIM_MAX, Shape};
use crate::{
    admit::Length,
    buffer::{Buffer, Pool},
    chunked::{self, Decoder, Step},
    downstream::Downstream,
    head::{Bounds, ResponseHead, Version},
    headers::{self, Framing},
    outbox::Outbox,
    socket::Socket,
    upload::Upload,
    verdict::{Cause, Loss, Stage},
    watch::Watched,
};

/// Most of a chunked body that waits to be sent, beside one piece more.
const OUT_BYTES_MAX: usize = 64 << 10;
/// Chunks are written when there is so much of them, or nothing more to come at once.
const GATHER_BYTES: usize = 16 << 10;
/// Memory that an idle connection keeps for the next request's head.
const KEPT_OUT_BYTES: usize = 4 << 10;

/// A connection, idle or with one request on it.
pub(crate) struct Http1 {
    io: Socket,
    input: Buffer,
    outbox: Outbox,
    /// How the body of the request in hand is framed.
    length: Length,
    /// All of the request was given to the outbox.
    all_given: bool,
    /// Of a chunked body, so much of what the upload still has is in the outbox.
    lent: usize,
    /// Bytes of the request in hand that the kernel took.
    written: u64,
    /// A write failed after the first byte.
    broken: bool,
    /// The response in hand, valid once its head is whole; its bytes are at the start of `input` until it is begun.
    pub(super) head: ResponseHead,
    body: Body,
    keeps_alive: bool,
    pub(super) interims: u8,
    /// It has carried a request before: the worker may have closed it since.
    pub(super) reused: bool,
    /// Since when it is idle, as the core's tick saw it first.
    pub(super) idle_since: Option<Instant>,
}

/// What is left of the response's body.
enum Body {
    Sized(u64),
    Chunked(Box<Decoder>),
    /// Everything up to the end of the connection.
    Close,
    /// With the trailers that came.
    Ended(Vec<u8>),
}

impl Http1 {
    /// Connects to a worker.
    pub(crate) async fn connect(address: &Address, timeout: Duration) -> io::Result<Self> {
        let io = tokio::time::timeout(timeout, Socket::connect(address)).await??;
        Ok(Self::over(io))
    }

    /// A new connection.
    fn over(io: Socket) -> Self {
        Self {
            io,
            input: Buffer::default(),
            outbox: Outbox::default(),
            length: Length::None,
            all_given: false,
            lent: 0,
            written: 0,
            broken: false,
            head: ResponseHead::default(),
            body: Body::Ended(Vec::new()),
            keeps_alive: true,
            interims: 0,
            reused: false,
            idle_since: None,
        }
    }

    /// Begins a request. `careful` looks whether the worker has closed the connection meanwhile; then nothing was sent.
    pub(super) fn begin(&mut self, head: &[u8], length: Length, careful: bool) -> Result<(), Loss> {
        (self.written, self.broken, self.all_given, self.interims) = (0, false, false, 0);
        (self.length, self.lent) = (length, 0);
        self.outbox.clear();
        self.outbox.bytes().extend_from_slice(head);
        let is_closed = || match self.io.peek() {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        };
        if careful && self.reused && is_closed() { Err(self.gone()) } else { Ok(()) }
    }

    fn gone(&self) -> Loss {
        self.loss(Cause::Gone)
    }

    pub(super) fn loss(&self, cause: Cause) -> Loss {
        Loss { stage: if self.written == 0 { Stage::Unsent } else { Stage::Sent }, cause }
    }

    /// Sends what is there of the request, and asks the client for more. Ready once all of it is sent, or nothing more of it
    /// is wanted.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
        down: &mut impl Downstream,
        watched: &Watched,
    ) -> Poll<Result<(), Halt>> {
        loop {
            if self.broken {
                return Poll::Ready(Ok(()));
            }
            // Until something was sent, another attempt may want it.
            if self.written > 0 {
                upload.pass(std::mem::take(&mut self.lent));
            }
            // No more is read than the worker takes; what was sent counts until all of it was.
            let is_full = self.outbox.bytes().len() > OUT_BYTES_MAX;
            let more = match self.all_given || is_full {
                true => Poll::Ready(Ok(())),
                false => upload.poll_more(cx, down, watched),
            };
            if let Poll::Ready(Err(broken)) = more {
                return Poll::Ready(Err(Halt::Broken(broken)));
            }
            self.give(upload);
            // Small chunks go out together, as far as they are here already.
            let gathers = self.length == Length::Chunked && !self.all_given && self.written > 0;
            if gathers && more.is_ready() && self.outbox.bytes().len() < GATHER_BYTES {
                continue;
            }
            let waiting = if self.length == Length::Chunked { &[][..] } else { upload.waiting() };
            if self.outbox.is_empty() && waiting.is_empty() {
                if self.all_given {
                    return Poll::Ready(Ok(()));
                }
                // It is ready and gave nothing: its end is taken up by the next round.
                let _ = ready!(more);
                continue;
            }
            let written = &mut self.written;
            let wrote = self.outbox.poll_write(cx, &mut self.io, waiting, |count| *written += count as u64);
            match ready!(wrote) {
                Ok(count) => upload.pass(count),
                // Once something was sent, a failing write is not the end: a worker may answer without reading the whole
                // body and close, and that answer is still to be read. The reading side sees the end in any case.
                Err(_) if self.written > 0 => self.broken = true,
                Err(_) => return Poll::Ready(Err(Halt::Lost(self.gone()))),
            }
        }
    }

    /// Puts the framing of a chunked body around what waits, and notes when all was given.
    fn give(&mut self, upload: &mut Upload) {
        if self.all_given {
            return;
        }
        if self.length == Length::Chunked && self.lent == 0 {
            chunked::push_chunk(self.outbox.bytes(), upload.waiting());
            self.lent = upload.waiting().len();
        }
        if upload.is_whole() && (self.length == Length::Chunked || upload.waiting().is_empty()) {
            if self.length == Length::Chunked {
                chunked::push_end(self.outbox.bytes(), upload.trailers());
            }
            self.all_given = true;
        }
    }

    /// Ready when the head of the response is whole, in `head` and [`Self::head_bytes`]. Interim responses are passed on.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        pool: &Pool,
        bounds: Bounds,
        down: &mut impl Downstream,
    ) -> Poll<Result<(), Loss>> {
        loop {
            if !self.input.is_empty() {
                match self.head.parse(self.input.data(), bounds) {
                    Ok(true) if self.is_interim() => {
                        self.interims += 1;
                        if self.interims > INTERIM_MAX {
                            return Poll::Ready(Err(self.loss(Cause::Garbled)));
                        }
                        self.pass_interim(down);
                        continue;
                    }
                    Ok(true) => return Poll::Ready(Ok(())),
                    Ok(false) => {}
                    Err(_) => return Poll::Ready(Err(self.loss(Cause::Garbled))),
                }
            }
            match ready!(self.input.poll_fill(cx, &mut self.io, pool, bounds.head_bytes_max)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(Err(self.gone())),
            }
        }
    }

    fn is_interim(&self) -> bool {
        (100..200).contains(&self.head.status) && self.head.status != 101
    }

    /// `100 Continue` answers what was not asked: the gateway has said it to the client by itself.
    fn pass_interim(&mut self, down: &mut impl Downstream) {
        let bytes = self.input.data();
        if self.head.status != 100
            && let Some(framing) = Framing::of(bytes, &self.head)
        {
            let mut fields = headers::to_client(bytes, &self.head, framing, std::iter::empty());
            down.inform(self.head.status, &mut fields);
        }
        self.input.consume(self.head.bytes);
    }

    /// Ready once a body of `length` bytes is here, behind the head, together with it.
    pub(super) fn poll_hold(
        &mut self,
        cx: &mut Context<'_>,
        pool: &Pool,
        length: usize,
    ) -> Poll<Result<(), Cause>> {
        let whole = self.head.bytes + length;
        while self.input.data().len() < whole {
            match ready!(self.input.poll_fill(cx, &mut self.io, pool, whole)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(Err(Cause::Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Leaves the head behind: from now on the body is read. `bodiless` says that there is none, whatever the head says.
    pub(super) fn begin_body(&mut self, shape: Shape, bodiless: bool, bounds: Bounds) {
        self.input.consume(self.head.bytes);
        self.body = match (shape.chunked, shape.length) {
            _ if bodiless => Body::Ended(Vec::new()),
            (true, _) => Body::Chunked(Box::new(Decoder::new(bounds))),
            (false, Some(0)) => Body::Ended(Vec::new()),
            (false, Some(length)) => Body::Sized(length),
            (false, None) => Body::Close,
        };
        let stays = match self.head.version {
            Version::Http11 => !shape.close,
            Version::Http10 => shape.keep_alive && !shape.close,
        };
        // What must not have a body and tells of one may send it, which would be taken for the next response.
        let stray =
            self.head.status == 204 && (shape.chunked || shape.length.is_some_and(|length| length > 0));
        self.keeps_alive = stays && !stray && !matches!(self.body, Body::Close);
    }

    /// Ready when there is more of the body, at the start of [`Self::data`]: how many bytes, none at its end.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>, pool: &Pool) -> Poll<Result<usize, Cause>> {
        loop {
            let here = self.input.data();
            match &mut self.body {
                Body::Ended(_) => return Poll::Ready(Ok(0)),
                Body::Sized(left) if !here.is_empty() => {
                    return Poll::Ready(Ok(here.len().min(usize::try_from(*left).unwrap_or(usize::MAX))));
                }
                Body::Chunked(decoder) if !here.is_empty() => match decoder.step(here) {
                    Ok(Step::Data { skip, bytes }) => {
                        self.input.consume(skip);
                        return Poll::Ready(Ok(bytes));
                    }
                    Ok(Step::End { skip }) => {
                        self.input.consume(skip);
                        self.body = Body::Ended(headers::passing_trailers(decoder.take_trailers()));
                        return Poll::Ready(Ok(0));
                    }
                    Ok(Step::More) => {
                        let all = here.len();
                        self.input.consume(all);
                    }
                    Err(_) => return Poll::Ready(Err(Cause::Garbled)),
                },
                Body::Close if !here.is_empty() => return Poll::Ready(Ok(here.len())),
                _ => {}
            }
            match ready!(self.input.poll_fill(cx, &mut self.io, pool, crate::buffer::LARGE_BYTES)) {
                Ok(0) if matches!(self.body, Body::Close) => self.body = Body::Ended(Vec::new()),
                Ok(0) | Err(_) => return Poll::Ready(Err(Cause::Gone)),
                Ok(_) => {}
            }
        }
    }

    /// Bytes of the body, and perhaps what follows them.
    pub(super) fn data(&self) -> &[u8] {
        self.input.data()
    }

    /// So many bytes of the body were used.
    pub(super) fn took(&mut self, bytes: usize) {
        self.input.consume(bytes);
        match &mut self.body {
            Body::Sized(left) => {
                *left -= bytes as u64;
                if *left == 0 {
                    self.body = Body::Ended(Vec::new());
                }
            }
            Body::Chunked(decoder) => decoder.took(bytes),
            Body::Close | Body::Ended(_) => {}
        }
    }

    /// The trailers, once the body has ended.
    pub(super) fn trailers(&self) -> &[u8] {
        if let Body::Ended(trailers) = &self.body { trailers } else { &[] }
    }

    /// Whether the body has ended, and nothing needs to be polled to know.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.body, Body::Ended(_))
    }

    /// Makes it ready for another request; false if it cannot carry one.
    pub(super) fn settle(&mut self, pool: &Pool) -> bool {
        let reusable = self.keeps_alive
            && self.has_ended()
            && self.all_given
            && self.outbox.is_empty()
            && !self.broken
            && self.input.is_empty();
        self.input.release(pool);
        self.outbox.shrink(KEPT_OUT_BYTES);
        self.reused = true;
        self.idle_since = None;
        reusable
    }

    /// Whether something came on an idle connection: its end, or bytes that nobody asked for. Costs no system call.
    pub(super) fn has_stirred(&mut self, cx: &mut Context<'_>) -> bool {
        // Also when the task has used up its turn, after which tokio says of everything that it is not ready.
        let stirring = tokio::task::coop::unconstrained(poll_fn(|cx| self.io.poll_read_ready(cx)));
        pin!(stirring).poll(cx).is_ready()
    }

    /// After a 101: reads bytes as they come; none at the end.
    pub(super) fn poll_raw(&mut self, cx: &mut Context<'_>, pool: &Pool) -> Poll<io::Result<usize>> {
        if !self.input.is_empty() {
            return Poll::Ready(Ok(self.input.data().len()));
        }
        self.input.poll_fill(cx, &mut self.io, pool, crate::buffer::LARGE_BYTES)
    }

    /// After a 101: writes bytes as they are.
    pub(super) fn poll_write_raw(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    /// After a 101: the client sends no more.
    pub(super) fn poll_end_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
