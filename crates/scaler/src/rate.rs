//! How far a decision may go at once: not beyond the bounds, and no faster than the policies allow
//! (`convertDesiredReplicasWithRules`, `convertDesiredReplicasWithBehaviorRate`).

use std::fmt;

use crate::{
    history::{Change, History},
    spec::{Amount, Policy, Rules, Select, Spec},
    time::Time,
};

/// Without a behavior, there may be so many times as many after a decision …
const UP_FACTOR: u32 = 2;

/// … or so many, if that is more.
const UP_MIN: u32 = 4;

/// What kept a decision from going further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Spec::min`].
    Min,
    /// [`Spec::max`].
    Max,
    /// The policies of the way up, or twice as many.
    Up,
    /// The policies of the way down.
    Down,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Min => "no fewer are allowed at all",
            Self::Max => "no more are allowed at all",
            Self::Up => "no more are allowed at once",
            Self::Down => "no fewer are allowed at once",
        })
    }
}

/// As many as there may be where there is no behavior: within the bounds, and no more than twice as many, or four.
pub fn simple(wanted: u32, current: u32, spec: &Spec) -> (u32, Option<Limit>) {
    let up = current.saturating_mul(UP_FACTOR).max(UP_MIN);
    let (most, limit) = if spec.max > up { (up, Limit::Up) } else { (spec.max, Limit::Max) };
    if wanted < spec.min {
        (spec.min, Some(Limit::Min))
    } else if wanted > most {
        (most, Some(limit))
    } else {
        (wanted, None)
    }
}

/// As many as there may be by the policies of a behavior, whose rules are `up` and `down`, and by the bounds.
pub fn limited(
    wanted: u32,
    current: u32,
    spec: &Spec,
    (up, down): (&Rules, &Rules),
    history: &History,
    now: Time,
) -> (u32, Option<Limit>) {
    if wanted > current {
        // What was added in the period may be more than it allows by now; that takes nothing back.
        let most = up_limit(current, up, history, now).max(current.into());
        let (most, limit) =
            if i64::from(spec.max) > most { (count(most), Limit::Up) } else { (spec.max, Limit::Max) };
        if wanted > most { (most, Some(limit)) } else { (wanted, None) }
    } else if wanted < current {
        let least = down_limit(current, down, history, now).min(current.into());
        let (least, limit) =
            if i64::from(spec.min) < least { (count(least), Limit::Down) } else { (spec.min, Limit::Min) };
        if wanted < least { (least, Some(limit)) } else { (wanted, None) }
    } else {
        (wanted, None)
    }
}

/// The most that the policies allow (`calculateScaleUpLimitWithScalingRules`).
fn up_limit(current: u32, rules: &Rules, history: &History, now: Time) -> i64 {
    let allowed = rules.policies.iter().map(|policy| {
        let start = at_start(current, policy, history, now);
        match policy.amount {
            Amount::Pods(count) => start + i64::from(count),
            // Rounded up, or a small number would never grow.
            Amount::Percent(percent) => (start as f64 * (1.0 + f64::from(percent) / 100.0)).ceil() as i64,
        }
    });
    match rules.select {
        Select::Disabled => current.into(),
        Select::Min => allowed.min().unwrap_or(current.into()),
        Select::Max => allowed.max().unwrap_or(current.into()),
    }
}

/// The fewest that the policies allow (`calculateScaleDownLimitWithBehaviors`).
fn down_limit(current: u32, rules: &Rules, history: &History, now: Time) -> i64 {
    let allowed = rules.policies.iter().map(|policy| {
        let start = at_start(current, policy, history, now);
        match policy.amount {
            Amount::Pods(count) => start - i64::from(count),
            // Rounded towards zero, or the last few would never go.
            Amount::Percent(percent) => (start as f64 * (1.0 - f64::from(percent) / 100.0)) as i64,
        }
    });
    match rules.select {
        Select::Disabled => current.into(),
        Select::Min => allowed.max().unwrap_or(current.into()),
        Select::Max => allowed.min().unwrap_or(current.into()),
    }
}

/// How many there were when the policy's period began, as far as they were added and removed by decisions.
fn at_start(current: u32, policy: &Policy, history: &History, now: Time) -> i64 {
    let edge = now.minus(policy.period);
    let within = |changes: &[Change]| -> i64 {
        changes
            .iter()
            .filter(|old| old.t > edge)
            .map(|old| old.change.saturating_abs())
            .fold(0, i64::saturating_add)
    };
    i64::from(current).saturating_sub(within(&history.scale_ups)).saturating_add(within(&history.scale_downs))
}

fn count(workers: i64) -> u32 {
    u32::try_from(workers.max(0)).unwrap_or(u32::MAX)
}
