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

/// A request id of our own.
pub(crate) fn make_id(dice: &Dice) -> [u8; 32] {
    hex(u128::from(dice.next()) << 64 | u128::from(dice.next()))
}

/// The flag that says that the caller may have recorded the trace (W3C Trace Context, section 3.2.2.5.1).
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only spans need it"))]
const SAMPLED: u8 = 1;

/// A request's place in its trace, as `traceparent` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    /// The trace.
    pub(crate) trace: u128,
    /// What a worker sees as its parent: the gateway's span if it has one, else the client's.
    pub(crate) span: u64,
    /// The client's span, under which the gateway's lies.
    pub(crate) parent: Option<u64>,
    /// The client's field says all this already and may be passed on untouched.
    pub(crate) is_as_sent: bool,
    flags: u8,
}

impl Context {
    /// Reads a `traceparent` (section 3.2): version, trace id, parent id and flags in lower-case hexadecimal, ids not
    /// all zero. Versions to come may be longer. A field that is there twice is not to be read at all.
    pub(crate) fn parse(field: &[u8]) -> Option<Self> {
        let (head, tail) = field.split_at_checked(55)?;
        let dashes = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
        let version = number(&head[..2])?;
        let ends = tail.is_empty() || version != 0 && tail[0] == b'-';
        if !dashes || !ends || version == 0xff {
            return None;
        }
        let trace = number(&head[3..35])?;
        let span = number(&head[36..52])? as u64;
        let flags = number(&head[53..])? as u8;
        (trace != 0 && span != 0).then_some(Self { trace, span, parent: None, is_as_sent: true, flags })
    }

    /// The begin of a trace that nobody has asked for: not sampled.
    pub(crate) fn make(dice: &Dice) -> Self {
        // An id of zeros is invalid.
        let trace = u128::from(dice.next() | 1) << 64 | u128::from(dice.next());
        Self { trace, span: dice.next() | 1, parent: None, is_as_sent: false, flags: 0 }
    }

    /// The gateway's own span under the client's.
    #[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only spans need it"))]
    pub(crate) fn enter(&mut self, span: u64) {
        self.is_as_sent = false;
        self.parent = Some(self.span);
        self.span = span;
    }

    /// Sets whether it is recorded. The version that is written knows no other flag.
    #[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only spans need it"))]
    pub(crate) fn sample(&mut self, sampled: bool) {
        self.is_as_sent = false;
        self.flags = if sampled { SAMPLED } else { 0 };
    }

    /// Whether the trace begins here: the client has sent none, or no valid one.
    pub(crate) fn is_begin(&self) -> bool {
        !self.is_as_sent && self.parent.is_none()
    }

    /// Whether it is recorded.
    #[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only spans need it"))]
    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What workers are sent, in version 00.
    pub(crate) fn field(&self) -> [u8; 55] {
        let mut field = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut field[3..35], self.trace);
        write_hex(&mut field[36..52], self.span.into());
        write_hex(&mut field[53..], self.flags.into());
        field
    }

    /// The trace id in hexadecimal.
    pub(crate) fn trace_id(&self) -> [u8; 32] {
        hex(self.trace)
    }
}

/// A number in lower-case hexadecimal.
pub(crate) fn hex<const DIGITS: usize>(number: u128) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    write_hex(&mut digits, number);
    digits
}

fn write_hex(place: &mut [u8], mut number: u128) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// At most 32 digits.
fn number(hex: &[u8]) -> Option<u128> {
    hex.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
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
            assert_eq!(Context::parse(parent.as_bytes()).is_some(), expected, "{parent}");
        }
    }

    #[test]
    fn what_is_kept_is_passed_on_as_it_came() {
        let field = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(field).unwrap();
        assert_eq!((&context.field(), context.is_sampled()), (field, true));
        assert_eq!(&context.trace_id(), b"0af7651916cd43dd8448eb211c80319c");
        let unknown_flags = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-a2";
        let context = Context::parse(unknown_flags).unwrap();
        assert_eq!((&context.field(), context.is_sampled()), (unknown_flags, false));
    }

    #[test]
    fn a_span_of_our_own_comes_between() {
        let mut context = Context::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap();
        context.enter(0xab);
        context.sample(true);
        assert_eq!(&context.field(), b"00-0af7651916cd43dd8448eb211c80319c-00000000000000ab-01");
        assert_eq!(context.parent, Some(0xb7ad_6b71_6920_3331));
    }

    #[test]
    fn made_ones_are_valid_differ_and_are_not_sampled() {
        let dice = Dice::new();
        let (one, other) = (Context::make(&dice), Context::make(&dice));
        assert_eq!(Context::parse(&one.field()), Some(Context { is_as_sent: true, ..one }));
        assert!(!one.is_sampled() && one.field().ends_with(b"-00"));
        assert_ne!(one.trace, other.trace);
        assert!(is_sane_id(&make_id(&dice)));
    }
}
