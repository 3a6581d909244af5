//! What a worker has changed beside it, read off the wire: what was asked of a service beside, and what that answered.
//!
//! Only what comes to more when it is done twice is an effect. To write the same value again, to look whether there is work, to take a
//! lock and to say that one is alive are none: each worker may do so. What is not understood is none either.

use std::collections::BTreeMap;

use crate::relay::Exchange;

/// Most characters of an effect's name.
const NAME_CHARS_MAX: usize = 80;

/// Most words of one command that are read.
const WORDS_MAX: usize = 1024;

/// Commands of Redis that come to more each time. Scripts and messages are left out: most of them are locks, and signs of life.
const OF_REDIS: [&str; 12] = [
    "APPEND",
    "DECR",
    "DECRBY",
    "HINCRBY",
    "HINCRBYFLOAT",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LPUSH",
    "RPUSH",
    "XADD",
    "ZINCRBY",
];

/// Where services tell of themselves, each for itself (OpenTelemetry, Zipkin, Jaeger, InfluxDB, Prometheus, Loki, Consul).
const OF_TELEMETRY: [&str; 10] = [
    "/v1/traces",
    "/v1/metrics",
    "/v1/logs",
    "/api/v2/spans",
    "/api/traces",
    "/write",
    "/api/v2/write",
    "/api/v1/write",
    "/loki/",
    "/v1/agent/",
];

/// How often each effect was seen. A number in its name stands for any.
pub(super) type Effects = BTreeMap<String, usize>;

/// The effects of what was exchanged.
pub(super) fn effects<'e>(exchanges: impl IntoIterator<Item = &'e Exchange>) -> Effects {
    let mut effects = Effects::new();
    for exchange in exchanges {
        for name in of(exchange) {
            *effects.entry(shape(&name)).or_default() += 1;
        }
    }
    effects
}

fn of(exchange: &Exchange) -> Vec<String> {
    let (asked, answered) = (exchange.asked.as_slice(), exchange.answered.as_slice());
    match asked {
        [b'*', ..] => of_redis(asked),
        // A kind, and a length that is never so large that it fills its first byte: no word of another protocol begins so.
        [b'Q' | b'P' | b'B', 0, ..] => of_postgres(asked, answered),
        _ => of_http(asked, answered).or_else(|| of_smtp(asked)).into_iter().collect(),
    }
}

/// Commands in RESP: `*2\r\n$4\r\nINCR\r\n$5\r\nbills\r\n`, any number of them.
fn of_redis(mut asked: &[u8]) -> Vec<String> {
    let mut effects = Vec::new();
    while let Some(words) = command(&mut asked) {
        let name = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        if OF_REDIS.contains(&name.as_str()) {
            effects.push(format!("{name} {}", words.get(1).map_or("", String::as_str)));
        }
    }
    effects
}

/// Takes one command off the beginning; `None` where there is none, or not all of it.
fn command(bytes: &mut &[u8]) -> Option<Vec<String>> {
    let count = number(bytes, b'*')?;
    let mut words = Vec::new();
    for _ in 0..count.min(WORDS_MAX) {
        let length = number(bytes, b'$')?;
        words.push(String::from_utf8_lossy(bytes.get(..length)?).into_owned());
        *bytes = bytes.get(length..)?.strip_prefix(b"\r\n")?;
    }
    Some(words)
}

/// Takes a line with a number after `mark` off the beginning.
fn number(bytes: &mut &[u8], mark: u8) -> Option<usize> {
    let rest = bytes.strip_prefix(&[mark])?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    *bytes = &rest[end + 2..];
    Some(number)
}

