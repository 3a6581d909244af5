//! The one place that makes an HTTP answer of an error (RFC 9457). What an engine says about its own failure
//! goes to the log; the caller learns only that it failed.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{error::Error, locks::Token, wire};

/// The media type of the body of an error (RFC 9457, section 3).
const PROBLEM_JSON: &str = "application/problem+json";

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: Box<wire::Problem>,
    /// The size of the blob that a range lies outside of.
    unsatisfied_size: Option<u64>,
}

impl Problem {
    /// An error about a request whose condition came in `If-Match` or `If-None-Match`: a conflict is 412 then
    /// (RFC 9110, section 15.5.13).
    pub(super) fn precondition(error: Error) -> Self {
        let mut problem = Self::from(error);
        if problem.status == StatusCode::CONFLICT && problem.body.code == "conflict" {
            problem.status = StatusCode::PRECONDITION_FAILED;
        }
        problem
    }

    /// A range outside of a blob of `size` bytes: 416 (RFC 9110, section 15.5.17).
    pub(super) fn unsatisfiable(size: u64) -> Self {
        let detail = format!("the range lies outside of the blob, which is {size} bytes");
        let mut problem =
            Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid", "Range outside of the blob", detail);
        problem.unsatisfied_size = Some(size);
        problem
    }

    /// No row or blob under that name.
    pub(super) fn absent(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", format!("there is no such {what}"))
    }

    /// Somebody holds the lock.
    pub(super) fn held(lock: &str) -> Self {
        let detail = format!("somebody holds the lock `{lock}`; GET it to see who, and until when");
        let mut problem = Self::new(StatusCode::CONFLICT, wire::locks::HELD, "The lock is held", detail);
        problem.body.key = Some(lock.to_owned());
        problem
    }

    /// The lease of that token is over, or was let go.
    pub(super) fn lost(lock: &str, token: Token) -> Self {
        let detail = format!(
            "the lock `{lock}` is not held by the token {token} any more: leave what was done under it, or acquire it anew"
        );
        let mut problem = Self::new(StatusCode::CONFLICT, wire::locks::LOST, "The lock is lost", detail);
        (problem.body.key, problem.body.token) = (Some(lock.to_owned()), Some(token));
        problem
    }

    /// No such path. Its code is another than that of an absent row, so that a misspelt path is not taken for one.
    pub(super) fn no_route(path: &str) -> Self {
        let detail = format!("the state API has no `{path}`; GET /v1/openapi.json lists what it has");
        Self::new(StatusCode::NOT_FOUND, "no-route", "No such path", detail)
    }

    /// The path takes other methods; `Allow` names them.
    pub(super) fn no_method(method: &str, path: &str) -> Self {
        let detail = format!("`{path}` does not take {method}; the Allow header names what it takes");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "no-method", "Method not allowed", detail)
    }

    /// The body of its answer.
    pub(super) fn into_json(mut self) -> Vec<u8> {
        self.body.status = self.status.as_u16();
        serde_json::to_vec(&self.body).unwrap_or_default()
    }

    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String) -> Self {
        let body = wire::Problem {
            kind: Cow::Owned(format!("urn:lethe:state:{code}")),
            title: Cow::Borrowed(title),
            detail,
            code: Cow::Borrowed(code),
            ..Default::default()
        };
        Self { status, body: Box::new(body), unsatisfied_size: None }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        // The text of some variants is in the error itself: the far end makes the very same error of it.
        let detail = match &error {
            Error::Invalid(text) | Error::Unavailable(text) | Error::Denied(text) => text.clone(),
            other => other.to_string(),
        };
        let (status, code, title) = match &error {
            Error::Conflict { .. } => (StatusCode::CONFLICT, "conflict", "Another revision was found"),
            Error::Fenced { .. } => (StatusCode::CONFLICT, "fenced", "The lock has a later holder"),
            Error::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Error::Gone => (StatusCode::GONE, "gone", "The session has ended"),
            Error::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid", "Invalid request"),
            Error::Denied(_) => (StatusCode::FORBIDDEN, "denied", "Not granted to this service"),
            Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large"),
            Error::NotAnInteger { .. } => (StatusCode::CONFLICT, "not-an-integer", "Not an integer"),
            Error::Unsupported { .. } => {
                (StatusCode::NOT_IMPLEMENTED, "unsupported", "Not offered by this engine")
            }
            Error::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available"),
            Error::Engine(_) => (StatusCode::INTERNAL_SERVER_ERROR, "engine", "The state engine failed"),
        };
        let mut problem = Self::new(status, code, title, detail);
        let body = &mut problem.body;
        match error {
            Error::Conflict { index, key, found } => {
                (body.index, body.key, body.found) = (Some(index), Some(key), Some(found));
            }
            Error::Fenced { index, key, token, newest } => {
                (body.index, body.key) = (Some(index), Some(key));
                (body.token, body.newest) = (Some(token), Some(newest));
            }
            Error::TooLarge { what, size, max } => {
                (body.what, body.size, body.max) = (Some(what.into()), Some(size), Some(max));
            }
            Error::NotAnInteger { key } => body.key = Some(key),
            Error::Unsupported { engine, what } => {
                (body.engine, body.what) = (Some(engine.into()), Some(what.into()));
            }
            Error::Engine(source) => {
                tracing::error!(error = %source, cause = ?source.source(), "the state engine failed");
                body.detail = match refusal(&*source) {
                    Some(refusal) => refusal,
                    None => "the state engine failed; the log of lethe says why".into(),
                };
            }
            Error::NotFound | Error::Gone | Error::Invalid(_) | Error::Unavailable(_) | Error::Denied(_) => {}
        }
        problem
    }
}

