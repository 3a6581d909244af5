//! What near copies have done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the copies of one kind, or one table, have done since the start, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that a copy answered.
    pub hits: u64,
    /// Reads that the engine was asked for.
    pub misses: u64,
    /// Reads that shared the engine's answer to another one.
    pub joined: u64,
    /// Reads that a copy answered because the engine could not be reached.
    pub outage_hits: u64,
    /// Answers that were not kept, because what they were of had changed while they were on their way.
    pub fenced: u64,
    /// Changes that were told, or made by this worker.
    pub changes: u64,
    /// Times that everything was dropped: a feed that failed, or a write that could be to anything.
    pub flushes: u64,
    /// Copies that there are.
    pub entries: u64,
    /// Bytes that they count as.
    pub bytes: u64,
    /// Whether the engine tells what changes; while it does not, nothing is kept.
    pub is_followed: bool,
}

/// The counters themselves. They tell of each other nothing, so they need no order.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) joined: Counter,
    pub(super) outage_hits: Counter,
    pub(super) fenced: Counter,
    pub(super) changes: Counter,
    pub(super) flushes: Counter,
}

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
