//! What was said over WebSockets, as Chromium's developer tools export it (`_webSocketMessages`). A recording has each connection as one
//! entry; here it becomes as many as there are steps: one that opens it, with what is said at once, and one for each thing that is said later, in the
//! order of time among all others. What came over it is looked through for what must arrive.

use serde::Deserialize;
use serde_json::Value;

use super::{
    is_asset, person,
    recording::{Entry, Request, Response},
    sources::{self, Sources, Target},
    split,
};
use crate::{
    capture::Capture,
    channel::{Act, Arrival, Opening, Protocol, Saying, WITHIN_DEFAULT},
    journey::Step,
    template::Template,
};

/// What is said so soon after a connection was opened, in seconds, is said each time that one is opened.
const AT_ONCE: f64 = 1.0;

/// Most messages of a recording that are said.
const SAID_MAX: usize = 100;

/// Most messages of a recording that are looked through for what must arrive; each is compared with the steps before it.
const RECEIVED_MAX: usize = 2000;

/// Shortest text by which a message is recognised, in bytes; shorter ones are in others by chance.
const WORD_BYTES_MIN: usize = 4;

/// Longest message that is waited for as a whole, in bytes.
const WHOLE_BYTES_MAX: usize = 200;

/// A message that is text (RFC 6455, section 5.6).
const TEXT: i64 = 1;

/// What a step does over a connection.
#[derive(Debug)]
pub(super) struct Talk {
    channel: String,
    opens: bool,
    says: Vec<String>,
}

/// A message that came.
pub(super) struct Received {
    channel: String,
    time: f64,
    text: String,
}

/// What is to arrive because of a step: at which channel, and what is in it.
#[derive(Debug)]
pub(super) struct Heard {
    channel: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "type")]
    direction: String,
    time: f64,
    opcode: i64,
    data: String,
}

/// A recording with what was said over its WebSockets.
pub(super) struct Woven {
    pub(super) entries: Vec<Entry>,
    /// What came, in the order of time, [`RECEIVED_MAX`] at most.
    pub(super) received: Vec<Received>,
    /// Whether there was more than [`SAID_MAX`] to say, or more came than is looked through.
    pub(super) is_cut: bool,
}

/// Puts what was said at `host` among the requests, and gives what came.
pub(super) fn weave(entries: Vec<Entry>, host: &str) -> Woven {
    let (mut woven, mut received) = (Vec::new(), Vec::new());
    if !entries.iter().any(|entry| is_told(entry, host)) {
        return Woven { entries, received, is_cut: false };
    }
    let mut requests: Vec<f64> = entries
        .iter()
        .filter(|entry| is_at(&entry.request.url, host) && !is_asset(entry))
        .filter_map(began)
        .collect();
    requests.sort_by(f64::total_cmp);
    let (mut sockets, mut left, mut last, mut is_cut) = (0, SAID_MAX, f64::MIN, false);
    for mut entry in entries {
        let own = began(&entry);
        let Some(opened) = own.filter(|_| is_told(&entry, host)) else {
            // Requests stay in the order in which they are written.
            last = own.map_or(last, |own| own.max(last));
            entry.at = last;
            woven.push(entry);
            continue;
        };
        sockets += 1;
        let channel = if sockets == 1 { "websocket".to_owned() } else { format!("websocket-{sockets}") };
        let next = requests.get(requests.partition_point(|at| *at <= opened));
        let until = next.copied().unwrap_or(f64::MAX).min(opened + AT_ONCE);
        let Sorted { says, later, came, is_cut: is_more } = sort(&entry, until, &mut left);
        is_cut |= is_more;
        received.extend(came.into_iter().map(|message| Received {
            channel: channel.clone(),
            time: message.time,
            text: message.data,
        }));
        let url = entry.request.url.clone();
        entry.at = opened;
        woven.push(opening(entry, Talk { channel: channel.clone(), opens: true, says }));
        woven.extend(later.into_iter().map(|message| saying(&url, &channel, message)));
    }
    woven.sort_by(|a, b| a.at.total_cmp(&b.at));
    // Of all connections those that came first, and not all of the first connection.
    received.sort_by(|a, b| a.time.total_cmp(&b.time));
    is_cut |= received.len() > RECEIVED_MAX;
    received.truncate(RECEIVED_MAX);
    Woven { entries: woven, received, is_cut }
}

