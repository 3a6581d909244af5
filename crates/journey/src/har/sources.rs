//! What responses have said so far, by which a value in a request is recognised, and the variables that were made of it.

use std::collections::{HashMap, HashSet};

use http::{HeaderName, header};
use serde_json::Value;

use super::{
    person::{self, Person},
    recording::Response,
};
use crate::{
    address,
    capture::{Capture, Source},
    html::{self, Token},
    template::{self, Template},
};

/// The most values of one response that are remembered.
const VALUES_MAX: usize = 5000;

/// The most bytes of a response in whose text is looked for a value, and of how many responses, the last ones.
const TEXT_BYTES_MAX: usize = 1 << 20;
const TEXTS_MAX: usize = 20;

/// Characters before a value in a page by which it is found again, at most.
const CONTEXT_MAX: usize = 40;

/// Header fields whose values are of the connection or of the time, or are otherwise taken care of.
const IGNORED: [&str; 12] = [
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "expires",
    "keep-alive",
    "server",
    "set-cookie",
    "transfer-encoding",
    "vary",
    "location",
];

/// Where a value stood.
struct Found {
    step: usize,
    /// What it was called there.
    key: String,
    source: Source,
    after: Option<String>,
    /// Whether it is an id by where it stood, however short it is.
    is_id: bool,
    /// Whether it is a number of JSON.
    is_number: bool,
}

