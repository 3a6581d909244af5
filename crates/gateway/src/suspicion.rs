//! When workers that refused a connection may be asked again, for those who wait for one. Only the times are kept, to the
//! millisecond, so that there are never many of them, however many workers refuse.

use std::{
    cell::RefCell,
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A worker that refused a connection is passed over for this long, or until it leaves the roster: it has most
/// likely just died.
pub(crate) const SUSPECT_FOR: Duration = Duration::from_millis(50);

/// The times at which somebody is no longer suspect: at most one for each millisecond of [`SUSPECT_FOR`], and one more.
#[derive(Debug)]
pub(crate) struct Suspicions {
    epoch: Instant,
    /// In milliseconds since the epoch, upwards.
    ends: RefCell<VecDeque<u64>>,
}

impl Suspicions {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self { epoch, ends: RefCell::default() }
    }

    /// Somebody is suspect from `now` on. Returns until when.
    pub(crate) fn begin(&self, now: Instant) -> Instant {
        self.forget(now);
        let until = now + SUSPECT_FOR;
        // No sooner than that.
        let end = self.ms(until) + 1;
        let mut ends = self.ends.borrow_mut();
        if ends.back().is_none_or(|&last| last < end) {
            ends.push_back(end);
        }
        until
    }

    /// When the next one is no longer suspect, to the millisecond.
    pub(crate) fn next_end(&self, now: Instant) -> Option<Instant> {
        self.forget(now);
        self.ends.borrow().front().map(|&end| self.at(end))
    }

    fn forget(&self, now: Instant) {
        let mut ends = self.ends.borrow_mut();
        while ends.front().is_some_and(|&end| self.at(end) <= now) {
            ends.pop_front();
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.epoch + Duration::from_millis(ms)
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_end_is_told() {
        let epoch = Instant::now();
        let at = |us: u64| epoch + Duration::from_micros(us);
        let suspicions = Suspicions::new(epoch);
        assert_eq!(suspicions.next_end(epoch), None);
        for (from, end) in [(100, 51_000), (900, 51_000), (1_100, 51_000), (20_000, 51_000)] {
            let until = suspicions.begin(at(from));
            assert_eq!(until, at(from) + SUSPECT_FOR);
            assert_eq!(suspicions.next_end(at(from)), Some(at(end)));
        }
        assert_eq!(suspicions.next_end(at(51_000)), Some(at(52_000)));
        assert_eq!(suspicions.next_end(at(52_000)), Some(at(71_000)));
        assert_eq!(suspicions.next_end(at(71_000)), None);
    }

    #[test]
    fn many_are_few() {
        let epoch = Instant::now();
        let suspicions = Suspicions::new(epoch);
        for us in 0..200_000 {
            suspicions.begin(epoch + Duration::from_micros(us));
            assert!(suspicions.ends.borrow().len() as u128 <= SUSPECT_FOR.as_millis() + 1);
        }
    }
}
