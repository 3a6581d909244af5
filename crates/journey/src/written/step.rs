//! One `[[steps]]`, as it is written.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use http::{HeaderName, Method, header};

use super::{
    File, Writer, comment, step_of,
    value::{self, Section, Value},
};
use crate::{
    body::{Body, Content, Json, Part},
    capture::{Capture, Source},
    document::DECIDED,
    expectation::Expectation,
    journey::{Journey, Step},
    template::Template,
};

/// The longest name of a file, in bytes. File systems take 255, with the number before it.
const FILE_NAME_BYTES_MAX: usize = 80;

pub(super) type Entries = Vec<(String, Value)>;

impl Writer<'_> {
    pub(super) fn step(
        &mut self,
        journey: &Journey,
        step: &Step,
        common: &[(HeaderName, Template)],
    ) -> String {
        let mut entries = Entries::new();
        let mut add = |key: &str, value: Value| entries.push((key.into(), value));
        if let Some(name) = &step.name {
            add("name", Value::Text(name.clone()));
        }
        let act = self.act(step);
        match key_of(&step.method) {
            _ if !act.is_empty() => {}
            Some(key) => add(key, self.template(&step.path)),
            None => {
                add("method", Value::Text(step.method.to_string()));
                add("path", self.template(&step.path));
            }
        }
        act.into_iter().for_each(|(key, value)| add(&key, value));
        if !step.pause.is_zero() {
            add("pause", time(step.pause));
        }
        let own: Vec<_> = step.headers.iter().filter(|field| !common.contains(field)).cloned().collect();
        let headers = self.headers(&own);
        if !headers.is_empty() {
            add("headers", Value::Table(headers));
        }
        if let Some((key, value)) = self.body(&step.body) {
            add(key, value);
        }
        if step.follow {
            add("follow", Value::Bare("true".into()));
        }
        if let Some(within) = step.within {
            add("within", time(within));
        }
        let expect = self.expectation(&step.expect);
        if !expect.is_empty() {
            add("expect", Value::Table(expect));
        }
        if let Some(arrival) = &step.arrives {
            add("arrives", self.arrival(&step.act, arrival));
        }
        let captures = self.captures(&step.captures);
        if !captures.is_empty() {
            add("capture", Value::Table(captures));
        }
        let notes = journey.notes.iter().filter(|note| step_of(note, journey) == Some(step.number));
        let notes: String = notes.map(String::as_str).map(comment).collect();
        let unsaid: String = self.unsaid.drain(..).map(|what| comment(&what)).collect();
        format!("{notes}{unsaid}[[steps]]\n{}", Section::new("steps", entries))
    }

    /// Each name once, with a list of its values if there are several.
    fn headers(&mut self, headers: &[(HeaderName, Template)]) -> Entries {
        let mut entries = Entries::new();
        for (at, (name, _)) in headers.iter().enumerate() {
            if DECIDED.contains(name) || headers[..at].iter().any(|(earlier, _)| earlier == name) {
                continue;
            }
            let values: Vec<Template> =
                headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect();
            entries.push((name.to_string(), self.templates(&values)));
        }
        entries
    }

    fn body(&mut self, body: &Body) -> Option<(&'static str, Value)> {
        match body {
            Body::None => None,
            Body::Raw { content_type, content } => {
                let value = match content {
                    Content::Text(text) => ("text", self.template(text)),
                    Content::Bytes(bytes) => ("file", Value::Text(self.file("body", bytes))),
                };
                let (key, value) = (value.0.to_owned(), value.1);
                Some(match content_type {
                    Some(kind) => {
                        ("body", Value::Table(vec![(key, value), ("type".into(), Value::Text(kind.clone()))]))
                    }
                    None if key == "text" => ("body", value),
                    None => ("body", Value::Table(vec![(key, value)])),
                })
            }
            Body::Form(fields) => {
                let fields =
                    fields.iter().map(|(name, value)| (name.clone(), self.template(value))).collect();
                Some(("form", form(fields)))
            }
            Body::Multipart(parts) => {
                let parts = parts.iter().map(|part| (part.name.clone(), self.part(part))).collect();
                Some(("multipart", rows(parts)))
            }
            Body::Json(json) => Some(self.json_body(json)),
        }
    }

    fn json_body(&mut self, json: &Json) -> (&'static str, Value) {
        let json = self.json(json);
        let is_readable = |value: &Value| match value {
            value if value::fits("json", value) => true,
            Value::Table(entries) => entries.iter().all(|(key, value)| {
                let is_long = matches!(value, Value::Text(_));
                is_long || value::fits(key, value)
            }),
            Value::List(values) => values.iter().all(|value| value::fits("", value)),
            _ => true,
        };
        match toml(&json).filter(is_readable) {
            Some(value) => ("json", value),
            // TOML has no `null`, and no tables within tables that a person would want to read.
            None => {
                let text = serde_json::to_string_pretty(&json).unwrap_or_default();
                ("body", Value::Table(vec![("json".into(), Value::Text(text + "\n"))]))
            }
        }
    }

    /// JSON with its variables as they are written.
    fn json(&mut self, json: &Json) -> serde_json::Value {
        match json {
            Json::Plain(value) => self.plain(value),
            Json::Text(template) => self.text(template).into(),
            Json::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Json::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.clone(), self.json(value)));
                serde_json::Value::Object(fields.collect())
            }
        }
    }

    /// JSON in which braces are braces.
    fn plain(&mut self, value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::String(text) => self.text(&Template::literal(text)).into(),
            serde_json::Value::Array(items) => items.iter().map(|item| self.plain(item)).collect(),
            serde_json::Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.clone(), self.plain(value)));
                serde_json::Value::Object(fields.collect())
            }
            value => value.clone(),
        }
    }

    fn part(&mut self, part: &Part) -> Value {
        let (mut entries, mut shown_name) = (Entries::new(), None);
        match &part.content {
            Content::Text(text) if part.file_name.is_none() && part.content_type.is_none() => {
                return self.template(text);
            }
            Content::Text(text) => entries.push(("text".into(), self.template(text))),
            Content::Bytes(bytes) => {
                let wanted = part.file_name.as_ref().and_then(Template::as_literal).unwrap_or(&part.name);
                let path = self.file(wanted, bytes);
                shown_name = Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned());
                entries.push(("file".into(), Value::Text(path)));
            }
        }
        if let Some(kind) = &part.content_type {
            entries.push(("type".into(), Value::Text(kind.clone())));
        }
        // A file is sent under its own name.
        let is_said = |name: &&Template| shown_name.is_none() || name.as_literal() != shown_name.as_deref();
        if let Some(name) = part.file_name.as_ref().filter(is_said) {
            entries.push(("name".into(), self.template(name)));
        }
        Value::Table(entries)
    }

    /// A place for bytes, in a file that is called like `wanted` as far as that is harmless.
    fn file(&mut self, wanted: &str, bytes: &bytes::Bytes) -> String {
        let last = wanted.rsplit(['/', '\\']).next().unwrap_or_default();
        let plain: String =
            last.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        let plain = plain.trim_start_matches('.');
        let plain = &plain[..plain.floor_char_boundary(FILE_NAME_BYTES_MAX)];
        let plain = if plain.is_empty() { "file" } else { plain };
        let numbered = (2_u64..).map(|number| format!("{number}-{plain}"));
        let paths =
            std::iter::once(plain.to_owned()).chain(numbered).map(|name| format!("{}/{name}", self.folder));
        for path in paths {
            match self.files.iter().find(|file| file.path.eq_ignore_ascii_case(&path)) {
                Some(same) if same.bytes == *bytes && same.path == path => return path,
                Some(_) => {}
                None => {
                    self.files.push(File { path: path.clone(), bytes: bytes.clone() });
                    return path;
                }
            }
        }
        // There are more numbers than files.
        String::new()
    }

    fn expectation(&mut self, expect: &Expectation) -> Entries {
        let mut entries = Entries::new();
        if !expect.statuses.is_empty() {
            let statuses: Vec<Value> = expect.statuses.iter().flat_map(status).collect();
            entries.push(("status".into(), one_or_list(statuses)));
        }
        let mut headers = expect.headers.as_slice();
        if let Some(((_, location), others)) = headers.split_first().filter(|((name, _), others)| {
            *name == header::LOCATION && others.iter().all(|(name, _)| *name != header::LOCATION)
        }) {
            entries.push(("location".into(), self.template(location)));
            headers = others;
        }
        let headers = self.headers(headers);
        if !headers.is_empty() {
            entries.push(("headers".into(), Value::Table(headers)));
        }
        let mut values = Entries::new();
        for (pointer, json) in &expect.json {
            let json = self.json(json);
            match toml(&json) {
                Some(value) if values.iter().all(|(known, _)| known != pointer) => {
                    values.push((pointer.clone(), value));
                }
                _ => self.unsaid.push(format!("It is not said here that {pointer:?} is to be {json}.")),
            }
        }
        if !values.is_empty() {
            entries.push(("json".into(), Value::Table(values)));
        }
        for (key, texts) in [("contains", &expect.contains), ("lacks", &expect.lacks)] {
            if !texts.is_empty() {
                entries.push((key.into(), self.templates(texts)));
            }
        }
        entries
    }

    fn captures(&mut self, captures: &[Capture]) -> Entries {
        let mut entries = Entries::new();
        for capture in captures {
            let mut place = Entries::new();
            let mut say = |key: &str, text: &str| place.push((key.to_owned(), Value::Text(text.to_owned())));
            match &capture.source {
                Source::Json(pointer) => say("json", pointer),
                Source::Header(name) => say("header", name.as_str()),
                Source::Cookie(name) => say("cookie", name),
                Source::Input(name) => say("input", name),
                Source::Body => {}
            }
            for (key, text) in [("after", &capture.after), ("before", &capture.before)] {
                if let Some(text) = text {
                    say(key, text);
                }
            }
            let fallback = capture.fallback.as_ref().map(|value| (value, toml(value)));
            if let Some((value, None)) = &fallback {
                self.unsaid.push(format!(
                    "{} has the default {value}, which cannot be said here.",
                    capture.variable
                ));
            }
            place.extend(fallback.and_then(|(_, value)| Some(("default".to_owned(), value?))));
            if entries.iter().all(|(known, _)| *known != capture.variable) {
                entries.push((capture.variable.clone(), Value::Table(place)));
            }
        }
        entries
    }
}

