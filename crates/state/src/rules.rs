//! The rules for what callers give: names, keys, sizes and the fields of sessions. Every engine checks them before it
//! does anything, so that all refuse the same things with the same words.

#[cfg(any(feature = "embedded", feature = "objects"))]
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;

#[cfg(any(feature = "embedded", feature = "objects"))]
use crate::blobs::{ByteRange, CONTENT_TYPE_BYTES_MAX};
#[cfg(doc)]
use crate::sessions::SESSION_BYTES_MAX;
use crate::{
    error::Error,
    locks::{self, LEASE_MAX, TOKEN_MAX, Token},
    sessions::{NAME_BYTES_MAX, VALUE_DEPTH_MAX},
    tables::{Action, BATCH_WRITES_MAX, KEY_BYTES_MAX, TABLE_NAME_BYTES_MAX, VALUE_BYTES_MAX, Write},
};

/// Checks the name of a table or bucket: lower-case ASCII letters, digits, `-` and `_`.
pub(crate) fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Error> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > bytes_max || !name.bytes().all(allowed) {
        return Err(Error::Invalid(format!(
            "the {what} name {:?} is not 1 to {bytes_max} lower-case ASCII letters, digits, `-` and `_`",
            shortened(name, bytes_max),
        )));
    }
    Ok(())
}

/// Checks a key: any text but the empty one, without NUL.
pub(crate) fn check_key(key: &str, bytes_max: usize) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::Invalid("a key is empty".into()));
    }
    if key.contains('\0') {
        return Err(Error::Invalid(format!("the key {:?} has a NUL character", shortened(key, bytes_max))));
    }
    check_size("a key", key.len(), bytes_max)
}

/// Checks that something is not larger than it may be.
pub(crate) fn check_size(what: &'static str, size: usize, max: usize) -> Result<(), Error> {
    if size > max {
        return Err(Error::TooLarge { what, size: size as u64, max: max as u64 });
    }
    Ok(())
}

/// Checks the limits of a batch of writes to tables.
pub(crate) fn check_batch(batch: &[Write]) -> Result<(), Error> {
    if batch.len() > BATCH_WRITES_MAX {
        return Err(Error::Invalid(format!(
            "the batch has {} writes, over the limit of {BATCH_WRITES_MAX}: split it",
            batch.len()
        )));
    }
    for write in batch {
        check_name("table", &write.table, TABLE_NAME_BYTES_MAX)?;
        check_key(&write.key, KEY_BYTES_MAX)?;
        match &write.action {
            Action::Put { value, .. } => check_size("a value", value.len(), VALUE_BYTES_MAX)?,
            Action::Fence { token } => check_token(*token)?,
            Action::Check | Action::Delete | Action::Increment { .. } => {}
        }
    }
    Ok(())
}

/// The keys that begin with `prefix` and come after `after`, as the first of a range of bytes, and the first
/// behind it.
pub(crate) fn key_range(prefix: &str, after: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    // No text comes between another one and the same with a NUL.
    let behind = after.map(|after| [after.as_bytes(), b"\0"].concat()).unwrap_or_default();
    // UTF-8 has no byte 0xFF: it is behind all text, and any last byte of text can be counted up.
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0xff),
    }
    (behind.max(prefix.as_bytes().to_vec()), end)
}

/// Checks that a media type can stand in a header field (RFC 9110, section 5.5).
#[cfg(any(feature = "embedded", feature = "objects"))]
pub(crate) fn check_content_type(text: &str) -> Result<(), Error> {
    let visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if text.is_empty() || text.len() > CONTENT_TYPE_BYTES_MAX || !text.bytes().all(visible) {
        return Err(Error::Invalid(format!(
            "the media type is not 1 to {CONTENT_TYPE_BYTES_MAX} visible ASCII characters"
        )));
    }
    Ok(())
}

/// The bytes that a range means (RFC 9110, section 14.1.2).
#[cfg(any(feature = "embedded", feature = "objects"))]
pub(crate) fn resolve(range: Option<ByteRange>, size: u64) -> Result<Range<u64>, Error> {
    let resolved = match range {
        None => Some(0..size),
        Some(ByteRange::From(first)) => (first < size).then_some(first..size),
        Some(ByteRange::Inclusive(first, last)) => {
            (first <= last && first < size).then(|| first..last.saturating_add(1).min(size))
        }
        Some(ByteRange::Last(length)) => (length > 0).then(|| size.saturating_sub(length)..size),
    };
    resolved.ok_or_else(|| Error::Invalid(format!("the range holds none of the blob's {size} bytes")))
}

/// As much of a text as fits into so many bytes.
fn shortened(text: &str, bytes_max: usize) -> &str {
    (0..=bytes_max).rev().find_map(|end| text.get(..end)).unwrap_or(text)
}

/// Checks the name of a lock, or of its holder.
pub(crate) fn check_lock(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::Invalid(
            "the name of a lock or its holder is empty, or has a NUL character".into(),
        ));
    }
    check_size("the name of a lock or its holder", name.len(), locks::NAME_BYTES_MAX)
}

