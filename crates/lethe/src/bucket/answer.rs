//! A blob as the answer to a request: which of RFC 9110's conditions hold, which range is meant, and what the
//! response says. The decision is pure; reading follows it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use lethe_http::problem::Problem;
use lethe_state::{
    Millis,
    blobs::{BlobInfo, ByteRange},
    error::Error as StateError,
};

use super::Bucket;
use crate::Error;

/// How often a blob is looked at again when it is replaced between the decision and the reading.
const TRIES_MAX: u32 = 8;

/// What users upload may be shown and played, but gets no scripts, forms or requests, however it is opened.
const BLOB_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Whole,
    Part(ByteRange),
    NotModified,
    PreconditionFailed,
    NotSatisfiable,
}

pub(super) async fn answer(
    bucket: &Bucket,
    method: &Method,
    key: &str,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    if method != Method::GET && method != Method::HEAD {
        let problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            "A blob can only be read here, with GET or HEAD.",
        );
        return Ok(([(header::ALLOW, "GET, HEAD")], problem).into_response());
    }
    for _ in 0..TRIES_MAX {
        // Without conditions and ranges there is nothing to decide, so one look is enough.
        let plain = method == Method::GET && !CONDITIONS.iter().any(|name| headers.contains_key(name));
        let (seen, plan) = match plain {
            true => (None, Plan::Whole),
            false => match bucket.head(key).await? {
                None => return Ok(not_found()),
                Some(info) => {
                    let plan = plan(&info, method, headers);
                    (Some(info), plan)
                }
            },
        };
        let range = match (plan, &seen) {
            (Plan::Whole, Some(info)) if method == Method::HEAD => {
                return Ok(respond(StatusCode::OK, info, 0..info.size, Body::empty()));
            }
            (Plan::Whole, _) => None,
            (Plan::Part(range), _) => Some(range),
            (_, Some(info)) => return Ok(bodiless(plan, info)),
            (_, None) => None,
        };
        let blob = match bucket.get(key, range).await {
            Ok(Some(blob)) => blob,
            Ok(None) => return Ok(not_found()),
            // It has just become shorter.
            Err(Error::State(StateError::Invalid(_))) if range.is_some() => continue,
            Err(error) => return Err(error),
        };
        if seen.is_some_and(|seen| seen.etag != blob.info.etag) {
            continue;
        }
        let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        return Ok(respond(status, &blob.info, blob.range, Body::from_stream(blob.body)));
    }
    Err(Error::State(StateError::Unavailable("the blob is being replaced again and again".into())))
}

/// The headers that make an answer depend on what is stored.
const CONDITIONS: [HeaderName; 5] = [
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// The order of RFC 9110, section 13.2.2.
fn plan(info: &BlobInfo, method: &Method, headers: &HeaderMap) -> Plan {
    if headers.contains_key(header::IF_MATCH) {
        if !names(headers, &header::IF_MATCH, &info.etag, Comparison::Strong) {
            return Plan::PreconditionFailed;
        }
    } else if let Some(since) = date(headers, &header::IF_UNMODIFIED_SINCE)
        && modified_s(info) > since
    {
        return Plan::PreconditionFailed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if names(headers, &header::IF_NONE_MATCH, &info.etag, Comparison::Weak) {
            return Plan::NotModified;
        }
    } else if let Some(since) = date(headers, &header::IF_MODIFIED_SINCE)
        && modified_s(info) <= since
    {
        return Plan::NotModified;
    }
    if method == Method::GET && if_range_holds(info, headers) { range(info, headers) } else { Plan::Whole }
}

/// A range that is not understood, and more than one, are answered with the whole blob, as section 14.2 allows.
fn range(info: &BlobInfo, headers: &HeaderMap) -> Plan {
    let mut lines = headers.get_all(header::RANGE).into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Plan::Whole };
    match line.to_str().ok().and_then(parse_range) {
        None => Plan::Whole,
        Some(ByteRange::Last(0)) => Plan::NotSatisfiable,
        Some(ByteRange::Last(_)) if info.size == 0 => Plan::NotSatisfiable,
        Some(ByteRange::From(first) | ByteRange::Inclusive(first, _)) if first >= info.size => {
            Plan::NotSatisfiable
        }
        Some(range) => Plan::Part(range),
    }
}

