//! Idempotency: the first answer to a request with an `Idempotency-Key` is the answer to all with that key
//! (draft-ietf-httpapi-idempotency-key-header). While the first runs, others are told so; a key that comes with another
//! request is refused.

#[cfg(any(feature = "embedded", feature = "redis"))]
pub(crate) mod lines;
#[cfg(any(feature = "embedded", feature = "redis"))]
pub(crate) mod rule;

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Error;

/// Longest scope, in bytes: lower-case ASCII letters, digits, `-` and `_`.
pub const SCOPE_BYTES_MAX: usize = 64;
/// Longest key, in bytes of UTF-8. A key is any text but the empty one, without NUL.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest name of an owner, in bytes of UTF-8.
pub const OWNER_BYTES_MAX: usize = 256;
/// Most owners that one beginning names as dead.
pub const DISPLACED_MAX: usize = 16;
/// Largest answer that is kept, in bytes: its body, and the names and values of its fields.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most header fields of an answer.
pub const ANSWER_FIELDS_MAX: usize = 100;

/// Longest lease of a claim, and longest time that an answer is kept: 366 days.
pub const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What makes two requests the same: a SHA-256 of all that counts of them. As text, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut bytes = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() == bytes.len() && rest.is_empty() {
            for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { break };
                *byte = high << 4 | low;
            }
            if Self(bytes).to_string().eq_ignore_ascii_case(text) {
                return Ok(Self(bytes));
            }
        }
        Err(Error::Invalid("a fingerprint is 64 hexadecimal digits, those of a SHA-256".into()))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

/// A request that is about to be done.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// What the key is unique in: a service or one of its routes. The key must have in it whose it is, else one user could
    /// read another one's answer.
    pub scope: String,
    /// The key.
    pub key: String,
    /// What the request is.
    pub fingerprint: Fingerprint,
    /// Who does it: the worker's name.
    pub owner: String,
    /// Owners that are known to be dead: a claim of theirs on this key counts no more, and its answer will never come. At
    /// most [`DISPLACED_MAX`].
    pub displaces: Vec<String>,
    /// What was begun is not begun again: a claim that brought no answer, and never will, is not taken over but told as
    /// [`Begun::Lost`]. For who cannot tell whether the first one did what it was to do.
    pub at_most_once: bool,
    /// How long the claim lasts unless it is extended: from then on, the owner counts as dead. At least 1 ms.
    pub lease: Duration,
    /// How long the key and its answer are kept, from the answer on, or from the end of a claim that brought none. At
    /// least 1 ms.
    pub kept: Duration,
}

/// The right to do a request, and the duty to say what was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// As in [`Beginning`].
    pub scope: String,
    /// As in [`Beginning`].
    pub key: String,
    /// Tells it from earlier and later claims on the key.
    pub token: u64,
}

/// An answer, as it is given again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header fields in their order: lower-case names, and values of any bytes that HTTP allows.
    pub fields: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Its size as it is counted: its body, and the names and values of its fields.
    pub fn size(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.len() + value.len());
        self.body.len() + fields.sum::<usize>()
    }
}

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is the first: it is to be done, and ended with [`Idempotency::finish`] or [`Idempotency::abandon`].
    Claimed(Claim),
    /// The first one still runs (409), and its claim lasts so long unless it is extended.
    Running(Duration),
    /// The first one was answered so.
    Answered(Answer),
    /// The key was used for another request (422), which may have run, or still run.
    Mismatched,
    /// The first one was begun, and its owner is dead, or counts as dead. Only with [`Beginning::at_most_once`]. Should its
    /// answer come all the same, it is kept.
    Lost,
}

/// An engine that keeps idempotency keys.
///
/// Every method is cancellation safe in this sense: a dropped call either happens whole or not at all. An answer that was
/// acknowledged survives `kill -9` of any process.
#[async_trait]
pub trait Idempotency: Send + Sync + 'static {
    /// Looks the key up, and claims it if nobody has.
    async fn begin(&self, beginning: Beginning) -> Result<Begun, Error>;

    /// Lets a claim last `lease` from now on, also one whose lease was over and that nobody took since; false when somebody
    /// else has it by now, or the answer.
    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error>;

    /// Keeps the answer; false when the key has an answer already, or the claim was somebody else's by now: then that
    /// one's answer counts. Fails with [`Error::TooLarge`] when the answer is over [`ANSWER_BYTES_MAX`].
    async fn finish(&self, claim: &Claim, answer: Answer) -> Result<bool, Error>;

    /// Forgets the key, since nothing was done and the next request with it shall be the first; false as in
    /// [`finish`](Self::finish).
    async fn abandon(&self, claim: &Claim) -> Result<bool, Error>;

    /// Gives what is kept as records, to move it; `None` if this engine cannot.
    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_hexadecimal_digits() {
        let fingerprint = Fingerprint(std::array::from_fn(|n| (n * 8 + 7) as u8));
        assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        assert_eq!(fingerprint.to_string().to_uppercase().parse::<Fingerprint>().unwrap(), fingerprint);
        for text in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert!(matches!(text.parse::<Fingerprint>(), Err(Error::Invalid(_))), "{text}");
        }
    }
}
