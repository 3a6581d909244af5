//! The decision on a call, from nothing but the time and one number of the key: when all of its burst will be there again.
//! This is the theoretical arrival time of the generic cell rate algorithm, in its form of "virtual scheduling" (ITU-T
//! I.371, annex A).

use std::time::Duration;

use super::Verdict;

/// Microseconds since the Unix epoch, UTC.
pub type Micros = i64;

/// A quota, as it is counted with: [`Quota::pace`](super::Quota::pace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    interval_us: Micros,
    burst: u32,
    window_us: Micros,
}

impl Pace {
    pub(super) fn new(interval_us: Micros, burst: u32, window_us: Micros) -> Self {
        Self { interval_us, burst, window_us }
    }

    /// The time in which one call comes back, in microseconds.
    pub fn interval_us(self) -> Micros {
        self.interval_us
    }

    /// Calls that may come at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// The time in which a whole burst comes back, in microseconds.
    pub fn window_us(self) -> Micros {
        self.window_us
    }
}

/// What the caller is told, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the caller is told.
    pub verdict: Verdict,
    /// When the key's whole burst is there again from now on. `None` when what is kept already is right.
    pub full_at: Option<Micros>,
}

/// Decides on `cost` calls at `now`, for a key whose whole burst is there at `full_at`, or since ever.
///
/// No key can owe more than a whole burst. If one does, the clock was set back or the quota has changed: it owes a whole
/// burst then, which [`Decision::full_at`] says even if the call is refused, so that its time runs from here.
pub fn decide(pace: Pace, full_at: Option<Micros>, now: Micros, cost: u32) -> Decision {
    let latest = now.saturating_add(pace.window_us);
    let kept = full_at.unwrap_or(now);
    let is_beyond = kept > latest;
    let due = kept.clamp(now, latest);
    if cost > pace.burst {
        return Decision {
            verdict: pace.verdict(due, now, Duration::MAX),
            full_at: is_beyond.then_some(due),
        };
    }
    let after = due.saturating_add(i64::from(cost) * pace.interval_us);
    if after > latest {
        let retry_after = micros(after - latest);
        return Decision { verdict: pace.verdict(due, now, retry_after), full_at: is_beyond.then_some(due) };
    }
    let verdict = pace.verdict(after, now, Duration::ZERO);
    Decision { verdict, full_at: (is_beyond || cost > 0).then_some(after) }
}

impl Pace {
    fn verdict(self, due: Micros, now: Micros, retry_after: Duration) -> Verdict {
        let owed = due - now;
        // At most the burst, which is a u32.
        let remaining = ((self.window_us - owed) / self.interval_us) as u32;
        Verdict { allowed: retry_after.is_zero(), remaining, retry_after, reset_after: micros(owed) }
    }
}

fn micros(micros: Micros) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests;
