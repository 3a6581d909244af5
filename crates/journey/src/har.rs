//! A journey out of a HAR file, as browsers and Playwright record it. What in a request came from an earlier response becomes a variable;
//! cookies come from the replay itself, and `Authorization` too where the export has taken it out, as browsers' do.

mod names;
mod person;
mod recorder;
mod recording;
mod request;
mod secrets;
mod sockets;
mod sources;
mod tidy;

use std::{collections::BTreeMap, path::Path};

use http::Method;

pub use recorder::{Answer, Exchange, Recorder};

use crate::{
    document,
    har::{
        person::Person,
        recording::{Entry, File, field},
        sources::Sources,
    },
    journey::{Journey, STEPS_MAX, Step},
    problem::{Problem, Problems},
    template::Template,
};

/// The most bytes of a file.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// What is taken of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The host whose requests are the journey; `None` for that of the first page.
    pub host: Option<String>,
    /// Whether images, styles, scripts and fonts are part of the journey.
    pub assets: bool,
    /// Whether it is made to be written down, for people to read and to keep with a service: steps have names, and what is the
    /// browser's own, recorded tokens, and passwords where others will do are left out.
    pub to_keep: bool,
}

/// Reads the recording in the file at `path`.
///
/// # Errors
/// Why there is no journey in it.
pub fn load(path: &Path, options: &Options) -> Result<Journey, Problems> {
    let file = path.display().to_string();
    let bytes = document::bytes(path, FILE_BYTES_MAX).map_err(|message| Problem {
        file: file.clone(),
        place: None,
        message,
    })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    read(&bytes, &file, &name, options)
}

/// Reads a recording. `file` is what it is called in messages, and `name` what the journey is called.
///
/// # Errors
/// Why there is no journey in it.
pub fn read(bytes: &[u8], file: &str, name: &str, options: &Options) -> Result<Journey, Problems> {
    let problem = |place, message| Problems::from(Problem { file: file.to_owned(), place, message });
    // A byte order mark is put before the text by some tools.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let recorded: File = serde_json::from_slice(bytes).map_err(|error| {
        let place = (error.line() > 0).then(|| (error.line(), error.column().max(1)));
        let message = match error.is_eof() {
            true => "the recording ends in the middle: it was cut off when it was saved or copied; export it again".into(),
            false => format!("this is no HAR file: {error}"),
        };
        problem(place, message)
    })?;
    let entries = recorded.log.entries;
    let host = match &options.host {
        Some(host) => host.clone(),
        None => host_of(&entries).ok_or_else(|| {
            problem(None, "no request to a web server is in the recording: record while pages are loaded, and export it again".into())
        })?,
    };
    let woven = sockets::weave(entries, &host);
    let (mut kept, left_out) = choose(woven.entries, &host, options.assets);
    if kept.is_empty() {
        let message = format!("no request to {host} is left of the recording{}", reasons(&left_out));
        return Err(problem(None, message));
    }
    if kept.len() > STEPS_MAX {
        let message = format!(
            "{} requests to {host} are in the recording; a journey has {STEPS_MAX} at most: record a shorter one",
            kept.len()
        );
        return Err(problem(None, message));
    }
    sockets::listen(&mut kept, woven.received);
    let mut notes = Vec::from_iter(noted(&left_out));
    notes.extend(sockets::note(&kept, woven.is_cut));
    Ok(journey(&kept, &host, name, notes, options, Headers::Exported))
}

/// Why requests were left out, and how many for each.
type LeftOut = BTreeMap<&'static str, usize>;

fn reasons(left_out: &LeftOut) -> String {
    let reasons: Vec<String> = left_out.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if reasons.is_empty() { String::new() } else { format!("; left out: {}", reasons.join(", ")) }
}

/// What is to be said of them.
fn noted(left_out: &LeftOut) -> Option<String> {
    (!left_out.is_empty()).then(|| reasons(left_out).trim_start_matches("; ").to_owned())
}

