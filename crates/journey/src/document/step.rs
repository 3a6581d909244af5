//! One `[[steps]]`.

use std::{
    ops::{Range, RangeInclusive},
    path::Path,
    time::Duration,
};

use http::{HeaderName, Method, header};
use toml::de::{DeTable, DeValue};

use super::{
    channel,
    field::{self, Value},
};
use crate::{
    body::{Body, Content, Json, Part},
    capture::{Capture, Source},
    expectation::Expectation,
    journey::Step,
    problem::{Report, suggestion},
    template::{self, Template},
};

/// Header fields that a file may not name: they are decided by what is sent and how.
pub(crate) const DECIDED: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::ACCEPT_ENCODING];

/// The most bytes of a file that is sent.
const SENT_BYTES_MAX: u64 = 64 << 20;

/// The longest pause, and the longest that a step is played again.
const WAIT_MAX: Duration = Duration::from_mins(10);

/// Each is a key whose value is the path.
const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];

/// Each is a key whose value is the body.
const BODIES: [&str; 4] = ["form", "json", "body", "multipart"];

const KEYS: [&str; 26] = [
    "get",
    "post",
    "put",
    "patch",
    "delete",
    "head",
    "options",
    "method",
    "path",
    "name",
    "headers",
    "form",
    "json",
    "body",
    "multipart",
    "expect",
    "capture",
    "follow",
    "within",
    "pause",
    "websocket",
    "events",
    "as",
    "send",
    "on",
    "arrives",
];

pub(super) fn read(
    table: &DeTable<'_>,
    span: Range<usize>,
    number: usize,
    folder: &Path,
    before: &[Step],
    report: &mut Report<'_>,
) -> Step {
    field::check_keys(table, &KEYS, &format!(" in step {number}"), report);
    let (method, path) = request(table, span.clone(), number, report);
    let mut step = Step::new(number, method, path);
    let at = channel::At { number, span: span.clone(), before };
    step.act = channel::act(table, &at, report);
    step.arrives = channel::arrival(table, &step.act, &at, report);
    channel::check(table, &step, report);
    step.name = field::text(table, "name", report).map(|(name, _)| name.to_owned());
    step.follow = field::flag(table, "follow", report);
    step.within = wait(table, "within", report);
    step.pause = wait(table, "pause", report).unwrap_or_default();
    if let Some(value) = table.get("headers") {
        step.headers = headers(value, report);
    }
    step.body = body(table, span, number, folder, report);
    if let Some(value) = table.get("expect") {
        step.expect = expectation(value, report);
    }
    if let Some(value) = table.get("capture") {
        let example = "id = { json = \"/id\" }";
        let entries = field::entries(value, "capture", example, report);
        step.captures = entries
            .into_iter()
            .filter_map(|(name, span, value)| capture(name, span, value, report))
            .collect();
    }
    step
}

