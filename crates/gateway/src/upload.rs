//! The request's body on its way to a worker. It is passed on as it arrives and kept at the same time, so that another
//! worker can be given the same body; past a bound it is passed on only, and once something of it is gone the request can
//! no longer be sent again. A body that the client cut short is never ended as if it were whole.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use crate::{
    admit::Length,
    body_budget::Share,
    downstream::{Broken, Downstream, Piece},
    headers,
    watch::{Phase, Watched},
};

/// Most of a body that is read before it was passed on, once it is no longer kept.
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// One request's body.
pub(crate) struct Upload {
    /// What came: all of it while it is kept, else what was not passed on yet.
    bytes: Vec<u8>,
    /// So much of `bytes` was passed on in the attempt in hand.
    passed: usize,
    /// Set once it is whole, or broken.
    end: Option<Result<Vec<u8>, Broken>>,
    /// All that came of it, in bytes.
    pub(crate) received: usize,
    /// What is passed on is kept.
    keeps: bool,
    /// Something that came is gone.
    dropped: bool,
    kept_bytes_max: usize,
    /// What `bytes` takes from the budget.
    cost_bytes: usize,
    budget: Rc<Share>,
}

impl Upload {
    pub(crate) fn new(length: Length, kept_bytes_max: usize, budget: &Rc<Share>) -> Self {
        Self {
            bytes: Vec::new(),
            passed: 0,
            end: (length == Length::None).then(|| Ok(Vec::new())),
            received: 0,
            keeps: true,
            dropped: false,
            kept_bytes_max,
            cost_bytes: 0,
            budget: Rc::clone(budget),
        }
    }