/// Rows that were inserted, as the server says (PostgreSQL's protocol, `CommandComplete`). Who takes a lock by inserting says what is to be
/// done about rows that are there, and is left out.
fn of_postgres(asked: &[u8], answered: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(asked).to_ascii_uppercase();
    if text.contains("ON CONFLICT") {
        return Vec::new();
    }
    let table = text
        .split("INSERT INTO ")
        .nth(1)
        .and_then(|rest| rest.split(|char: char| !(char.is_alphanumeric() || "_.\"".contains(char))).next());
    let table = table.unwrap_or("a table").to_lowercase();
    let mut effects = Vec::new();
    let mut left = answered;
    while let Some((&kind, rest)) = left.split_first() {
        let Some(length) = rest.get(..4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else { break };
        let Some(length) = usize::try_from(u32::from_be_bytes(length)).ok().filter(|length| *length >= 4)
        else {
            break;
        };
        let Some(body) = rest.get(4..length) else { break };
        let tag = String::from_utf8_lossy(body);
        let rows = tag.trim_end_matches('\0').strip_prefix("INSERT 0 ").filter(|_| kind == b'C');
        if rows.is_some_and(|rows| rows != "0") {
            effects.push(format!("INSERT INTO {table}"));
        }
        left = &rest[length..];
    }
    effects
}

/// A POST or PATCH that was done: what is refused, as a lock that another worker has, changes nothing (RFC 9110).
fn of_http(asked: &[u8], answered: &[u8]) -> Option<String> {
    let line = asked.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let status = answered.strip_prefix(b"HTTP/1.1 ").or_else(|| answered.strip_prefix(b"HTTP/1.0 "))?;
    let is_done = status.first() == Some(&b'2');
    let path = target.split('?').next()?;
    let is_telemetry = OF_TELEMETRY.iter().any(|known| path.starts_with(known));
    let changes = matches!(method, "POST" | "PATCH") && version.starts_with("HTTP/1.");
    (changes && is_done && !is_telemetry).then(|| format!("{method} {path}"))
}

/// A mail (RFC 5321, section 3.3).
fn of_smtp(asked: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(asked.split(|byte| *byte == b'\r').next()?).ok()?;
    let is_mail = line.get(..10).is_some_and(|begin| begin.eq_ignore_ascii_case("MAIL FROM:"));
    is_mail.then(|| line.to_owned())
}

/// A name without its numbers: what is done at each time is the same each time.
fn shape(name: &str) -> String {
    let mut shape = String::new();
    for char in name.chars().take(NAME_CHARS_MAX) {
        match char.is_ascii_digit() {
            true if shape.ends_with('#') => {}
            true => shape.push('#'),
            false => shape.push(char),
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: &[u8], answered: &[u8], expected: &[&str]) {
        let exchange = Exchange::new(asked, answered);
        assert_eq!(of(&exchange), expected, "{}", String::from_utf8_lossy(asked));
    }

    #[test]
    fn commands_of_redis() {
        let incr = b"*2\r\n$4\r\nincr\r\n$10\r\nbills sent\r\n";
        check(incr, b":1\r\n", &["INCR bills sent"]);
        check(&incr.repeat(2), b":1\r\n:2\r\n", &["INCR bills sent", "INCR bills sent"]);
        check(b"*5\r\n$3\r\nSET\r\n$4\r\nlock\r\n$1\r\nx\r\n$2\r\nNX\r\n$2\r\nPX\r\n", b"+OK\r\n", &[]);
        check(b"*2\r\n$3\r\nGET\r\n$5\r\nprice\r\n", b"$-1\r\n", &[]);
        // What is cut says nothing.
        check(b"*2\r\n$4\r\nINCR\r\n$99\r\nbil", b"", &[]);
        check(b"*9999999999999999999999\r\n", b"", &[]);
    }

    #[test]
    fn rows_of_postgres() {
        let done = |tag: &str| {
            let mut bytes = vec![b'C'];
            bytes.extend(u32::try_from(tag.len() + 5).unwrap().to_be_bytes());
            bytes.extend(tag.as_bytes());
            bytes.push(0);
            bytes
        };
        let insert = b"Q\0\0\0\x20insert into bills values (1)\0";
        check(insert, &done("INSERT 0 1"), &["INSERT INTO bills"]);
        check(insert, &done("INSERT 0 0"), &[]);
        check(b"Q\0\0\0\x20update bills set sent = true\0", &done("UPDATE 3"), &[]);
        check(
            b"B\0\0\0\x04",
            &[done("INSERT 0 2"), done("INSERT 0 1")].concat(),
            &["INSERT INTO a table"; 2],
        );
        check(b"Q\0\0\0\x04insert into l values (1) on conflict do nothing\0", &done("INSERT 0 1"), &[]);
        check(insert, b"C\0\0\0\x01", &[]);
    }

    #[test]
    fn requests_and_mails() {
        let post = b"POST /bills?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        check(post, b"HTTP/1.1 200 OK\r\n\r\n", &["POST /bills"]);
        check(post, b"HTTP/1.1 409 Conflict\r\n\r\n", &[]);
        check(post, b"", &[]);
        check(b"PUT /bills HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", &[]);
        check(b"POST /v1/traces HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", &[]);
        check(b"MAIL FROM:<a@b>\r\n", b"250 OK\r\n", &["MAIL FROM:<a@b>"]);
        check(b"\x16\x03\x01", b"", &[]);
    }

    #[test]
    fn what_is_done_at_each_time_has_one_name() {
        let [first, second] = ["POST /ticks/1700000001", "POST /ticks/1700000022"].map(shape);
        assert_eq!((first.as_str(), &first), ("POST /ticks/#", &second));
    }
}
