//! A recording that is being made: requests with their responses as a proxy sees them, which become a journey as those of a HAR file do.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, header};

use super::{
    LeftOut, Options,
    recording::{Content, Entry, Field, PostData, Request, Response},
};
use crate::{
    journey::{Journey, STEPS_MAX},
    problem::{Problem, Problems},
};

/// The most bytes of bodies that are remembered. Of what comes later, the heads alone are.
const BODIES_BYTES_MAX: usize = 256 << 20;

/// A request, and what came of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Its place among all, by when the request came.
    pub number: u64,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Its header fields, as the service got them.
    pub headers: HeaderMap,
    /// What was sent; `None` if it was too long to be kept.
    pub body: Option<Bytes>,
    /// What came; `None` if there was no response.
    pub answer: Option<Answer>,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header fields, as the service sent them.
    pub headers: HeaderMap,
    /// Its body; `None` if it was too long to be kept.
    pub body: Option<Bytes>,
}

/// What has been recorded so far.
#[derive(Debug)]
pub struct Recorder {
    host: String,
    options: Options,
    kept: Vec<(u64, Entry)>,
    left_out: LeftOut,
    bodies_bytes: usize,
    /// Whether a body was left out since there were too many bytes.
    is_full: bool,
}

impl Recorder {
    /// A recording of the service that is known as `host`, as in `Host`. Of the options, the host does not count.
    pub fn new(host: impl Into<String>, options: Options) -> Self {
        Self {
            host: host.into(),
            options,
            kept: Vec::new(),
            left_out: LeftOut::new(),
            bodies_bytes: 0,
            is_full: false,
        }
    }

    /// Takes an exchange, as a step.
    ///
    /// # Errors
    /// Why it is none, as in `3 images, styles, scripts and fonts`.
    pub fn add(&mut self, mut exchange: Exchange) -> Result<(), &'static str> {
        let number = exchange.number;
        let mut is_full = self.is_full;
        let mut room = BODIES_BYTES_MAX.saturating_sub(self.bodies_bytes);
        let mut has_room = |body: &Bytes| {
            let left = room.checked_sub(body.len());
            room = left.unwrap_or(room);
            is_full |= left.is_none();
            left.is_some()
        };
        exchange.body = exchange.body.filter(&mut has_room);
        let answered = exchange.answer.as_ref().and_then(|answer| answer.body.as_ref());
        let is_body = answered.is_some_and(has_room);
        self.is_full = is_full;
        let entry = entry(exchange, &self.host, is_body);
        let reason = super::reason(&entry, &self.host, self.options.assets);
        let reason =
            reason.or_else(|| self.is_repetition(&entry).then_some("asked again with the same answer"));
        let reason = reason.or_else(|| (self.kept.len() == STEPS_MAX).then_some("beyond the most steps"));
        match reason {
            Some(reason) => {
                *self.left_out.entry(reason).or_default() += 1;
                Err(reason)
            }
            None => {
                let sent =
                    entry.request.body.as_ref().and_then(|body| body.text.as_ref()).map_or(0, String::len);
                let came = entry.response.content.text.as_ref().map_or(0, String::len);
                self.bodies_bytes += sent + came;
                self.kept.push((number, entry));
                Ok(())
            }
        }
    }

    /// The journey. Called `name`.
    ///
    /// # Errors
    /// There is no step.
    pub fn journey(mut self, name: &str) -> Result<Journey, Problems> {
        if self.kept.is_empty() {
            let message = format!("no step was recorded{}", super::reasons(&self.left_out));
            return Err(Problem { file: name.to_owned(), place: None, message }.into());
        }
        self.kept.sort_by_key(|(number, _)| *number);
        let kept: Vec<Entry> = self.kept.into_iter().map(|(_, entry)| entry).collect();
        let notes = Vec::from_iter(super::noted(&self.left_out));
        let mut journey = super::journey(&kept, &self.host, name, notes, &self.options, super::Headers::All);
        if self.is_full {
            let note = format!(
                "more than {} MiB were sent or came: what was beyond is not here, nor looked for in requests",
                BODIES_BYTES_MAX >> 20
            );
            journey.notes.push(note);
        }
        Ok(journey)
    }

    /// Whether a program asks again and again, and nothing has changed.
    fn is_repetition(&self, entry: &Entry) -> bool {
        let Some((_, last)) = self.kept.last() else { return false };
        let (new, old) = (&entry.response, &last.response);
        entry.request.method == "GET"
            && last.request.method == "GET"
            && entry.kind.as_deref() == Some("fetch")
            && entry.request.url == last.request.url
            && (new.status, &new.content.text) == (old.status, &old.content.text)
            && new.content.text.is_some()
    }
}

fn entry(exchange: Exchange, host: &str, is_body: bool) -> Entry {
    let kind = exchange.headers.get("sec-fetch-dest").and_then(|value| value.to_str().ok()).map(kind);
    let body = match exchange.body {
        Some(body) if body.is_empty() => None,
        body => Some(posted(&exchange.headers, body)),
    };
    let request = Request {
        method: exchange.method.to_string(),
        url: format!("http://{host}{}", exchange.target),
        headers: fields(&exchange.headers),
        body,
    };
    let response = match exchange.answer {
        Some(answer) => {
            let content_type = text_of(&answer.headers, &header::CONTENT_TYPE);
            // What is compressed although nobody asked for that is not read.
            let is_plain = !answer.headers.contains_key(header::CONTENT_ENCODING);
            let is_cut = answer.body.is_none();
            let body = answer.body.filter(|_| is_body && is_plain);
            let text = body.and_then(|body| String::from_utf8(body.into()).ok());
            Response {
                status: answer.status.into(),
                headers: fields(&answer.headers),
                content: Content { content_type, text, encoding: None, is_cut },
            }
        }
        None => Response { status: 0, headers: Vec::new(), content: Content::default() },
    };
    Entry { request, response, kind, messages: None, started: None, at: 0.0, talk: None, heard: None }
}

/// What it was for, as Chromium calls it in its exports, from what browsers say (Fetch Metadata Request Headers, section 2.1).
fn kind(destination: &str) -> String {
    match destination {
        "empty" => "fetch",
        "document" | "iframe" | "frame" | "object" | "embed" => "document",
        "style" => "stylesheet",
        "audio" | "video" => "media",
        "track" => "texttrack",
        "serviceworker" | "sharedworker" | "worker" | "audioworklet" | "paintworklet" => "script",
        other => other,
    }
    .to_owned()
}

fn posted(headers: &HeaderMap, body: Option<Bytes>) -> PostData {
    let content_type = text_of(headers, &header::CONTENT_TYPE);
    let (text, encoding) = match body.map(|body| String::from_utf8(body.into())) {
        Some(Ok(text)) => (Some(text), None),
        Some(Err(error)) => (Some(STANDARD.encode(error.as_bytes())), Some("base64".to_owned())),
        None => (None, None),
    };
    PostData { content_type, text, params: Vec::new(), encoding, has_files: true }
}

fn fields(headers: &HeaderMap) -> Vec<Field> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| Field {
        name: name.to_string(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    headers.iter().map(field).collect()
}

fn text_of(headers: &HeaderMap, name: &http::HeaderName) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
