//! The memory for bodies that are kept whole, which all cores share: of requests, to be sent again, and of responses that
//! are held back. Each core takes it in chunks, so that requests do not meet at one counter.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::config::Limits;

/// What a core takes at a time, if there is so much.
const CHUNK_BYTES: usize = 256 << 10;

/// What there is for each purpose.
#[derive(Clone)]
pub(crate) struct Budgets {
    /// For request bodies.
    pub(crate) replay: Arc<BodyBudget>,
    /// For responses.
    pub(crate) hold: Arc<BodyBudget>,
}

impl Budgets {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            replay: BodyBudget::new(limits.replay_total_bytes_max),
            hold: BodyBudget::new(limits.hold_total_bytes_max),
        }
    }

    /// Follows changed limits; see [`BodyBudget::resize`].
    pub(crate) fn resize(&self, limits: &Limits) {
        self.replay.resize(limits.replay_total_bytes_max);
        self.hold.resize(limits.hold_total_bytes_max);
    }
}

/// What there is for all cores.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    bytes_max: AtomicUsize,
    taken: AtomicUsize,
}

impl BodyBudget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max: AtomicUsize::new(bytes_max), taken: AtomicUsize::new(0) })
    }

    /// Makes it larger or smaller. What is taken beyond a smaller one comes back as its requests end; until then there is
    /// nothing left. Each core's [`Share::settle`] is to follow.
    pub(crate) fn resize(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Relaxed);
    }

    /// Takes `bytes`, or what is left if that is `bytes_min` or more; nothing otherwise.
    fn take(&self, bytes_min: usize, bytes: usize) -> Option<usize> {
        let bytes_max = self.bytes_max.load(Relaxed);
        let granted =
            |taken| Some(bytes_max.saturating_sub(taken).min(bytes)).filter(|&more| more >= bytes_min);
        let more = |taken| granted(taken).map(|more| taken + more);
        self.taken.fetch_update(Relaxed, Relaxed, more).ok().and_then(granted)
    }

    fn give(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Relaxed);
    }

    fn is_overdrawn(&self) -> bool {
        self.taken.load(Relaxed) > self.bytes_max.load(Relaxed)
    }
}

/// One core's part of it.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<BodyBudget>,
    /// Taken for this core, and not used now.
    spare: Cell<usize>,
}

impl Share {
    pub(crate) fn new(budget: Arc<BodyBudget>) -> Self {
        Self { budget, spare: Cell::new(0) }
    }

    /// Takes so many bytes; false if there are not so many, and then none.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let spare = self.spare.get();
        let missing = bytes.saturating_sub(spare);
        let more = match missing {
            0 => 0,
            missing => match self.budget.take(missing, missing.max(CHUNK_BYTES)) {
                Some(more) => more,
                None => return false,
            },
        };
        self.spare.set(spare + more - bytes);
        true
    }

    /// As [`take`](Self::take), until what is returned is dropped.
    pub(crate) fn borrow(self: &Rc<Self>, bytes: usize) -> Option<Borrowed> {
        self.take(bytes).then(|| Borrowed { share: Rc::clone(self), bytes })
    }

    /// Gives back what was taken.
    pub(crate) fn give(&self, bytes: usize) {
        let spare = self.spare.get() + bytes;
        let kept = match spare {
            _ if self.budget.is_overdrawn() => 0,
            spare if spare > 2 * CHUNK_BYTES => CHUNK_BYTES,
            spare => spare,
        };
        self.spare.set(kept);
        if spare > kept {
            self.budget.give(spare - kept);
        }
    }

    /// Gives back what is not used, since the budget may be smaller than it was.
    pub(crate) fn settle(&self) {
        self.budget.give(self.spare.take());
    }
}

/// Bytes that are given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Borrowed {
    share: Rc<Share>,
    bytes: usize,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.share.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(bytes_max: usize) -> (Arc<BodyBudget>, Share, Share) {
        let budget = BodyBudget::new(bytes_max);
        (Arc::clone(&budget), Share::new(Arc::clone(&budget)), Share::new(budget))
    }

    #[test]
    fn it_is_shared_and_given_back() {
        let (budget, one, two) = shares(1 << 20);
        assert!(one.take(700 << 10));
        assert!(two.take(100 << 10));
        assert!(!two.take(300 << 10), "no more than there is");
        one.give(700 << 10);
        assert!(two.take(300 << 10));
        two.give(400 << 10);
        assert_eq!(budget.taken.load(Relaxed), one.spare.get() + two.spare.get(), "nothing is lost");
    }

    #[test]
    fn all_of_it_can_be_taken() {
        let (_, one, two) = shares(CHUNK_BYTES + 100);
        assert!(one.take(10));
        assert!(two.take(60), "less than a chunk is left");
        assert!(two.take(40));
        assert!(!two.take(1));
    }

    #[test]
    fn a_smaller_one_is_kept_to() {
        let (budget, one, two) = shares(1 << 20);
        assert!(one.take(500 << 10) && one.take(300 << 10) && two.take(1));
        budget.resize(100);
        one.settle();
        two.settle();
        assert!(!two.take(1), "more is taken than there is now");
        one.give(300 << 10);
        assert!(!one.take(1) && !two.take(1));
        one.give(500 << 10);
        assert!(two.take(99) && !one.take(1) && !two.take(1));
        budget.resize(200);
        assert!(one.take(100) && !two.take(1));
    }
}