/// Where a value of a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'t> {
    /// A segment of its path.
    Segment,
    /// A field of a query or form, or of the header.
    Field(&'t str),
    /// A string in JSON.
    Text(&'t str),
    /// A number in JSON.
    Number(&'t str),
}

/// What responses have said so far.
pub(super) struct Sources {
    found: HashMap<String, Vec<Found>>,
    texts: Vec<(usize, String)>,
    /// The variable made of what stood at a place of a step.
    made: HashMap<(usize, String), String>,
    taken: HashSet<String>,
    person: Person,
}

impl Sources {
    pub(super) fn new(person: Person) -> Self {
        let mut taken: HashSet<String> =
            [template::IDENTITY, template::ORIGIN, "bearer"].map(String::from).into();
        let mut person = person;
        for (name, _) in &mut person.names {
            *name = template::unused(name, &taken);
            taken.insert(name.clone());
        }
        Self { found: HashMap::new(), texts: Vec::new(), made: HashMap::new(), taken, person }
    }

    /// The variables that are known from the beginning.
    pub(super) fn into_variables(self) -> Vec<(String, Template)> {
        self.person.names.into_iter().map(|(name, value)| (name, person::with_identity(&value))).collect()
    }

    /// Remembers what the response to step `step`, from 0, has said.
    pub(super) fn add(&mut self, step: usize, response: &Response) {
        let mut values = Vec::new();
        for field in &response.headers {
            let name = field.name.to_ascii_lowercase();
            if name == "set-cookie" {
                // Firefox puts several into one field, a line each.
                for (name, value) in
                    field.value.lines().filter_map(|line| line.split(';').next()?.split_once('='))
                {
                    values.push(place(value.trim(), name.trim(), Source::Cookie(name.trim().into())));
                }
            } else if name == "location" {
                location(&field.value, &mut values);
            } else if let (false, Ok(header)) =
                (IGNORED.contains(&&*name), HeaderName::from_bytes(name.as_bytes()))
            {
                values.push(place(&field.value, &name, Source::Header(header)));
            }
        }
        if let Some(text) = response.content.text().filter(|text| text.len() <= TEXT_BYTES_MAX) {
            match serde_json::from_str::<Value>(&text) {
                Ok(json) => values.extend(leaves(&json).into_iter().map(|(pointer, value)| {
                    let key = pointer.rsplit('/').next().unwrap_or_default().to_owned();
                    let is_number = json.pointer(&pointer).is_some_and(Value::is_number);
                    let (value, found) = place(&value, &key, Source::Json(pointer));
                    (value, Found { is_number, ..found })
                })),
                Err(_) => {
                    page(&text, &mut values);
                    self.texts.push((step, text));
                    if self.texts.len() > TEXTS_MAX {
                        self.texts.remove(0);
                    }
                }
            }
        }
        values.truncate(VALUES_MAX);
        for (value, mut found) in values {
            found.step = step;
            self.found.entry(value).or_default().push(found);
        }
    }

    /// The variable that `value` is, at `target` of a request; with it, if it is new, where it is to be captured: the step, from 0.
    pub(super) fn variable(
        &mut self,
        value: &str,
        target: Target<'_>,
    ) -> Option<(String, Option<(usize, Capture)>)> {
        if let Some((name, _)) = self.person.names.iter().find(|(_, recorded)| recorded == value) {
            return Some((name.clone(), None));
        }
        if ["true", "false", "null", "none"].contains(&value) {
            return None;
        }
        let key = match target {
            Target::Segment => "",
            Target::Field(key) | Target::Text(key) | Target::Number(key) => key,
        };
        let chosen = self.found.get(value).and_then(|all| {
            let fits = |found: &&Found| is_telling(value, found, target);
            // What is called the same, then what was said last.
            all.iter().filter(fits).max_by_key(|found| (is_alike(&found.key, key), found.step))
        });
        let (step, source, after, key) = match chosen {
            Some(found) => (found.step, found.source.clone(), found.after.clone(), found.key.clone()),
            None if matches!(target, Target::Number(_)) => return None,
            None if is_random(value) || (target == Target::Segment && has_digit(value)) => {
                let (step, context) = self.context(value, target)?;
                let key = if key.is_empty() { "value" } else { key };
                (step, Source::Body, Some(context), key.to_owned())
            }
            None => return None,
        };
        let mut capture = Capture { after, fallback: Some(value.into()), ..Capture::new("", source) };
        let place = (step, format!("{}{:?}", capture.place(), capture.after));
        if let Some(name) = self.made.get(&place) {
            return Some((name.clone(), None));
        }
        let name = template::unused(&name(&key), &self.taken);
        self.taken.insert(name.clone());
        self.made.insert(place, name.clone());
        capture.variable.clone_from(&name);
        Some((name, Some((step, capture))))
    }

    /// The text before the value in the last page that has it, if that leads to it; a segment of a path is one there too.
    fn context(&self, value: &str, target: Target<'_>) -> Option<(usize, String)> {
        let slash = if target == Target::Segment { "/" } else { "" };
        let wanted = format!("{slash}{value}");
        self.texts.iter().rev().find_map(|(step, text)| {
            let at = text.find(&wanted)? + slash.len();
            let line = text[..at].rsplit('\n').next().unwrap_or_default();
            let from = line.char_indices().rev().take(CONTEXT_MAX).last().map_or(0, |(at, _)| at);
            let context = &line[from..];
            let capture = Capture { after: Some(context.to_owned()), ..Capture::new("", Source::Body) };
            let found = capture.take(&http::HeaderMap::new(), text.as_bytes(), &crate::jar::Jar::default());
            (!context.trim().is_empty() && found == Some(value.into())).then(|| (*step, context.to_owned()))
        })
    }
}

fn place(value: &str, key: &str, source: Source) -> (String, Found) {
    (
        value.to_owned(),
        Found { step: 0, key: key.to_owned(), source, after: None, is_id: is_id_key(key), is_number: false },
    )
}

/// Segments that may be ids, by what stands before them, and such values of the query.
fn location(location: &str, values: &mut Vec<(String, Found)>) {
    let path = super::split(location).map_or(location, |(_, path)| path);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let segments: Vec<&str> = path.split('/').collect();
    let mut push = |value: &str, key: &str, after: String| {
        let source = Source::Header(header::LOCATION);
        let found =
            Found { step: 0, key: key.to_owned(), source, after: Some(after), is_id: true, is_number: false };
        values.push((address::decode(value), found));
    };
    for pair in segments.windows(2).filter(|pair| !pair[0].is_empty() && is_drawn(pair[1])) {
        push(pair[1], pair[0].trim_end_matches('s'), format!("{}/", pair[0]));
    }
    for (name, value) in
        query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(_, value)| is_drawn(value))
    {
        push(value, name, format!("{name}="));
    }
}

/// The fields of its forms that already have a value, and what its `<meta>`s say.
fn page(text: &str, values: &mut Vec<(String, Found)>) {
    for token in html::tokens(text) {
        let Token::Open(tag) = token else { continue };
        let value = match tag.name.as_str() {
            "input" | "button" => tag.get("value"),
            "meta" => tag.get("content"),
            _ => None,
        };
        if let (Some(name), Some(value)) = (tag.get("name"), value) {
            values.push(place(value, name, Source::Input(name.into())));
        }
    }
}

/// The strings and numbers of JSON, each with its pointer (RFC 6901).
pub(super) fn leaves(value: &Value) -> Vec<(String, String)> {
    let mut leaves = Vec::new();
    let mut open = vec![(String::new(), value)];
    while let Some((pointer, value)) = open.pop() {
        if leaves.len() == VALUES_MAX {
            break;
        }
        let child = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        match value {
            Value::Object(fields) => open.extend(fields.iter().rev().map(|(key, value)| (child(key), value))),
            Value::Array(items) => {
                open.extend(items.iter().enumerate().rev().map(|(at, item)| (child(&at.to_string()), item)));
            }
            Value::String(_) | Value::Number(_) => leaves.push((pointer, template::text(value))),
            Value::Null | Value::Bool(_) => {}
        }
    }
    leaves
}

/// Whether that the same value is there and here can be no chance.
fn is_telling(value: &str, found: &Found, target: Target<'_>) -> bool {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let is_long = value.chars().count() >= if is_number { 5 } else { 4 };
    let is_alike = match target {
        Target::Segment => found.is_id,
        Target::Field(key) | Target::Text(key) | Target::Number(key) => {
            is_alike(&found.key, key) && (is_id_key(key) || matches!(found.source, Source::Input(_)))
        }
    };
    // In JSON, a variable has the type of what it was taken from.
    let is_of_type = match target {
        Target::Number(_) => found.is_number,
        Target::Text(_) => !found.is_number,
        Target::Segment | Target::Field(_) => true,
    };
    !value.is_empty() && is_of_type && (is_long || is_alike)
}

/// Whether two names say the same, as `csrf-token` and `csrfToken`, or `id` and `order_id`.
fn is_alike(one: &str, other: &str) -> bool {
    let plain = |name: &str| {
        name.bytes()
            .filter(u8::is_ascii_alphanumeric)
            .map(|byte| byte.to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    let (one, other) = (plain(one), plain(other));
    !one.is_empty() && !other.is_empty() && (one.ends_with(&other) || other.ends_with(&one))
}

fn is_id_key(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    ["id", "uuid", "guid", "key", "slug", "token", "number", "no"].iter().any(|word| {
        lower == *word || lower.ends_with(&format!("_{word}")) || lower.ends_with(&format!("-{word}"))
    }) || key.ends_with("Id")
        || key.ends_with("ID")
}

fn has_digit(value: &str) -> bool {
    value.bytes().any(|byte| byte.is_ascii_digit())
}

/// Whether a part of an address is an id rather than a word.
fn is_drawn(value: &str) -> bool {
    has_digit(value) || value.len() >= 16
}

/// Whether nobody would type it: long, with digits.
pub(super) fn is_random(value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let is_token = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+=/".contains(&byte));
    is_token && ((value.len() >= 8 && digits >= 2) || (value.len() >= 16 && digits >= 1))
}

/// A name for a variable out of that of a field.
pub(super) fn name(key: &str) -> String {
    let name: String =
        key.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).take(40).collect();
    let is_index = name.bytes().all(|byte| byte.is_ascii_digit());
    if is_index { format!("value{name}") } else { name }
}