/// Checks how long a lock is asked for.
pub(crate) fn check_lease(lease: Duration) -> Result<(), Error> {
    if lease < Duration::from_millis(1) || lease > LEASE_MAX {
        return Err(Error::Invalid(format!(
            "a lease of {lease:?} is not between 1 ms and {} h: take a shorter one and renew it",
            LEASE_MAX.as_secs() / 3600
        )));
    }
    Ok(())
}

/// Checks a fencing token.
pub(crate) fn check_token(token: Token) -> Result<(), Error> {
    if token == 0 || token > TOKEN_MAX {
        return Err(Error::Invalid(format!(
            "{token} is no fencing token: these are 1 to {TOKEN_MAX}, and a lock gives them"
        )));
    }
    Ok(())
}

/// Checks a user's name.
pub(crate) fn check_user(user: Option<&str>) -> Result<(), Error> {
    user.map_or(Ok(()), |user| check_text("a user name", user))
}

/// Checks one field of a session that is to be written; what all of them take together is [`SESSION_BYTES_MAX`].
pub(crate) fn check_field(name: &str, value: &Value) -> Result<(), Error> {
    check_text("a field name", name)?;
    if depth(value, VALUE_DEPTH_MAX + 1) > VALUE_DEPTH_MAX {
        return Err(Error::Invalid(format!(
            "the field `{name}` is nested deeper than the limit of {VALUE_DEPTH_MAX}"
        )));
    }
    Ok(())
}

fn check_text(what: &'static str, text: &str) -> Result<(), Error> {
    if text.is_empty() || text.contains('\0') {
        return Err(Error::Invalid(format!("{what} is empty, or has a NUL character")));
    }
    check_size(what, text.len(), NAME_BYTES_MAX)
}

/// How deep a value is nested, counted no further than `max`.
fn depth(value: &Value, max: usize) -> usize {
    let deepest = |depths: &mut dyn Iterator<Item = usize>| depths.max().unwrap_or(0);
    match value {
        _ if max == 0 => 0,
        Value::Array(values) => 1 + deepest(&mut values.iter().map(|value| depth(value, max - 1))),
        Value::Object(members) => 1 + deepest(&mut members.values().map(|value| depth(value, max - 1))),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_keys_are_nearly_anything() {
        for name in ["a", "orders-2026_eu", "0"] {
            assert!(check_name("table", name, 64).is_ok(), "{name}");
        }
        for name in ["", "A", "a/b", "é", "a b", &"x".repeat(65)] {
            assert!(matches!(check_name("table", name, 64), Err(Error::Invalid(_))), "{name}");
        }
        assert!(check_key("ключ/%2F ..", 1024).is_ok());
        assert!(matches!(check_key("", 1024), Err(Error::Invalid(_))));
        assert!(matches!(check_key("a\0b", 1024), Err(Error::Invalid(_))));
        assert!(matches!(check_key(&"k".repeat(1025), 1024), Err(Error::TooLarge { size: 1025, .. })));
    }

    #[test]
    fn a_range_holds_the_prefix_and_what_comes_after() {
        let holds = |prefix, after, key: &str| {
            let (first, end) = key_range(prefix, after);
            (first.as_slice()..end.as_slice()).contains(&key.as_bytes())
        };
        assert!(holds("", None, "\u{10ffff}") && holds("", None, "a"));
        assert!(holds("ab", None, "ab") && holds("ab", None, "ab\u{10ffff}"));
        assert!(!holds("ab", None, "a") && !holds("ab", None, "ac"));
        assert!(!holds("ab", Some("ab"), "ab") && holds("ab", Some("ab"), "ab!"));
        assert!(holds("ab", Some("a"), "ab") && !holds("ab", Some("b"), "abc"));
        assert!(holds("\u{10ffff}", None, "\u{10ffff}z"));
    }

    #[cfg(any(feature = "embedded", feature = "objects"))]
    #[test]
    fn ranges_are_resolved_as_http_says() {
        let cases = [
            (None, 0, Some(0..0)),
            (None, 10, Some(0..10)),
            (Some(ByteRange::From(3)), 10, Some(3..10)),
            (Some(ByteRange::From(10)), 10, None),
            (Some(ByteRange::Inclusive(0, 0)), 10, Some(0..1)),
            (Some(ByteRange::Inclusive(2, u64::MAX)), 10, Some(2..10)),
            (Some(ByteRange::Inclusive(3, 2)), 10, None),
            (Some(ByteRange::Inclusive(10, 12)), 10, None),
            (Some(ByteRange::Last(4)), 10, Some(6..10)),
            (Some(ByteRange::Last(40)), 10, Some(0..10)),
            (Some(ByteRange::Last(0)), 10, None),
            (Some(ByteRange::From(0)), 0, None),
        ];
        for (range, size, expected) in cases {
            assert_eq!(resolve(range, size).ok(), expected, "{range:?} of {size}");
        }
    }
}
