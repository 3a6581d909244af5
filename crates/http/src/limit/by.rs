//! By what requests are counted: which of them have one key.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderName, request::Parts};
use lethe_state::limits::KEY_BYTES_MAX;
use ring::digest::{SHA256, digest};

use crate::{
    address::ClientAddress,
    session::{self, Session, Who},
};

/// Bytes of the hash that stands for a secret. 96 bits are more than enough to tell keys apart.
const HASH_BYTES: usize = 12;

/// By what requests are counted.
#[derive(Clone)]
pub struct Key(Source);

type Function = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;

#[derive(Clone)]
enum Source {
    Everyone,
    Address,
    Session,
    User,
    Header(HeaderName),
    Function(Function),
}

/// All requests together.
pub fn everyone() -> Key {
    Key(Source::Everyone)
}

/// The client's network: see [`ClientAddress`] for whose word is taken for it, and what it is for IPv6. Those behind
/// one router for a house, or for a country, are one client by it.
pub fn address() -> Key {
    Key(Source::Address)
}

/// The session, by a hash of its id; one that lives in its cookie has no id that would stay, and is counted by [`user`]. A
/// request without a session that lives is counted by [`address`], since otherwise whoever sends no cookie, or invents
/// them, would not be counted at all. It needs a [`SessionLayer`](crate::session::SessionLayer) around this layer, and
/// loads the session. Whoever can begin sessions at will can have a burst for each: have a limit by address too.
pub fn session() -> Key {
    Key(Source::Session)
}

/// The user that is signed in; a request without one is counted by [`address`]. As for [`session`], there must be a
/// session layer around this one.
pub fn user() -> Key {
    Key(Source::User)
}

/// The value of a header, by its hash, as of an API key; a request without it is counted by [`address`].
///
/// Clients can invent values, and each of them begins with a whole burst: unless something in front has checked it, have a
/// limit by address too.
///
/// # Panics
/// When no header may have that name.
pub fn header<N>(name: N) -> Key
where
    N: TryInto<HeaderName, Error: std::fmt::Debug>,
{
    match name.try_into() {
        Ok(name) => Key(Source::Header(name)),
        Err(error) => panic!("no header may have this name: {error:?}"),
    }
}

/// What a function makes of the head of the request; a request of which it makes `None` is not counted. What is no key, as
/// it is empty, too long or has a NUL, is counted by its hash.
pub fn function(key: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static) -> Key {
    Key(Source::Function(Arc::new(key)))
}

impl Key {
    /// Whether the session must be loaded for it.
    pub(super) fn needs_session(&self) -> bool {
        matches!(self.0, Source::Session | Source::User)
    }

    /// The key of a request; `None` when it is not to be counted.
    pub(super) async fn of(&self, parts: &mut Parts) -> Result<Option<String>, session::Error> {
        let by_address = |parts: &Parts| format!("address:{}", ClientAddress::of(parts).network());
        Ok(Some(match &self.0 {
            Source::Everyone => "everyone".to_owned(),
            Source::Address => by_address(parts),
            Source::Session => {
                let session = Session::of(parts).await?;
                match (session.id(), session.user()) {
                    (Some(id), _) => format!("session:{}", hash(id.as_bytes())),
                    (None, Some(user)) => format!("user:{user}"),
                    (None, None) => by_address(parts),
                }
            }
            Source::User => match Who::of(parts).await?.0 {
                Some(user) => format!("user:{user}"),
                None => by_address(parts),
            },
            Source::Header(name) => match parts.headers.get(name) {
                Some(value) => format!("{name}:{}", hash(value.as_bytes())),
                None => by_address(parts),
            },
            Source::Function(key) => match key(parts) {
                Some(key) => as_key(key),
                None => return Ok(None),
            },
        }))
    }
}

/// Text that is a key already, or the hash of what is none.
fn as_key(text: String) -> String {
    match text.is_empty() || text.len() > KEY_BYTES_MAX || text.contains('\0') {
        true => format!("hash:{}", hash(text.as_bytes())),
        false => text,
    }
}

/// Stands for a secret where it must not be seen.
fn hash(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&digest(&SHA256, bytes).as_ref()[..HASH_BYTES])
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    async fn key(key: Key, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::get("/orders?n=7").header("x-forwarded-for", "192.0.2.7");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        key.of(&mut request.body(()).unwrap().into_parts().0).await.unwrap()
    }

    #[tokio::test]
    async fn requests_have_keys() {
        assert_eq!(key(everyone(), &[]).await.unwrap(), "everyone");
        assert_eq!(key(address(), &[]).await.unwrap(), "address:192.0.2.7");
        assert_eq!(key(header("x-api-key"), &[]).await.unwrap(), "address:192.0.2.7");
        let of_path = || function(|parts| Some(parts.uri.path().to_owned()));
        assert_eq!(key(of_path(), &[]).await.unwrap(), "/orders");
        assert_eq!(key(function(|_| None), &[]).await, None);
    }

    #[tokio::test]
    async fn secrets_are_not_shown() {
        let (one, other) = (key(header("x-api-key"), &[("x-api-key", "s3cret")]).await.unwrap(), "s3cret2");
        assert!(one.starts_with("x-api-key:") && !one.contains("s3cret") && one.len() == 26, "{one}");
        assert_eq!(key(header("x-api-key"), &[("x-api-key", "s3cret")]).await.unwrap(), one);
        assert_ne!(key(header("x-api-key"), &[("x-api-key", other)]).await.unwrap(), one);
        // Nobody else's key can be named by a header.
        let forged = key(header("x-api-key"), &[("x-api-key", "address:192.0.2.7")]).await.unwrap();
        assert_ne!(forged, "address:192.0.2.7");
    }

    #[tokio::test]
    async fn what_is_no_key_is_hashed() {
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        let texts = ["", "a\0b", &long, &format!("{long}y")].map(str::to_owned);
        let mut keys = Vec::new();
        for text in texts {
            let made = key(function(move |_| Some(text.clone())), &[]).await.unwrap();
            assert!(made.starts_with("hash:"), "{made}");
            keys.push(made);
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 4);
    }
}
