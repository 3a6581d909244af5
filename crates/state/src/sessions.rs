//! Sessions: what is known of one visitor, under an unguessable id. Fields are patched one by one under
//! compare-and-swap, so that two tabs lose nothing; an ended id never comes back.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
#[cfg(feature = "server")]
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    Millis, Revision,
    error::Error,
    feed::Feed,
    realm::{self, Realm},
};

/// Random bytes in a session id: 128 bits, twice what OWASP's Session Management Cheat Sheet asks for.
pub const ID_BYTES: usize = 16;
/// Most bytes of all fields of one session, names and JSON text together.
pub const SESSION_BYTES_MAX: usize = 64 << 10;
/// Longest field name and user name, in bytes. A name is any text but the empty one, without NUL.
pub const NAME_BYTES_MAX: usize = 256;
/// How deep the value of a field may be nested in arrays and objects.
pub const VALUE_DEPTH_MAX: usize = 100;
/// Most sessions that a list returns.
pub const LIST_MAX: usize = 1000;
/// How long after a renewal the old id may be renewed again for the same user: see [`Sessions::renew`].
pub const RENEW_GRACE: Duration = Duration::from_secs(30);

/// Longest text form of an id, in bytes.
pub const ID_TEXT_BYTES_MAX: usize = RANDOM_TEXT_BYTES + 1 + realm::NAME_BYTES_MAX;
/// How long the text form of the random bytes is.
const RANDOM_TEXT_BYTES: usize = 22;
/// Stands in the text form between the random bytes and the realm. It needs no escape in a URL (RFC 3986, section 2.3) and is allowed in a
/// cookie (RFC 6265, section 4.1.1).
const REALM_MARK: char = '~';

/// The secret id of a session. Its text form is 22 characters of URL-safe base64 (RFC 4648, section 5), and `~` and the name of its realm
/// unless that is the common one. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId {
    random: [u8; ID_BYTES],
    realm: Realm,
}

impl SessionId {
    /// A new one of the common realm, from the operating system's random numbers.
    pub fn random() -> Result<Self, Error> {
        Self::random_in(Realm::default())
    }

    /// A new one of a realm.
    pub fn random_in(realm: Realm) -> Result<Self, Error> {
        let mut random = [0; ID_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| Error::Unavailable(format!("the system gives no random numbers: {error}")))?;
        Ok(Self { random, realm })
    }

    /// Reads the text form; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, realm) = match text.split_once(REALM_MARK) {
            // The common realm has no other text than none.
            Some((text, name)) => (text, Some(Realm::named(name).ok()?).filter(|realm| !realm.is_common())?),
            None => (text, Realm::default()),
        };
        let mut random = [0; ID_BYTES];
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut random).ok()?;
        (length == ID_BYTES).then_some(Self { random, realm })
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(random: [u8; ID_BYTES]) -> Self {
        Self { random, realm: Realm::default() }
    }

    /// Of which realm it is.
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// The text form. It is a secret: for a cookie, never for a log.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(ID_TEXT_BYTES_MAX);
        BASE64_URL_SAFE_NO_PAD.encode_string(self.random, &mut text);
        if let Some(realm) = self.realm.name() {
            text.push(REALM_MARK);
            text.push_str(realm);
        }
        text
    }

    /// By which a feed and a log may name the session: its [hash](Self::hash), in URL-safe base64. It tells nothing of the id.
    pub fn public_name(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.hash())
    }

    /// What engines keep of it: the SHA-256 (FIPS 180-4) of its random bytes and the name of its realm.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(self.random);
        hash.update(self.realm.name().unwrap_or_default());
        hash.finalize().into()
    }

    /// The random bytes. They are a secret.
    pub fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.random
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// How long sessions live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Ends the session when it was not used for so long. Use moves it on only past half its time, so that
    /// most reads do not write.
    pub idle: Duration,
    /// Ends the session so long after it was created, used or not. Renewal does not move it.
    pub absolute: Duration,
}

