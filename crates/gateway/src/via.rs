//! `Via` (RFC 9110, section 7.6.3): the name under which the gateway says that a message has come through it, if it has
//! one, and by which it knows a request that goes round in circles.

/// How often a request may come through the gateway. A worker may rightly send one on to another service of the same
/// gateway, so that once more is no circle yet.
const PASSES_MAX: usize = 8;

/// Room for the protocol's version before the name.
const VERSION_BYTES: usize = 4;

/// What a message came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Http10,
    Http11,
    Http2,
}

/// The gateway's name among those that a message came through.
#[derive(Debug)]
pub(crate) struct Via {
    /// The field's value for each of [`Came`], so that none is made for a message.
    values: [Vec<u8>; 3],
}

impl Via {
    /// `name` is a token (RFC 9110, section 5.6.2).
    pub(crate) fn new(name: &str) -> Self {
        Self { values: ["1.0", "1.1", "2.0"].map(|version| format!("{version} {name}").into_bytes()) }
    }

    /// What is said of a message that came to the gateway like that.
    pub(crate) fn value(&self, came: Came) -> &[u8] {
        &self.values[came as usize]
    }

    /// Whether a request with these values of `Via` has come through here as often as it may. What is in a comment counts
    /// too: there is no reason to write this name there.
    pub(crate) fn is_circle<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> bool {
        let name = &self.value(Came::Http11)[VERSION_BYTES..];
        let members = values.flat_map(|value| value.split(|&byte| byte == b','));
        let is_here = |member: &&[u8]| {
            let mut words = member.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(name))
        };
        members.filter(is_here).count() >= PASSES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let via = Via::new("edge-1");
        for (came, value) in
            [(Came::Http10, "1.0 edge-1"), (Came::Http11, "1.1 edge-1"), (Came::Http2, "2.0 edge-1")]
        {
            assert_eq!(via.value(came), value.as_bytes());
        }
    }

    #[test]
    fn a_circle_is_known_after_some_rounds() {
        let via = Via::new("edge");
        let is_circle = |values: &[String]| via.is_circle(values.iter().map(String::as_bytes));
        let rounds = |count: usize| vec!["1.1 Edge".to_owned(); count];
        assert!(!is_circle(&[]));
        assert!(!is_circle(&rounds(PASSES_MAX - 1)));
        assert!(is_circle(&rounds(PASSES_MAX)));
        // However they are written.
        assert!(is_circle(&[
            "1.0 fred, HTTP/1.1  edge (lethe) ,2.0 edge,1.1 edge".into(),
            rounds(5).join(", ")
        ]));
        assert!(!is_circle(&[["1.1 edge2", "1.1 the-edge", "edge", "1.1 fred (edge)"].join(",").repeat(9)]));
    }
}
