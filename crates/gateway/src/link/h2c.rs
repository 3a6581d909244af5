//! A request on a stream of an HTTP/2 connection to a worker, polled as an HTTP/1.1 connection is.

use std::task::{Context, Poll, ready};

use super::{Halt, INTERIM_MAX};
use crate::{
    admit::Length,
    downstream::{Downstream, Piece},
    h2c::{Exchange, Failure},
    head::{Bounds, ResponseHead},
    headers::{self, Framing},
    http2::Body,
    upload::Upload,
    verdict::{Cause, Loss, Stage},
    watch::Watched,
};

/// Most of a response that is taken ahead of its client, unless it is held.
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// One request, and its response.
pub(crate) struct H2c {
    exchange: Exchange,
    /// All of the request was given.
    all_given: bool,
    pub(super) head: ResponseHead,
    /// The response's head as HTTP/1.1 text, and behind it what came of the body and was not used.
    bytes: Vec<u8>,
    used: usize,
    /// The trailers, once the body has ended.
    end: Option<Vec<u8>>,
    pub(super) interims: u8,
}

impl H2c {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            all_given: false,
            head: ResponseHead::default(),
            bytes: Vec::new(),
            used: 0,
            end: None,
            interims: 0,
        }
    }

    /// The worker has answered on the connection before: it may be ending it by now, as it may with any.
    pub(super) fn is_reused(&self) -> bool {
        self.exchange.is_proven()
    }

    pub(super) fn begin(&mut self, head: &[u8], length: Length) -> Result<(), Loss> {
        self.all_given = length == Length::None;
        self.exchange.send_head(head, self.all_given).map_err(|failure| self.lost(failure))
    }

    pub(super) fn loss(&self, cause: Cause) -> Loss {
        Loss { stage: if self.exchange.is_sent() { Stage::Sent } else { Stage::Unsent }, cause }
    }

    fn lost(&self, failure: Failure) -> Loss {
        match failure {
            Failure::Unsent => Loss { stage: Stage::Unsent, cause: Cause::Gone },
            // What was refused was not looked at (RFC 9113, section 8.7), unless it was answered in part.
            Failure::Refused if self.interims == 0 => Loss { stage: Stage::Unsent, cause: Cause::Refused },
            Failure::Refused => Loss { stage: Stage::Sent, cause: Cause::Gone },
            Failure::Lost => Loss { stage: Stage::Sent, cause: Cause::Gone },
            // The worker lives, and does not want to answer this one.
            Failure::Reset | Failure::Garbled(_) => Loss { stage: Stage::Sent, cause: Cause::Garbled },
        }
    }

    /// What it means that the response ends behind its head: it cannot have been refused.
    fn cut(&self, failure: Failure) -> Cause {
        if failure == Failure::Refused { Cause::Gone } else { self.lost(failure).cause }
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
        down: &mut impl Downstream,
        watched: &Watched,
    ) -> Poll<Result<(), Halt>> {
        while !self.all_given {
            ready!(upload.poll_more(cx, down, watched)).map_err(Halt::Broken)?;
            if upload.waiting().is_empty() {
                self.exchange.finish(upload.trailers());
                self.all_given = true;
            } else {
                let taken = ready!(self.exchange.poll_send(cx, upload.waiting()));
                upload.pass(taken);
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        bounds: Bounds,
        down: &mut impl Downstream,
    ) -> Poll<Result<(), Loss>> {
        loop {
            self.bytes.clear();
            if let Err(failure) = ready!(self.exchange.poll_head(cx, &mut self.bytes)) {
                return Poll::Ready(Err(self.lost(failure)));
            }
            // The connection has bounded it in its own notation.
            let bounds = bounds.loosened(self.bytes.len());
            let garbled = Loss { stage: Stage::Sent, cause: Cause::Garbled };
            if !self.head.parse(&self.bytes, bounds).is_ok_and(|whole| whole) || self.interims > INTERIM_MAX {
                return Poll::Ready(Err(garbled));
            }
            if !(100..200).contains(&self.head.status) {
                return Poll::Ready(Ok(()));
            }
            self.interims += 1;
            if self.head.status != 100
                && let Some(framing) = Framing::of(&self.bytes, &self.head)
            {
                let mut fields = headers::to_client(&self.bytes, &self.head, framing, std::iter::empty());
                down.inform(self.head.status, &mut fields);
            }
        }
    }

    pub(super) fn poll_hold(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<Result<(), Cause>> {
        let whole = self.head.bytes + length;
        while self.bytes.len() < whole {
            let room = whole - self.bytes.len();
            match ready!(self.exchange.poll_data(cx, &mut self.bytes, room)) {
                Ok(Piece::Data(_)) => {}
                Ok(Piece::End(_)) => return Poll::Ready(Err(Cause::Garbled)),
                Err(failure) => return Poll::Ready(Err(self.cut(failure))),
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn begin_body(&mut self, bodiless: bool) {
        self.used = self.head.bytes;
        if bodiless || self.exchange.body() == Body::None {
            self.end = Some(Vec::new());
        }
    }

    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Cause>> {
        loop {
            let here = self.bytes.len() - self.used;
            if here > 0 || self.end.is_some() {
                return Poll::Ready(Ok(here));
            }
            self.bytes.clear();
            self.used = 0;
            match ready!(self.exchange.poll_data(cx, &mut self.bytes, AHEAD_BYTES_MAX)) {
                Ok(Piece::Data(_)) => {}
                Ok(Piece::End(trailers)) => self.end = Some(headers::passing_trailers(trailers)),
                Err(failure) => return Poll::Ready(Err(self.cut(failure))),
            }
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    pub(super) fn took(&mut self, bytes: usize) {
        self.used += bytes;
    }

    pub(super) fn trailers(&self) -> &[u8] {
        self.end.as_deref().unwrap_or_default()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some() && self.used == self.bytes.len()
    }
}
