//! Tokens that are good only together with a cookie that no script can read: whoever steals the one, by a script in a page
//! or from a log, has nothing without the other (OWASP JSON Web Token Cheat Sheet, "Token Sidejacking").

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use lethe_state::error::Error as StateError;
use sha2::{Digest, Sha256};

use super::key;
use crate::cookie;

/// The cookie. Its prefix makes browsers refuse one from a sibling domain, or over plain HTTP.
const COOKIE: &str = "__Host-fingerprint";
/// The claim that has the hash of the cookie's value.
pub(super) const CLAIM: &str = "fgp";
/// Random bytes of the value.
const BYTES: usize = 16;

/// The secret that a token is bound to. `Debug` does not show it.
#[derive(Clone)]
pub struct Fingerprint {
    secret: String,
    life: Duration,
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

impl Fingerprint {
    /// A new one for tokens of this life.
    pub(super) fn random(life: Duration) -> Result<Self, StateError> {
        Ok(Self { secret: key::random::<BYTES>()?, life })
    }

    /// The `Set-Cookie` line that must go to the browser with the token. The cookie goes to this host alone, over TLS, with
    /// requests of this site's own pages, is hidden from scripts, and lives as long as the token.
    pub fn set_cookie(&self) -> HeaderValue {
        let line = format!(
            "{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}",
            self.secret,
            self.life.as_secs()
        );
        // It is base64 and digits.
        let mut line = HeaderValue::try_from(line).unwrap_or(HeaderValue::from_static(""));
        line.set_sensitive(true);
        line
    }

    /// What the token says of it.
    pub(super) fn claim(&self) -> String {
        hash(&self.secret)
    }
}

/// Whether a request has the cookie that the claim is of.
pub(super) fn came(headers: &HeaderMap, claim: &str) -> bool {
    cookie::values(headers, |name| name == COOKIE).any(|secret| hash(secret) == claim)
}

fn hash(secret: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn the_cookie_is_hardened_and_the_token_has_only_its_hash() {
        let fingerprint = Fingerprint::random(Duration::from_secs(900)).unwrap();
        let line = fingerprint.set_cookie();
        let expected = format!(
            "__Host-fingerprint={}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=900",
            fingerprint.secret
        );
        assert_eq!(line, expected);
        assert!(line.is_sensitive() && !format!("{fingerprint:?}").contains(&fingerprint.secret));
        assert!(!fingerprint.claim().contains(&fingerprint.secret));
        let mut headers = HeaderMap::new();
        assert!(!came(&headers, &fingerprint.claim()));
        headers.append(header::COOKIE, HeaderValue::from_static("__Host-fingerprint=guessed"));
        assert!(!came(&headers, &fingerprint.claim()));
        let pair = format!("a=b; __Host-fingerprint={}", fingerprint.secret);
        headers.append(header::COOKIE, HeaderValue::try_from(pair).unwrap());
        assert!(came(&headers, &fingerprint.claim()));
    }
}