/// The messages of a connection.
#[derive(Default)]
struct Sorted {
    /// What was said at once.
    says: Vec<String>,
    later: Vec<Message>,
    came: Vec<Message>,
    /// Whether there was more to say.
    is_cut: bool,
}

/// Sorts what was said until then from what was said later, and from what came. No more is said than is `left`.
fn sort(entry: &Entry, until: f64, left: &mut usize) -> Sorted {
    let is_engine = entry.request.url.contains("EIO=");
    let mut sorted = Sorted::default();
    for message in messages(entry).into_iter().filter(|message| !is_beat(message, is_engine)) {
        match message.direction.as_str() {
            "receive" => sorted.came.push(message),
            "send" if *left == 0 => sorted.is_cut = true,
            "send" => {
                *left -= 1;
                match message.time < until && sorted.later.is_empty() {
                    true => sorted.says.push(message.data),
                    false => sorted.later.push(message),
                }
            }
            _ => {}
        }
    }
    sorted
}

/// Finds the step that each message is the work of: the last one before it that has said something which is in it.
pub(super) fn listen(kept: &mut [Entry], received: Vec<Received>) {
    for Received { channel, time, text } in received {
        let opened = kept
            .iter()
            .position(|entry| entry.talk.as_ref().is_some_and(|talk| talk.opens && talk.channel == channel));
        let Some(opened) = opened else { continue };
        let within = |entry: &Entry| entry.at <= time && time - entry.at <= WITHIN_DEFAULT.as_secs_f64();
        let Some(last) = kept.iter().rposition(|entry| entry.at <= time) else { continue };
        let mut steps = (opened..=last).rev().filter(|at| within(&kept[*at]));
        let found = steps.find_map(|at| Some((at, shared(&kept[at], &channel, &text, at == last)?)));
        if let Some((at, word)) = found
            && kept[at].heard.is_none()
        {
            kept[at].heard = Some(Heard { channel, text: word });
        }
    }
}

/// Makes the step what the entry is, with captures for steps, from 0, that it needs.
pub(super) fn take_over(step: &mut Step, entry: &Entry, sources: &mut Sources) -> Vec<(usize, Capture)> {
    let mut captured = Vec::new();
    if let Some(Talk { channel, opens, says }) = &entry.talk {
        let says = says.iter().map(|text| filled(text, sources, &mut captured)).collect();
        if *opens {
            let (protocol, name) = (Protocol::WebSocket, channel.clone());
            step.act = Act::Open(Opening { protocol, name, says });
        } else {
            *step = Step::new(step.number, step.method.clone(), Template::literal("/"));
            step.act = Act::Say(Saying { on: channel.clone(), texts: says });
        }
    }
    if let Some(Heard { channel, text }) = &entry.heard {
        let text = value(text, "", sources, &mut captured).unwrap_or_else(|| Template::literal(text));
        step.arrives = Some(Arrival { on: channel.clone(), text, within: WITHIN_DEFAULT });
    }
    captured
}

/// What is to be said of it, where `is_cut` tells whether some of it is not in the journey.
pub(super) fn note(kept: &[Entry], is_cut: bool) -> Option<String> {
    let silent = kept.iter().zip(1..).filter(|(entry, _)| {
        entry.talk.as_ref().is_some_and(|talk| !talk.says.is_empty()) && entry.heard.is_none()
    });
    let silent: Vec<String> = silent.map(|(_, number)| number.to_string()).collect();
    let of_many = match is_cut {
        true => format!(" (the first {SAID_MAX} messages that were sent, and {RECEIVED_MAX} that came)"),
        false => String::new(),
    };
    let has_any = kept.iter().any(|entry| entry.talk.is_some());
    let of_silent = match silent.is_empty() {
        true => String::new(),
        false => format!("; of what step {} says nothing is known that must arrive", silent.join(", ")),
    };
    has_any.then(|| {
        format!("what was said over WebSockets is in the journey as it was recorded{of_many}; {{{{identity}}}} in it tells runs apart{of_silent}")
    })
}

