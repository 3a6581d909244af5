//! Answers as they are kept and given again.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response::Parts};
use lethe_state::idempotency::{ANSWER_BYTES_MAX, ANSWER_FIELDS_MAX, Answer};

use super::{REPLAYED, is_passing, lost};
use crate::problem::{OUTCOME, Problem};

/// Whether an answer with this status is kept: not when nothing was done and the same request may do it later, nor when the
/// service has failed.
pub(super) fn is_kept(status: u16) -> bool {
    !matches!(status, 100..200 | 500..600 | 401 | 408 | 409 | 421 | 423 | 425 | 429)
}

/// What is kept for an answer with this status, that is here if it is `whole` and not too large. Nothing when nothing was
/// done: then the next request is the first. Where it is unknown whether it was, that is what is kept in any case.
pub(super) fn kept(status: u16, is_unknown: bool, whole: Option<Answer>) -> Option<Answer> {
    match whole {
        _ if !is_unknown && !is_kept(status) => None,
        Some(answer) => Some(answer),
        None if is_unknown => Some(unknown()),
        None => Some(not_kept()),
    }
}

/// Whether an answer is a stream of events, which has no end that could be waited for.
pub(super) fn is_endless(headers: &HeaderMap) -> bool {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// An answer as it is kept; `None` when it is too large.
pub(super) fn of(parts: &Parts, body: Bytes) -> Option<Answer> {
    let passes = |name: &HeaderName| {
        *name != header::SET_COOKIE && *name != header::CONTENT_LENGTH && !is_passing(name, &parts.headers)
    };
    let fields = parts.headers.iter().filter(|(name, _)| passes(name));
    let fields = fields.map(|(name, value)| (name.to_string(), Bytes::copy_from_slice(value.as_bytes())));
    let answer = Answer { status: parts.status.as_u16(), fields: fields.collect(), body };
    let fits = answer.size() <= ANSWER_BYTES_MAX && answer.fields.len() <= ANSWER_FIELDS_MAX;
    fits.then_some(answer)
}

/// What is kept for an answer that cannot be.
pub(super) fn not_kept() -> Answer {
    let problem = Problem::new(
        StatusCode::GONE,
        "idempotency-answer-gone",
        "It was done, and its answer is gone",
        "The request with this Idempotency-Key was done, but its answer was too large to be kept. Look for its result where \
         this service shows it; do not send it again with another key.",
    );
    of_problem(&problem)
}

/// What is kept for an answer that says that nobody knows, and cannot be kept itself.
fn unknown() -> Answer {
    let mut answer = of_problem(&lost());
    answer.fields.push((OUTCOME.to_string(), Bytes::from_static(b"unknown")));
    answer
}

fn of_problem(problem: &Problem) -> Answer {
    let fields = [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
    let fields = fields.map(|(name, value)| (name.to_string(), Bytes::from_static(value.as_bytes())));
    Answer { status: problem.status().as_u16(), fields: fields.into(), body: problem.document().into() }
}

/// Gives an answer again.
pub(super) fn replay(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in answer.fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_maybe_shared(value)) {
            headers.append(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_answer_alone_is_not_kept() {
        let response = http::Response::builder()
            .status(201)
            .header("content-type", "text/plain")
            .header("link", "</a>")
            .header("link", "</b>")
            .header("set-cookie", "secret=1")
            .header("content-length", "4")
            .header("connection", "close, X-Hop")
            .header("x-hop", "1")
            .header("transfer-encoding", "chunked")
            .header("date", "now");
        let (parts, ()) = response.body(()).unwrap().into_parts();
        let kept = of(&parts, "body".into()).unwrap();
        let names: Vec<_> = kept.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "link", "link"]);
        let again = replay(kept);
        assert_eq!(again.status(), 201);
        assert_eq!(again.headers().get_all("link").iter().collect::<Vec<_>>(), ["</a>", "</b>"]);
        assert_eq!(again.headers()[REPLAYED], "true");
    }

    #[test]
    fn answers_by_which_nothing_was_done_are_not_kept() {
        for (status, kept) in
            [(200, true), (201, true), (303, true), (400, true), (404, true), (422, true), (409, false)]
                .into_iter()
                .chain([(401, false), (429, false), (500, false), (503, false)])
        {
            assert_eq!(is_kept(status), kept, "{status}");
        }
    }

    #[test]
    fn what_is_kept_is_what_is_known() {
        // The status, whether nobody knows what it stands for, and what is kept of it when it is whole, and when it is not.
        for (status, is_unknown, whole, larger) in [
            (201, false, Some(201), Some(410)),
            (404, false, Some(404), Some(410)),
            (600, false, Some(600), Some(410)),
            (101, false, None, None),
            (409, false, None, None),
            (429, false, None, None),
            (500, false, None, None),
            (502, false, None, None),
            (503, false, None, None),
            (502, true, Some(502), Some(502)),
            (504, true, Some(504), Some(502)),
            (200, true, Some(200), Some(502)),
        ] {
            let answer = Answer { status, ..Answer::default() };
            let of = |answer| kept(status, is_unknown, answer).map(|kept| kept.status);
            assert_eq!((of(Some(answer)), of(None)), (whole, larger), "{status} {is_unknown}");
        }
        let outcome = |answer: &Answer| answer.fields.iter().any(|(name, _)| OUTCOME.as_str() == name);
        assert!(kept(504, true, None).as_ref().is_some_and(outcome) && !outcome(&not_kept()));
    }
}