/// Method and path, from one key such as `get`, or from `method` and `path`.
fn request(
    table: &DeTable<'_>,
    span: Range<usize>,
    number: usize,
    report: &mut Report<'_>,
) -> (Method, Template) {
    let openings = channel::OPENINGS.into_iter().map(|(key, _)| key);
    let mut said: Vec<&str> =
        METHODS.into_iter().chain(openings).filter(|key| table.contains_key(*key)).collect();
    said.extend(table.contains_key("method").then_some("method"));
    let nothing = (Method::GET, Template::literal("/"));
    if channel::is_saying(table, !said.is_empty()) {
        // It may change something, and is not sent again by anybody on the way.
        return (Method::POST, Template::literal("/"));
    }
    let key = match said.as_slice() {
        [key] => *key,
        [] => {
            // A key that is misspelt is told of already, and is most likely this one.
            if table.keys().all(|key| KEYS.contains(&key.get_ref().as_ref())) {
                report.at(span, format!("step {number} has no request: write, for example, get = \"/\""));
            }
            return nothing;
        }
        several => {
            report.at(
                span,
                format!(
                    "step {number} has several requests, `{}`: make several steps of it",
                    several.join("` and `")
                ),
            );
            return nothing;
        }
    };
    let (method, path_key) = match key {
        "method" => {
            let Some((text, span)) = field::text(table, "method", report) else { return nothing };
            match Method::from_bytes(text.as_bytes()) {
                Ok(method) => (method, "path"),
                Err(_) => {
                    report.at(span, format!("`{text}` is no method: write one as \"PROPFIND\""));
                    return nothing;
                }
            }
        }
        key => {
            if let Some(value) = table.get("path") {
                report.at(value.span(), format!("`path` goes with `method`; the path is already in `{key}`"));
            }
            let is_method = METHODS.contains(&key);
            let method = Method::from_bytes(key.to_ascii_uppercase().as_bytes()).ok();
            (method.filter(|_| is_method).unwrap_or_default(), key)
        }
    };
    let Some((text, at)) = field::text(table, path_key, report) else {
        if !table.contains_key(path_key) {
            report.at(span, format!("step {number} has no path: write path = \"/\" beside `method`"));
        }
        return nothing;
    };
    match Template::parse(text) {
        Ok(path) if text.starts_with('/') || text.starts_with("{{") => (method, path),
        Ok(_) => {
            report.at(at, format!("`{text}` is no path: begin it with `/`; a journey stays at one service"));
            nothing
        }
        Err(why) => {
            report.at(at, why);
            nothing
        }
    }
}

pub(super) fn headers(value: &Value<'_>, report: &mut Report<'_>) -> Vec<(HeaderName, Template)> {
    let mut headers = Vec::new();
    for (name, span, value) in field::entries(value, "headers", "Accept = \"text/html\"", report) {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            report.at(span, format!("`{name}` is no name of a header field"));
            continue;
        };
        if DECIDED.contains(&header) {
            report.at(span, format!("`{name}` is decided by what is sent and how: take it out"));
            continue;
        }
        // A list is a field that is there several times.
        let values = field::templates(name, value, report);
        headers.extend(values.into_iter().map(|value| (header.clone(), value)));
    }
    headers
}

fn body(
    table: &DeTable<'_>,
    span: Range<usize>,
    number: usize,
    folder: &Path,
    report: &mut Report<'_>,
) -> Body {
    let said: Vec<&str> = BODIES.into_iter().filter(|key| table.contains_key(*key)).collect();
    let (key, value) = match said.as_slice() {
        [] => return Body::None,
        [key] => match table.get(*key) {
            Some(value) => (*key, value),
            None => return Body::None,
        },
        several => {
            report.at(
                span,
                format!("step {number} has several bodies, `{}`: keep one", several.join("` and `")),
            );
            return Body::None;
        }
    };
    match key {
        "form" => {
            let entries = field::rows(value, "form", "name = \"ada\"", report);
            let mut fields = Vec::new();
            for (name, _, value) in entries {
                // A list is a field that is there several times, as a form's boxes are.
                let values = field::templates(name, value, report);
                fields.extend(values.into_iter().map(|value| (name.to_owned(), value)));
            }
            Body::Form(fields)
        }
        "json" => {
            let json = field::json("json", value, report);
            of_json(json, value, report)
        }
        "multipart" => {
            let entries =
                field::rows(value, "multipart", "title = \"x\", photo = { file = \"photo.png\" }", report);
            Body::Multipart(
                entries
                    .into_iter()
                    .filter_map(|(name, _, value)| part(name, value, folder, report))
                    .collect(),
            )
        }
        _ => match json_text(value, report) {
            Some(json) => json,
            None => raw(value, folder, report),
        },
    }
}

fn of_json(json: serde_json::Value, value: &Value<'_>, report: &mut Report<'_>) -> Body {
    match Json::parse(json) {
        Ok(json) => Body::Json(json),
        Err(why) => {
            report.at(value.span(), format!("`json`: {why}"));
            Body::None
        }
    }
}

