//! The decision against a model that says the same in other words: a bucket that leaks ("continuous-state leaky bucket" of
//! ITU-T I.371), stepped from call to call; and what follows from it for every stretch of time.

use std::time::Duration;

use proptest::prelude::*;

use super::{Decision, Micros, Pace, decide};
use crate::limits::{Quota, Verdict};

const START: Micros = 1_700_000_000_000_000;

/// What a key owes, in microseconds, at the time of the last call.
struct Bucket {
    owed: Micros,
    at: Micros,
}

impl Bucket {
    fn call(&mut self, pace: Pace, now: Micros, cost: u32) -> bool {
        self.owed = (self.owed - (now - self.at)).max(0);
        self.at = now;
        let more = Micros::from(cost) * pace.interval_us();
        let allowed = self.owed + more <= pace.window_us();
        self.owed += if allowed { more } else { 0 };
        allowed
    }
}

/// A key, as an engine keeps it.
struct Key {
    pace: Pace,
    full_at: Option<Micros>,
}

impl Key {
    fn of(quota: Quota) -> Self {
        Self { pace: quota.pace().unwrap(), full_at: None }
    }

    /// What it would say to a call.
    fn asked(&self, now: Micros, cost: u32) -> Verdict {
        decide(self.pace, self.full_at, now, cost).verdict
    }

    fn call(&mut self, now: Micros, cost: u32) -> Decision {
        let decision = decide(self.pace, self.full_at, now, cost);
        self.full_at = decision.full_at.or(self.full_at);
        decision
    }
}

fn micros(duration: Duration) -> Micros {
    duration.as_micros() as Micros
}

fn quotas() -> impl Strategy<Value = Quota> {
    (1_u32..200, 1_u64..100_000, 1_u32..50).prop_map(|(calls, ms, burst)| Quota {
        calls,
        period: Duration::from_millis(ms),
        burst,
    })
}

/// Calls: how long after the one before, in millionths of the time of a whole burst, and what each costs.
fn calls() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let wait =
        prop_oneof![3 => Just(0_u32), 4 => 0_u32..100_000, 2 => 0_u32..1_000_000, 1 => 0_u32..3_000_000];
    prop::collection::vec((wait, 0_u32..8), 1..120)
}