/// What a server elsewhere has refused, and what to do about it, which has no secrets in it; other failures of engines tell of
/// the machine that they are on.
fn refusal(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<String> {
    type Test = fn(&(dyn std::error::Error + Send + Sync + 'static)) -> bool;
    let refusals: &[Test] = &[
        #[cfg(feature = "redis")]
        |error| error.is::<crate::redis::Refusal>(),
        #[cfg(feature = "postgres")]
        |error| error.is::<crate::postgres::failure::Failure>(),
        #[cfg(feature = "objects")]
        |error| error.is::<crate::objects::Refusal>(),
    ];
    refusals.iter().any(|is_refusal| is_refusal(error)).then(|| error.to_string())
}

impl Problem {
    /// The parts of its answer.
    pub(super) fn into_parts(self) -> (StatusCode, HeaderMap, Bytes) {
        let (status, unsatisfied_size) = (self.status, self.unsatisfied_size);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(size) = unsatisfied_size
            && let Ok(value) = HeaderValue::try_from(format!("bytes */{size}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        (status, headers, self.into_json().into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, headers, body) = self.into_parts();
        let mut response = Response::new(body.into());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(error: Error) -> (u16, String) {
        let problem = Problem::from(error);
        (problem.status.as_u16(), problem.body.code.into_owned())
    }

    #[test]
    fn every_error_has_its_status_and_code() {
        let conflict = || Error::Conflict { index: 2, key: "k".into(), found: None };
        for (error, status, code) in [
            (conflict(), 409, "conflict"),
            (Error::Fenced { index: 2, key: "k".into(), token: 3, newest: 4 }, 409, "fenced"),
            (Error::NotFound, 404, "not-found"),
            (Error::Gone, 410, "gone"),
            (Error::Invalid("why".into()), 400, "invalid"),
            (Error::Denied("why".into()), 403, "denied"),
            (Error::TooLarge { what: "value", size: 9, max: 8 }, 413, "too-large"),
            (Error::NotAnInteger { key: "k".into() }, 409, "not-an-integer"),
            (Error::Unsupported { engine: "e", what: "w" }, 501, "unsupported"),
            (Error::Unavailable("why".into()), 503, "unavailable"),
            (Error::Engine("disk full".into()), 500, "engine"),
        ] {
            assert_eq!(status_of(error), (status, code.to_owned()));
        }
        assert_eq!(Problem::precondition(conflict()).status, 412);
        let fenced = Error::Fenced { index: 0, key: "k".into(), token: 3, newest: 4 };
        assert_eq!(Problem::precondition(fenced).status, 409);
        assert_eq!(Problem::precondition(Error::NotAnInteger { key: "k".into() }).status, 409);
    }

    #[test]
    fn a_conflict_with_nothing_says_null() {
        let problem = Problem::from(Error::Conflict { index: 0, key: "k".into(), found: None });
        let json = serde_json::to_value(&problem.body).unwrap();
        assert_eq!(json["found"], serde_json::Value::Null);
        assert!(json.as_object().unwrap().contains_key("found"));
        assert!(!json.as_object().unwrap().contains_key("max"));
    }

    #[cfg(feature = "redis")]
    #[tokio::test]
    async fn what_a_server_refuses_is_told() {
        let refused = crate::redis::Refusal::of_password("cache:6379");
        let problem = Problem::from(Error::Engine(Box::new(refused)));
        let detail = &problem.body.detail;
        assert!(detail.starts_with("redis at cache:6379 refused: WRONGPASS"), "{detail}");
        assert!(detail.ends_with("check the user and password in the URL"), "{detail}");
    }

    #[test]
    fn what_the_engine_says_of_itself_stays_inside() {
        let problem = Problem::from(Error::Engine("/secret/path is full".into()));
        assert!(!serde_json::to_string(&problem.body).unwrap().contains("secret"));
    }
}
