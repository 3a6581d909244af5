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
                // What is not kept is gone once it was given. The h2 crate gives no room for it before it has the head in the
                // connection's buffer, which is written at once: only if the kernel takes nothing more in that very moment, and
                // the worker is lost in it, is a request gone of which nothing was sent, and its client told that nobody knows.
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

#[cfg(test)]
mod tests {
    use std::{rc::Rc, time::Duration};

    use futures_util::FutureExt as _;
    use tokio::{net::TcpListener, task::LocalSet};

    use super::*;
    use crate::{
        body_budget::{BodyBudget, Share},
        config::Limits,
        downstream::fake::Client,
        h2c::Lane,
        watch::Phase,
    };

    const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n";

    /// There is no room to keep it, and it can be sent elsewhere all the same, as long as nothing of it was sent: a promise of
    /// the h2 crate, kept until now.
    #[test]
    fn a_body_that_is_not_kept_stays_until_the_head_was_sent() {
        let test = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let lane = Lane::new(listener.local_addr().unwrap().into());
            let mut link = H2c::new(lane.enter(&Limits::default()).await.unwrap());
            let share = Rc::new(Share::new(BodyBudget::new(0)));
            let mut upload = Upload::new(Length::Sized(5), 0, &share);
            let (mut client, watched) = (Client::sends([&b"hello"[..]]), Watched::new(Phase::Uploading));
            link.begin(POST, Length::Sized(5)).unwrap();
            let mut send = || {
                std::future::poll_fn(|cx| link.poll_send(cx, &mut upload, &mut client, &watched))
                    .now_or_never()
            };
            assert!(send().is_none());
            assert!(upload.is_replayable() && upload.waiting() == b"hello");
            assert_eq!(link.loss(Cause::Gone).stage, Stage::Unsent);
            // It comes to wait for its client, when all that there was has gone out.
            let sending = std::future::poll_fn(|cx| {
                let sent = link.poll_send(cx, &mut upload, &mut client, &watched);
                assert!(sent.is_pending(), "the client has not ended its body");
                if upload.waiting().is_empty() { Poll::Ready(()) } else { Poll::Pending }
            });
            sending.await;
            assert!(!upload.is_replayable());
            assert_eq!(link.loss(Cause::Gone).stage, Stage::Sent);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test = async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("test hangs") };
        LocalSet::new().block_on(&runtime, test);
    }
}