/// Whether it is a connection to `host` of which the recording has what was said.
fn is_told(entry: &Entry, host: &str) -> bool {
    let is_open = entry.response.status == 101 && began(entry).is_some();
    is_open && is_at(&entry.request.url, host) && !messages(entry).is_empty()
}

fn is_at(url: &str, host: &str) -> bool {
    split(&of_http(url)).is_some_and(|(its, _)| its.eq_ignore_ascii_case(host))
}

/// The address at which a WebSocket is asked for (RFC 6455, section 3).
fn of_http(url: &str) -> String {
    url.strip_prefix("ws").map_or_else(|| url.to_owned(), |rest| format!("http{rest}"))
}

/// Those that are text; what cannot be read is left out.
fn messages(entry: &Entry) -> Vec<Message> {
    let all = entry.messages.as_ref().and_then(Value::as_array).into_iter().flatten();
    let read = all.filter_map(|message| Message::deserialize(message).ok());
    read.filter(|message| message.opcode == TEXT).collect()
}

/// The signs of life of Engine.IO (socket.io's transport), which are asked for and answered by the clock.
fn is_beat(message: &Message, is_engine: bool) -> bool {
    is_engine && ["2", "3"].contains(&message.data.as_str())
}

fn opening(mut entry: Entry, talk: Talk) -> Entry {
    entry.request.url = of_http(&entry.request.url);
    // Of the connection, and made anew for each; what protocol is spoken is the program's.
    entry.request.headers.retain(|field| {
        let name = field.name.to_ascii_lowercase();
        !name.starts_with("sec-websocket-") || name == "sec-websocket-protocol"
    });
    entry.talk = Some(talk);
    entry
}

fn saying(url: &str, channel: &str, message: Message) -> Entry {
    let (url, says) = (of_http(url), vec![message.data]);
    Entry {
        request: Request { method: "GET".into(), url, headers: Vec::new(), body: None },
        response: Response {
            status: 101,
            headers: Vec::new(),
            content: super::recording::Content::default(),
        },
        kind: None,
        messages: None,
        started: None,
        at: message.time,
        talk: Some(Talk { channel: channel.to_owned(), opens: false, says }),
        heard: None,
    }
}

/// What of a step's own is in a message of a channel; where it `is_next` to it, the message may be it as a whole.
fn shared(entry: &Entry, channel: &str, message: &str, is_next: bool) -> Option<String> {
    let is_elsewhere = entry.talk.as_ref().is_some_and(|talk| talk.channel != channel);
    if is_elsewhere && entry.talk.as_ref().is_some_and(|talk| talk.opens) {
        return None;
    }
    let words = match &entry.talk {
        Some(talk) => talk.says.iter().flat_map(|text| words(text)).collect(),
        None => person::fields(entry).into_iter().map(|(_, value)| value).collect::<Vec<_>>(),
    };
    let is_in = |word: &String| word.len() >= WORD_BYTES_MIN && message.contains(word.as_str());
    if let Some(word) = words.into_iter().filter(is_in).max_by_key(String::len) {
        return Some(word);
    }
    let talk = entry.talk.as_ref().filter(|_| is_next && !is_elsewhere)?;
    // Who has connected to socket.io is told a number of its own.
    if entry.request.url.contains("EIO=") && message.starts_with("40{") {
        return talk.says.iter().any(|text| text == "40").then(|| "40{".to_owned());
    }
    // What has numbers in it is another one the next time.
    let is_steady = (WORD_BYTES_MIN..=WHOLE_BYTES_MAX).contains(&message.len())
        && !message.contains(|c: char| c.is_ascii_digit())
        && !sources::is_random(message);
    is_steady.then(|| message.to_owned())
}

