//! The rules for names and keys, which tables and blobs share.

use crate::error::Error;

/// Checks the name of a table or bucket: lower-case ASCII letters, digits, `-` and `_`.
pub(super) fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Error> {
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
pub(super) fn check_key(key: &str, bytes_max: usize) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::Invalid("a key is empty".into()));
    }
    if key.contains('\0') {
        return Err(Error::Invalid(format!("the key {:?} has a NUL character", shortened(key, bytes_max))));
    }
    check_size("a key", key.len(), bytes_max)
}

/// Checks that something is not larger than it may be.
pub(super) fn check_size(what: &'static str, size: usize, max: usize) -> Result<(), Error> {
    if size > max {
        return Err(Error::TooLarge { what, size: size as u64, max: max as u64 });
    }
    Ok(())
}

/// The keys that begin with `prefix` and come after `after`, as the first of a range of bytes, and the first
/// behind it.
pub(super) fn key_range(prefix: &str, after: Option<&str>) -> (Vec<u8>, Vec<u8>) {
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

/// As much of a text as fits into so many bytes.
fn shortened(text: &str, bytes_max: usize) -> &str {
    (0..=bytes_max).rev().find_map(|end| text.get(..end)).unwrap_or(text)
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
}
