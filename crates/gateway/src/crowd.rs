//! How many clients are connected to all cores together, and whether more would like to be. A new client that finds no place
//! waits in the kernel's queue; those who have been idle for longest are asked to leave for it.

use std::{
    cell::Cell,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::watch::Watched;

/// Of the idle clients of a core, one in so many is asked to leave at a time; at least one.
const LEAVE_SHARE: usize = 16;
/// That there is no place left is said no more often than this, by each core.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// What all cores share of it.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    open: AtomicUsize,
    /// How often somebody was kept waiting.
    waits: AtomicUsize,
}

impl Crowd {
    pub(crate) fn enter(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// Whether one more may come, where `max` may be. If not, all cores will notice.
    pub(crate) fn admits(&self, max: usize) -> bool {
        let admits = self.open.load(Relaxed) < max;
        if !admits {
            self.waits.fetch_add(1, Relaxed);
        }
        admits
    }
}

/// What one core has noticed of it.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    waits: Cell<usize>,
    said_at: Cell<Option<Instant>>,
}

impl Notice {
    /// Whether somebody was kept waiting since this was last asked.
    pub(crate) fn is_wanted(&self, crowd: &Crowd) -> bool {
        let waits = crowd.waits.load(Relaxed);
        self.waits.replace(waits) != waits
    }

    /// Asks some of those among `clients` who are idle to leave, those first who have been so for longest. A request of theirs
    /// that is on its way is still answered, with word that the connection ends.
    pub(crate) fn make_room<'a>(
        &self,
        clients: impl Iterator<Item = &'a Rc<Watched>>,
        max: usize,
        now: Instant,
    ) {
        let mut idle: Vec<_> = clients.filter_map(|client| Some((client.idle_since()?, client))).collect();
        let count = idle.len().div_ceil(LEAVE_SHARE);
        if let Some(last) = count.checked_sub(1) {
            idle.select_nth_unstable_by_key(last, |(since, _)| *since);
        }
        for (_, client) in &idle[..count] {
            client.draining.set(true);
            client.wake();
        }
        if self.said_at.get().is_none_or(|at| now.saturating_duration_since(at) >= SAID_EVERY) {
            self.said_at.set(Some(now));
            tracing::warn!(
                "all {max} client connections are open: new clients wait, and who has been idle for longest is asked to leave; \
                 `connections-max` and the limit of open files (`ulimit -Hn`) allow more",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Limits, watch::Phase};

    #[test]
    fn those_who_have_been_idle_for_longest_leave() {
        let begin = Instant::now();
        let clients: Vec<_> = (0..40)
            .map(|number| {
                let client = Watched::new(if number % 2 == 0 { Phase::Idle } else { Phase::Waiting });
                // The later ones were seen first.
                client.overdue(begin + Duration::from_millis(100 - number), &Limits::default());
                client
            })
            .collect();
        let fresh = Watched::new(Phase::Idle);
        Notice::default().make_room(clients.iter().chain([&fresh]), 41, begin);
        let left: Vec<_> = (0..40).filter(|number| clients[*number].draining.get()).collect();
        assert_eq!(left, [36, 38], "two of twenty");
        assert!(!fresh.draining.get(), "no tick has seen it idle");
        Notice::default().make_room(clients.iter(), 40, begin);
        assert_eq!((0..40).filter(|number| clients[*number].draining.get()).count(), 4, "others than before");
    }

    #[test]
    fn each_core_notices_once_that_somebody_waits() {
        let (crowd, cores) = (Crowd::default(), [Notice::default(), Notice::default()]);
        assert!(crowd.admits(1));
        crowd.enter();
        assert!(!cores[0].is_wanted(&crowd));
        assert!(!crowd.admits(1));
        for core in &cores {
            assert!(core.is_wanted(&crowd));
            assert!(!core.is_wanted(&crowd));
        }
        crowd.leave();
        assert!(crowd.admits(1));
    }
}
