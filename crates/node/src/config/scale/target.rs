//! What numbers should be: percent, rates, latencies and plain numbers, all of them above zero.

use lethe_scaler::quantity::Quantity;
use toml::de::DeValue;

use super::super::{
    duration,
    problem::Report,
    table::{Table, Text, Value, bad_value, integer, wrong_type},
};

/// Beyond this a target is a slip: in milli-units it fits what is calculated with.
const TARGET_MAX: i64 = 1_000_000_000_000;
/// Percent of a request beyond this are a slip.
const PERCENT_MAX: i64 = 100_000;
/// The longest latency that may be a goal.
const GOAL_MS_MAX: u128 = 600_000;

const PERCENT_EXPECTED: &str = "a share such as `\"70%\"`";
const RATE_EXPECTED: &str = "a rate such as `\"1000/s\"`";
const NUMBER_EXPECTED: &str = "a number such as `40`";
pub(super) const LATENCY_EXPECTED: &str = "a goal such as `\"p99 < 100ms\"`";

/// `p99 < 100ms`.
pub(super) struct Latency {
    /// Between 0 and 1.
    pub quantile: f64,
    /// In thousandths of a millisecond.
    pub goal_milli: i64,
}

/// `"70%"`, of what a worker requests.
pub(super) fn percent(
    key: &str,
    table: &Table<'_, '_>,
    value: &Value<'_>,
    report: &mut Report<'_>,
) -> Option<i32> {
    if let DeValue::Integer(number) = value.get_ref() {
        let why = format!("needs its sign: write \"{}%\"", integer(number));
        bad_value(key, &Text { text: &number.to_string(), span: value.span() }, &why, report);
        return None;
    }
    table.parsed(key, PERCENT_EXPECTED, report, |text| {
        let number = text.strip_suffix('%').map(str::trim).and_then(|number| number.parse::<i64>().ok());
        match number {
            Some(number @ 1..=PERCENT_MAX) => Ok(number as i32),
            Some(number) if number < 1 => Err("must be above zero, such as \"70%\"".into()),
            Some(_) => Err(format!("is too much: write at most \"{PERCENT_MAX}%\"")),
            None => Err("is no share: write whole percent, such as \"70%\"".into()),
        }
    })
}

/// `"1000/s"`, in thousandths a second.
pub(super) fn rate(
    key: &str,
    table: &Table<'_, '_>,
    value: &Value<'_>,
    report: &mut Report<'_>,
) -> Option<i64> {
    if matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Float(_)) {
        wrong_type(&format!("`{key}` in {}", table.title), RATE_EXPECTED, value, report);
        return None;
    }
    table.parsed(key, RATE_EXPECTED, report, |text| {
        const WHY: &str = "is no rate: write how many in what time, such as \"1000/s\" or \"600/min\"";
        let (number, unit) = text.split_once('/').ok_or(WHY)?;
        let milli =
            thousandths(number.trim()).map_err(|why| if why == NO_NUMBER { WHY.into() } else { why })?;
        let seconds = match unit.trim() {
            "s" | "second" => 1,
            "min" | "m" | "minute" => 60,
            "h" | "hour" => 3_600,
            _ => return Err(WHY.into()),
        };
        match milli / seconds {
            0 => Err("is too little: less than one in a thousand seconds".into()),
            milli => Ok(milli),
        }
    })
}

/// A number above zero, in thousandths.
pub(super) fn milli(key: &str, value: &Value<'_>, report: &mut Report<'_>) -> Option<i64> {
    let text = match value.get_ref() {
        DeValue::Integer(number) => integer(number).to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        _ => {
            wrong_type(&format!("`{key}`"), NUMBER_EXPECTED, value, report);
            return None;
        }
    };
    let read = thousandths(&text.replace('_', ""));
    read.map_err(|why| bad_value(key, &Text { text: &text, span: value.span() }, &why, report)).ok()
}

const NO_NUMBER: &str = "is no number that could be reached: write one above zero, such as 40";

/// Neither infinite, nor not a number, nor nothing.
fn thousandths(text: &str) -> Result<i64, String> {
    let number: Quantity = text.parse().map_err(|_| NO_NUMBER)?;
    if !text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) {
        return Err(NO_NUMBER.into());
    }
    match number.milli {
        ..=0 => Err("must be above zero".into()),
        milli if milli > TARGET_MAX * 1_000 => Err(format!("is too much: write at most {TARGET_MAX}")),
        milli => Ok(milli),
    }
}

pub(super) fn latency(text: &str) -> Result<Latency, String> {
    const WHY: &str = "is no goal: write a quantile and a time, such as \"p99 < 100ms\"";
    let (quantile, goal) = text.split_once('<').ok_or(WHY)?;
    let number = quantile.trim().strip_prefix('p').ok_or(WHY)?;
    let percent: f64 = number.parse().map_err(|_| WHY)?;
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') || !(1.0..=99.9).contains(&percent) {
        return Err("has no such quantile: they go from p1 to p99.9".into());
    }
    let goal = duration::parse(goal.trim()).map_err(|why| format!("has no time behind the `<`: it {why}"))?;
    match goal.as_millis() {
        0 => Err("must be above zero: no answer takes no time".into()),
        ms if ms > GOAL_MS_MAX => Err("is no goal: the longest is \"10m\"".into()),
        ms => Ok(Latency {
            quantile: percent / 100.0,
            goal_milli: i64::try_from(ms).unwrap_or(i64::MAX) * 1_000,
        }),
    }
}
