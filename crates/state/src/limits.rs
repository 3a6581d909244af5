//! Limits: how often something may be done, counted for all workers together. The rule is the generic cell rate
//! algorithm (GCRA, ITU-T I.371): one number for each key, the theoretical arrival time of the next call, from which the
//! answer follows exactly, with no windows and no timers.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Millis, error::Error};

/// Longest name of a limit, in bytes: lower-case ASCII letters, digits, `-` and `_`.
pub const LIMIT_NAME_BYTES_MAX: usize = 64;
/// Longest key, in bytes of UTF-8. A key is any text but the empty one, without NUL.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest period of a quota: 366 days.
pub const PERIOD_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Most keys in one page of a list.
pub const LIST_MAX: usize = 1000;

/// How much is allowed: on average `calls` in each `period`, and `burst` at once after a rest.
///
/// Times are counted in whole microseconds, the interval between two calls rounded up: so a quota never allows more than
/// it says, and `calls` may be at most one a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quota {
    /// Calls in a period, at least 1.
    pub calls: u32,
    /// The period, at most [`PERIOD_MAX`].
    pub period: Duration,
    /// Calls that may come at once, at least 1.
    pub burst: u32,
}

impl Quota {
    /// So many calls in a period, all of which may come at once.
    pub fn per(calls: u32, period: Duration) -> Self {
        Self { calls, period, burst: calls }
    }

    /// The time between two calls at the allowed pace, in microseconds. Fails with [`Error::Invalid`] when the quota
    /// makes no sense, and says why.
    pub fn interval_us(&self) -> Result<i64, Error> {
        let refused = |text: String| Err(Error::Invalid(text));
        if self.calls == 0 || self.burst == 0 {
            return refused(
                "a quota of no calls, or of no burst, allows nothing: both are 1 at least".into(),
            );
        }
        if self.period.is_zero() || self.period > PERIOD_MAX {
            return refused(format!("a quota's period is longer than nothing and at most {PERIOD_MAX:?}"));
        }
        let period = self.period.as_nanos().div_ceil(1000);
        if period < u128::from(self.calls) {
            return refused(format!(
                "a quota of {} calls in {:?} is more than one a microsecond",
                self.calls, self.period
            ));
        }
        Ok(i64::try_from(period.div_ceil(u128::from(self.calls))).unwrap_or(i64::MAX))
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it may be done. If not, it has cost nothing.
    pub allowed: bool,
    /// How many further calls would be allowed at once.
    pub remaining: u32,
    /// How long until the call that was refused would be allowed; zero when it was allowed. [`Duration::MAX`] when it
    /// costs more than the burst, and so never will be.
    pub retry_after: Duration,
    /// How long until all of the burst is there again.
    pub reset_after: Duration,
}

/// A key that is not at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The key.
    pub key: String,
    /// When all of its burst is there again.
    pub full_at: Millis,
}

/// Some keys of a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The keys, in the order of their bytes.
    pub keys: Vec<Usage>,
    /// Where the next page begins: the `after` to ask for. `None` when there are no more.
    pub next: Option<String>,
}

/// An engine that keeps limits.
///
/// The time is the engine's own, so that workers whose clocks differ agree. When that clock is set back, nobody has to wait
/// longer than for a whole burst. Every method is cancellation safe in this sense: a dropped call either happens whole or
/// not at all. What is counted survives `kill -9` of any worker; of the engine's own process as far as that engine says.
#[async_trait]
pub trait Limits: Send + Sync + 'static {
    /// Does `cost` calls at once for `key`, if the quota allows them all. A cost of 0 asks how things stand. Two limits of
    /// different names know nothing of each other; a key whose quota has changed is judged by the new one.
    async fn take(&self, limit: &str, key: &str, quota: Quota, cost: u32) -> Result<Verdict, Error>;

    /// Gives a key its whole burst back; whether anything was missing.
    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error>;

    /// The keys of a limit that are not at rest, behind `after`, at most `most`; 0 and what is over [`LIST_MAX`] mean
    /// [`LIST_MAX`].
    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_rounded_up() {
        let interval = |calls, period| Quota::per(calls, period).interval_us().unwrap();
        assert_eq!(interval(5, Duration::from_secs(60)), 12_000_000);
        assert_eq!(interval(3, Duration::from_secs(1)), 333_334);
        assert_eq!(interval(1_000_000, Duration::from_secs(1)), 1);
        assert_eq!(interval(1, PERIOD_MAX), 366 * 24 * 3600 * 1_000_000);
    }

    #[test]
    fn quotas_without_sense_are_refused() {
        for (calls, period, burst) in [
            (0, Duration::from_secs(1), 1),
            (1, Duration::from_secs(1), 0),
            (1, Duration::ZERO, 1),
            (1, PERIOD_MAX + Duration::from_micros(1), 1),
            (1_000_001, Duration::from_secs(1), 1),
        ] {
            let quota = Quota { calls, period, burst };
            assert!(matches!(quota.interval_us(), Err(Error::Invalid(_))), "{quota:?}");
        }
    }
}
