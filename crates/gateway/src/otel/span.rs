//! How a request looks as spans: OTLP's JSON encoding (opentelemetry-proto, "JSON Protobuf Encoding": ids in
//! hexadecimal, 64-bit integers as strings, enums as numbers), with the attributes of OpenTelemetry's semantic
//! conventions for HTTP. Each span is followed by a comma.

use std::time::{Duration, Instant};

use lethe_model::roster::Address;

use crate::{
    json::{Array, Object, digits},
    record::{Attempt, AttemptResult, Detail, Outcome, Record},
    stats::Protocol,
    trace::{Context, hex},
};

/// `SpanKind` of OTLP.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// `StatusCode` of OTLP.
const ERROR: u64 = 2;

/// Methods that attributes may name; any other is `_OTHER`, so that clients cannot make up values (RFC 9110, section 9,
/// and RFC 5789).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The request, as the client saw it.
pub(crate) fn server(
    text: &mut Vec<u8>,
    record: &Record,
    detail: &Detail,
    trace: &Context,
    started: Duration,
    now: Instant,
) {
    let method = method(detail);
    let mut span = Object::begin(text);
    ids(&mut span, trace.trace, trace.span, trace.parent);
    span.plain("name", |text| {
        text.extend_from_slice(if method == "_OTHER" { b"HTTP" } else { method.as_bytes() });
        if let Some(target) = record.target() {
            text.push(b' ');
            text.extend(
                target.route.path.bytes().filter(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(byte)),
            );
        }
    });
    span.number("kind", SERVER);
    times(&mut span, started, started + now.saturating_duration_since(record.started));
    let (outcome, reason) = record.outcome().words();
    let status = record.status();
    let mut attributes = span.array("attributes");
    string(&mut attributes, "http.request.method", method);
    if method == "_OTHER" {
        string(&mut attributes, "http.request.method_original", &detail.method);
    }
    string(&mut attributes, "url.scheme", if detail.is_tls { "https" } else { "http" });
    string(&mut attributes, "url.path", &detail.path);
    let (host, port) = split(&detail.host);
    string(&mut attributes, "server.address", host);
    if let Some(port) = port {
        number(&mut attributes, "server.port", port);
    }
    string(&mut attributes, "client.address", &detail.client);
    string(&mut attributes, "network.protocol.version", version(record.protocol));
    if !detail.agent.is_empty() {
        string(&mut attributes, "user_agent.original", &detail.agent);
    }
    if let Some(target) = record.target() {
        string(&mut attributes, "http.route", &target.route.path);
        string(&mut attributes, "lethe.service", target.service.name.as_str());
    }
    if let Some(status) = status {
        number(&mut attributes, "http.response.status_code", status.into());
    }
    string(&mut attributes, "lethe.outcome", outcome);
    string(&mut attributes, "lethe.request_id", &detail.id);
    let is_failure = status.is_none_or(|status| status >= 500) || record.outcome() == Outcome::Cut;
    if is_failure {
        error(&mut attributes, reason.unwrap_or(outcome), status.filter(|_| outcome == "answered"));
    }
    drop(attributes);
    if is_failure {
        span.object("status").number("code", ERROR);
    }
    drop(span);
    text.push(b',');
}

