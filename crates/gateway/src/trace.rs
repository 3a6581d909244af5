//! The names a request is known by: its request id and its W3C trace context. What the client sends is kept if it
//! is sane, so that a request can be followed across systems; otherwise it is made here.

use crate::balance::Dice;

/// Longest `X-Request-Id` that is kept.
const ID_BYTES_MAX: usize = 128;

/// A request id is kept if it is short and cannot do harm in a log or a header.
pub(crate) fn is_sane_id(id: &[u8]) -> bool {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(safe)
}

/// Whether a `traceparent` is valid (W3C Trace Context, section 3.2): version, trace id, parent id and flags in
/// lower-case hexadecimal, ids not all zero. Versions to come may be longer.
pub(crate) fn is_valid_parent(parent: &[u8]) -> bool {
    let Some((head, tail)) = parent.split_at_checked(55) else { return false };
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &[u8]| hex(part) && part.iter().any(|&byte| byte != b'0');
    let version = &head[..2];
    let dashes = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
    let ends = if version == b"00" { tail.is_empty() } else { tail.is_empty() || tail[0] == b'-' };
    dashes
        && ends
        && hex(version)
        && version != b"ff"
        && id(&head[3..35])
        && id(&head[36..52])
        && hex(&head[53..])
}

/// A new request id and `traceparent`.
pub(crate) struct Made([u8; 55]);

impl Made {
    pub(crate) fn id(&self) -> &[u8] {
        &self.0[3..35]
    }

    pub(crate) fn parent(&self) -> &[u8] {
        &self.0
    }
}

/// Makes an id and a `traceparent` whose trace id is the same, so that either leads to the other. The trace is marked
/// as sampled: the workers' own samplers decide, as they would without a gateway.
pub(crate) fn make(dice: &Dice) -> Made {
    let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-01";
    // An id of zeros is invalid.
    write_hex(&mut parent[3..19], dice.next() | 1);
    write_hex(&mut parent[19..35], dice.next());
    write_hex(&mut parent[36..52], dice.next() | 1);
    Made(parent)
}

fn write_hex(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for (id, expected) in [
            ("7f3a-1", true),
            ("a/b:c=+@._", true),
            ("", false),
            ("two words", false),
            ("<script>", false),
            (&"x".repeat(128), true),
            (&"x".repeat(129), false),
        ] {
            assert_eq!(is_sane_id(id.as_bytes()), expected, "{id}");
        }
    }

    #[test]
    fn parents() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (parent, expected) in [
            (valid.to_owned(), true),
            (valid.replacen("00-", "cc-", 1), true),
            (valid.replacen("00-", "cc-", 1) + "-what", true),
            (valid.to_owned() + "-what", false),
            (valid.replacen("00-", "ff-", 1), false),
            (valid.to_uppercase(), false),
            (valid.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), false),
            (valid.replace("b7ad6b7169203331", &"0".repeat(16)), false),
            (valid.replacen('-', "_", 1), false),
            ("00-0af7".to_owned(), false),
        ] {
            assert_eq!(is_valid_parent(parent.as_bytes()), expected, "{parent}");
        }
    }

    #[test]
    fn made_ones_are_valid_and_differ() {
        let dice = Dice::new();
        let (one, other) = (make(&dice), make(&dice));
        assert!(is_sane_id(one.id()) && is_valid_parent(one.parent()));
        assert_eq!(one.id(), &one.parent()[3..35]);
        assert_ne!(one.id(), other.id());
    }
}