/// The key of a method that has one.
fn key_of(method: &Method) -> Option<&'static str> {
    const KEYS: [(&Method, &str); 7] = [
        (&Method::GET, "get"),
        (&Method::POST, "post"),
        (&Method::PUT, "put"),
        (&Method::PATCH, "patch"),
        (&Method::DELETE, "delete"),
        (&Method::HEAD, "head"),
        (&Method::OPTIONS, "options"),
    ];
    KEYS.iter().find(|(known, _)| *known == method).map(|(_, key)| *key)
}

/// A table, in which a field that is there several times has a list of values; where others stand in between, a list of tables.
fn form(fields: Entries) -> Value {
    let is_apart = fields.iter().enumerate().any(|(at, (name, _))| {
        at > 0 && fields[at - 1].0 != *name && fields[..at].iter().any(|(earlier, _)| earlier == name)
    });
    if is_apart {
        return rows(fields);
    }
    let mut table: Vec<(String, Vec<Value>)> = Vec::new();
    for (name, value) in fields {
        match table.last_mut() {
            Some((last, values)) if *last == name => values.push(value),
            _ => table.push((name, vec![value])),
        }
    }
    Value::Table(table.into_iter().map(|(name, values)| (name, one_or_list(values))).collect())
}

/// A table; or, where a name is there several times, a list of tables.
fn rows(fields: Entries) -> Value {
    let mut tables: Vec<Entries> = vec![Vec::new()];
    for (name, value) in fields {
        let is_there = tables.last().is_some_and(|table| table.iter().any(|(known, _)| *known == name));
        if is_there {
            tables.push(Vec::new());
        }
        if let Some(table) = tables.last_mut() {
            table.push((name, value));
        }
    }
    one_or_list(tables.into_iter().map(Value::Table).collect())
}

