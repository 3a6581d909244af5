//! `up` and `down`: how fast the number of workers may change.

use lethe_scaler::spec::{Amount, Behavior, PERIOD_MAX, Policy, Rules, Select, WINDOW_MAX};
use std::time::Duration;
use toml::de::DeValue;

use super::{
    super::{
        problem::Report,
        table::{Table, Text, Value, bad_value},
    },
    whole_seconds,
};

/// What `up` and `down` may say.
pub(in super::super) const KEYS: [&str; 6] =
    ["window", "percent", "instances", "every", "select", "tolerance"];

const EXPECTED: &str = "a table such as `{ window = \"5m\", percent = 10, every = \"60s\" }`, or `\"off\"`";
const SELECT_EXPECTED: &str = "`\"max\"` or `\"min\"`";
/// A policy's period when only its amount is said.
const EVERY_DEFAULT: Duration = Duration::from_secs(15);
/// Percent or workers at once, beyond which a number is a slip.
const AMOUNT_MAX: u64 = 100_000;
const TOLERANCE_EXPECTED: &str = "a share such as `0.1`";

/// Reads both; what is not said is as for a service of which no more is said than a range.
pub(super) fn read(table: &Table<'_, '_>, report: &mut Report<'_>) -> Behavior {
    let Behavior { up, down } = Behavior::quick();
    Behavior { up: rules("up", table, up, report), down: rules("down", table, down, report) }
}

fn rules(key: &str, table: &Table<'_, '_>, default: Rules, report: &mut Report<'_>) -> Rules {
    let Some(value) = table.value(key) else { return default };
    let entries = match value.get_ref() {
        DeValue::Table(entries) => entries,
        DeValue::String(text) if text == "off" => return Rules { select: Select::Disabled, ..default },
        DeValue::String(text) => {
            let why = format!("is not known: write {EXPECTED}");
            bad_value(key, &Text { text, span: value.span() }, &why, report);
            return default;
        }
        _ => {
            table.wrong_type(key, EXPECTED, value, report);
            return default;
        }
    };
    let since = report.count();
    let rules = table.inner(key, value, entries, &KEYS, report);
    let window = whole_seconds("window", &rules, (0, WINDOW_MAX), report).or(default.window);
    let every = whole_seconds("every", &rules, (1, PERIOD_MAX), report);
    let percent = rules.count("percent", 1..=AMOUNT_MAX, report).map(Amount::Percent);
    let instances = rules.count("instances", 1..=AMOUNT_MAX, report).map(Amount::Pods);
    let select = rules.parsed("select", SELECT_EXPECTED, report, select);
    let tolerance = rules.value("tolerance").and_then(|value| tolerance(&rules, value, report));
    if let Some(value) = rules.value("every")
        && !rules.was_tried("percent")
        && !rules.was_tried("instances")
    {
        report.at(
            value.span(),
            format!("`every` in {} is of how many: add `percent` or `instances`", rules.title),
        );
    }
    report.say_where(since, &rules.title);
    let period = every.unwrap_or(EVERY_DEFAULT);
    let mut policies: Vec<Policy> =
        percent.into_iter().chain(instances).map(|amount| Policy { amount, period }).collect();
    if policies.is_empty() {
        policies = default.policies;
    }
    Rules { window, select: select.unwrap_or(default.select), policies, tolerance }
}

fn select(text: &str) -> Result<Select, String> {
    match text {
        "max" => Ok(Select::Max),
        "min" => Ok(Select::Min),
        _ => Err(format!("is not known: write {SELECT_EXPECTED}")),
    }
}

fn tolerance(rules: &Table<'_, '_>, value: &Value<'_>, report: &mut Report<'_>) -> Option<f64> {
    let text = match value.get_ref() {
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Integer(number) => number.as_str().to_owned(),
        _ => {
            rules.wrong_type("tolerance", TOLERANCE_EXPECTED, value, report);
            return None;
        }
    };
    let found = text.parse::<f64>().ok().filter(|share| (0.0..1.0).contains(share));
    if found.is_none() {
        let why = "must be a share from 0 to below 1, such as 0.1";
        bad_value("tolerance", &Text { text: &text, span: value.span() }, why, report);
    }
    found
}