proptest! {
    /// The model, the exact promises of each verdict, and that no stretch of time has more than it may.
    #[test]
    fn it_is_a_leaky_bucket(quota in quotas(), calls in calls()) {
        let (mut key, mut now) = (Key::of(quota), START);
        let pace = key.pace;
        let mut bucket = Bucket { owed: 0, at: START };
        let mut done: Vec<(Micros, u64)> = Vec::new();
        for (wait, cost) in calls {
            now += Micros::from(wait) * pace.window_us() / 1_000_000;
            let before = key.full_at;
            let Decision { verdict, full_at } = key.call(now, cost);
            let fits = cost <= quota.burst;
            prop_assert_eq!(verdict.allowed, fits && bucket.call(pace, now, cost));
            bucket.call(pace, now, 0);
            prop_assert_eq!(micros(verdict.reset_after), bucket.owed);

            // A refused call, and a look, leave no trace.
            prop_assert_eq!(full_at.is_some(), verdict.allowed && cost > 0);
            // As much as is said to remain is there, and not one more.
            prop_assert!(verdict.remaining <= quota.burst);
            prop_assert!(key.asked(now, verdict.remaining).allowed);
            prop_assert!(!key.asked(now, verdict.remaining + 1).allowed);
            // To the microsecond: when it may be tried again, and when all is there again.
            if verdict.allowed {
                prop_assert_eq!(verdict.retry_after, Duration::ZERO);
                done.push((now, u64::from(cost)));
            } else if !fits {
                prop_assert_eq!(verdict.retry_after, Duration::MAX);
            } else {
                let again = now + micros(verdict.retry_after);
                prop_assert_eq!(key.full_at, before);
                prop_assert!(key.asked(again, cost).allowed);
                prop_assert!(!key.asked(again - 1, cost).allowed);
            }
            let rest = now + micros(verdict.reset_after);
            prop_assert_eq!(key.asked(rest, 0).remaining, quota.burst);
            if !verdict.reset_after.is_zero() {
                prop_assert!(key.asked(rest - 1, 0).remaining < quota.burst);
            }
        }
        for (first, (from, _)) in done.iter().enumerate() {
            let mut sum = 0;
            for (to, cost) in &done[first..] {
                sum += cost;
                let most = u64::from(quota.burst) + ((to - from) / pace.interval_us()) as u64;
                prop_assert!(sum <= most, "{} calls within {} µs, {} at most", sum, to - from, most);
            }
        }
    }

    /// However far the clock jumps, a whole burst is there again after the time of one, even for a key that keeps asking.
    #[test]
    fn a_clock_that_is_set_back_costs_a_burst_at_most(
        quota in quotas(),
        used in 1_u32..50,
        back in 0_i64..4_000_000_000_000_000,
        asks in prop::collection::vec(0_u32..1_000_000, 0..20),
    ) {
        let mut key = Key::of(quota);
        key.call(START, used.min(quota.burst));
        let back = START - back;
        let mut offsets: Vec<Micros> =
            asks.iter().map(|part| Micros::from(*part) * key.pace.window_us() / 1_000_000).collect();
        offsets.sort_unstable();
        let all = key.pace.burst();
        for offset in offsets.into_iter().chain([0]).collect::<std::collections::BTreeSet<_>>() {
            let verdict = key.call(back + offset, all).verdict;
            prop_assert!(micros(verdict.reset_after) <= key.pace.window_us());
            if verdict.allowed {
                return Ok(());
            }
            prop_assert!(micros(verdict.retry_after) + offset <= key.pace.window_us(), "{verdict:?}");
        }
        prop_assert!(key.call(back + key.pace.window_us(), all).verdict.allowed);
    }
}

#[test]
fn five_a_minute() {
    let mut key = Key::of(Quota::per(5, Duration::from_secs(60)));
    for left in (0..5).rev() {
        let verdict = key.call(START, 1).verdict;
        assert!(verdict.allowed);
        assert_eq!((verdict.remaining, verdict.reset_after), (left, Duration::from_secs(12) * (5 - left)));
    }
    let verdict = key.call(START, 1).verdict;
    assert_eq!((verdict.allowed, verdict.retry_after), (false, Duration::from_secs(12)));
    assert!(!key.call(START + 11_999_999, 1).verdict.allowed);
    assert!(key.call(START + 12_000_000, 1).verdict.allowed);
    assert_eq!(key.call(START + 12_000_000, 3).verdict.retry_after, Duration::from_secs(36));
}

#[test]
fn a_new_quota_judges_what_the_old_one_left() {
    let mut key = Key::of(Quota::per(100, Duration::from_secs(100)));
    key.call(START, 100);
    let narrow = Quota::per(2, Duration::from_secs(2)).pace().unwrap();
    let decision = decide(narrow, key.full_at, START, 1);
    assert_eq!(
        decision.verdict.retry_after,
        Duration::from_secs(1),
        "not 99 s: nobody owes more than a burst"
    );
    assert_eq!(decision.full_at, Some(START + narrow.window_us()), "so the second passes");
    let wide = Quota::per(1000, Duration::from_secs(1000)).pace().unwrap();
    assert_eq!(decide(wide, key.full_at, START, 0).verdict.remaining, 900);
}

#[test]
fn the_ends_of_time_do_not_wrap() {
    let pace = Quota::per(1, Duration::from_secs(1)).pace().unwrap();
    for now in [Micros::MAX, Micros::MAX - 1, 0, -1_000_000_000_000_000] {
        for full_at in [None, Some(Micros::MAX), Some(0)] {
            let verdict = decide(pace, full_at, now, 1).verdict;
            assert!(verdict.remaining <= 1, "{now} {full_at:?}: {verdict:?}");
        }
    }
}
