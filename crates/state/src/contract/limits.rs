//! The contract of [`Limits`].

use std::{sync::Arc, time::Duration};

use super::Fixture;
use crate::{
    error::Error,
    limits::{
        KEY_BYTES_MAX, LIMIT_NAME_BYTES_MAX, LIST_MAX, Limits, PERIOD_MAX, Page, Quota, TAKES_MAX, Take,
        Usage, Verdict,
    },
};

mod concurrent;
mod lists;
mod several;

pub use concurrent::*;
pub use lists::*;
pub use several::*;

/// Makes a test of each case of [`crate::contract::limits`].
#[macro_export]
macro_rules! contract_limits {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            limits,
            [
                a_burst_is_allowed_and_no_more,
                what_is_refused_costs_nothing,
                a_refused_call_is_told_when,
                calls_come_back_one_by_one,
                a_cost_of_nothing_asks,
                a_cost_over_the_burst_is_never_allowed,
                a_burst_may_differ_from_the_pace,
                limits_and_keys_are_apart,
                limit_keys_of_every_kind,
                limits_refuse_names_and_keys_out_of_bounds,
                quotas_without_sense_are_refused,
                a_changed_quota_judges_at_once,
                a_key_is_reset,
                keys_at_rest_are_not_listed,
                a_list_has_pages,
                several_limits_take_all_or_none,
                several_limits_have_bounds,
                many_callers_share_a_burst,
                many_callers_of_several_limits_take_all_or_none,
            ]
        );
    };
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);
/// Slow enough that nothing comes back while a test runs, on whatever machine.
const SLOW: Quota = Quota::per(5, Duration::from_secs(24 * 3600));

/// Does one call of the limit `l`.
async fn take(limits: &Arc<dyn Limits>, key: &str, quota: Quota) -> Verdict {
    limits.take("l", key, quota, 1).await.unwrap()
}

async fn look(limits: &Arc<dyn Limits>, key: &str, quota: Quota) -> Verdict {
    limits.take("l", key, quota, 0).await.unwrap()
}

fn call(limit: &str, key: &str, quota: Quota, cost: u32) -> Take {
    Take { limit: limit.into(), key: key.into(), quota, cost }
}

/// As many as the burst at once, each told how many are left, and then none.
pub async fn a_burst_is_allowed_and_no_more(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    for left in (0..SLOW.burst).rev() {
        let verdict = take(limits, "k", SLOW).await;
        assert!(verdict.allowed);
        assert_eq!((verdict.remaining, verdict.retry_after), (left, Duration::ZERO));
        let full = SLOW.period / SLOW.calls * (SLOW.burst - left);
        assert!(verdict.reset_after <= full && verdict.reset_after > full - MINUTE, "{verdict:?}");
    }
    for _ in 0..3 {
        let verdict = take(limits, "k", SLOW).await;
        assert_eq!((verdict.allowed, verdict.remaining), (false, 0));
    }
}

/// However often a caller is refused, it has to wait no longer for it.
pub async fn what_is_refused_costs_nothing(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    limits.take("l", "k", SLOW, SLOW.burst).await.unwrap();
    let first = take(limits, "k", SLOW).await;
    for cost in [1, 2, 5, 6, u32::MAX, 1] {
        let verdict = limits.take("l", "k", SLOW, cost).await.unwrap();
        assert!(!verdict.allowed && verdict.reset_after <= first.reset_after, "{verdict:?} after {first:?}");
    }
    let last = take(limits, "k", SLOW).await;
    assert!(last.retry_after <= first.retry_after, "{last:?} after {first:?}");
}

