//! The `Range` of a request for a blob, and the `Content-Range` of its answer (RFC 9110, section 14).

use std::ops::Range;

use http::HeaderValue;

use crate::blobs::ByteRange;

/// Reads a `Range` header. `None` for one that is to be ignored, as the standard has it: in another unit,
/// malformed, or of several ranges, which a server need not serve.
pub(super) fn parse(value: &HeaderValue) -> Option<ByteRange> {
    let (unit, set) = value.to_str().ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", last) => position(last).map(ByteRange::Last),
        (first, "") => position(first).map(ByteRange::From),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(ByteRange::Inclusive(first, last))
        }
    }
}

/// A number of bytes; one beyond what a blob can have is as good as the largest.
fn position(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Whether a blob of `size` bytes has none of the bytes asked for.
pub(super) fn is_outside(range: ByteRange, size: u64) -> bool {
    match range {
        ByteRange::From(first) | ByteRange::Inclusive(first, _) => first >= size,
        ByteRange::Last(count) => count == 0 || size == 0,
    }
}

/// The value of `Content-Range` for these bytes, of which there is at least one.
pub(super) fn content_range(range: &Range<u64>, size: u64) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("bytes {}-{}/{size}", range.start, range.end.checked_sub(1)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_ignored() {
        for (text, expected) in [
            ("bytes=0-99", Some(ByteRange::Inclusive(0, 99))),
            ("Bytes = 5-5", Some(ByteRange::Inclusive(5, 5))),
            ("bytes=7-", Some(ByteRange::From(7))),
            ("bytes=-3", Some(ByteRange::Last(3))),
            ("bytes=0-99999999999999999999999", Some(ByteRange::Inclusive(0, u64::MAX))),
            ("bytes=9-3", None),
            ("bytes=0-1,5-6", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=a-b", None),
            ("lines=1-2", None),
            ("bytes", None),
        ] {
            assert_eq!(parse(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }

    #[test]
    fn outside_is_where_no_byte_is() {
        assert!(is_outside(ByteRange::From(10), 10));
        assert!(!is_outside(ByteRange::From(9), 10));
        assert!(is_outside(ByteRange::Inclusive(10, 20), 10));
        assert!(is_outside(ByteRange::Last(0), 10));
        assert!(!is_outside(ByteRange::Last(20), 10));
    }
}