impl Default for Lifetime {
    /// One day idle, 30 days in all.
    fn default() -> Self {
        Self { idle: Duration::from_secs(24 * 3600), absolute: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// One field of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Its value.
    pub value: Value,
    /// Changes with each write to the field.
    pub revision: Revision,
}

/// A session as it was read. Cheap to clone, however much it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its secret id.
    pub id: SessionId,
    /// Who is signed in; `None` for an anonymous visitor.
    pub user: Option<String>,
    /// Its fields.
    pub fields: Arc<BTreeMap<String, Field>>,
    /// When it was first created; a renewal keeps it.
    pub created_at: Millis,
    /// For how long it may be without use; [`Lifetime::idle`] in milliseconds.
    pub idle_ms: Millis,
    /// When it ends unless it is used.
    pub idle_expires_at: Millis,
    /// When it ends in any case.
    pub absolute_expires_at: Millis,
}

/// A session to create.
#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// Of which realm it is. Through a socket of the state API it may be left out, as the default.
    pub realm: Realm,
    /// Who is signed in.
    pub user: Option<String>,
    /// The first fields.
    pub fields: BTreeMap<String, Value>,
    /// How long it lives.
    pub lifetime: Lifetime,
}

/// A change of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The new value; `None` removes the field.
    pub value: Option<Value>,
    /// The revision that the field must have, 0 for "does not exist"; `None` when any will do.
    pub expect: Option<Revision>,
}

/// Changes of fields, done all or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// By field name.
    pub changes: BTreeMap<String, Change>,
}

/// What a renewal has come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Renewed {
    /// The session, under its new id.
    pub session: Session,
    /// The [public names](SessionId::public_name) of the ids that the session had in between, after the one that was asked for, when that
    /// had been renewed before: they are gone now. For who tells of ends; empty where that is done ([`Sessions::tells_of_ends`]).
    pub between: Vec<String>,
}

/// What one may know of a user's session without its secret id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Names the session in lists and for revocation; not a secret, and no help in guessing the id.
    pub handle: String,
    /// Of which realm it is.
    #[serde(default, skip_serializing_if = "Realm::is_common")]
    pub realm: Realm,
    /// When it was first created.
    pub created_at: Millis,
    /// When it ends unless it is used.
    pub idle_expires_at: Millis,
    /// When it ends in any case.
    pub absolute_expires_at: Millis,
}