/// A call is allowed when it was told to come back, and not a millisecond before.
pub async fn a_refused_call_is_told_when(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    for (index, quota) in [
        Quota::per(5, MINUTE),
        Quota::per(3, SECOND),
        Quota::per(7, SECOND).burst(2),
        Quota::per(1, PERIOD_MAX),
    ]
    .into_iter()
    .enumerate()
    {
        let key = index.to_string();
        for cost in [1, quota.burst] {
            let full = look(limits, &key, quota).await;
            if !fixture.advance(full.reset_after) {
                return;
            }
            assert!(limits.take("l", &key, quota, quota.burst).await.unwrap().allowed);
            let refused = limits.take("l", &key, quota, cost).await.unwrap();
            assert!(!refused.allowed && refused.retry_after > MS, "{refused:?}");
            fixture.advance(refused.retry_after - MS);
            let early = limits.take("l", &key, quota, cost).await.unwrap();
            assert!(!early.allowed && early.retry_after <= MS, "{quota:?} {cost}: {early:?}");
            fixture.advance(early.retry_after);
            assert!(limits.take("l", &key, quota, cost).await.unwrap().allowed, "{quota:?} {cost}");
        }
    }
}

/// At the quota's pace, and never more than a burst.
pub async fn calls_come_back_one_by_one(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let quota = Quota::per(5, MINUTE);
    limits.take("l", "k", quota, 5).await.unwrap();
    for back in 1..=4 {
        if !fixture.advance(Duration::from_secs(12)) {
            return;
        }
        let verdict = look(limits, "k", quota).await;
        assert_eq!(
            (verdict.remaining, verdict.reset_after),
            (back, Duration::from_secs(60 - 12 * u64::from(back)))
        );
    }
    fixture.advance(3 * MINUTE);
    assert_eq!(look(limits, "k", quota).await.remaining, 5);
    for _ in 0..5 {
        assert!(take(limits, "k", quota).await.allowed);
    }
    assert!(!take(limits, "k", quota).await.allowed);
}

/// To ask takes nothing, and is always allowed.
pub async fn a_cost_of_nothing_asks(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let fresh =
        Verdict { allowed: true, remaining: 5, retry_after: Duration::ZERO, reset_after: Duration::ZERO };
    for _ in 0..3 {
        assert_eq!(look(limits, "k", SLOW).await, fresh);
    }
    assert_eq!(limits.list("l", None, 0).await.unwrap(), Page::default());
    limits.take("l", "k", SLOW, 5).await.unwrap();
    let verdict = look(limits, "k", SLOW).await;
    assert_eq!((verdict.allowed, verdict.remaining), (true, 0));
}

/// It is no error, since a cost may come from a client: but no waiting helps.
pub async fn a_cost_over_the_burst_is_never_allowed(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    for cost in [6, 1000, u32::MAX] {
        let verdict = limits.take("l", "k", SLOW, cost).await.unwrap();
        assert_eq!((verdict.allowed, verdict.remaining, verdict.retry_after), (false, 5, Duration::MAX));
    }
    assert!(limits.take("l", "k", SLOW, 5).await.unwrap().allowed);
}

/// More or less may come at once than in a period.
pub async fn a_burst_may_differ_from_the_pace(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    for burst in [1, 3, 50] {
        let (quota, key) = (SLOW.burst(burst), burst.to_string());
        assert!(!limits.take("l", &key, quota, burst + 1).await.unwrap().allowed);
        assert!(limits.take("l", &key, quota, burst).await.unwrap().allowed);
        let verdict = take(limits, &key, quota).await;
        let interval = SLOW.period / SLOW.calls;
        assert!(!verdict.allowed);
        assert!(verdict.retry_after <= interval && verdict.retry_after > interval - MINUTE, "{verdict:?}");
    }
}

/// The same key of two limits, and two keys of one, are counted apart.
pub async fn limits_and_keys_are_apart(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let names = ["a", "a-b", "a_b", "ab", "0"];
    for limit in names {
        for key in ["x", "y", "X"] {
            let verdict = limits.take(limit, key, SLOW, 5).await.unwrap();
            assert!(verdict.allowed, "{limit} {key}");
        }
        assert_eq!(limits.list(limit, None, 0).await.unwrap().keys.len(), 3, "{limit}");
    }
    for limit in names {
        assert!(!limits.take(limit, "x", SLOW, 1).await.unwrap().allowed);
    }
}