fn one_or_list(mut values: Vec<Value>) -> Value {
    match (values.len(), values.pop()) {
        (1, Some(value)) => value,
        (_, last) => Value::List(values.into_iter().chain(last).collect()),
    }
}

/// `None` if there is something in it that TOML cannot say.
fn toml(json: &serde_json::Value) -> Option<Value> {
    Some(match json {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(flag) => Value::Bare(flag.to_string()),
        serde_json::Value::Number(number) => {
            match (number.as_i64(), number.is_f64().then(|| number.as_f64())) {
                (Some(number), _) => Value::Bare(number.to_string()),
                (None, Some(Some(number))) => Value::Bare(format!("{number:?}")),
                _ => return None,
            }
        }
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(items) => Value::List(items.iter().map(toml).collect::<Option<_>>()?),
        serde_json::Value::Object(fields) => {
            let field = |(name, value): (&String, &serde_json::Value)| Some((name.clone(), toml(value)?));
            Value::Table(fields.iter().map(field).collect::<Option<_>>()?)
        }
    })
}

/// One number, a class, or each of a range.
fn status(statuses: &RangeInclusive<u16>) -> Vec<Value> {
    let (first, last) = (*statuses.start(), *statuses.end());
    match first % 100 == 0 && last == first + 99 {
        true => vec![Value::Text(format!("{}xx", first / 100))],
        false => statuses.clone().map(|status| Value::Bare(status.to_string())).collect(),
    }
}

/// As short as it can be said.
pub(super) fn time(time: Duration) -> Value {
    Value::Text(match time.subsec_nanos() {
        0 => format!("{}s", time.as_secs()),
        nanos if nanos % 1_000_000 == 0 => format!("{}ms", time.as_millis()),
        _ => format!("{}s", time.as_secs_f64()),
    })
}
