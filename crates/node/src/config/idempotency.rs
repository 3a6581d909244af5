//! `idempotency` of a route: which requests are done once, however often they are sent.

use std::{collections::BTreeSet, time::Duration};

use lethe_gateway::config::{
    Route,
    once::{By, Once},
};
use lethe_http::idempotency::KEPT;
use lethe_state::idempotency::{ANSWER_BYTES_MAX, SCOPE_BYTES_MAX};
use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};

use super::{
    problem::{Report, nearest},
    table::{Table, Text, Value, bad_value, wrong_type},
};

/// What it may say.
pub(super) const KEYS: [&str; 6] = ["required", "methods", "by", "kept", "body-max", "answer-max"];

const EXPECTED: &str =
    "`\"required\"`, `\"optional\"`, or a table such as `{ required = true, by = \"cookie:sid\" }`";
const METHODS_EXPECTED: &str = "a list such as `[\"POST\", \"PATCH\"]`";
const BY_EXPECTED: &str =
    "`\"session\"`, a cookie such as `\"cookie:sid\"`, or a header such as `\"header:x-api-key\"`";
const BY_COOKIE: &str = "cookie:";
const BY_HEADER: &str = "header:";

/// Methods that may do something twice, and those that are done once unless it is said.
const METHODS: [&str; 4] = ["POST", "PATCH", "PUT", "DELETE"];
const METHODS_USUAL: [&str; 2] = ["POST", "PATCH"];

/// Shortest time that an answer is kept; the longest is a day, as that of all durations of the file.
const KEPT_MIN: Duration = Duration::from_secs(1);
const KEPT_MAX: Duration = KEPT;
/// Largest body of a request, in bytes, and what it may be unless it is said.
const BODY_BYTES_MAX: usize = 16 << 20;
const BODY_BYTES_USUAL: usize = 1 << 20;
/// What tells the scopes of routes apart, in bytes of a hash.
const SCOPE_HASH_BYTES: usize = 8;

/// Reads it from the table of a route, which is read but for this.
pub(super) fn read(table: &Table<'_, '_>, route: &Route, report: &mut Report<'_>) -> Option<Once> {
    const KEY: &str = "idempotency";
    let value = table.value(KEY)?;
    let usual = Once {
        methods: METHODS_USUAL.map(str::to_owned).into(),
        required: false,
        kept: KEPT_MAX,
        body_bytes_max: BODY_BYTES_USUAL,
        answer_bytes_max: ANSWER_BYTES_MAX,
        scope: scope(route),
        by: By::default(),
    };
    match value.get_ref() {
        DeValue::Table(entries) => Some(read_table(table, (KEY, value, entries), usual, report)),
        DeValue::String(text) if text == "required" => Some(Once { required: true, ..usual }),
        DeValue::String(text) if text == "optional" => Some(usual),
        DeValue::String(text) => {
            let why = format!("is not known: write {}", EXPECTED.replace('`', ""));
            bad_value(KEY, &Text { text, span: value.span() }, &why, report);
            None
        }
        _ => {
            table.wrong_type(KEY, EXPECTED, value, report);
            None
        }
    }
}

fn read_table(
    outer: &Table<'_, '_>,
    (key, value, entries): (&str, &Value<'_>, &DeTable<'_>),
    usual: Once,
    report: &mut Report<'_>,
) -> Once {
    let table = outer.inner(key, value, entries, &KEYS, report);
    let size = |key, max: usize, report: &mut Report<'_>| {
        table.size(key, 1..=max as u64, report).and_then(|bytes| usize::try_from(bytes).ok())
    };
    let body_bytes_max = size("body-max", BODY_BYTES_MAX, report);
    let answer_bytes_max = size("answer-max", ANSWER_BYTES_MAX, report);
    Once {
        methods: methods(&table, report).unwrap_or(usual.methods),
        required: table.boolean("required", report).unwrap_or(usual.required),
        kept: table.duration("kept", KEPT_MIN..=KEPT_MAX, report).unwrap_or(usual.kept),
        body_bytes_max: body_bytes_max.unwrap_or(usual.body_bytes_max),
        answer_bytes_max: answer_bytes_max.unwrap_or(usual.answer_bytes_max),
        by: table.parsed("by", BY_EXPECTED, report, parse_by).unwrap_or(usual.by),
        scope: usual.scope,
    }
}