/// The host of the first page, or of the first request of all.
fn host_of(entries: &[Entry]) -> Option<String> {
    let host = |entry: &Entry| Some(split(&entry.request.url)?.0.to_owned());
    let is_page = |entry: &&Entry| {
        // Networks for scripts answer with a page too, where what is asked for is gone.
        !is_asset(entry)
            && (entry.kind.as_deref() == Some("document") || entry.response.content.kind() == "text/html")
    };
    entries.iter().filter(is_page).find_map(host).or_else(|| entries.iter().find_map(host))
}

/// Host, and path with query, of an address of HTTP.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let rest = rest.split('#').next()?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (!host.is_empty()).then_some((host, path))
}

fn choose(entries: Vec<Entry>, host: &str, assets: bool) -> (Vec<Entry>, LeftOut) {
    let (mut kept, mut left_out) = (Vec::new(), LeftOut::new());
    for entry in entries {
        match reason(&entry, host, assets) {
            Some(reason) => *left_out.entry(reason).or_default() += 1,
            None => kept.push(entry),
        }
    }
    (kept, left_out)
}

/// Why a request is no step.
fn reason(entry: &Entry, host: &str, assets: bool) -> Option<&'static str> {
    let request = &entry.request;
    let is_here = split(&request.url).is_some_and(|(its, _)| its.eq_ignore_ascii_case(host));
    let is_preflight =
        request.method == "OPTIONS" && field(&request.headers, "access-control-request-method").is_some();
    let is_socket = request.url.starts_with("ws:") || request.url.starts_with("wss:");
    if entry.talk.is_some() {
        None
    } else if is_socket || entry.response.status == 101 || entry.messages.is_some() {
        Some("WebSockets")
    } else if !is_here {
        Some("to other hosts")
    } else if entry.response.status < 100 || entry.response.status > 599 {
        Some("without a response")
    } else if is_preflight
        || is_of_browser(entry)
        || Method::from_bytes(request.method.as_bytes()).is_err()
        || request.method == "CONNECT"
    {
        Some("of the browser itself")
    } else if entry.response.content.kind() == "text/event-stream" {
        Some("streams of events")
    } else if !assets && is_asset(entry) {
        Some("images, styles, scripts and fonts")
    } else {
        None
    }
}

/// Whether nobody and no page has asked for it: what is fetched in case that somebody will, and what developer tools look for.
fn is_of_browser(entry: &Entry) -> bool {
    let says = |name| field(&entry.request.headers, name).is_some_and(|value| value.contains("prefetch"));
    let path = split(&entry.request.url).map_or("", |(_, path)| path);
    says("sec-purpose") || says("purpose") || path.starts_with("/.well-known/appspecific/")
}

fn is_asset(entry: &Entry) -> bool {
    const KINDS: [&str; 8] =
        ["image", "font", "stylesheet", "script", "media", "manifest", "texttrack", "ping"];
    const ENDS: [&str; 16] = [
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".svg",
        ".webp",
        ".avif",
        ".ico",
        ".css",
        ".js",
        ".mjs",
        ".map",
        ".woff",
        ".woff2",
        ".ttf",
        ".webmanifest",
    ];
    let kind = entry.response.content.kind();
    let path = split(&entry.request.url).map_or("", |(_, path)| path.split('?').next().unwrap_or_default());
    let is_type =
        ["image/", "font/", "video/", "audio/", "text/css"].iter().any(|start| kind.starts_with(start));
    entry.request.method == "GET"
        && (entry.kind.as_deref().is_some_and(|kind| KINDS.contains(&kind))
            || is_type
            || kind.ends_with("javascript")
            || kind == "application/wasm"
            || ENDS.iter().any(|end| path.to_ascii_lowercase().ends_with(end)))
}

/// Which header fields of requests are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Headers {
    /// Those that a browser exports: without `Cookie` and `Authorization`, as a rule.
    Exported,
    /// All that were sent.
    All,
}

