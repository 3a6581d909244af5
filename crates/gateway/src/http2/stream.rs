//! One request of an HTTP/2 connection, and its response.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{
    fields,
    shared::{Shared, Wait},
};
use crate::downstream::{Answer, Broken, Downstream, Piece};

/// Most bytes given to the connection in one piece; it cuts them into frames.
const PIECE_BYTES_MAX: usize = 32 << 10;

/// The client's side of an exchange over HTTP/2. One that is dropped before its response is whole is reset.
pub(crate) struct Stream {
    respond: SendResponse<Bytes>,
    /// What of the request may still come; none when it ended with its head.
    body: Option<RecvStream>,
    /// Of the body, what came and was not taken yet.
    piece: Bytes,
    /// The client waits for a 100 before it sends the body.
    expects_continue: bool,
    response: Progress,
    /// Bytes of the body that its `Content-Length` still promises.
    left: Option<u64>,
    /// The last piece of a body of known length, which is to carry the end of the stream.
    last: Option<Bytes>,
    tunnel: bool,
    wait: Rc<Wait>,
    shared: Rc<Shared>,
}

/// How far the response is. Silent → Begun → Sending → Ended; Begun → Ended.
enum Progress {
    /// Nothing of it is known.
    Silent,
    /// The head is known; it goes out with what follows, so that a response without a body is one frame.
    Begun(Response<()>),
    /// The head is with the connection.
    Sending(SendStream<Bytes>),
    /// Whole, or given up.
    Ended,
}

impl Stream {
    pub(super) fn new(respond: SendResponse<Bytes>, body: Option<RecvStream>, shared: Rc<Shared>) -> Self {
        let wait = shared.enter();
        Self {
            respond,
            body,
            piece: Bytes::new(),
            expects_continue: false,
            response: Progress::Silent,
            left: None,
            last: None,
            tunnel: false,
            wait,
            shared,
        }
    }

    /// The client waits for a 100 before it sends the body.
    pub(super) fn expect_continue(&mut self) {
        self.expects_continue = true;
    }

    /// Hands the head to the connection, if that is still to do.
    fn send_head(&mut self, ended: bool) -> io::Result<()> {
        match std::mem::replace(&mut self.response, Progress::Ended) {
            Progress::Begun(head) => {
                let sending = self.respond.send_response(head, ended).map_err(io::Error::other)?;
                if !ended {
                    self.response = Progress::Sending(sending);
                }
                Ok(())
            }
            other => {
                self.response = other;
                Ok(())
            }
        }
    }

