//! What a worker has done with a cache.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a worker has done with a cache since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that memory answered.
    pub near: u64,
    /// Requests that shared what was brought for another one.
    pub joined: u64,
    /// Requests that found their value at the engine.
    pub found: u64,
    /// Values that were computed because there were none.
    pub computed: u64,
    /// Values that were computed in the background because they were stale.
    pub refreshed: u64,
    /// Values that were computed without the engine, because it was away or another worker took too long.
    pub alone: u64,
    /// Computations that failed.
    pub failed: u64,
}

/// The counters themselves. They tell of each other nothing, so they need no order.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) near: Counter,
    pub(super) joined: Counter,
    pub(super) found: Counter,
    pub(super) computed: Counter,
    pub(super) refreshed: Counter,
    pub(super) alone: Counter,
    pub(super) failed: Counter,
}

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn counts(&self) -> Counts {
        Counts {
            near: self.near.get(),
            joined: self.joined.get(),
            found: self.found.get(),
            computed: self.computed.get(),
            refreshed: self.refreshed.get(),
            alone: self.alone.get(),
            failed: self.failed.get(),
        }
    }
}
