//! One request to a worker over HTTP/2, and its response.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};

use super::{Occupied, head};
use crate::{
    downstream::Piece,
    http2::{Body, fields},
};

/// Most bytes given to the connection in one piece; it cuts them into frames.
const PIECE_BYTES_MAX: usize = 32 << 10;

/// Why an exchange has no whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The worker got nothing of it, or did nothing with it since it ends the connection (a GOAWAY that leaves it out: RFC
    /// 9113, section 6.8).
    Unsent,
    /// The worker lives, and says that it did nothing with it (REFUSED_STREAM: RFC 9113, section 8.7), mostly since it has
    /// too much to do.
    Refused,
    /// The connection ended, and the request may have run.
    Lost,
    /// The worker gave this request up, and lives.
    Reset,
    /// The two do not understand each other.
    Garbled(&'static str),
}

/// A place on a connection to a worker, for one request. Its order: `send_head`; then `poll_send`, `poll_finish` beside
/// `poll_head`, again after each interim response; then `poll_data`. Dropped before its end, it tells the worker
/// (RST_STREAM with CANCEL). Both directions are independent: a response may end before its request.
pub(crate) struct Exchange {
    occupied: Rc<Occupied>,
    sender: SendRequest<Bytes>,
    stream: u32,
    sending: Option<SendStream<Bytes>>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    /// Of the body, what came and was not taken yet.
    piece: Bytes,
}

impl Exchange {
    pub(super) fn new(occupied: Rc<Occupied>, sender: SendRequest<Bytes>) -> Self {
        Self { occupied, sender, stream: 0, sending: None, response: None, body: None, piece: Bytes::new() }
    }

    /// Hands over the head of the request, as HTTP/1.1 text with its empty line. `ended` says that no body follows.
    pub(crate) fn send_head(&mut self, head: &[u8], ended: bool) -> Result<(), Failure> {
        let request = head::request(head).ok_or(Failure::Garbled("the request cannot be told in HTTP/2"))?;
        let (response, sending) =
            self.sender.send_request(request, ended).map_err(|_going| Failure::Unsent)?;
        self.stream = sending.stream_id().as_u32();
        self.response = Some(response);
        self.sending = Some(sending);
        Ok(())
    }

    /// Takes bytes of the request's body: how many, at least one unless `data` is empty. What the worker does not want
    /// any more is taken and dropped; whether that is an error tells its response.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<usize> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(data.len()) };
        if data.is_empty() {
            return Poll::Ready(0);
        }
        let wanted = data.len().min(PIECE_BYTES_MAX);
        sending.reserve_capacity(wanted);
        let mut granted = sending.capacity();
        if granted == 0 {
            match ready!(sending.poll_capacity(cx)) {
                Some(Ok(capacity)) => granted = capacity,
                None | Some(Err(_)) => return Poll::Ready(data.len()),
            }
        }
        let piece = Bytes::copy_from_slice(&data[..wanted.min(granted)]);
        let taken = piece.len();
        match sending.send_data(piece, false) {
            Ok(()) => Poll::Ready(taken),
            Err(_) => Poll::Ready(data.len()),
        }
    }

    /// Ends the request as whole; `trailers` are field lines, and mostly empty.
    pub(crate) fn finish(&mut self, trailers: &[u8]) {
        if let Some(mut sending) = self.sending.take() {
            // It fails when the worker wants no more of it.
            let _ = if trailers.is_empty() {
                sending.send_data(Bytes::new(), true)
            } else {
                sending.send_trailers(fields::from_lines(trailers))
            };
        }
    }

    /// Appends the head of a response as HTTP/1.1 text with its empty line: of each interim one, and then of the final
    /// one, after which [`body`](Self::body) tells what follows.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<(), Failure>> {
        let Some(response) = &mut self.response else { return Poll::Ready(Err(Failure::Lost)) };
        match ready!(response.poll_informational(cx)) {
            Some(Ok(interim)) => {
                head::append_response(into, &interim);
                return Poll::Ready(Ok(()));
            }
            Some(Err(error)) => return Poll::Ready(Err(self.failure(&error))),
            None => {}
        }
        match ready!(Pin::new(response).poll(cx)) {
            Ok(answer) => {
                head::append_response(into, &answer);
                self.occupied.wire.proven.set(true);
                self.response = None;
                self.body = Some(answer.into_body());
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.failure(&error))),
        }
    }

    /// What of a body follows the head; the length is the caller's to read from the head, and the connection's to hold to.
    pub(crate) fn body(&self) -> Body {
        match &self.body {
            Some(body) if !body.is_end_stream() => Body::Streamed,
            _ => Body::None,
        }
    }

    /// Appends the next piece of the response's body to `into`, at most `room` bytes of it (`room` > 0). What is not
    /// taken holds the worker back.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        room: usize,
    ) -> Poll<Result<Piece, Failure>> {
        while self.piece.is_empty() {
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(Piece::End(Vec::new()))) };
            match ready!(body.poll_data(cx)) {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Poll::Ready(Err(self.failure(&error))),
                None => {
                    return match ready!(body.poll_trailers(cx)) {
                        Ok(trailers) => {
                            let lines = trailers.map(|map| fields::to_lines(&map)).unwrap_or_default();
                            Poll::Ready(Ok(Piece::End(lines)))
                        }
                        Err(error) => Poll::Ready(Err(self.failure(&error))),
                    };
                }
            }
        }
        let taken = room.min(self.piece.len());
        into.extend_from_slice(&self.piece[..taken]);
        self.piece.advance(taken);
        if let Some(body) = &mut self.body {
            // It fails when the stream has ended, and then nobody needs the window.
            let _ = body.flow_control().release_capacity(taken);
        }
        Poll::Ready(Ok(Piece::Data(taken)))
    }

    /// Whether anything of the request may have reached the worker.
    pub(crate) fn is_sent(&self) -> bool {
        self.stream != 0 && self.occupied.wire.seen.is_sent(self.stream)
    }

    /// Whether the connection has carried a response already.
    pub(crate) fn is_proven(&self) -> bool {
        self.occupied.wire.proven.get()
    }

    fn failure(&self, error: &h2::Error) -> Failure {
        let (remote, reason) = (error.is_remote(), error.reason());
        if self.occupied.wire.seen.is_alien() {
            Failure::Garbled("the worker does not speak HTTP/2 without TLS (h2c)")
        } else if remote && error.is_go_away() {
            // Streams that the GOAWAY leaves in place go on, and end with the connection.
            Failure::Unsent
        } else if !self.is_sent() {
            Failure::Unsent
        } else if remote && error.is_reset() {
            if reason == Some(Reason::REFUSED_STREAM) { Failure::Refused } else { Failure::Reset }
        } else if error.is_reset() {
            Failure::Garbled(
                "the response is not framed as HTTP/2 must be, or is not as long as its content-length",
            )
        } else {
            // Also when another stream's frames have ended the connection: that is not this request's fault.
            Failure::Lost
        }
    }
}