/// The texts in a message, and it as a whole.
fn words(text: &str) -> Vec<String> {
    leaves(text).into_iter().map(|(_, value)| value).chain([text.to_owned()]).collect()
}

/// What was said in an entry, as the fields of a form.
pub(super) fn said(entry: &Entry) -> Vec<(String, String)> {
    let says = entry.talk.iter().flat_map(|talk| &talk.says);
    says.flat_map(|text| leaves(text)).collect()
}

/// What has a name in a message, if it is JSON.
pub(super) fn leaves(text: &str) -> Vec<(String, String)> {
    json(text).map(|value| sources::leaves(&value)).unwrap_or_default()
}

/// The JSON in a message; socket.io puts numbers before it.
fn json(text: &str) -> Option<Value> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    serde_json::from_str(&text[at..]).ok().filter(|value: &Value| value.is_object() || value.is_array())
}

/// The text with variables for what was said before by the service, or is of the person.
fn filled(text: &str, sources: &mut Sources, captured: &mut Vec<(usize, Capture)>) -> Template {
    let Some(json) = json(text) else {
        return value(text, "", sources, captured).unwrap_or_else(|| Template::literal(text));
    };
    let mut found: Vec<(usize, usize, Template)> = Vec::new();
    for (pointer, leaf) in sources::leaves(&json) {
        let key = pointer.rsplit('/').next().unwrap_or_default();
        let is_text = json.pointer(&pointer).is_some_and(Value::is_string);
        let quoted = Value::String(leaf.clone()).to_string();
        let Some(at) = text.find(&quoted).filter(|_| is_text && !leaf.is_empty()) else { continue };
        let (from, to) = (at + 1, at + quoted.len() - 1);
        if found.iter().all(|(its, _, _)| *its != from)
            && let Some(value) = value(&leaf, key, sources, captured)
        {
            found.push((from, to, value));
        }
    }
    found.sort_by_key(|(from, _, _)| *from);
    let (mut template, mut done) = (Template::default(), 0);
    for (from, to, value) in found {
        template.push_text(&text[done..from]);
        template.push(&value);
        done = to;
    }
    template.push_text(&text[done..]);
    template
}

fn value(
    text: &str,
    key: &str,
    sources: &mut Sources,
    captured: &mut Vec<(usize, Capture)>,
) -> Option<Template> {
    let (name, capture) = sources.variable(text, Target::Text(key))?;
    captured.extend(capture);
    Some(Template::variable(name))
}

/// When it was asked for, in seconds since 1970.
fn began(entry: &Entry) -> Option<f64> {
    seconds(entry.started.as_ref()?.as_str()?)
}

/// A moment as RFC 3339 writes it.
fn seconds(text: &str) -> Option<f64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let mut time = time.splitn(3, ':');
    let (hours, minutes) = (time.next()?.parse::<f64>().ok()?, time.next()?.parse::<f64>().ok()?);
    let seconds = time.next()?.parse::<f64>().ok()?;
    let ahead = match zone.split_at(1) {
        ("Z" | "z", "") => 0.0,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let offset = hours.parse::<f64>().ok()? * 3600.0 + minutes.parse::<f64>().ok()? * 60.0;
            if sign == "-" { -offset } else { offset }
        }
    };
    #[allow(clippy::cast_precision_loss, reason = "there are fewer days than that")]
    let days = days(year, month, day)? as f64;
    Some(days * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds - ahead)
}

/// Days since 1970 in the Gregorian calendar, in which a year is counted from March on.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(1970..10_000).contains(&year) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(365 * year + year / 4 - year / 100 + year / 400 + of_year - 719_468)
}

#[cfg(test)]
mod tests;
