//! The JSON of limits. Times are whole milliseconds, rounded up, so that who waits for as long is not too early.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use crate::limits::{self, Quota};

/// Most bytes of the body of a call: of several calls, names and keys with what JSON adds to them.
pub(crate) const TAKE_BODY_BYTES_MAX: u64 = 128 << 10;

/// The body of a call of one key, which the path names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Take {
    pub(crate) calls: u32,
    pub(crate) period_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
    #[serde(default = "one")]
    pub(crate) cost: u32,
}

/// The body of calls of several keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Takes<'a> {
    pub(crate) takes: Vec<NamedTake<'a>>,
}

/// One of several calls.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedTake<'a> {
    pub(crate) limit: Cow<'a, str>,
    pub(crate) key: Cow<'a, str>,
    pub(crate) calls: u32,
    pub(crate) period_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
    #[serde(default = "one")]
    pub(crate) cost: u32,
}

fn one() -> u32 {
    1
}

/// A quota of these members; all calls of a period may come at once unless it says otherwise.
pub(crate) fn quota(calls: u32, period_ms: u64, burst: Option<u32>) -> Quota {
    Quota { calls, period: Duration::from_millis(period_ms), burst: burst.unwrap_or(calls) }
}

impl From<NamedTake<'_>> for limits::Take {
    fn from(take: NamedTake<'_>) -> Self {
        let quota = quota(take.calls, take.period_ms, take.burst);
        Self { limit: take.limit.into_owned(), key: take.key.into_owned(), quota, cost: take.cost }
    }
}

/// The answer to a call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    pub(crate) remaining: u32,
    /// `None` when waiting does not help.
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) reset_after_ms: u64,
}

/// The answer to several calls. `allowed` says whether they were done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Verdicts {
    pub(crate) allowed: bool,
    pub(crate) verdicts: Vec<Verdict>,
}

impl From<limits::Verdict> for Verdict {
    fn from(verdict: limits::Verdict) -> Self {
        let is_never = verdict.retry_after == Duration::MAX;
        Self {
            allowed: verdict.allowed,
            remaining: verdict.remaining,
            retry_after_ms: (!is_never).then(|| super::millis(verdict.retry_after)),
            reset_after_ms: super::millis(verdict.reset_after),
        }
    }
}

impl From<Verdict> for limits::Verdict {
    fn from(verdict: Verdict) -> Self {
        Self {
            allowed: verdict.allowed,
            remaining: verdict.remaining,
            retry_after: verdict.retry_after_ms.map_or(Duration::MAX, Duration::from_millis),
            reset_after: Duration::from_millis(verdict.reset_after_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_rounded_up_and_never_stays_never() {
        let micros = Duration::from_micros;
        let verdict = |retry_after, reset_after| limits::Verdict {
            allowed: false,
            remaining: 0,
            retry_after,
            reset_after,
        };
        let there_and_back = |verdict| limits::Verdict::from(Verdict::from(verdict));
        assert_eq!(there_and_back(verdict(micros(1), micros(2001))), verdict(micros(1000), micros(3000)));
        assert_eq!(there_and_back(verdict(Duration::MAX, micros(0))), verdict(Duration::MAX, micros(0)));
    }
}