fn methods(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    const KEY: &str = "methods";
    let value = table.value(KEY)?;
    let DeValue::Array(items) = value.get_ref() else {
        table.wrong_type(KEY, METHODS_EXPECTED, value, report);
        return None;
    };
    let mut methods = BTreeSet::new();
    for item in items {
        match item.get_ref() {
            DeValue::String(text) if METHODS.contains(&&**text) => {
                methods.insert(text.to_string());
            }
            DeValue::String(text) => {
                let why = match METHODS.iter().find(|method| method.eq_ignore_ascii_case(text)) {
                    Some(method) => format!("is written \"{method}\""),
                    None => {
                        format!("does nothing that could be done twice: there are {}", METHODS.join(", "))
                    }
                };
                bad_value(KEY, &Text { text, span: item.span() }, &why, report);
            }
            _ => wrong_type(&format!("each of `{KEY}`"), "a method such as `\"POST\"`", item, report),
        }
    }
    if items.is_empty() {
        report
            .at(value.span(), "`methods`: nothing would be done once: name one, or leave `idempotency` out");
    }
    Some(
        METHODS
            .iter()
            .filter(|method| methods.contains(**method))
            .map(|method| (*method).to_owned())
            .collect(),
    )
}

fn parse_by(text: &str) -> Result<By, String> {
    let header = |name: &str| http::HeaderName::from_bytes(name.trim().as_bytes()).ok();
    if let Some(name) = text.strip_prefix(BY_HEADER) {
        let name = header(name).ok_or("names no header: write it as in \"header:x-api-key\"")?;
        return Ok(By::Header(name.as_str().to_owned()));
    }
    if let Some(name) = text.strip_prefix(BY_COOKIE) {
        // Both are tokens (RFC 6265, section 4.1.1), but names of cookies have upper and lower case.
        header(name).ok_or("names no cookie: write it as in \"cookie:sid\"")?;
        return Ok(By::Cookie(name.trim().to_owned()));
    }
    match text {
        "session" => Ok(By::Session),
        _ => Err(match nearest(text, ["session"]) {
            Some(near) => format!("tells nobody apart; did you mean \"{near}\"?"),
            None => format!("tells nobody apart: write {}", BY_EXPECTED.replace('`', "")),
        }),
    }
}

/// What keys of a route are unique in: the route, whatever service it leads to, since that may change between a request and
/// its repetition. The words are for people; the digits tell it from every other route.
fn scope(route: &Route) -> String {
    let parts = ["route", route.host.as_deref().unwrap_or_default(), &route.path];
    let words = parts.iter().flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect();
    let name = words.join("-");
    let mut hash = Sha256::new();
    // No host has a slash in it, and every path begins with one.
    hash.update(parts[1]);
    hash.update(parts[2]);
    let hash: [u8; 32] = hash.finalize().into();
    let digits: String = hash[..SCOPE_HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    // It is ASCII. A long one is cut in front, where it says least.
    let room = SCOPE_BYTES_MAX - digits.len() - 1;
    format!("{}-{digits}", &name[name.len().saturating_sub(room)..])
}

#[cfg(test)]
mod tests {
    use lethe_model::service::ServiceName;

    use super::*;

    #[test]
    fn callers() {
        assert_eq!(parse_by("session"), Ok(By::Session));
        assert_eq!(parse_by("cookie:SessionId"), Ok(By::Cookie("SessionId".into())));
        assert_eq!(parse_by("header:X-Api-Key"), Ok(By::Header("x-api-key".into())));
        for (text, why) in [
            ("sesion", "did you mean \"session\"?"),
            ("cookie:", "names no cookie"),
            ("cookie:a=b", "names no cookie"),
            ("header:a b", "names no header"),
            ("address", "cookie:sid"),
        ] {
            let error = parse_by(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn scopes_are_of_routes() {
        let scope = |host: Option<&str>, path: &str| {
            let service = ServiceName::new("shop").unwrap();
            let path = path.to_owned();
            scope(&Route { host: host.map(Into::into), path, ..Route::everything_to(service) })
        };
        // The digits are those of `printf / | sha256sum`.
        assert_eq!(scope(None, "/"), "route-8a5edab282632443");
        let long = |first: char| format!("/{first}{}", "x".repeat(100));
        let mut scopes = BTreeSet::new();
        for (host, path) in [
            (None, "/"),
            (None, "/a-b"),
            (None, "/a/b"),
            (None, "/A-B"),
            (None, "/a/b/"),
            (None, "/a%2Fb"),
            (None, "/é"),
            (None, "/ü"),
            (Some("a"), "/b"),
            (Some("a.b"), "/"),
            (Some("a-b"), "/"),
            (None, &long('a')),
            (None, &long('b')),
        ] {
            let scope = scope(host, path);
            assert!(scope.len() <= SCOPE_BYTES_MAX, "{scope}");
            let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            assert!(scope.bytes().all(is_allowed), "{scope}");
            assert!(scopes.insert(scope), "{host:?} {path} shares its keys with another route");
        }
        assert!(scope(Some("shop.example"), "/a%20B/c").starts_with("route-shop-example-a-20b-c-"));
    }
}