/// `body = { json = "…" }`: JSON as text, for what TOML has no word for, such as `null`. `None` if it is no such body.
fn json_text(value: &Value<'_>, report: &mut Report<'_>) -> Option<Body> {
    let DeValue::Table(table) = value.get_ref() else { return None };
    let text = table.get("json")?;
    field::check_keys(table, &["json"], " beside the JSON in `body`", report);
    let (json, _) = field::text(table, "json", report)?;
    match serde_json::from_str(json) {
        Ok(json) => Some(of_json(json, text, report)),
        Err(error) => {
            report.at(text.span(), format!("`json`: this is no JSON: {error}"));
            Some(Body::None)
        }
    }
}

fn raw(value: &Value<'_>, folder: &Path, report: &mut Report<'_>) -> Body {
    match part("body", value, folder, report) {
        Some(Part { content, content_type, .. }) => Body::Raw { content_type, content },
        None => Body::None,
    }
}

/// A text, or a table with `text` or `file`, and `type` and `name`.
fn part(name: &str, value: &Value<'_>, folder: &Path, report: &mut Report<'_>) -> Option<Part> {
    let DeValue::Table(table) = value.get_ref() else {
        let content = Content::Text(field::template(name, value, report)?);
        return Some(Part { name: name.into(), file_name: None, content_type: None, content });
    };
    field::check_keys(table, &["text", "file", "type", "name"], &format!(" in `{name}`"), report);
    let content_type = field::text(table, "type", report).map(|(text, _)| text.to_owned());
    let own_name = table.get("name").and_then(|value| field::template("name", value, report));
    let (content, file_name) = match (table.get("text"), field::text(table, "file", report)) {
        (Some(text), None) => (Content::Text(field::template("text", text, report)?), None),
        (None, Some((file, span))) => match super::bytes(&folder.join(file), SENT_BYTES_MAX) {
            Ok(bytes) => {
                let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
                (Content::Bytes(bytes.into()), Some(Template::literal(name)))
            }
            Err(why) => {
                report.at(span, format!("the file {} {why}", folder.join(file).display()));
                return None;
            }
        },
        _ => {
            report.at(
                value.span(),
                format!("`{name}` needs either `text` or `file`, which is a path beside this file"),
            );
            return None;
        }
    };
    Some(Part { name: name.into(), file_name: own_name.or(file_name), content_type, content })
}

fn expectation(value: &Value<'_>, report: &mut Report<'_>) -> Expectation {
    let mut expectation = Expectation::default();
    for (key, span, value) in field::entries(value, "expect", "status = 200", report) {
        match key {
            "status" => expectation.statuses = statuses(value, report),
            "contains" => expectation.contains = field::templates(key, value, report),
            "lacks" => expectation.lacks = field::templates(key, value, report),
            "location" => {
                let value = field::template(key, value, report);
                expectation.headers.extend(value.map(|value| (http::header::LOCATION, value)));
            }
            "headers" => expectation.headers.extend(headers(value, report)),
            "json" => {
                for (pointer, span, value) in field::entries(value, "json", "\"/total\" = 3", report) {
                    if is_pointer(pointer, span, report) {
                        match Json::parse(field::json(pointer, value, report)) {
                            Ok(json) => expectation.json.push((pointer.into(), json)),
                            Err(why) => report.at(value.span(), why),
                        }
                    }
                }
            }
            key => {
                let known = ["status", "contains", "lacks", "location", "headers", "json"];
                report.at(span, format!("unknown key `{key}` in `expect`; {}", suggestion(key, known)));
            }
        }
    }
    expectation
}

fn is_pointer(text: &str, span: Range<usize>, report: &mut Report<'_>) -> bool {
    let is_pointer = text.is_empty() || text.starts_with('/');
    if !is_pointer {
        report.at(span, format!("`{text}` is no pointer into JSON: begin it with `/`, as in \"/{text}\""));
    }
    is_pointer
}