/// One range of RFC 9110, section 14.1.2; `None` for everything else.
fn parse_range(line: &str) -> Option<ByteRange> {
    let (unit, range) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match range.trim().split_once('-')? {
        ("", last) => Some(ByteRange::Last(position(last)?)),
        (first, "") => Some(ByteRange::From(position(first)?)),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(ByteRange::Inclusive(first, last))
        }
    }
}

/// Digits alone: `u64`'s own reading takes a sign too. What does not fit is past every end.
fn position(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Section 13.1.5: whether the part that the client wants belongs to the version it has. Dates do not tell two
/// writes of the same second apart, so only an entity tag does.
fn if_range_holds(info: &BlobInfo, headers: &HeaderMap) -> bool {
    match headers.get(header::IF_RANGE) {
        None => true,
        Some(tag) => tag.as_bytes() == quoted(&info.etag).as_bytes(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags, or `*`, names this one. The tags of blobs have no commas in them.
fn names(headers: &HeaderMap, name: &HeaderName, etag: &str, comparison: Comparison) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| match tag.strip_prefix("W/") {
        Some(opaque) => comparison == Comparison::Weak && opaque == quoted(etag),
        None => tag == "*" || tag == quoted(etag),
    })
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let then = httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()?;
    then.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn modified_s(info: &BlobInfo) -> u64 {
    u64::try_from(info.modified_at).unwrap_or(0) / 1000
}

fn respond(status: StatusCode, info: &BlobInfo, range: std::ops::Range<u64>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    describe(headers, info);
    let media_type = HeaderValue::try_from(&info.content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(BLOB_POLICY));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(text) = HeaderValue::try_from(format!(
            "bytes {}-{}/{}",
            range.start,
            range.end.saturating_sub(1),
            info.size
        ))
    {
        headers.insert(header::CONTENT_RANGE, text);
    }
    response
}

/// What each response about the blob says, a 304 too (section 15.4.5).
fn describe(headers: &mut HeaderMap, info: &BlobInfo) {
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::try_from(quoted(&info.etag)) {
        headers.insert(header::ETAG, etag);
    }
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(time(info.modified_at))) {
        headers.insert(header::LAST_MODIFIED, date);
    }
}

fn bodiless(plan: Plan, info: &BlobInfo) -> Response {
    match plan {
        Plan::NotModified => {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            describe(response.headers_mut(), info);
            response
        }
        Plan::NotSatisfiable => {
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range-not-satisfiable",
                "Range not satisfiable",
                format!("The range begins past the end of these {} bytes.", info.size),
            );
            ([(header::CONTENT_RANGE, format!("bytes */{}", info.size))], problem).into_response()
        }
        _ => Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "Precondition failed",
            "This is not the version that was asked for.",
        )
        .into_response(),
    }
}

fn not_found() -> Response {
    Problem::from(&StateError::NotFound).into_response()
}

fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// RFC 9110, section 8.8.2.1: never later than now, which the date formatter needs in any case.
fn time(millis: Millis) -> SystemTime {
    let then = UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    then.min(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob of ten bytes, written at 1994-11-06 08:49:37.5 UTC.
    fn info() -> BlobInfo {
        BlobInfo {
            key: "k".into(),
            size: 10,
            etag: "v1".into(),
            content_type: "text/plain".into(),
            modified_at: 784_111_777_500,
        }
    }

    #[track_caller]
    fn check(method: Method, lines: &[(&'static str, &str)], expected: Plan) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        assert_eq!(plan(&info(), &method, &headers), expected, "{method} {lines:?}");
    }

    #[test]
    fn ranges() {
        let get = |range, expected| check(Method::GET, &[("range", range)], expected);
        get("bytes=0-", Plan::Part(ByteRange::From(0)));
        get("bytes=2-4", Plan::Part(ByteRange::Inclusive(2, 4)));
        get("bytes=9-9", Plan::Part(ByteRange::Inclusive(9, 9)));
        get("bytes=9-100", Plan::Part(ByteRange::Inclusive(9, 100)));
        get("bytes=-3", Plan::Part(ByteRange::Last(3)));
        get("bytes=-100", Plan::Part(ByteRange::Last(100)));
        get("Bytes= 2-4 ", Plan::Part(ByteRange::Inclusive(2, 4)));
        get("bytes=0-99999999999999999999999", Plan::Part(ByteRange::Inclusive(0, u64::MAX)));
        get("bytes=10-", Plan::NotSatisfiable);
        get("bytes=10-12", Plan::NotSatisfiable);
        get("bytes=-0", Plan::NotSatisfiable);
        for ignored in
            ["bytes=4-2", "bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2", "bytes=0-1,3-4", "lines=0-1", "0-1"]
        {
            get(ignored, Plan::Whole);
        }
        check(Method::GET, &[("range", "bytes=0-1"), ("range", "bytes=3-4")], Plan::Whole);
        check(Method::HEAD, &[("range", "bytes=2-4")], Plan::Whole);
        check(Method::HEAD, &[("range", "bytes=10-")], Plan::Whole);
    }

    #[test]
    fn conditions() {
        for method in [Method::GET, Method::HEAD] {
            let check = |lines: &[(&'static str, &str)], expected| check(method.clone(), lines, expected);
            check(&[("if-none-match", "\"v1\"")], Plan::NotModified);
            check(&[("if-none-match", "W/\"v1\"")], Plan::NotModified);
            check(&[("if-none-match", "\"v0\", \"v1\"")], Plan::NotModified);
            check(&[("if-none-match", "\"v0\""), ("if-none-match", "\"v1\"")], Plan::NotModified);
            check(&[("if-none-match", "*")], Plan::NotModified);
            check(&[("if-none-match", "\"v0\"")], Plan::Whole);
            check(&[("if-none-match", "v1")], Plan::Whole);
            check(&[("if-match", "\"v1\"")], Plan::Whole);
            check(&[("if-match", "*")], Plan::Whole);
            check(&[("if-match", "W/\"v1\"")], Plan::PreconditionFailed);
            check(&[("if-match", "\"v0\"")], Plan::PreconditionFailed);
            check(&[("if-match", "\"v0\""), ("if-none-match", "\"v1\"")], Plan::PreconditionFailed);
        }
    }

    #[test]
    fn dates_count_in_seconds_and_only_without_entity_tags() {
        let (before, same) = ("Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:37 GMT");
        check(Method::GET, &[("if-modified-since", same)], Plan::NotModified);
        check(Method::GET, &[("if-modified-since", before)], Plan::Whole);
        check(Method::GET, &[("if-modified-since", "yesterday")], Plan::Whole);
        check(Method::GET, &[("if-modified-since", same), ("if-none-match", "\"v0\"")], Plan::Whole);
        check(Method::GET, &[("if-unmodified-since", same)], Plan::Whole);
        check(Method::GET, &[("if-unmodified-since", before)], Plan::PreconditionFailed);
        check(Method::GET, &[("if-unmodified-since", before), ("if-match", "\"v1\"")], Plan::Whole);
    }

    #[test]
    fn a_range_of_another_version_is_not_mixed_in() {
        let range = ("range", "bytes=2-4");
        let part = Plan::Part(ByteRange::Inclusive(2, 4));
        check(Method::GET, &[range, ("if-range", "\"v1\"")], part);
        check(Method::GET, &[range, ("if-range", "\"v0\"")], Plan::Whole);
        check(Method::GET, &[range, ("if-range", "W/\"v1\"")], Plan::Whole);
        check(Method::GET, &[range, ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")], Plan::Whole);
        check(Method::GET, &[range, ("if-none-match", "\"v1\"")], Plan::NotModified);
        check(Method::GET, &[("range", "bytes=10-"), ("if-range", "\"v0\"")], Plan::Whole);
    }

    #[test]
    fn an_empty_blob_has_no_ranges() {
        let empty = BlobInfo { size: 0, ..info() };
        for line in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            let headers = HeaderMap::from_iter([(header::RANGE, line.parse().unwrap())]);
            assert_eq!(plan(&empty, &Method::GET, &headers), Plan::NotSatisfiable, "{line}");
        }
    }
}
