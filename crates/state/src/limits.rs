//! Limits: how often something may be done, counted for all workers together. The rule is the generic cell rate
//! algorithm (GCRA, ITU-T I.371): one number for each key, the theoretical arrival time of the next call, from which the
//! answer follows exactly, with no windows and no timers.

pub mod gcra;
pub mod leased;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use self::gcra::Pace;
use crate::{Millis, error::Error};

/// Longest name of a limit, in bytes: lower-case ASCII letters, digits, `-` and `_`.
pub const LIMIT_NAME_BYTES_MAX: usize = 64;
/// Longest key, in bytes of UTF-8. A key is any text but the empty one, without NUL.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest period of a quota: 366 days.
pub const PERIOD_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest time that a whole burst may take to come back: ten such years. With it all times of an engine stay below 2^53
/// microseconds, so that those which count in floating point are exact too.
pub const WINDOW_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Most calls of one [`Limits::take_all`].
pub const TAKES_MAX: usize = 16;
/// Most keys in one page of a list.
pub const LIST_MAX: usize = 1000;

/// How much is allowed: on average `calls` in each `period`, and `burst` at once after a rest.
///
/// The period counts in whole milliseconds and the time between two calls in whole microseconds, both rounded up: so a
/// quota never allows more than it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Calls in a period, from 1 to one for each microsecond.
    pub calls: u32,
    /// The period, at most [`PERIOD_MAX`].
    pub period: Duration,
    /// Calls that may come at once, at least 1, and no more than come back within [`WINDOW_MAX`].
    pub burst: u32,
}

impl Quota {
    /// So many calls in a period, all of which may come at once.
    pub const fn per(calls: u32, period: Duration) -> Self {
        Self { calls, period, burst: calls }
    }

    /// The same pace, with another burst.
    pub const fn burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }

    /// What engines count with. Fails with [`Error::Invalid`] when the quota makes no sense, and says why.
    pub fn pace(&self) -> Result<Pace, Error> {
        let Self { calls, period, burst } = *self;
        let refused = |text: String| Err(Error::Invalid(text));
        if calls == 0 || burst == 0 {
            return refused(
                "a quota of no calls, or of no burst, allows nothing: both are 1 at least".into(),
            );
        }
        if period.is_zero() || period > PERIOD_MAX {
            return refused(format!(
                "a quota's period is {period:?}, expected more than nothing and at most {} days",
                PERIOD_MAX.as_secs() / (24 * 3600)
            ));
        }
        // Far below 2^64, since the period is bounded.
        let period_us = period.as_nanos().div_ceil(1_000_000) as u64 * 1000;
        if period_us < u64::from(calls) {
            return refused(format!("a quota of {calls} calls in {period:?} is more than one a microsecond"));
        }
        let interval_us = period_us.div_ceil(u64::from(calls));
        match i64::try_from(u128::from(interval_us) * u128::from(burst)) {
            Ok(window_us) if Duration::from_micros(window_us.cast_unsigned()) <= WINDOW_MAX => {
                Ok(Pace::new(interval_us.cast_signed(), burst, window_us))
            }
            _ => refused(format!(
                "a burst of {burst} at {calls} calls in {period:?} takes longer to come back than the limit of {} days",
                WINDOW_MAX.as_secs() / (24 * 3600)
            )),
        }
    }
}

/// Some calls that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The limit.
    pub limit: String,
    /// The key.
    pub key: String,
    /// What is allowed.
    pub quota: Quota,
    /// How many calls at once; 0 asks how things stand.
    pub cost: u32,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the quota allows it. If not, it has cost nothing.
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
/// not at all. What is counted survives `kill -9` of any worker; of the engine's own process, and of the machine, as far as
/// that engine says.
///
/// Two limits of different names know nothing of each other. A key whose quota has changed is judged by the new one; of
/// several quotas at the same time, each takes what the others have left it.
#[async_trait]
pub trait Limits: Send + Sync + 'static {
    /// Does all of these calls, if each is allowed by its quota, or none. There is a verdict for each, in their order: that
    /// one refuses another is not seen in the `allowed` of that other, but nothing was taken of it either.
    ///
    /// An engine that keeps two of the keys in different places may take of one first, and give it back when the other
    /// refuses; then somebody else may be refused in between who need not have been, but never is anybody allowed too much.
    ///
    /// Fails with [`Error::Invalid`] when there are none or more than [`TAKES_MAX`], and when a key occurs twice.
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error>;

    /// Does `cost` calls at once for `key`, if the quota allows them all. A cost of 0 asks how things stand.
    async fn take(&self, limit: &str, key: &str, quota: Quota, cost: u32) -> Result<Verdict, Error> {
        let take = Take { limit: limit.to_owned(), key: key.to_owned(), quota, cost };
        let verdicts = self.take_all(vec![take]).await?;
        let none = || Error::Engine("the engine gave no verdict".into());
        verdicts.first().copied().ok_or_else(none)
    }

    /// Gives a key its whole burst back; whether anything was missing.
    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error>;

    /// The keys of a limit that are not at rest, behind `after`, at most `most`; 0 and what is over [`LIST_MAX`] mean
    /// [`LIST_MAX`].
    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = PERIOD_MAX;

    #[test]
    fn intervals_are_rounded_up() {
        let interval = |calls, period| Quota::per(calls, period).pace().unwrap().interval_us();
        assert_eq!(interval(5, Duration::from_secs(60)), 12_000_000);
        assert_eq!(interval(3, Duration::from_secs(1)), 333_334);
        assert_eq!(interval(1_000_000, Duration::from_secs(1)), 1);
        assert_eq!(interval(1, YEAR), 366 * 24 * 3600 * 1_000_000);
        assert_eq!(interval(1, Duration::from_nanos(1)), 1000, "a period is at least a millisecond");
    }

    #[test]
    fn quotas_without_sense_are_refused() {
        let second = Duration::from_secs(1);
        for (quota, part) in [
            (Quota::per(0, second).burst(1), "no calls"),
            (Quota::per(1, second).burst(0), "no burst"),
            (Quota::per(1, Duration::ZERO), "period is 0ns"),
            (Quota::per(1, YEAR + Duration::from_micros(1)), "at most 366 days"),
            (Quota::per(1_000_001, second), "one a microsecond"),
            (Quota::per(1, YEAR).burst(11), "limit of 3660 days"),
            (Quota::per(1, YEAR).burst(u32::MAX), "limit of 3660 days"),
        ] {
            match quota.pace() {
                Err(Error::Invalid(text)) => assert!(text.contains(part), "{quota:?}: {text}"),
                other => panic!("{quota:?}: {other:?}"),
            }
        }
        assert!(Quota::per(1, YEAR).burst(10).pace().is_ok());
        assert!(Quota::per(u32::MAX, YEAR).pace().is_ok());
    }
}
