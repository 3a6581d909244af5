//! Whether copies may be believed: a number that changes whenever all of them lose their worth, and when the feed was last heard.
//!
//! Unheard => Followed when the engine is followed; Followed => Unheard when the feed fails, or says nothing for too long. Each time it is
//! followed anew, or everything is dropped, the epoch is another one, and copies of an earlier one are worth nothing for ever.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::feed::SILENCE_MAX;

/// Not followed.
const UNHEARD: u64 = 0;

/// A time of this process in milliseconds, never 0. It does not step as clocks do.
pub(super) type Tick = u64;

pub(super) struct Trust {
    began: Instant,
    epoch: AtomicU64,
    /// When the feed was last heard, [`UNHEARD`] while there is none.
    heard: AtomicU64,
    /// The same, but kept when the feed fails.
    last_heard: AtomicU64,
}

impl Trust {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            epoch: AtomicU64::new(0),
            heard: AtomicU64::new(UNHEARD),
            last_heard: AtomicU64::new(UNHEARD),
        }
    }

    pub(super) fn now(&self) -> Tick {
        ticks(self.began.elapsed()).saturating_add(1)
    }

    /// The epoch whose copies may be believed at `now`; none while nobody tells when they are stale.
    ///
    /// What is heard is looked at before the epoch, and written after it: who finds a new feed finds its epoch too. That the feed has been
    /// heard is judged here, and not by the follower alone, since a process that was stopped may run this before that.
    pub(super) fn epoch(&self, now: Tick) -> Option<u64> {
        let heard = self.heard.load(Ordering::Acquire);
        let is_heard = heard != UNHEARD && now.saturating_sub(heard) <= ticks(SILENCE_MAX);
        is_heard.then(|| self.epoch.load(Ordering::Acquire))
    }

    /// Whether a copy of this epoch may be read although the engine cannot be asked.
    pub(super) fn was_good(&self, epoch: u64, now: Tick, outage_max: Duration) -> bool {
        let heard = self.last_heard.load(Ordering::Acquire);
        heard != UNHEARD
            && now.saturating_sub(heard) < ticks(outage_max)
            && self.epoch.load(Ordering::Acquire) == epoch
    }

    /// Whether the feed was last heard so long ago that no copy may be read in any case.
    pub(super) fn is_over(&self, outage_max: Duration) -> bool {
        let heard = self.last_heard.load(Ordering::Acquire);
        heard != UNHEARD && self.now().saturating_sub(heard) >= ticks(outage_max)
    }

    /// The engine is followed.
    pub(super) fn follow(&self) {
        self.drop_all();
        self.hear_at(self.now());
    }

    /// The feed told something. False when it had been silent for too long, which nobody may have noticed: then it is to be given up.
    #[must_use]
    pub(super) fn hear(&self) -> bool {
        let now = self.now();
        let is_timely = self.epoch(now).is_some();
        if is_timely {
            self.hear_at(now);
        }
        is_timely
    }

    fn hear_at(&self, now: Tick) {
        self.last_heard.store(now, Ordering::Release);
        self.heard.store(now, Ordering::Release);
    }

    /// The feed has failed.
    pub(super) fn lose(&self) {
        self.heard.store(UNHEARD, Ordering::Release);
    }

    /// Makes all copies worthless, also those that are being made.
    pub(super) fn drop_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

pub(super) fn ticks(duration: Duration) -> Tick {
    Tick::try_from(duration.as_millis()).unwrap_or(Tick::MAX)
}
