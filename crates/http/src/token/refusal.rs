//! Why a token was not taken, and how often that was.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a token was refused. A client learns no more than that it was: see [`crate::token::Bearer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is longer than [`TOKEN_BYTES_MAX`](super::TOKEN_BYTES_MAX).
    #[error("the token is longer than {} bytes", super::TOKEN_BYTES_MAX)]
    TooLong,
    /// It is no token: not three parts (or five, encrypted) of base64, or no JSON in them.
    #[error("the token cannot be read")]
    Malformed,
    /// Its header asks for something that is not done here: `crit`, or an encryption other than the ring's.
    #[error("the token's header asks for what is not supported")]
    Unsupported,
    /// It names no key, or one that is not in the ring.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// Its `alg` is not the one of its key; `none` among them.
    #[error("the token names another algorithm than its key is for")]
    WrongAlgorithm,
    /// It was not signed by the key that it names, or was changed since.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// It should have been encrypted, or not.
    #[error("the token is not encrypted as it should be")]
    NotSealed,
    /// Its `typ` is of another kind of token (RFC 8725, section 3.11).
    #[error("the token is of another type")]
    WrongType,
    /// Somebody else issued it.
    #[error("the token is of another issuer")]
    WrongIssuer,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    WrongAudience,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the token is not valid yet")]
    NotYet,
    /// It was revoked: its user's epoch is a later one.
    #[error("the token was revoked")]
    Revoked,
    /// It is bound to a cookie that did not come with it ([`Fingerprint`](super::Fingerprint)).
    #[error("the token came without the cookie that it is bound to")]
    Unbound,
}

impl Refusal {
    /// All there are.
    pub const ALL: [Self; 14] = [
        Self::TooLong,
        Self::Malformed,
        Self::Unsupported,
        Self::UnknownKey,
        Self::WrongAlgorithm,
        Self::BadSignature,
        Self::NotSealed,
        Self::WrongType,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::Expired,
        Self::NotYet,
        Self::Revoked,
        Self::Unbound,
    ];

    /// Its name, for a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::NotSealed => "not_sealed",
            Self::WrongType => "wrong_type",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Revoked => "revoked",
            Self::Unbound => "unbound",
        }
    }
}

/// How many tokens were refused, by reason, since the worker began.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub(super) fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were for this reason.
    pub fn of(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        let refusals = Refusals::default();
        for (times, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, times);
            (0..times).for_each(|_| refusals.count(refusal));
        }
        for (times, refusal) in (0..).zip(Refusal::ALL) {
            assert_eq!(refusals.of(refusal), times, "{}", refusal.name());
        }
    }
}