fn journey(
    kept: &[Entry],
    host: &str,
    name: &str,
    mut notes: Vec<String>,
    options: &Options,
    headers: Headers,
) -> Journey {
    let person = Person::find(kept);
    notes.extend(person.note());
    let signed_up = person.clone();
    let mut sources = Sources::new(person);
    let mut steps: Vec<Step> = Vec::with_capacity(kept.len());
    for (at, entry) in kept.iter().enumerate() {
        let (mut step, mut captured) = request::step(at + 1, entry, host, &mut sources, &mut notes);
        captured.extend(sockets::take_over(&mut step, entry, &mut sources));
        for (earlier, capture) in captured {
            steps[earlier].captures.push(capture);
        }
        if entry.talk.is_none() {
            expect(&mut step, entry.response.status);
        }
        if entry.response.content.is_cut {
            notes.push(format!(
                "step {}: its response was too long to be kept, or broke off: what it said is not looked for in later requests",
                at + 1
            ));
        }
        steps.push(step);
        sources.add(at, &entry.response);
    }
    if headers == Headers::Exported {
        authorize(kept, &mut steps, &mut notes);
    }
    unknown_cookies(kept, &mut notes);
    let variables = sources.into_variables();
    let mut journey = Journey { name: name.to_owned(), host: Some(host.to_owned()), variables, steps, notes };
    if options.to_keep {
        tidy::tidy(kept, &signed_up, host, &mut journey);
    }
    journey
}

/// The status that was recorded. A page that the browser still had is one that it did not have in the replay.
fn expect(step: &mut Step, status: i32) {
    let status = if status == 304 { 200 } else { u16::try_from(status).unwrap_or(200) };
    step.expect.statuses = vec![status..=status];
}

/// Browsers take `Cookie` and `Authorization` out of what they export. Where a program was given a token then, it is sent again as a
/// bearer token (RFC 6750) with what programs asked for afterwards.
fn authorize(kept: &[Entry], steps: &mut [Step], notes: &mut Vec<String>) {
    const NAMES: [&str; 6] = ["access_token", "accessToken", "id_token", "idToken", "token", "jwt"];
    let says = |name| kept.iter().any(|entry| field(&entry.request.headers, name).is_some());
    if says("authorization") || says("cookie") {
        return;
    }
    let given = kept.iter().enumerate().find_map(|(at, entry)| {
        let body: serde_json::Value = serde_json::from_str(&entry.response.content.text()?).ok()?;
        let (pointer, token) = sources::leaves(&body)
            .into_iter()
            .find(|(pointer, _)| pointer.rsplit('/').next().is_some_and(|name| NAMES.contains(&name)))?;
        (token.len() >= 16).then_some((at, pointer))
    });
    let Some((at, pointer)) = given else { return };
    let is_program = |entry: &Entry| {
        matches!(entry.kind.as_deref(), Some("xhr" | "fetch"))
            || entry.response.content.kind().ends_with("json")
    };
    let later: Vec<usize> = (at + 1..kept.len()).filter(|&later| is_program(&kept[later])).collect();
    if later.is_empty() {
        return;
    }
    const VARIABLE: &str = "bearer";
    let source = crate::capture::Source::Json(pointer);
    steps[at].captures.push(crate::capture::Capture::new(VARIABLE, source));
    for at in later {
        let mut value = Template::literal("Bearer ");
        value.push_variable(VARIABLE);
        steps[at].headers.push((http::header::AUTHORIZATION, value));
    }
    notes.push(format!(
        "the recording has no Authorization; the token of step {} is sent as one from then on",
        at + 1
    ));
}

/// Says which cookies no response has set.
fn unknown_cookies(kept: &[Entry], notes: &mut Vec<String>) {
    let mut set: Vec<String> = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for entry in kept {
        let cookies = field(&entry.request.headers, "cookie").unwrap_or_default();
        let names = cookies.split(';').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.trim());
        for name in names.filter(|name| !set.iter().any(|known| known == name)) {
            if !unknown.iter().any(|known| known == name) {
                unknown.push(name.to_owned());
            }
        }
        let fields =
            entry.response.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("set-cookie"));
        // Firefox puts several into one field, a line each.
        let lines = fields.flat_map(|field| field.value.lines());
        set.extend(lines.filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim().to_owned()));
    }
    if !unknown.is_empty() {
        notes.push(format!(
            "cookies that no recorded response has set are not sent: {}; begin the recording in a private window",
            unknown.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests;