/// An engine that keeps sessions.
///
/// Every method is cancellation safe in this sense: a dropped call either happens whole or not at all.
/// What was acknowledged survives `kill -9` of any process.
///
/// Methods that take an id fail with [`Error::NotFound`] for one that never was (or was forgotten long after
/// its end), and with [`Error::Gone`] for one that was destroyed, renewed or expired.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Creates a session with a fresh id.
    async fn create(&self, new: NewSession) -> Result<Session, Error>;

    /// Reads a session, which counts as use.
    async fn load(&self, id: &SessionId) -> Result<Session, Error>;

    /// The same, read now: an engine that has a copy near does not take it. For who knows that there was a change which may not have been
    /// told here yet.
    async fn load_through(&self, id: &SessionId) -> Result<Session, Error> {
        self.load(id).await
    }

    /// The same, as the JSON that the state API gives of it, for its server. An engine that keeps fields as text need not read them
    /// for that.
    #[cfg(feature = "server")]
    async fn load_json(&self, id: &SessionId) -> Result<Bytes, Error> {
        let session = crate::wire::Session::from(self.load(id).await?);
        serde_json::to_vec(&session).map(Bytes::from).map_err(|error| Error::Engine(error.into()))
    }

    /// The same as [`load_json`](Self::load_json) would give, if it is known without waiting for anything; `None` if it must be asked
    /// for, also where it is an error.
    #[cfg(feature = "server")]
    fn recall_json(&self, _id: &SessionId) -> Option<Bytes> {
        None
    }

    /// How long after a change elsewhere was acknowledged [`load`](Self::load) may still return what was before.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }

    /// Changes fields, in one step, and returns the session as it is then. Fails with [`Error::Conflict`]
    /// when a field has another revision than expected.
    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error>;

    /// Gives the session a fresh id and the user `user`, with `patch`, in one step; the old id is gone. To be called
    /// at sign-in and at each change of privilege, after the proof of who it is (OWASP Session Management
    /// Cheat Sheet, "Renew the Session ID After Any Privilege Level Change").
    ///
    /// The same call may come twice when a worker died before it could answer. So an id that was renewed less than
    /// [`RENEW_GRACE`] ago may be renewed once more if that made the session one of the very `user` asked
    /// for now (never for an anonymous one): then its successor is renewed, and nothing of it is lost.
    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error>;

    /// Ends a session. Ending one that is gone or was never there is no error.
    async fn destroy(&self, id: &SessionId) -> Result<(), Error>;

    /// The live sessions of a user of this realm, newest first, at most [`LIST_MAX`]. `None` is the common realm; through a socket of the
    /// state API it is whatever the socket is for: the service's own, or all that are known.
    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error>;

    /// Ends the sessions of a user of this realm, or only the one with this handle; returns how many were live.
    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error>;

    /// [`list_in`](Self::list_in) no certain realm.
    async fn list(&self, user: &str) -> Result<Vec<SessionInfo>, Error> {
        self.list_in(None, user).await
    }

    /// [`revoke_in`](Self::revoke_in) no certain realm.
    async fn revoke(&self, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        self.revoke_in(None, user, handle).await
    }

    /// Follows what changes in sessions from now on: an id of which something was patched, or which was renewed, destroyed or
    /// revoked. That it was used is no change.
    async fn follow(&self) -> Result<Feed, Error>;

    /// Gives what is kept as records, to move it; `None` if this engine cannot.
    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        None
    }

    /// Whether the end of a session is told in the table of [revocations](crate::revocations) too.
    fn tells_of_ends(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_128_random_bits() {
        let ids: Vec<u128> =
            (0..1000).map(|_| u128::from_be_bytes(*SessionId::random().unwrap().as_bytes())).collect();
        // Of a thousand throws, each coin has shown both sides, and by far not one of them alone.
        for bit in 0..128 {
            let heads = ids.iter().filter(|id| *id >> bit & 1 == 1).count();
            assert!((300..=700).contains(&heads), "bit {bit} was set in {heads} of 1000 ids");
        }
    }

    #[test]
    fn an_id_has_one_text_and_shows_it_to_nobody() {
        let id = SessionId::random().unwrap();
        let text = id.to_text();
        assert_eq!((text.len(), SessionId::parse(&text)), (22, Some(id.clone())));
        for other in [&text[1..], &format!("{text}A"), &format!("{text}="), &format!(" {text}"), "", "é"] {
            assert_eq!(SessionId::parse(other), None, "{other:?}");
        }
        // The last letter stands for four bits alone: others of the same four are no other text of it.
        let texts =
            (b'A'..=b'z').filter_map(|last| SessionId::parse(&format!("{}{}", &text[..21], last as char)));
        assert_eq!(texts.filter(|other| *other == id).count(), 1);
        assert!(!format!("{id:?}").contains(&text) && !id.public_name().contains(&text));
    }

    #[test]
    fn an_id_is_another_one_in_another_realm() {
        let shop = SessionId::random_in(Realm::named("shop").unwrap()).unwrap();
        let text = shop.to_text();
        let (random, name) = text.split_once('~').unwrap();
        assert_eq!((name, SessionId::parse(&text)), ("shop", Some(shop.clone())));
        let others = [random.to_owned(), format!("{random}~shoq"), format!("{random}~sho")];
        for other in others.map(|text| SessionId::parse(&text).unwrap()) {
            assert!(other != shop && other.hash() != shop.hash(), "{}", other.to_text());
        }
        for none in ["~", "~Shop", "~common", "~shop~shop", "~shop "] {
            assert_eq!(SessionId::parse(&format!("{random}{none}")), None, "{none}");
        }
        let longest =
            SessionId::random_in(Realm::named(&"x".repeat(realm::NAME_BYTES_MAX)).unwrap()).unwrap();
        assert_eq!(longest.to_text().len(), ID_TEXT_BYTES_MAX);
    }
}