    fn sending(&mut self) -> io::Result<&mut SendStream<Bytes>> {
        match &mut self.response {
            Progress::Sending(sending) => Ok(sending),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Lets a client begin that waits for it (RFC 9110, section 10.1.1).
    fn let_begin(&mut self) {
        if std::mem::take(&mut self.expects_continue) && matches!(self.response, Progress::Silent) {
            self.inform(100, &mut std::iter::empty());
        }
    }

    /// Whether the client owes something now: after the head of the response it may send its body when it likes, as
    /// calls do that go both ways.
    fn owes_body(&self) -> bool {
        !self.tunnel && matches!(self.response, Progress::Silent)
    }

    fn reset(&mut self, reason: Reason) {
        if !matches!(self.response, Progress::Ended) {
            self.response = Progress::Ended;
            self.respond.send_reset(reason);
        }
    }
}

impl Downstream for Stream {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        room: usize,
    ) -> Poll<Result<Piece, Broken>> {
        while self.piece.is_empty() {
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(Piece::End(Vec::new()))) };
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(piece))) => self.piece = piece,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(&error))),
                Poll::Ready(None) => {
                    let id = body.stream_id().as_u32();
                    if self.shared.pulse.has_malformed_trailers(id) {
                        self.reset(Reason::PROTOCOL_ERROR);
                        return Poll::Ready(Err(Broken::Malformed("the trailers have a pseudo field")));
                    }
                    let trailers = match ready!(body.poll_trailers(cx)) {
                        Ok(trailers) => trailers.map(|map| fields::to_lines(&map)).unwrap_or_default(),
                        Err(error) => return Poll::Ready(Err(broken(&error))),
                    };
                    return Poll::Ready(Ok(Piece::End(trailers)));
                }
                Poll::Pending => {
                    if self.wait.is_over() {
                        return Poll::Ready(Err(Broken::Gone));
                    }
                    self.let_begin();
                    if self.owes_body() {
                        self.wait.begin(cx);
                    }
                    return Poll::Pending;
                }
            }
        }
        self.wait.end();
        let taken = room.min(self.piece.len());
        into.extend_from_slice(&self.piece[..taken]);
        self.piece.advance(taken);
        if let Some(body) = &mut self.body {
            // The window opens again only now. It fails when the stream has ended, and then nobody needs the window.
            let _ = body.flow_control().release_capacity(taken);
        }
        Poll::Ready(Ok(Piece::Data(taken)))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.response {
            Progress::Silent | Progress::Begun(_) => self.respond.poll_reset(cx).map(drop),
            Progress::Sending(sending) => sending.poll_reset(cx).map(drop),
            Progress::Ended => Poll::Pending,
        }
    }

    fn inform(&mut self, status: u16, fields: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        let Ok(status) = StatusCode::from_u16(status) else { return };
        if status == StatusCode::SWITCHING_PROTOCOLS || !matches!(self.response, Progress::Silent) {
            return;
        }
        if status == StatusCode::CONTINUE {
            self.expects_continue = false;
        }
        let mut head = Response::new(());
        *head.status_mut() = status;
        for (name, value) in fields {
            fields::append(head.headers_mut(), name, value);
        }
        // It fails when the stream has ended, which the next step of the response sees as well.
        let _ = self.respond.send_informational(head);
    }

    fn respond(&mut self, answer: Answer<'_, '_>) {
        let upgrade = answer.status == 101;
        let mut head = Response::new(());
        // A WebSocket is granted with 200 (RFC 8441, section 5).
        let status = if upgrade { 200 } else { answer.status };
        *head.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        let map = head.headers_mut();
        for (name, value) in answer.fields {
            fields::append(map, name, value);
        }
        map.remove(header::CONTENT_LENGTH);
        if upgrade {
            map.remove(header::SEC_WEBSOCKET_ACCEPT);
        } else if let Some(length) = answer.length {
            map.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        self.left = answer.length.filter(|_| answer.has_body);
        self.wait.end();
        self.response = Progress::Begun(head);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.send_head(false)?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let sending = self.sending()?;
        let wanted = data.len().min(PIECE_BYTES_MAX);
        sending.reserve_capacity(wanted);
        let mut granted = sending.capacity();
        if granted == 0 {
            granted = match sending.poll_capacity(cx) {
                Poll::Ready(Some(Ok(granted))) => granted,
                Poll::Ready(_) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Pending if self.wait.is_over() => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => {
                    self.wait.begin(cx);
                    return Poll::Pending;
                }
            };
        }
        self.wait.end();
        let piece = Bytes::copy_from_slice(&data[..wanted.min(granted)]);
        let taken = piece.len();
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(taken as u64);
        }
        if self.left == Some(0) && self.last.is_none() {
            self.last = Some(piece);
        } else {
            self.sending()?.send_data(piece, false).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send_head(false)?;
        if let Some(last) = self.last.take() {
            self.sending()?.send_data(last, false).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>, trailers: &[u8]) -> Poll<io::Result<()>> {
        let trailers = if trailers.is_empty() { HeaderMap::new() } else { fields::from_lines(trailers) };
        if matches!(self.response, Progress::Ended) {
            return Poll::Ready(Ok(()));
        }
        self.send_head(trailers.is_empty() && !self.tunnel)?;
        if matches!(self.response, Progress::Ended) {
            return Poll::Ready(Ok(()));
        }
        let last = self.last.take();
        let sending = self.sending()?;
        let ended = if trailers.is_empty() {
            sending.send_data(last.unwrap_or_default(), true)
        } else {
            let data = last.map_or(Ok(()), |last| sending.send_data(last, false));
            data.and_then(|()| sending.send_trailers(trailers))
        };
        ended.map_err(io::Error::other)?;
        self.response = Progress::Ended;
        Poll::Ready(Ok(()))
    }

    fn cut(&mut self) {
        self.reset(Reason::INTERNAL_ERROR);
    }

    fn tunnel(&mut self) {
        self.tunnel = true;
        self.wait.end();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reset(Reason::INTERNAL_ERROR);
        self.shared.leave(&self.wait);
    }
}

fn broken(error: &h2::Error) -> Broken {
    if error.is_reset() && error.is_library() {
        Broken::Malformed(
            "the HTTP/2 stream is not framed as it must be, or is not as long as its content-length",
        )
    } else {
        Broken::Gone
    }
}
