//! One recorded request as a step, with variables for what earlier responses had said.

use http::{HeaderName, Method};
use serde_json::Value;

use super::{
    recording::{Entry, PostData},
    sources::{Sources, Target},
    split,
};
use crate::{
    address,
    body::{Body, Content, Json, Part},
    capture::Capture,
    journey::Step,
    template::{self, Template},
};

/// Header fields that are the browser's or the connection's, or come from the replay itself.
const LEFT_OUT: [&str; 22] = [
    "accept-encoding",
    "cache-control",
    "connection",
    "content-length",
    "cookie",
    "dnt",
    "expect",
    "host",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "pragma",
    "priority",
    "purpose",
    "range",
    "te",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "x-forwarded-for",
    "x-forwarded-proto",
];

/// The longest body that is text in a journey which people are to read, in bytes.
const READ_BYTES_MAX: usize = 128 << 10;

/// Captures for steps, from 0, that a later step needs.
type Captured = Vec<(usize, Capture)>;

/// Puts variables into what is sent.
struct Replacing<'s> {
    sources: &'s mut Sources,
    captured: Captured,
}

pub(super) fn step(
    number: usize,
    entry: &Entry,
    host: &str,
    sources: &mut Sources,
    notes: &mut Vec<String>,
) -> (Step, Captured) {
    let mut replacing = Replacing { sources, captured: Vec::new() };
    let request = &entry.request;
    let method = Method::from_bytes(request.method.as_bytes()).unwrap_or_default();
    let target = split(&request.url).map_or("/", |(_, path)| path);
    let mut step = Step::new(number, method, replacing.path(target));
    for field in &request.headers {
        let name = field.name.to_ascii_lowercase();
        let is_left_out =
            LEFT_OUT.contains(&&*name) || name.starts_with([':']) || name.starts_with("sec-ch-");
        if is_left_out || (name == "content-type" && request.body.is_some()) {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            let value = replacing.header(&name, &field.value, host);
            step.headers.push((name, value));
        }
    }
    if let Some(body) = &request.body {
        step.body = replacing.body(number, body, notes);
    }
    (step, replacing.captured)
}

impl Replacing<'_> {
    /// A variable, or the text as it is.
    fn value(&mut self, value: &str, target: Target<'_>) -> Template {
        match self.variable(value, target) {
            Some(name) => Template::variable(name),
            None => Template::literal(value),
        }
    }

    fn variable(&mut self, value: &str, target: Target<'_>) -> Option<String> {
        let (name, captured) = self.sources.variable(value, target)?;
        self.captured.extend(captured);
        Some(name)
    }

    fn path(&mut self, target: &str) -> Template {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut template = Template::literal("/");
        for (at, segment) in path.strip_prefix('/').unwrap_or(path).split('/').enumerate() {
            if at > 0 {
                template.push_text("/");
            }
            self.push(&mut template, segment, &address::decode(segment), Target::Segment);
        }
        for (at, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
            template.push_text(if at == 0 { "?" } else { "&" });
            match pair.split_once('=') {
                Some((name, value)) => {
                    template.push_text(&format!("{name}="));
                    let plain = address::decode(&value.replace('+', " "));
                    self.push(&mut template, value, &plain, Target::Field(&address::decode(name)));
                }
                None => template.push_text(pair),
            }
        }
        template
    }

    fn push(&mut self, template: &mut Template, written: &str, plain: &str, target: Target<'_>) {
        match self.variable(plain, target) {
            Some(name) => template.push_variable(name),
            None => template.push_text(written),
        }
    }

    fn header(&mut self, name: &HeaderName, value: &str, host: &str) -> Template {
        // What says where it comes from says where it comes from in the replay.
        if let Some((_, path)) = split(value).filter(|(its, _)| its.eq_ignore_ascii_case(host)) {
            let mut template = Template::variable(template::ORIGIN);
            if name == http::header::REFERER {
                template.push_text(path.split('?').next().unwrap_or_default());
            }
            return template;
        }
        let (scheme, token) = match value.split_once(' ') {
            Some((scheme, token)) if name == http::header::AUTHORIZATION => (format!("{scheme} "), token),
            _ => (String::new(), value),
        };
        let mut template = Template::literal(scheme);
        self.push(&mut template, token, token, Target::Field(name.as_str()));
        template
    }

    fn body(&mut self, number: usize, body: &PostData, notes: &mut Vec<String>) -> Body {
        let text = body.text();
        let kind = body.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match (kind.as_str(), text) {
            ("application/x-www-form-urlencoded", Some(text)) => self.form(address::decode_form(&text)),
            ("multipart/form-data", _) if body.text.is_some() || !body.params.is_empty() => {
                self.multipart(number, body, notes)
            }
            (_, None) if !body.params.is_empty() => {
                let params = body.params.iter();
                self.form(
                    params
                        .map(|param| (param.name.clone(), param.value.clone().unwrap_or_default()))
                        .collect(),
                )
            }
            (_, None) if body.text.is_some() => as_it_is(body),
            // Nobody reads so much in a journey's file.
            (_, Some(text)) if body.has_files && text.len() > READ_BYTES_MAX => as_it_is(body),
            (_, None) => {
                notes.push(format!("step {number}: the recording does not have what was sent; nothing is"));
                Body::None
            }
            (_, Some(text)) => match serde_json::from_str::<Value>(&text) {
                Ok(json) if kind == "application/json" => Body::Json(self.json("", json)),
                // Another type of JSON stands as it is, with its type.
                _ => Body::Raw {
                    content_type: Some(body.content_type.clone()).filter(|kind| !kind.is_empty()),
                    content: Content::Text(Template::literal(text)),
                },
            },
        }
    }

    fn form(&mut self, fields: Vec<(String, String)>) -> Body {
        let field = |(name, value): (String, String)| {
            let value = self.value(&value, Target::Field(&name));
            (name, value)
        };
        Body::Form(fields.into_iter().map(field).collect())
    }

    fn json(&mut self, key: &str, value: Value) -> Json {
        match value {
            Value::Array(items) => Json::Array(items.into_iter().map(|item| self.json(key, item)).collect()),
            Value::Object(fields) => Json::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| {
                        let json = self.json(&key, value);
                        (key, json)
                    })
                    .collect(),
            ),
            Value::String(text) => Json::Text(self.value(&text, Target::Text(key))),
            Value::Number(number) => match self.variable(&number.to_string(), Target::Number(key)) {
                Some(name) => Json::Text(Template::variable(name)),
                None => Json::Plain(Value::Number(number)),
            },
            value => Json::Plain(value),
        }
    }

    fn multipart(&mut self, number: usize, body: &PostData, notes: &mut Vec<String>) -> Body {
        let parts = parts(body).into_iter().map(|part| {
            let content = match part.file_name.as_deref() {
                // No file was chosen.
                Some("") if part.content.is_empty() => Content::Text(Template::default()),
                // Browsers leave the content of files out of what they export.
                Some(file) if part.content.is_empty() && !body.has_files => {
                    notes.push(format!("step {number}: the recording does not have the content of {file}; some text is sent for it"));
                    let mut content = Template::literal("sent by lethe, ");
                    content.push_variable(template::IDENTITY);
                    Content::Text(content)
                }
                Some(_) => Content::Bytes(part.content.into()),
                None => {
                    let text = String::from_utf8_lossy(&part.content);
                    Content::Text(self.value(&text, Target::Field(&part.name)))
                }
            };
            let file_name = part.file_name.map(Template::literal);
            Part { name: part.name, file_name, content_type: part.content_type, content }
        });
        Body::Multipart(parts.collect())
    }
}