    /// Whether another attempt can be given the whole body.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.dropped
    }

    /// Whether all of it has come.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.end, Some(Ok(_)))
    }

    /// Another attempt begins.
    pub(crate) fn rewind(&mut self) {
        self.passed = 0;
    }

    /// What came and was not passed on yet.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.passed..]
    }

    /// So much of what was waiting was passed on.
    pub(crate) fn pass(&mut self, bytes: usize) {
        self.passed += bytes;
        if !self.keeps && self.passed == self.bytes.len() {
            self.dropped |= self.passed > 0;
            self.bytes.clear();
            self.passed = 0;
        }
    }

    /// The trailers, once all of the body has come.
    pub(crate) fn trailers(&self) -> &[u8] {
        self.end.as_ref().and_then(|end| end.as_deref().ok()).unwrap_or_default()
    }

    /// Asks the client for more, if nothing is waiting. Ready when something is, or the body has ended.
    pub(crate) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut impl Downstream,
        watched: &Watched,
    ) -> Poll<Result<(), Broken>> {
        if let Some(Err(broken)) = self.end {
            return Poll::Ready(Err(broken));
        }
        if !self.waiting().is_empty() || self.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.poll_next(cx, down, watched)
    }

    /// Asks the client for all of it, of which nothing was passed on yet. Ready with true when it is whole, with false when it
    /// cannot be kept.
    pub(crate) fn poll_whole(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut impl Downstream,
        watched: &Watched,
    ) -> Poll<Result<bool, Broken>> {
        while self.keeps && self.end.is_none() {
            ready!(self.poll_next(cx, down, watched))?;
        }
        Poll::Ready(Ok(self.keeps))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut impl Downstream,
        watched: &Watched,
    ) -> Poll<Result<(), Broken>> {
        let piece = down.poll_body(cx, &mut self.bytes, AHEAD_BYTES_MAX);
        watched.owes.set(piece.is_pending());
        match ready!(piece) {
            Ok(Piece::Data(bytes)) => {
                self.received += bytes;
                self.keep(bytes);
                if watched.phase() == Phase::Uploading {
                    watched.enter(Phase::Uploading);
                }
                Poll::Ready(Ok(()))
            }
            Ok(Piece::End(trailers)) => {
                self.end = Some(Ok(headers::passing_trailers(trailers)));
                Poll::Ready(Ok(()))
            }
            Err(broken) => {
                self.end = Some(Err(broken));
                Poll::Ready(Err(broken))
            }
        }
    }

    /// Takes what was just appended into the budget, or gives up keeping.
    fn keep(&mut self, bytes: usize) {
        if !self.keeps {
            return;
        }
        if self.bytes.len() <= self.kept_bytes_max && self.budget.take(bytes) {
            self.cost_bytes += bytes;
        } else {
            self.keeps = false;
            self.dropped = self.passed > 0;
            // In a new place, so that the memory is free at once.
            self.bytes = self.bytes[self.passed..].to_vec();
            self.passed = 0;
            self.budget.give(std::mem::take(&mut self.cost_bytes));
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.cost_bytes > 0 {
            self.budget.give(self.cost_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::{body_budget::BodyBudget, downstream::fake::Client};

    fn more(upload: &mut Upload, client: &mut Client) -> Vec<u8> {
        let watched = Watched::new(Phase::Uploading);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(upload.poll_more(&mut cx, client, &watched), Poll::Ready(Ok(())));
        upload.waiting().to_vec()
    }

    #[test]
    fn what_cannot_be_kept_can_be_sent_again_until_something_of_it_is_gone() {
        for (kept_bytes_max, budget_bytes) in [(100, 2), (2, 100)] {
            let share = Rc::new(Share::new(BodyBudget::new(budget_bytes)));
            let mut client = Client::sends([&b"one"[..], b"two"]);
            let mut upload = Upload::new(Length::Sized(6), kept_bytes_max, &share);
            assert_eq!(more(&mut upload, &mut client), b"one");
            assert!(upload.is_replayable(), "nothing was sent");
            upload.pass(2);
            assert!(upload.is_replayable(), "all of it is still here");
            upload.rewind();
            assert_eq!(upload.waiting(), b"one");
            upload.pass(3);
            assert!(!upload.is_replayable());
            assert_eq!(more(&mut upload, &mut client), b"two");
            assert!(!upload.is_replayable());
        }
    }

    #[test]
    fn all_of_it_is_there_or_cannot_be_kept() {
        let watched = Watched::new(Phase::Uploading);
        let mut cx = Context::from_waker(Waker::noop());
        for (kept_bytes_max, budget_bytes, fits) in [(6, 6, true), (5, 100, false), (100, 5, false)] {
            let share = Rc::new(Share::new(BodyBudget::new(budget_bytes)));
            let mut client = Client::sends([&b"one"[..], b"two"]);
            let mut upload = Upload::new(Length::Sized(6), kept_bytes_max, &share);
            let whole = upload.poll_whole(&mut cx, &mut client, &watched);
            // The client of this test never says that it has ended.
            assert_eq!(whole, if fits { Poll::Pending } else { Poll::Ready(Ok(false)) });
            assert_eq!((upload.received, upload.waiting()), (6, &b"onetwo"[..]));
        }
        let share = Rc::new(Share::new(BodyBudget::new(0)));
        let mut upload = Upload::new(Length::None, 0, &share);
        assert_eq!(upload.poll_whole(&mut cx, &mut Client::default(), &watched), Poll::Ready(Ok(true)));
    }

    #[test]
    fn what_was_kept_is_gone_when_there_is_no_more_room() {
        let budget = BodyBudget::new(100);
        let share = Rc::new(Share::new(budget));
        let mut client = Client::sends([&b"one"[..], b"two"]);
        let mut upload = Upload::new(Length::Sized(6), 5, &share);
        more(&mut upload, &mut client);
        upload.pass(3);
        assert!(upload.is_replayable());
        assert_eq!(more(&mut upload, &mut client), b"two");
        assert!(!upload.is_replayable());
        assert!(share.take(100), "what is not kept costs nothing");
    }
}
