//! A response taken apart into its smallest pieces, each with its place.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::SystemTime,
};

use http::{HeaderMap, header};
use serde_json::Value;

use super::{place::Place, shape};
use crate::{
    html::{self, Token},
    observed::Observed,
};

/// The most pieces of a response; what comes after them is one piece, the body.
const LEAVES_MAX: usize = 100_000;

/// Header fields that say nothing of what the service remembers: those of the connection, of the time, and of what is compared itself.
const IGNORED: [&str; 14] = [
    "age",
    "alt-svc",
    "connection",
    "content-length",
    "date",
    "expires",
    "keep-alive",
    "location",
    "server-timing",
    "set-cookie",
    "trailer",
    "transfer-encoding",
    "via",
    "x-request-id",
];

/// All pieces, in their order.
pub(super) struct Leaves {
    pub(super) all: Vec<(Place, String)>,
    index: HashMap<Place, usize>,
}

impl Leaves {
    pub(super) fn get(&self, place: &Place) -> Option<&str> {
        self.index.get(place).map(|&at| self.all[at].1.as_str())
    }

    /// Of several pieces at one place, such as fields of one name, the texts are one.
    fn push(&mut self, place: Place, text: String) {
        match self.index.get(&place) {
            Some(&at) => {
                self.all[at].1.push('\n');
                self.all[at].1.push_str(&text);
            }
            None => {
                self.index.insert(place.clone(), self.all.len());
                self.all.push((place, text));
            }
        }
    }
}

pub(super) fn of(observed: &Observed) -> Leaves {
    let now = SystemTime::now();
    let plain = |text: &str| shape::plain(text, &observed.identity, now);
    let mut leaves = Leaves { all: Vec::new(), index: HashMap::new() };
    leaves.push(Place::Status, observed.status.as_u16().to_string());
    let hops = observed.redirects.iter().map(|hop| (hop.status, hop.location.as_str()));
    let last = observed.location().map(|location| (observed.status, location));
    for (at, (status, location)) in hops.chain(last).enumerate() {
        let shape = shape::address(&plain(location));
        leaves.push(Place::Redirect(at), format!("{} {shape}", status.as_u16()));
    }
    if let Some(location) = observed.location() {
        leaves.push(Place::Header("location".into()), plain(location));
    }
    push_headers(&observed.headers, &plain, &mut leaves);
    let content_type = observed.content_type().unwrap_or_default();
    let is_text = !observed.is_cut && std::str::from_utf8(&observed.body).is_ok();
    let is_json = content_type == "application/json" || content_type.ends_with("+json");
    match serde_json::from_slice::<Value>(&observed.body) {
        _ if observed.body.is_empty() => {}
        Ok(value) if is_json && is_text => push_json(&mut String::new(), &value, &plain, &mut leaves),
        _ if is_text && content_type.ends_with("html") => push_page(&observed.text(), &plain, &mut leaves),
        _ if is_text => {
            for (at, line) in observed.text().lines().enumerate() {
                leaves.push(Place::Text(format!("line {}", at + 1)), plain(line));
            }
        }
        _ => leaves.push(Place::Body, summary(observed)),
    }
    if leaves.all.len() > LEAVES_MAX {
        leaves.all.truncate(LEAVES_MAX);
        leaves.index.retain(|_, at| *at < LEAVES_MAX);
        leaves.push(Place::Body, summary(observed));
    }
    leaves
}

fn summary(observed: &Observed) -> String {
    if observed.is_cut {
        // Where it was cut is by chance.
        return "a body that was cut".into();
    }
    let mut hasher = DefaultHasher::new();
    observed.body.hash(&mut hasher);
    format!("{} bytes, {:016x}", observed.body.len(), hasher.finish())
}

fn push_headers(headers: &HeaderMap, plain: &impl Fn(&str) -> String, leaves: &mut Leaves) {
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        if *name == header::SET_COOKIE {
            let (pair, rules) = value.split_once(';').unwrap_or((&value, ""));
            let (name, value) = pair.split_once('=').unwrap_or(("", pair));
            // `Expires` is a time; whether there is one is a rule.
            let rule = |rule: &str| match rule.trim().split_once('=') {
                Some((name, _)) if name.eq_ignore_ascii_case("expires") => name.to_owned(),
                _ => rule.trim().to_owned(),
            };
            let rules: Vec<String> = rules.split(';').map(rule).collect();
            leaves.push(Place::Cookie(name.into()), plain(value));
            leaves.push(Place::CookieRules(name.into()), rules.join("; "));
        } else if !IGNORED.contains(&name.as_str()) {
            leaves.push(Place::Header(name.as_str().into()), plain(&value));
        }
    }
}

/// `pointer` is the one of `value`, and is the same again afterwards.
fn push_json(pointer: &mut String, value: &Value, plain: &impl Fn(&str) -> String, leaves: &mut Leaves) {
    let length = pointer.len();
    let mut child = |key: &str, value: &Value| {
        pointer.push('/');
        pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        push_json(pointer, value, plain, leaves);
        pointer.truncate(length);
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| child(key, value))
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(at, item)| child(&at.to_string(), item));
        }
        Value::String(text) => leaves.push(Place::Json(pointer.clone()), format!("{:?}", plain(text))),
        value => leaves.push(Place::Json(pointer.clone()), plain(&value.to_string())),
    }
}

/// An element that is open: what it is called in a path, and how many of each kind it has had so far.
struct Open {
    name: String,
    length: usize,
    children: HashMap<String, usize>,
    texts: usize,
    /// It says a moment (`datetime` of HTML's `time` element) in words for people, which are another each minute.
    is_time: bool,
}

fn push_page(page: &str, plain: &impl Fn(&str) -> String, leaves: &mut Leaves) {
    let mut path = String::new();
    let root = Open { name: String::new(), length: 0, children: HashMap::new(), texts: 0, is_time: false };
    let mut open = vec![root];
    for token in html::tokens(page) {
        let Some(parent) = open.last_mut() else { return };
        match token {
            Token::Text(text) => {
                if text.trim().is_empty() {
                    continue;
                }
                parent.texts += 1;
                let place = match parent.texts {
                    1 => path.clone(),
                    number => format!("{path}/text[{number}]"),
                };
                let text = if parent.is_time { shape::TIME.to_owned() } else { plain(text.trim()) };
                leaves.push(Place::Text(place), text);
            }
            Token::Open(tag) => {
                let number =
                    parent.children.entry(tag.name.clone()).and_modify(|number| *number += 1).or_insert(1);
                let length = path.len();
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(&tag.name);
                if !["html", "head", "body"].contains(&tag.name.as_str()) {
                    path.push_str(&format!("[{number}]"));
                }
                let mut is_time = parent.is_time;
                for (name, value) in &tag.attributes {
                    let text = plain(value);
                    is_time |= tag.name == "time" && name == "datetime" && text == shape::TIME;
                    leaves.push(Place::Attribute(format!("{path}@{name}")), text);
                }
                if tag.is_void() {
                    path.truncate(length);
                } else {
                    let children = HashMap::new();
                    open.push(Open { name: tag.name, length, children, texts: 0, is_time });
                }
            }
            // What is closed and was not opened is passed over; what is not closed ends with what is around it.
            Token::Close(name) => {
                if let Some(at) = open.iter().rposition(|element| element.name == name).filter(|&at| at > 0) {
                    path.truncate(open[at].length);
                    open.truncate(at);
                }
            }
        }
    }
}
