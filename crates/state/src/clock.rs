//! An engine's clock: what decides that something has expired. A test holds it by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{Millis, limits::gcra::Micros};

/// Tells the time to an engine.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch, UTC.
    fn now(&self) -> Millis;

    /// Microseconds since the Unix epoch, UTC: the same time, for what is counted more finely.
    fn now_us(&self) -> Micros {
        self.now().saturating_mul(1000)
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        // A machine set to a time before 1970 counts as being at the epoch.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
    }

    fn now_us(&self) -> Micros {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
    }
}

/// A clock that stands still until it is moved. Clones are the same clock. It holds microseconds.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Millis) -> Self {
        Self(Arc::new(AtomicI64::new(now.saturating_mul(1000))))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(micros(by), Ordering::SeqCst);
    }

    /// Sets it back, as an operator does, or a time server.
    pub fn set_back(&self, by: Duration) {
        self.0.fetch_sub(micros(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Millis {
        whole_millis(self.now_us())
    }

    fn now_us(&self) -> Micros {
        self.0.load(Ordering::SeqCst)
    }
}

/// A time in whole milliseconds, rounded up, as [`SystemClock`] does it.
pub(crate) fn whole_millis(time: Micros) -> Millis {
    time.saturating_add(999).div_euclid(1000)
}

/// A duration in whole microseconds, rounded up.
fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(Micros::MAX)
}

/// A duration in whole milliseconds, rounded up, so that what is asked to live for a moment does.
pub(crate) fn millis(duration: Duration) -> Millis {
    let whole = duration.as_nanos().div_ceil(1_000_000);
    Millis::try_from(whole).unwrap_or(Millis::MAX)
}

/// The time that long after `now`; the end of time when that is out of range.
#[cfg(any(feature = "embedded", feature = "postgres", test))]
pub(crate) fn after(now: Millis, duration: Duration) -> Millis {
    now.saturating_add(millis(duration))
}

/// Between half of a time and all of it, by chance, so that many who wait do not come back at once.
#[cfg(any(feature = "near", feature = "postgres", feature = "redis", feature = "objects"))]
pub fn jittered(most: Duration) -> Duration {
    // Without random numbers it is all of it: only the spread is lost.
    let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    most.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_and_never_wrap() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_millis(7)), 7);
        assert_eq!(millis(Duration::MAX), Millis::MAX);
        assert_eq!(after(1_700_000_000_000, Duration::MAX), Millis::MAX);
    }
}
