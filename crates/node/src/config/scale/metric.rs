//! `queue` and `metric`: numbers from elsewhere, fetched from a URL or told to the control API.

use std::{ops::Range, time::Duration};

use lethe_scaler::spec::Target;
use toml::de::DeValue;

use super::{
    super::{
        problem::Report,
        table::{Table, Value},
    },
    External, Fetched, METRICS_MAX, no_table, tables, target,
};
use crate::scaling::names;

/// What each of them may say.
pub(in super::super) const KEYS: [&str; 6] = ["name", "url", "pointer", "per-instance", "target", "max-age"];

/// [`External::max_age`] of what is fetched, when nothing says otherwise: it is asked for each second.
const FETCHED_AGE_DEFAULT: Duration = Duration::from_secs(5);
/// And of what is told, which comes when it comes.
const TOLD_AGE_DEFAULT: Duration = Duration::from_secs(60);
const AGES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

const NAME_EXPECTED: &str = "a name such as `\"emails\"`";
const URL_EXPECTED: &str = "a URL such as `\"http://127.0.0.1:9000/queue\"`";
const POINTER_EXPECTED: &str = "a JSON pointer such as `\"/messages/ready\"`";

/// Reads all of both keys.
pub(super) fn read_all(table: &Table<'_, '_>, report: &mut Report<'_>) -> Vec<(External, Target)> {
    let mut found: Vec<(External, Target, Range<usize>)> = Vec::new();
    for key in ["queue", "metric"] {
        let Some(value) = table.value(key) else { continue };
        for item in tables(value) {
            let DeValue::Table(entries) = item.get_ref() else {
                no_table(key, "a table such as `{ name = \"emails\", per-instance = 10 }`", item, report);
                continue;
            };
            let since = report.count();
            let metric = table.inner(key, item, entries, &KEYS, report);
            let read = read(&metric, item, report);
            report.say_where(since, &metric.title);
            found.extend(read.map(|(external, target)| (external, target, item.span())));
        }
    }
    for (at, (external, _, span)) in found.iter().enumerate() {
        if found[..at].iter().any(|(other, ..)| other.name == external.name) {
            let name = &external.name;
            report.at(
                span.clone(),
                format!("there is a metric `{name}` already; give this one another `name`"),
            );
        }
    }
    if let Some((_, _, span)) = found.get(METRICS_MAX) {
        report
            .at(span.clone(), format!("a service has at most {METRICS_MAX} metrics of `queue` and `metric`"));
    }
    found.into_iter().map(|(external, target, _)| (external, target)).collect()
}

fn read(metric: &Table<'_, '_>, value: &Value<'_>, report: &mut Report<'_>) -> Option<(External, Target)> {
    let name = metric.parsed("name", NAME_EXPECTED, report, parse_name);
    let url = metric.parsed("url", URL_EXPECTED, report, parse_url);
    let pointer = metric.parsed("pointer", POINTER_EXPECTED, report, parse_pointer);
    let max_age = metric.duration("max-age", AGES, report);
    let target = read_target(metric, report);
    if let Some(pointer) = metric.value("pointer").filter(|_| !metric.was_tried("url")) {
        report.at(pointer.span(), "`pointer` is of what a URL answers: add `url`");
    }
    let name = match (name, &url) {
        (Some(name), _) => Some(name),
        (None, _) if metric.was_tried("name") => None,
        (None, Some(url)) => {
            let made = name_of(url);
            if made.is_none() {
                report.at(value.span(), format!("{} needs a `name`: its URL gives none", metric.title));
            }
            made
        }
        (None, None) if metric.was_tried("url") => None,
        (None, None) => {
            let next = "add `url` to have it fetched, or `name` if it is told by PUT";
            report.at(value.span(), format!("{} has no number: {next}", metric.title));
            None
        }
    }?;
    if url.is_none() && metric.was_tried("url") {
        return None;
    }
    let default = if url.is_some() { FETCHED_AGE_DEFAULT } else { TOLD_AGE_DEFAULT };
    let from = url.map(|url| Fetched { url, pointer: pointer.unwrap_or_default() });
    Some((External { name, from, max_age: max_age.unwrap_or(default) }, target?))
}

/// For each worker, or as a whole.
fn read_target(metric: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Target> {
    match (metric.value("per-instance"), metric.value("target")) {
        (Some(each), None) => target::milli("per-instance", each, report).map(Target::AverageValue),
        (None, Some(whole)) => target::milli("target", whole, report).map(Target::Value),
        (Some(_), Some(whole)) => {
            report.at(
                whole.span(),
                "`target` is of the whole number, and `per-instance` of each worker: keep one",
            );
            None
        }
        (None, None) => {
            if !metric.was_tried("per-instance") && !metric.was_tried("target") {
                let message = format!(
                    "{} has no `per-instance`: add how much of it one worker is for, such as per-instance = 10, or \
                     `target` for what it should be as a whole",
                    metric.title
                );
                report.at(metric.span.clone(), message);
            }
            None
        }
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    if names::RESERVED.contains(&text) {
        return Err("is the name of a number that lethe measures itself: choose another".into());
    }
    match names::is_name(text) {
        true => Ok(text.into()),
        false => Err(format!(
            "is no name: write up to {} letters, digits, `-`, `_` and `.`",
            names::NAME_BYTES_MAX
        )),
    }
}

fn parse_url(text: &str) -> Result<http::Uri, String> {
    if !text.contains("://") {
        return Err("has no scheme: write \"http://\" before it".into());
    }
    let uri: http::Uri =
        text.parse().map_err(|_| "is no URL: write one such as \"http://127.0.0.1:9000/queue\"")?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err("has TLS, which is not spoken here: fetch it yourself and tell it by PUT".into());
        }
        other => {
            let other = other.unwrap_or_default();
            return Err(format!(
                "is fetched by `{other}`, which is not spoken here: give an \"http://\" URL, or fetch it yourself and tell it by PUT"
            ));
        }
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("has a user in it, who would be told to nobody: leave that out".into());
    }
    Ok(uri)
}

fn parse_pointer(text: &str) -> Result<String, String> {
    match text.is_empty() || text.starts_with('/') {
        true => Ok(text.into()),
        false => Err(format!("is no JSON pointer: write \"/{}\"", text.replace('.', "/"))),
    }
}

/// The last part of the path, or the host.
fn name_of(url: &http::Uri) -> Option<String> {
    let last = url.path().rsplit('/').find(|part| !part.is_empty());
    let name = last.or(url.host())?;
    (names::is_name(name) && !names::RESERVED.contains(&name)).then(|| name.into())
}
