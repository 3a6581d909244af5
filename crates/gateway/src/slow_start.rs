//! The share of a worker that has just joined others: it rises in a straight line to the full one, so that cold
//! caches and compilers are not met by full load at once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// What a worker gets at least, so that it warms up at all and that looking for a worker stays short.
const SHARE_MIN: f64 = 0.1;

/// One worker's way to its full share. Warming → Full.
#[derive(Debug, Default)]
pub(crate) struct Warmth {
    /// Since when it warms up; `None` once it has its full share.
    since: Cell<Option<Instant>>,
    /// What it is owed of its next turn.
    credit: Cell<f64>,
}

impl Warmth {
    /// Begins to warm up at `now`.
    pub(crate) fn begin(&self, now: Instant) {
        self.since.set(Some(now));
        self.credit.set(0.0);
    }

    /// Has its full share from now on.
    pub(crate) fn complete(&self) {
        self.since.set(None);
    }

    /// Whether it has its full share.
    pub(crate) fn is_full(&self) -> bool {
        self.since.get().is_none()
    }

    /// Its share at `now`, over 0 and at most 1.
    pub(crate) fn share(&self, now: Instant, whole: Duration) -> f64 {
        let Some(since) = self.since.get() else { return 1.0 };
        let share = share(now.saturating_duration_since(since), whole);
        if share >= 1.0 {
            self.complete();
        }
        share
    }

    /// Whether a turn that it is offered at `now` is really its own: as often as its share says, evenly.
    pub(crate) fn takes_turn(&self, now: Instant, whole: Duration) -> bool {
        let credit = self.credit.get() + self.share(now, whole);
        let takes = credit >= 1.0;
        self.credit.set(if takes { credit - 1.0 } else { credit });
        takes
    }
}

/// The share of a worker that is so old, when it is to have the whole after `whole`.
pub(crate) fn share(age: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        return 1.0;
    }
    (age.as_secs_f64() / whole.as_secs_f64()).clamp(SHARE_MIN, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let second = Duration::from_secs(1);
        for (age, whole, expected) in [
            (Duration::ZERO, Duration::ZERO, 1.0),
            (Duration::ZERO, second, SHARE_MIN),
            (second / 20, second, SHARE_MIN),
            (second / 4, second, 0.25),
            (second / 2, second, 0.5),
            (second, second, 1.0),
            (second * 9, second, 1.0),
        ] {
            assert_eq!(share(age, whole), expected, "{age:?} of {whole:?}");
        }
    }

    #[test]
    fn turns_follow_the_share() {
        let (warmth, begin, whole) = (Warmth::default(), Instant::now(), Duration::from_secs(10));
        assert!((0..9).all(|_| warmth.takes_turn(begin, whole)), "a full one takes every turn");
        warmth.begin(begin);
        for (age_s, expected) in [(0, 10), (1, 10), (5, 50), (8, 80)] {
            let now = begin + Duration::from_secs(age_s);
            let taken = (0..100).filter(|_| warmth.takes_turn(now, whole)).count();
            assert!(taken.abs_diff(expected) <= 1, "{taken} of 100 after {age_s} s");
        }
        assert!(!warmth.is_full());
        assert!(warmth.takes_turn(begin + whole, whole));
        assert!(warmth.is_full());
    }
}