/// A body of bytes, in which nothing is looked for.
fn as_it_is(body: &PostData) -> Body {
    let content_type = Some(body.content_type.clone()).filter(|kind| !kind.is_empty());
    let content = |bytes: Vec<u8>| Body::Raw { content_type, content: Content::Bytes(bytes.into()) };
    body.bytes().map_or(Body::None, content)
}

/// A part as it was recorded.
#[derive(Debug, PartialEq, Eq)]
struct Raw {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
    content: Vec<u8>,
}

impl From<&super::recording::Param> for Raw {
    fn from(param: &super::recording::Param) -> Self {
        Self {
            name: param.name.clone(),
            file_name: param.file_name.clone(),
            content_type: param.content_type.clone(),
            content: param.value.clone().unwrap_or_default().into(),
        }
    }
}

/// Names and values of a form's parts that are no files.
pub(super) fn typed_parts(body: &PostData) -> impl Iterator<Item = (String, String)> {
    let typed = parts(body).into_iter().filter(|part| part.file_name.is_none());
    typed.map(|part| (part.name, String::from_utf8_lossy(&part.content).into_owned()))
}

/// The parts of `multipart/form-data` (RFC 7578); what has no name is left out.
fn parts(body: &PostData) -> Vec<Raw> {
    let boundary = body.content_type.split_once("boundary=").map(|(_, boundary)| boundary.trim_matches('"'));
    let found: Vec<Raw> = match (body.bytes(), boundary) {
        (Some(bytes), Some(boundary)) => {
            let delimiter = format!("--{boundary}");
            pieces(&bytes, delimiter.as_bytes()).into_iter().skip(1).filter_map(part).collect()
        }
        _ => Vec::new(),
    };
    if found.is_empty() { body.params.iter().map(Raw::from).collect() } else { found }
}

/// What stands before, between and after the places where `delimiter` is.
fn pieces<'b>(bytes: &'b [u8], delimiter: &[u8]) -> Vec<&'b [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while let Some(at) = find(rest, delimiter) {
        pieces.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    pieces.push(rest);
    pieces
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn part(bytes: &[u8]) -> Option<Raw> {
    const END: &[u8] = b"\r\n\r\n";
    let at = find(bytes, END)?;
    let (head, content) = (String::from_utf8_lossy(&bytes[..at]), &bytes[at + END.len()..]);
    let field = |name: &str| {
        head.split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let (_, disposition) = field("content-disposition")?;
    let parameter = |name: &str| {
        let at = disposition.find(&format!("; {name}=\""))? + name.len() + 4;
        // As browsers write it (HTML Standard, section 4.10.21.8).
        let value = disposition[at..].split('"').next()?;
        Some(value.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"))
    };
    Some(Raw {
        name: parameter("name")?,
        file_name: parameter("filename"),
        content_type: field("content-type").map(|(_, value)| value.trim().to_owned()),
        content: content.strip_suffix(b"\r\n").unwrap_or(content).to_owned(),
    })
}
