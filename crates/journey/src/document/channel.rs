//! What a `[[steps]]` says of channels: `websocket` and `events` with `as`, `send` with `on`, and `arrives`.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::field::{self, Value};
use crate::{
    channel::{Act, Arrival, Opening, Protocol, Saying, WITHIN_DEFAULT},
    journey::Step,
    problem::{Report, suggestion},
    template,
};

/// Each is a key whose value is the path at which a channel is opened.
pub(super) const OPENINGS: [(&str, Protocol); 2] =
    [("websocket", Protocol::WebSocket), ("events", Protocol::EventStream)];

/// A step, and what was opened before it.
pub(super) struct At<'s> {
    pub(super) number: usize,
    pub(super) span: Range<usize>,
    pub(super) before: &'s [Step],
}

/// Whether the step has no request, and only says something.
pub(super) fn is_saying(table: &DeTable<'_>, has_request: bool) -> bool {
    table.contains_key("send") && !has_request
}

/// What the step does.
pub(super) fn act(table: &DeTable<'_>, at: &At<'_>, report: &mut Report<'_>) -> Act {
    let send = table.get("send").map(|value| (value, field::templates("send", value, report)));
    let opening = OPENINGS.into_iter().find(|(key, _)| table.contains_key(*key));
    let of_opening = |key: &str, report: &mut Report<'_>| {
        if let Some(value) = table.get(key).filter(|_| opening.is_none()) {
            report.at(value.span(), format!("`{key}` goes with `websocket` or `events`"));
        }
    };
    of_opening("as", report);
    if let Some((key, protocol)) = opening {
        let name = field::text(table, "as", report);
        if let Some((name, span)) = name.clone().filter(|(name, _)| !template::is_name(name)) {
            report.at(span, format!("`{name}` is no name: use letters, digits, `_` and `-`"));
        }
        if let Some((value, _)) = send.as_ref().filter(|_| protocol == Protocol::EventStream) {
            report.at(value.span(), "nothing can be sent over events: send a request in a step of its own");
        }
        let name = name.map_or(key, |(name, _)| name).to_owned();
        return Act::Open(Opening { protocol, name, says: send.map(|(_, texts)| texts).unwrap_or_default() });
    }
    let Some((_, texts)) = send else {
        if let Some(value) = table.get("on") {
            report.at(value.span(), "`on` goes with `send`");
        }
        return Act::Request;
    };
    let on = field::text(table, "on", report);
    let name = channel(on, at, &|opening| opening.protocol == Protocol::WebSocket, report);
    name.map_or(Act::Request, |on| Act::Say(Saying { on, texts }))
}

/// What must arrive because of it.
pub(super) fn arrival(
    table: &DeTable<'_>,
    act: &Act,
    at: &At<'_>,
    report: &mut Report<'_>,
) -> Option<Arrival> {
    let value = table.get("arrives")?;
    let inner = match value.get_ref() {
        DeValue::Table(inner) => {
            field::check_keys(inner, &["text", "on", "within"], " in `arrives`", report);
            Some(inner)
        }
        _ => None,
    };
    let text = match inner {
        Some(inner) => inner.get("text"),
        None => Some(value),
    };
    let Some(text) = text else {
        report.at(value.span(), "`arrives` needs `text`: what is in the message, such as \"{{identity}}\"");
        return None;
    };
    let text = field::template("arrives", text, report)?;
    let within = inner.and_then(|inner| super::step::wait(inner, "within", report)).unwrap_or(WITHIN_DEFAULT);
    let on = inner.and_then(|inner| field::text(inner, "on", report));
    let on = match (act, on) {
        (Act::Open(opening), None) => opening.name.clone(),
        (Act::Open(opening), Some((on, span))) => {
            if on != opening.name {
                report.at(span, "a step that opens a channel waits for what arrives there: take `on` out");
            }
            opening.name.clone()
        }
        // Who asks over a channel is mostly answered there.
        (Act::Say(saying), None) => saying.on.clone(),
        (_, on) => channel(on, at, &|_| true, report)?,
    };
    Some(Arrival { on, text, within })
}

/// The name of a channel that is open by then: the one that is said, or the only one.
fn channel(
    said: Option<(&str, Range<usize>)>,
    at: &At<'_>,
    is_meant: &dyn Fn(&Opening) -> bool,
    report: &mut Report<'_>,
) -> Option<String> {
    let mut open: Vec<&str> = at
        .before
        .iter()
        .filter_map(|step| match &step.act {
            Act::Open(opening) if is_meant(opening) => Some(opening.name.as_str()),
            _ => None,
        })
        .collect();
    open.sort_unstable();
    open.dedup();
    match (said, open.as_slice()) {
        (Some((name, _)), open) if open.contains(&name) => Some(name.to_owned()),
        (Some((name, span)), []) => {
            report.at(span, format!("no step before opens `{name}`: write websocket = \"/…\" in one"));
            None
        }
        (Some((name, span)), open) => {
            let next = suggestion(name, open.iter().copied());
            report.at(span, format!("no step before opens `{name}`; {next}"));
            None
        }
        (None, [only]) => Some((*only).to_owned()),
        (None, []) => {
            let number = at.number;
            report.at(
                at.span.clone(),
                format!("nothing is open by step {number}: write websocket = \"/…\" in one before"),
            );
            None
        }
        (None, several) => {
            let names = several.join("` and `");
            report
                .at(at.span.clone(), format!("several are open by step {}, `{names}`: say `on`", at.number));
            None
        }
    }
}

/// Reports what does not go together with a channel.
pub(super) fn check(table: &DeTable<'_>, step: &Step, report: &mut Report<'_>) {
    let refused: &[&str] = match &step.act {
        Act::Request if step.arrives.is_some() => &["within"],
        Act::Request => &[],
        Act::Open(_) => &["follow", "within", "form", "json", "body", "multipart"],
        Act::Say(_) => {
            &["follow", "within", "form", "json", "body", "multipart", "headers", "expect", "capture", "path"]
        }
    };
    let mut at = |key: &str, value: &Value<'_>| {
        let why = match (key, &step.act) {
            ("within", _) => {
                "would play the step again: write it into `arrives`, as { text = \"…\", within = \"5s\" }"
            }
            ("expect" | "capture", _) => "has no response to look into: use `arrives`",
            _ => "does not go with a connection that is kept open",
        };
        report.at(value.span(), format!("`{key}` {why}"));
    };
    for key in refused {
        if let Some(value) = table.get(*key) {
            at(key, value);
        }
    }
}
