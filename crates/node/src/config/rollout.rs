//! `[services.NAME.rollout]`: how carefully a new version of the service takes the place of the one that runs, and what
//! makes it go back.

use std::time::Duration;

use lethe_supervisor::rollout::policy::Policy;
use toml::de::DeValue;

use super::{
    problem::Report,
    table::{Table, Text, bad_value, integer},
};
use crate::deploy::verdict::Guard;

/// What it may say.
pub(super) const KEYS: [&str; 11] = [
    "min-healthy",
    "max-surge",
    "grace",
    "warm-up",
    "checkpoints",
    "pause",
    "bake",
    "rollback",
    "errors",
    "latency",
    "requests",
];

const HOUR: Duration = Duration::from_secs(3600);
/// The longest pause and bake: a working day is watched by people, not by one command.
const DAY: Duration = Duration::from_secs(24 * 3600);
const SHARE_EXPECTED: &str = "a share such as `\"25%\"`";
const CHECKPOINTS_MAX: usize = 10;
const REQUESTS_MAX: u64 = 1_000_000;

/// How new versions of a service come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// How carefully one takes the place of another.
    pub policy: Policy,
    /// What it is held against.
    pub guard: Guard,
}

/// Reads it from the table of a service; what is not said, or wrong and reported, has its default.
pub(super) fn read(table: &Table<'_, '_>, report: &mut Report<'_>) -> Rollout {
    const KEY: &str = "rollout";
    let usual = Rollout::default();
    let Some(value) = table.value(KEY) else { return usual };
    let DeValue::Table(entries) = value.get_ref() else {
        table.wrong_type(KEY, "a table such as `{ checkpoints = [10, 50] }`", value, report);
        return usual;
    };
    let inner = table.inner(KEY, value, entries, &KEYS, report);
    let (policy, guard) = (usual.policy, usual.guard);
    let least = inner.parsed("min-healthy", SHARE_EXPECTED, report, |text| share(text, 100));
    let surge = inner.parsed("max-surge", SHARE_EXPECTED, report, |text| share(text, 1000));
    let errors =
        inner.parsed("errors", "a share such as `\"1%\"`, or `\"off\"`", report, |text| limit(text, 100));
    let latency = inner
        .parsed("latency", "a share such as `\"100%\"`, or `\"off\"`", report, |text| limit(text, 10_000));
    Rollout {
        policy: Policy {
            min_healthy_percent: least
                .and_then(|it| u8::try_from(it).ok())
                .unwrap_or(policy.min_healthy_percent),
            max_surge_percent: surge.unwrap_or(policy.max_surge_percent),
            grace: inner.duration("grace", Duration::from_millis(100)..=HOUR, report).unwrap_or(policy.grace),
            warm_up: inner.duration("warm-up", Duration::ZERO..=HOUR, report).unwrap_or(policy.warm_up),
            checkpoints: checkpoints(&inner, report).unwrap_or(policy.checkpoints),
            pause: inner.duration("pause", Duration::ZERO..=DAY, report).unwrap_or(policy.pause),
            bake: inner.duration("bake", Duration::ZERO..=DAY, report).unwrap_or(policy.bake),
            goes_back: inner.boolean("rollback", report).unwrap_or(policy.goes_back),
            ..policy
        },
        guard: Guard {
            errors_percent: errors.unwrap_or(guard.errors_percent),
            latency_percent: latency.unwrap_or(guard.latency_percent),
            requests_min: inner.number("requests", 1..=REQUESTS_MAX, report).unwrap_or(guard.requests_min),
        },
    }
}

/// Reads `25%`.
fn share(text: &str, most: u16) -> Result<u16, String> {
    let number = text.trim().strip_suffix('%').map(str::trim_end);
    let Some(number) = number.filter(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit())) else {
        return Err("is no share: write a whole number and `%`, such as \"25%\"".into());
    };
    let share = number.parse().ok().filter(|share| *share <= most);
    share.ok_or_else(|| format!("is too much: write at most \"{most}%\""))
}

/// The same, or `off`.
fn limit(text: &str, most: u16) -> Result<Option<u16>, String> {
    if text == "off" { Ok(None) } else { share(text, most).map(Some) }
}

/// Reads `[10, 50]`: rising, and neither nothing nor all.
fn checkpoints(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Vec<u8>> {
    const KEY: &str = "checkpoints";
    let value = table.value(KEY)?;
    let DeValue::Array(items) = value.get_ref() else {
        table.wrong_type(KEY, "shares in percent such as `[10, 50]`", value, report);
        return None;
    };
    let mut checkpoints = Vec::new();
    for item in items {
        let percent = match item.get_ref() {
            DeValue::Integer(number) => u8::try_from(integer(number)).ok().filter(|it| (1..100).contains(it)),
            _ => None,
        };
        let last = checkpoints.last().copied().unwrap_or(0);
        let Some(percent) = percent.filter(|percent| *percent > last) else {
            let why = "must rise from 1 to 99, in percent of the workers: write [10, 50]";
            report.at(item.span(), format!("`{KEY}`: its numbers {why}"));
            return None;
        };
        checkpoints.push(percent);
    }
    if checkpoints.len() > CHECKPOINTS_MAX {
        let text = format!("{} of them", checkpoints.len());
        let why = format!("are too many: write at most {CHECKPOINTS_MAX}");
        bad_value(KEY, &Text { text: &text, span: value.span() }, &why, report);
        return None;
    }
    Some(checkpoints)
}