/// Any text is a key of its own.
pub async fn limit_keys_of_every_kind(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let mut keys = super::odd_keys();
    for key in &keys {
        assert_eq!(take(limits, key, SLOW).await.remaining, 4, "{key:?} was used before");
        assert_eq!(take(limits, key, SLOW).await.remaining, 3, "{key:?}");
    }
    keys.sort_unstable();
    let listed = limits.list("l", None, 0).await.unwrap();
    assert_eq!(
        listed.keys.iter().map(|usage| &usage.key).collect::<Vec<_>>(),
        keys.iter().collect::<Vec<_>>()
    );
    for key in &keys {
        assert!(limits.reset("l", key).await.unwrap(), "{key:?}");
    }
    assert_eq!(limits.list("l", None, 0).await.unwrap(), Page::default());
}

/// Names and keys that break the rules are refused everywhere, and say which rule.
pub async fn limits_refuse_names_and_keys_out_of_bounds(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let long_name = "n".repeat(LIMIT_NAME_BYTES_MAX + 1);
    for name in ["", "L", "a/b", "a.b", "a b", "é", "..", &long_name] {
        let invalid =
            |result: Result<(), Error>| assert!(matches!(result, Err(Error::Invalid(_))), "{name:?}");
        invalid(limits.take(name, "k", SLOW, 1).await.map(drop));
        invalid(limits.take_all(vec![call("l", "k", SLOW, 1), call(name, "k", SLOW, 1)]).await.map(drop));
        invalid(limits.reset(name, "k").await.map(drop));
        invalid(limits.list(name, None, 0).await.map(drop));
    }
    for key in ["", "a\0b", "\0"] {
        assert!(matches!(limits.take("l", key, SLOW, 1).await, Err(Error::Invalid(_))), "{key:?}");
        assert!(matches!(limits.reset("l", key).await, Err(Error::Invalid(_))), "{key:?}");
    }
    for key in ["k".repeat(KEY_BYTES_MAX + 1), "é".repeat(KEY_BYTES_MAX / 2 + 1)] {
        assert!(matches!(limits.take("l", &key, SLOW, 1).await, Err(Error::TooLarge { .. })));
        assert!(matches!(limits.reset("l", &key).await, Err(Error::TooLarge { .. })));
    }
    let name = "n".repeat(LIMIT_NAME_BYTES_MAX);
    assert!(limits.take(&name, &"k".repeat(KEY_BYTES_MAX), SLOW, 1).await.unwrap().allowed);
    assert_eq!(look(limits, "k", SLOW).await.remaining, 5, "what was refused has taken nothing");
}

/// Each of these mistakes is an error, never a limit that allows all or nothing.
pub async fn quotas_without_sense_are_refused(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    for quota in [
        Quota::per(0, SECOND),
        Quota::per(0, SECOND).burst(1),
        Quota::per(1, SECOND).burst(0),
        Quota::per(1, Duration::ZERO),
        Quota::per(1, PERIOD_MAX + SECOND),
        Quota::per(1, Duration::MAX),
        Quota::per(1_000_001, SECOND),
        Quota::per(1, PERIOD_MAX).burst(u32::MAX),
    ] {
        let result = limits.take("l", "k", quota, 1).await;
        assert!(matches!(result, Err(Error::Invalid(_))), "{quota:?}: {result:?}");
    }
}

/// What the old quota has left counts under the new one, but nobody owes more than a burst of that.
pub async fn a_changed_quota_judges_at_once(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let (wide, narrow) = (Quota::per(100, Duration::from_secs(1000)), Quota::per(2, Duration::from_secs(20)));
    limits.take("l", "k", wide, 100).await.unwrap();
    let verdict = take(limits, "k", narrow).await;
    assert!(!verdict.allowed && verdict.reset_after <= Duration::from_secs(20), "{verdict:?}");
    if !fixture.advance(Duration::from_secs(10)) {
        return;
    }
    assert!(take(limits, "k", narrow).await.allowed, "10 s for each, though the old quota had 1,000 s to go");
    assert_eq!(look(limits, "k", wide).await.remaining, 98);
}
