//! Makes the very error of an answer that the engine on the other side has met (RFC 9457).

use std::sync::{Mutex, PoisonError};

use http::StatusCode;

use crate::{error::Error, wire};

/// Most different names that [`name`] learns.
const NAMES_MAX: usize = 64;
/// Longest such name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The error that an answer with this status and body tells of.
pub(super) fn error(status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice(body) {
        Ok(problem) => typed(status, problem),
        Err(_) => untyped(status, &String::from_utf8_lossy(&body[..body.len().min(200)])),
    }
}

/// The error for an answer that is not one of the state API.
pub(super) fn misunderstood(text: String) -> Error {
    Error::Engine(format!("the state API gave {text}").into())
}

/// The code of the problem that an answer is.
pub(super) fn code(body: &[u8]) -> Option<String> {
    serde_json::from_slice(body).ok().map(|problem: wire::Problem| problem.code.into_owned())
}

/// The error that a problem tells of; the status counts where its code is not known.
pub(super) fn typed(status: StatusCode, problem: wire::Problem) -> Error {
    let wire::Problem { code, detail, index, key, found, token, newest, what, size, max, engine, .. } =
        problem;
    let key = key.unwrap_or_default();
    match &*code {
        "conflict" => Error::Conflict { index: index.unwrap_or(0), key, found: found.flatten() },
        "fenced" => Error::Fenced {
            index: index.unwrap_or(0),
            key,
            token: token.unwrap_or(0),
            newest: newest.unwrap_or(0),
        },
        "not-found" => Error::NotFound,
        "gone" => Error::Gone,
        "invalid" => Error::Invalid(detail),
        "denied" => Error::Denied(detail),
        "too-large" => {
            let what = what.map_or("the request", |what| name(&what));
            Error::TooLarge { what, size: size.unwrap_or(0), max: max.unwrap_or(0) }
        }
        "not-an-integer" => Error::NotAnInteger { key },
        "unsupported" => Error::Unsupported {
            engine: engine.map_or("remote", |engine| name(&engine)),
            what: what.map_or("this", |what| name(&what)),
        },
        "unavailable" => Error::Unavailable(detail),
        "engine" => Error::Engine(detail.into()),
        _ => untyped(status, &detail),
    }
}

/// What can be said of an answer by its status alone.
fn untyped(status: StatusCode, text: &str) -> Error {
    let text = format!("the state API answered {status}: {text}");
    match status {
        StatusCode::GONE => Error::Gone,
        StatusCode::SERVICE_UNAVAILABLE => Error::Unavailable(text),
        status if status.is_client_error() => Error::Invalid(text),
        _ => Error::Engine(text.into()),
    }
}

/// A name as the typed errors hold it. Names are few and fixed in the code of the other side; each is remembered for
/// good, and past the bounds all are alike.
fn name(text: &str) -> &'static str {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.iter().find(|known| **known == text) {
        return known;
    }
    if names.len() >= NAMES_MAX || text.len() > NAME_BYTES_MAX {
        return "part of the request";
    }
    let known: &'static str = Box::leak(text.to_owned().into_boxed_str());
    names.push(known);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: &str) {
        let error = error(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(format!("{error:?}"), expected, "{body}");
    }

    #[test]
    fn problems_become_the_errors_they_were() {
        check(
            412,
            r#"{"code":"conflict","index":2,"key":"k","found":7}"#,
            r#"Conflict { index: 2, key: "k", found: Some(7) }"#,
        );
        check(
            409,
            r#"{"code":"conflict","index":0,"key":"k","found":null}"#,
            r#"Conflict { index: 0, key: "k", found: None }"#,
        );
        check(
            409,
            r#"{"code":"fenced","index":2,"key":"k","token":3,"newest":4}"#,
            r#"Fenced { index: 2, key: "k", token: 3, newest: 4 }"#,
        );
        check(404, r#"{"code":"not-found"}"#, "NotFound");
        check(410, r#"{"code":"gone"}"#, "Gone");
        check(400, r#"{"code":"invalid","detail":"why"}"#, r#"Invalid("why")"#);
        check(403, r#"{"code":"denied","detail":"why"}"#, r#"Denied("why")"#);
        check(
            413,
            r#"{"code":"too-large","what":"value","size":9,"max":8}"#,
            r#"TooLarge { what: "value", size: 9, max: 8 }"#,
        );
        check(409, r#"{"code":"not-an-integer","key":"k"}"#, r#"NotAnInteger { key: "k" }"#);
        check(
            501,
            r#"{"code":"unsupported","engine":"redis","what":"blobs"}"#,
            r#"Unsupported { engine: "redis", what: "blobs" }"#,
        );
        check(503, r#"{"code":"unavailable","detail":"why"}"#, r#"Unavailable("why")"#);
        check(500, r#"{"code":"engine","detail":"why"}"#, r#"Engine("why")"#);
    }

    #[test]
    fn other_answers_are_told_by_their_status() {
        check(
            404,
            r#"{"code":"no-route","detail":"d"}"#,
            r#"Invalid("the state API answered 404 Not Found: d")"#,
        );
        check(503, "busy", r#"Unavailable("the state API answered 503 Service Unavailable: busy")"#);
        check(502, "", r#"Engine("the state API answered 502 Bad Gateway: ")"#);
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(name("value"), "value");
        assert_eq!(name(&"x".repeat(NAME_BYTES_MAX + 1)), "part of the request");
    }
}
