//! The values of a journey's tables, each with its place, and what is said of one that is of the wrong type.

use std::ops::Range;

use serde_json::{Map, Number};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    problem::{Report, suggestion},
    template::Template,
};

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Reports each key that is not `known`; `inside` is as in ` in [variables]`.
pub(super) fn check_keys(table: &DeTable<'_>, known: &[&str], inside: &str, report: &mut Report<'_>) {
    for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
        let word = key.get_ref();
        report.at(
            key.span(),
            format!("unknown key `{word}`{inside}; {}", suggestion(word, known.iter().copied())),
        );
    }
}

/// The text of `key`, and where it stands.
pub(super) fn text<'v>(
    table: &'v DeTable<'_>,
    key: &str,
    report: &mut Report<'_>,
) -> Option<(&'v str, Range<usize>)> {
    let value = table.get(key)?;
    match value.get_ref() {
        DeValue::String(text) => Some((text, value.span())),
        other => {
            report.at(value.span(), format!("`{key}` must be a text in quotes, not {}", kind(other)));
            None
        }
    }
}

/// Whether `key` is `true`; `false` without it.
pub(super) fn flag(table: &DeTable<'_>, key: &str, report: &mut Report<'_>) -> bool {
    let Some(value) = table.get(key) else { return false };
    match value.get_ref() {
        DeValue::Boolean(flag) => *flag,
        other => {
            report.at(value.span(), format!("`{key}` must be true or false, not {}", kind(other)));
            false
        }
    }
}

/// Names, their places and values of a table, in the order of the file.
pub(super) fn entries<'v, 't>(
    value: &'v Value<'t>,
    key: &str,
    example: &str,
    report: &mut Report<'_>,
) -> Vec<(&'v str, Range<usize>, &'v Value<'t>)> {
    let DeValue::Table(table) = value.get_ref() else {
        report.at(
            value.span(),
            format!("`{key}` must be a table such as {{ {example} }}, not {}", kind(value.get_ref())),
        );
        return Vec::new();
    };
    in_order(table)
}

/// The same of a table, or of a list of tables one after the other: what is there several times, with something else in between.
pub(super) fn rows<'v, 't>(
    value: &'v Value<'t>,
    key: &str,
    example: &str,
    report: &mut Report<'_>,
) -> Vec<(&'v str, Range<usize>, &'v Value<'t>)> {
    match value.get_ref() {
        DeValue::Array(tables) => {
            tables.iter().flat_map(|table| entries(table, key, example, report)).collect()
        }
        _ => entries(value, key, example, report),
    }
}

fn in_order<'v, 't>(table: &'v DeTable<'t>) -> Vec<(&'v str, Range<usize>, &'v Value<'t>)> {
    let mut entries: Vec<_> =
        table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span(), value)).collect();
    entries.sort_by_key(|(_, span, _)| span.start);
    entries
}

/// A text, number or truth value as text with variables.
pub(super) fn template(key: &str, value: &Value<'_>, report: &mut Report<'_>) -> Option<Template> {
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        other => {
            report.at(value.span(), format!("`{key}` must be a text or a number, not {}", kind(other)));
            return None;
        }
    };
    Template::parse(&text).map_err(|why| report.at(value.span(), format!("`{key}`: {why}"))).ok()
}

/// The same for one text or a list of them.
pub(super) fn templates(key: &str, value: &Value<'_>, report: &mut Report<'_>) -> Vec<Template> {
    match value.get_ref() {
        DeValue::Array(values) => values.iter().filter_map(|value| template(key, value, report)).collect(),
        _ => template(key, value, report).into_iter().collect(),
    }
}

/// The value as JSON.
pub(super) fn json(key: &str, value: &Value<'_>, report: &mut Report<'_>) -> serde_json::Value {
    match value.get_ref() {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Integer(number) => {
            let digits = number.as_str().trim_start_matches('+');
            match i64::from_str_radix(digits, number.radix()) {
                Ok(number) => number.into(),
                Err(_) => {
                    report.at(
                        value.span(),
                        format!("`{key}`: the number {number} is too large: write it as a text"),
                    );
                    serde_json::Value::Null
                }
            }
        }
        DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => number.into(),
            None => {
                report.at(value.span(), format!("`{key}`: JSON has no number {number}"));
                serde_json::Value::Null
            }
        },
        DeValue::Array(values) => values.iter().map(|value| json(key, value, report)).collect(),
        DeValue::Table(table) => {
            let field =
                |(name, _, value): (&str, _, &Value<'_>)| (name.to_owned(), json(name, value, report));
            in_order(table).into_iter().map(field).collect::<Map<_, _>>().into()
        }
    }
}

/// What a value is, as in `must be a text, not a list`.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