/// `200`, `"2xx"`, or a list of them.
fn statuses(value: &Value<'_>, report: &mut Report<'_>) -> Vec<RangeInclusive<u16>> {
    let one = |value: &Value<'_>, report: &mut Report<'_>| {
        let text = match value.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            DeValue::String(text) => text.to_string(),
            _ => String::new(),
        };
        let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
        let found = match (class, text.parse::<u16>()) {
            (Some(class @ 1..=5), _) => Some(class * 100..=class * 100 + 99),
            (None, Ok(status @ 100..=599)) => Some(status..=status),
            _ => None,
        };
        if found.is_none() {
            report.at(
                value.span(),
                "`status` must be a number from 100 to 599, a class such as \"2xx\", or a list of them",
            );
        }
        found
    };
    match value.get_ref() {
        DeValue::Array(values) => values.iter().filter_map(|value| one(value, report)).collect(),
        _ => one(value, report).into_iter().collect(),
    }
}

fn capture(name: &str, span: Range<usize>, value: &Value<'_>, report: &mut Report<'_>) -> Option<Capture> {
    const PLACES: [&str; 4] = ["json", "header", "cookie", "input"];
    const EXAMPLE: &str = "{ json = \"/id\" }, { header = \"Location\", after = \"/orders/\" }, { cookie = \"token\" }, \
        { input = \"csrf\" } or { after = \"Order no. \", before = \"<\" }";
    if !template::is_name(name) {
        report.at(span, format!("`{name}` is no name of a variable: use letters, digits, `_` and `-`"));
        return None;
    }
    let DeValue::Table(table) = value.get_ref() else {
        report.at(value.span(), format!("`{name}` must say where its value stands, as {EXAMPLE}"));
        return None;
    };
    field::check_keys(
        table,
        &["json", "header", "cookie", "input", "after", "before", "default"],
        &format!(" in `{name}`"),
        report,
    );
    let (after, before) = (field::text(table, "after", report), field::text(table, "before", report));
    let said: Vec<&str> = PLACES.into_iter().filter(|key| table.contains_key(*key)).collect();
    let source = match said.as_slice() {
        [] if after.is_some() || before.is_some() => Source::Body,
        [key] => {
            let (place, span) = field::text(table, key, report)?;
            match *key {
                "json" => is_pointer(place, span, report).then(|| Source::Json(place.into()))?,
                "cookie" => Source::Cookie(place.into()),
                "input" => Source::Input(place.into()),
                _ => match HeaderName::from_bytes(place.as_bytes()) {
                    Ok(header) => Source::Header(header),
                    Err(_) => {
                        report.at(span, format!("`{place}` is no name of a header field"));
                        return None;
                    }
                },
            }
        }
        _ => {
            report.at(
                value.span(),
                format!("`{name}` must say one place where its value stands, as {EXAMPLE}"),
            );
            return None;
        }
    };
    let own = |said: Option<(&str, _)>| said.map(|(text, _)| text.to_owned());
    let fallback = table.get("default").map(|value| field::json("default", value, report));
    Some(Capture { variable: name.into(), source, after: own(after), before: own(before), fallback })
}

pub(super) fn wait(table: &DeTable<'_>, key: &str, report: &mut Report<'_>) -> Option<Duration> {
    let (text, span) = field::text(table, key, report)?;
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        _ => None,
    };
    let wait = seconds
        .zip(number.parse::<f64>().ok())
        .and_then(|(unit, number)| Duration::try_from_secs_f64(number * unit).ok());
    let wait = wait.filter(|wait| *wait <= WAIT_MAX);
    if wait.is_none() {
        report.at(span, format!("`{key}`: write a time of up to 10m, such as \"250ms\" or \"1.5s\""));
    }
    wait
}