/// One attempt, as the gateway saw the worker. One that still goes on ends at `end`.
pub(crate) fn client(
    text: &mut Vec<u8>,
    detail: &Detail,
    trace: &Context,
    (index, attempt): (usize, &Attempt),
    started: Duration,
    end: Duration,
) {
    let mut span = Object::begin(text);
    ids(&mut span, trace.trace, attempt_id(trace.span, index), Some(trace.span));
    let method = method(detail);
    span.text("name", if method == "_OTHER" { "HTTP" } else { method });
    span.number("kind", CLIENT);
    times(&mut span, started + attempt.begun, attempt.ended.map_or(end, |ended| started + ended));
    let address = &attempt.upstream.address;
    let status = attempt.status;
    let mut attributes = span.array("attributes");
    string(&mut attributes, "http.request.method", method);
    match address {
        Address::Tcp(address) => {
            string(&mut attributes, "server.address", address.ip().to_string());
            number(&mut attributes, "server.port", address.port().into());
        }
        Address::Unix(path) => {
            string(&mut attributes, "network.transport", "unix");
            string(&mut attributes, "server.address", path.as_os_str().as_encoded_bytes());
        }
    }
    let url = [format!("http://{}", address.authority()).as_bytes(), &detail.path].concat();
    string(&mut attributes, "url.full", url);
    if let Some(status) = status {
        number(&mut attributes, "http.response.status_code", status.into());
    }
    if index > 0 {
        number(&mut attributes, "http.request.resend_count", index as u64);
    }
    string(&mut attributes, "lethe.worker", attempt.upstream.instance.as_str());
    string(&mut attributes, "lethe.result", attempt.result.as_str());
    flag(&mut attributes, "lethe.connection_reused", attempt.reused);
    let is_failure = attempt.result != AttemptResult::Answered || status.is_some_and(|status| status >= 400);
    if is_failure {
        let status = status.filter(|_| attempt.result == AttemptResult::Answered);
        error(&mut attributes, attempt.result.as_str(), status);
    }
    drop(attributes);
    if is_failure {
        span.object("status").number("code", ERROR);
    }
    drop(span);
    text.push(b',');
}

fn ids(span: &mut Object<'_>, trace: u128, id: u64, parent: Option<u64>) {
    span.text("traceId", hex::<32>(trace));
    span.text("spanId", hex::<16>(id.into()));
    if let Some(parent) = parent {
        span.text("parentSpanId", hex::<16>(parent.into()));
    }
}

/// The id of an attempt's span follows from the request's (the finaliser of SplitMix64, a bijection).
fn attempt_id(span: u64, index: usize) -> u64 {
    let mut id = span.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    id = (id ^ id >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    id = (id ^ id >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (id ^ id >> 31).max(1)
}

fn times(span: &mut Object<'_>, begun: Duration, ended: Duration) {
    for (key, unix) in [("startTimeUnixNano", begun), ("endTimeUnixNano", ended)] {
        span.plain(key, |text| digits(text, u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX), 1));
    }
}

fn string(attributes: &mut Array<'_>, key: &'static str, value: impl AsRef<[u8]>) {
    let mut attribute = attributes.object();
    attribute.text("key", key);
    attribute.object("value").text("stringValue", value);
}

fn number(attributes: &mut Array<'_>, key: &'static str, value: u64) {
    let mut attribute = attributes.object();
    attribute.text("key", key);
    attribute.object("value").plain("intValue", |text| digits(text, value, 1));
}

fn flag(attributes: &mut Array<'_>, key: &'static str, value: bool) {
    let mut attribute = attributes.object();
    attribute.text("key", key);
    attribute.object("value").flag("boolValue", value);
}

/// `error.type`: the status if it is one that was received, else a word.
fn error(attributes: &mut Array<'_>, word: &str, status: Option<u16>) {
    match status {
        Some(status) => string(attributes, "error.type", status.to_string()),
        None => string(attributes, "error.type", word),
    }
}

fn method(detail: &Detail) -> &'static str {
    METHODS.into_iter().find(|method| method.as_bytes() == detail.method).unwrap_or("_OTHER")
}

/// As `network.protocol.version` has it.
fn version(protocol: Protocol) -> &'static str {
    protocol.as_str().trim_start_matches("HTTP/")
}

/// Host and port of `host:port`, minding the colons of `[::1]:80`.
fn split(host: &[u8]) -> (&[u8], Option<u64>) {
    let colon = host.iter().rposition(|&byte| byte == b':').filter(|&colon| !host[colon..].contains(&b']'));
    let port = colon.and_then(|colon| std::str::from_utf8(&host[colon + 1..]).ok()?.parse::<u16>().ok());
    match (colon, port) {
        (Some(colon), Some(port)) => (&host[..colon], Some(port.into())),
        _ => (host, None),
    }
}
