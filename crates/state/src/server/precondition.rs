//! Conditional requests (RFC 9110, section 13): what `If-Match` and `If-None-Match` wish of a write, and whether
//! a reader has the newest version already.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{Millis, blobs, error::Error, tables};

/// Entity tags that a header lists.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// `*`.
    Any,
    Listed(Vec<Tag>),
}

/// One entity tag (RFC 9110, section 8.8.3), without its quotes.
#[derive(Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    text: String,
}

/// What a write wishes.
enum Wish {
    Any,
    Absent,
    Present,
    Tag(String),
}

/// Whether a request has a condition.
pub(super) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH)
}

/// What must hold for a row to be written.
pub(super) fn of_row(headers: &HeaderMap) -> Result<tables::Condition, Error> {
    Ok(match wish(headers)? {
        Wish::Any => tables::Condition::Any,
        Wish::Absent => tables::Condition::Absent,
        Wish::Present => tables::Condition::Present,
        Wish::Tag(tag) => tables::Condition::Revision(tag.parse().map_err(|_| {
            Error::Invalid(format!(
                "If-Match is \"{tag}\", expected the ETag of a row, which is a number in quotes"
            ))
        })?),
    })
}

/// What must hold for a blob to be written.
pub(super) fn of_blob(headers: &HeaderMap) -> Result<blobs::Condition, Error> {
    match wish(headers)? {
        Wish::Any => Ok(blobs::Condition::Any),
        Wish::Absent => Ok(blobs::Condition::Absent),
        Wish::Tag(tag) => Ok(blobs::Condition::Etag(tag)),
        Wish::Present => {
            Err(Error::Invalid("If-Match: * is not offered for blobs; send the blob's ETag".into()))
        }
    }
}

fn wish(headers: &HeaderMap) -> Result<Wish, Error> {
    match (tags(headers, header::IF_MATCH)?, tags(headers, header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Wish::Any),
        (None, Some(Tags::Any)) => Ok(Wish::Absent),
        (None, Some(Tags::Listed(_))) => {
            Err(Error::Invalid("If-None-Match of a write must be `*`: only if there is nothing yet".into()))
        }
        (Some(Tags::Any), None) => Ok(Wish::Present),
        (Some(Tags::Listed(mut tags)), None) => match (tags.pop(), tags.is_empty()) {
            (Some(Tag { weak: false, text }), true) => Ok(Wish::Tag(text)),
            (Some(Tag { weak: true, .. }), true) => Err(Error::Invalid(
                "If-Match has a weak entity tag, which never matches; send it without W/".into(),
            )),
            _ => Err(Error::Invalid("If-Match of a write must have one entity tag".into())),
        },
        (Some(_), Some(_)) => {
            Err(Error::Invalid("If-Match and If-None-Match exclude each other; send one of them".into()))
        }
    }
}

/// What a reader is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What it asked for.
    Send,
    /// 304: it has that already.
    NotModified,
    /// 412: it wants only another version.
    Failed,
}

/// Weighs the conditions of a read, in the order of RFC 9110, section 13.2.2.
pub(super) fn of_read(
    headers: &HeaderMap,
    etag: &str,
    modified_at: Option<Millis>,
) -> Result<Verdict, Error> {
    let modified_at = modified_at.map(to_seconds);
    match tags(headers, header::IF_MATCH)? {
        Some(Tags::Listed(tags)) if !tags.iter().any(|tag| !tag.weak && tag.text == etag) => {
            return Ok(Verdict::Failed);
        }
        Some(_) => {}
        None => {
            if let (Some(since), Some(modified_at)) =
                (date(headers, header::IF_UNMODIFIED_SINCE), modified_at)
                && modified_at > since
            {
                return Ok(Verdict::Failed);
            }
        }
    }
    let has_it = match tags(headers, header::IF_NONE_MATCH)? {
        Some(Tags::Any) => true,
        Some(Tags::Listed(tags)) => tags.iter().any(|tag| tag.text == etag),
        None => match (date(headers, header::IF_MODIFIED_SINCE), modified_at) {
            (Some(since), Some(modified_at)) => modified_at <= since,
            _ => false,
        },
    };
    Ok(if has_it { Verdict::NotModified } else { Verdict::Send })
}

/// Whether a range may be sent: `If-Range` is absent or names this very version (RFC 9110, section 13.1.5).
/// A date never does, since two versions may be of one second.
pub(super) fn allows_range(headers: &HeaderMap, etag: &str) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    value.as_bytes().strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) == Some(etag.as_bytes())
}

/// The value of an `ETag` header.
pub(super) fn quoted(etag: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{etag}\"")).ok()
}

/// The value of a `Last-Modified` header.
pub(super) fn last_modified(modified_at: Millis) -> Option<HeaderValue> {
    HeaderValue::try_from(httpdate::fmt_http_date(to_seconds(modified_at))).ok()
}

