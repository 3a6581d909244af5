//! Decides when a place gets its next worker after one has died. Pure: it is told what happened and when,
//! and answers with a delay. A worker that served is replaced at once, however often it dies, up to a rate;
//! only one that could not start makes its place back off.

use std::time::Duration;

/// Delay after the first failed start; doubles with each further one in a row.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// The longest delay after a failed start.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A worker that was ready for this long has started, even if nobody asked anything of it.
pub(crate) const STARTED_AFTER: Duration = Duration::from_secs(1);
/// Workers of one service that are replaced at once, per second; beyond it replacements are spread out.
pub(crate) const REPLACEMENTS_PER_SECOND: u32 = 20;

/// How a worker's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process could not be created at all.
    NotLaunched,
    /// It ended by itself, by a signal that its own fault raised (SIGSEGV, SIGABRT), or for want of memory.
    Fell,
    /// It was ended from outside: SIGKILL (an operator, a fault injector) or SIGTERM.
    Killed,
}

/// What is known of a worker that has died without having been asked to leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// How it ended.
    pub end: End,
    /// How long it was ready; `None` if it never was.
    pub ready_for: Option<Duration>,
    /// Requests that it answered.
    pub answered: u64,
    /// Whether a `kill` command of an operator was the cause.
    pub commanded: bool,
}

/// What follows from a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It had started: replace it at once, as far as the rate allows, and forget earlier failures.
    Served,
    /// It could not start: its place backs off.
    CouldNotStart,
}

/// Judges one life.
pub(crate) fn judge(life: &Life) -> Verdict {
    let served = match life.ready_for {
        _ if life.commanded => true,
        None => false,
        Some(ready_for) => life.end == End::Killed || ready_for >= STARTED_AFTER || life.answered > 0,
    };
    if served { Verdict::Served } else { Verdict::CouldNotStart }
}

/// The delay before the next start, after `failures` failed ones in a row (at least one).
pub(crate) fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX)
}

/// Spreads the replacements of one service: a token bucket of [`REPLACEMENTS_PER_SECOND`] tokens, filled at
/// that rate. A replacement takes a token, or reserves a coming one and waits for it, so that none is given up.
#[derive(Debug)]
pub(crate) struct Rate {
    /// The time, since any fixed moment, at which the bucket is or was full.
    full_at: Duration,
}

impl Rate {
    const TOKEN: Duration = Duration::from_micros(1_000_000 / REPLACEMENTS_PER_SECOND as u64);

    /// A full bucket.
    pub(crate) fn new() -> Self {
        Self { full_at: Duration::ZERO }
    }

    /// Takes a token at `now` (since the same fixed moment at each call). Returns how long to wait for it.
    pub(crate) fn take(&mut self, now: Duration) -> Duration {
        self.full_at = self.full_at.max(now) + Self::TOKEN;
        (self.full_at - now).saturating_sub(Self::TOKEN * REPLACEMENTS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judgements() {
        const fn ms(ms: u64) -> Option<Duration> {
            Some(Duration::from_millis(ms))
        }
        let cases = [
            // end, ready for, answered, commanded, verdict
            (End::NotLaunched, None, 0, false, Verdict::CouldNotStart),
            (End::Fell, None, 0, false, Verdict::CouldNotStart),
            (End::Killed, None, 0, false, Verdict::CouldNotStart),
            (End::Killed, None, 0, true, Verdict::Served),
            (End::Fell, ms(0), 0, false, Verdict::CouldNotStart),
            (End::Fell, ms(999), 0, false, Verdict::CouldNotStart),
            (End::Fell, ms(999), 1, false, Verdict::Served),
            (End::Fell, ms(1000), 0, false, Verdict::Served),
            (End::Fell, ms(0), 0, true, Verdict::Served),
            (End::Killed, ms(0), 0, false, Verdict::Served),
            (End::Killed, ms(900), 0, false, Verdict::Served),
            (End::Killed, ms(900), 7, false, Verdict::Served),
        ];
        for (end, ready_for, answered, commanded, verdict) in cases {
            let life = Life { end, ready_for, answered, commanded };
            assert_eq!(judge(&life), verdict, "{life:?}");
        }
    }

    #[test]
    fn backoff_doubles_to_its_limit() {
        let cases = [(1, 10), (2, 20), (3, 40), (10, 5120), (11, 10_000), (12, 10_000), (u32::MAX, 10_000)];
        for (failures, ms) in cases {
            assert_eq!(backoff(failures), Duration::from_millis(ms), "after {failures}");
        }
    }

    #[test]
    fn killed_every_900_ms_is_never_delayed() {
        let mut rate = Rate::new();
        for round in 0..10_000 {
            // Three places, all killed at the same moment.
            for _ in 0..3 {
                assert_eq!(rate.take(Duration::from_millis(900 * round)), Duration::ZERO);
            }
        }
    }

    #[test]
    fn rate_spreads_a_burst_and_gives_up_none() {
        let mut rate = Rate::new();
        let now = Duration::from_secs(5);
        for _ in 0..REPLACEMENTS_PER_SECOND {
            assert_eq!(rate.take(now), Duration::ZERO);
        }
        assert_eq!(rate.take(now), Duration::from_millis(50));
        assert_eq!(rate.take(now), Duration::from_millis(100));
        // A second later the bucket has had 20 tokens, 2 of them reserved.
        let later = now + Duration::from_secs(1);
        for _ in 0..REPLACEMENTS_PER_SECOND - 2 {
            assert_eq!(rate.take(later), Duration::ZERO);
        }
        assert_eq!(rate.take(later), Duration::from_millis(50));
    }
}