/// A time as HTTP dates can say it. What lies before 1970 or after the year 9000 is no date of a blob.
fn to_seconds(at: Millis) -> SystemTime {
    const SECONDS_MAX: u64 = 221_845_392_000;
    UNIX_EPOCH + Duration::from_secs((u64::try_from(at).unwrap_or(0) / 1000).min(SECONDS_MAX))
}

/// A date that cannot be read is as if absent (RFC 9110, section 13.1.3).
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, Error> {
    let mut listed = Vec::new();
    for value in headers.get_all(&name) {
        let bad = || {
            Error::Invalid(format!(
                "{name} is `{}`, expected `*` or entity tags in quotes, such as \"7\"",
                String::from_utf8_lossy(value.as_bytes())
            ))
        };
        let mut rest = value.to_str().map_err(|_| bad())?.trim();
        if rest == "*" && listed.is_empty() {
            return Ok(Some(Tags::Any));
        }
        while !rest.is_empty() {
            let weak = rest.starts_with("W/");
            let opened = if weak { &rest[2..] } else { rest }.strip_prefix('"').ok_or_else(bad)?;
            let (text, after) = opened.split_once('"').ok_or_else(bad)?;
            listed.push(Tag { weak, text: text.into() });
            rest = after.trim_start();
            if !rest.is_empty() {
                rest = rest.strip_prefix(',').ok_or_else(bad)?.trim_start();
            }
        }
    }
    Ok((headers.contains_key(name)).then_some(Tags::Listed(listed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn writes_have_one_wish() {
        let row = |pairs: &[(HeaderName, &str)]| of_row(&headers(pairs)).map_err(|error| error.to_string());
        assert_eq!(row(&[]), Ok(tables::Condition::Any));
        assert_eq!(row(&[(header::IF_MATCH, "*")]), Ok(tables::Condition::Present));
        assert_eq!(row(&[(header::IF_NONE_MATCH, "*")]), Ok(tables::Condition::Absent));
        assert_eq!(row(&[(header::IF_MATCH, "\"12\"")]), Ok(tables::Condition::Revision(12)));
        for (pairs, part) in [
            (&[(header::IF_MATCH, "12")][..], "in quotes"),
            (&[(header::IF_MATCH, "\"12")][..], "in quotes"),
            (&[(header::IF_MATCH, "\"abc\"")][..], "a number in quotes"),
            (&[(header::IF_MATCH, "\"1\", \"2\"")][..], "one entity tag"),
            (&[(header::IF_MATCH, "W/\"1\"")][..], "weak"),
            (&[(header::IF_NONE_MATCH, "\"1\"")][..], "must be `*`"),
            (&[(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")][..], "exclude"),
        ] {
            let text = row(pairs).unwrap_err();
            assert!(text.contains(part), "{pairs:?}: {text}");
        }
        let blob = of_blob(&headers(&[(header::IF_MATCH, "\"a,b\"")])).unwrap();
        assert_eq!(blob, blobs::Condition::Etag("a,b".into()));
    }

    #[test]
    fn reads_follow_the_standard_order() {
        // Written at 1994-11-06 08:49:37.250 UTC.
        let modified_at = Some(784_111_777_250);
        let same = "Sun, 06 Nov 1994 08:49:37 GMT";
        let before = "Sun, 06 Nov 1994 08:49:36 GMT";
        for (pairs, expected) in [
            (&[][..], Verdict::Send),
            (&[(header::IF_NONE_MATCH, "\"e\"")][..], Verdict::NotModified),
            (&[(header::IF_NONE_MATCH, "\"x\", W/\"e\"")][..], Verdict::NotModified),
            (&[(header::IF_NONE_MATCH, "*")][..], Verdict::NotModified),
            (&[(header::IF_NONE_MATCH, "\"x\"")][..], Verdict::Send),
            (&[(header::IF_MODIFIED_SINCE, same)][..], Verdict::NotModified),
            (&[(header::IF_MODIFIED_SINCE, before)][..], Verdict::Send),
            (&[(header::IF_MODIFIED_SINCE, "yesterday")][..], Verdict::Send),
            (&[(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, same)][..], Verdict::Send),
            (&[(header::IF_MATCH, "\"x\"")][..], Verdict::Failed),
            (&[(header::IF_MATCH, "W/\"e\"")][..], Verdict::Failed),
            (&[(header::IF_MATCH, "\"x\", \"e\"")][..], Verdict::Send),
            (&[(header::IF_UNMODIFIED_SINCE, before)][..], Verdict::Failed),
            (&[(header::IF_UNMODIFIED_SINCE, same)][..], Verdict::Send),
        ] {
            assert_eq!(of_read(&headers(pairs), "e", modified_at).unwrap(), expected, "{pairs:?}");
        }
        assert!(allows_range(&headers(&[(header::IF_RANGE, "\"e\"")]), "e"));
        assert!(!allows_range(&headers(&[(header::IF_RANGE, "\"x\"")]), "e"));
        assert!(!allows_range(&headers(&[(header::IF_RANGE, same)]), "e"));
    }
}
