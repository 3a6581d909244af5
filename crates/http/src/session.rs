//! Sessions for handlers: what is known of one visitor, behind a cookie that names it, or that holds it, signed. A handler reads fields
//! that were loaded before it ran, and writes into a buffer that is committed as one patch before the first byte
//! of the response leaves, so that a response never says what was not kept.
//!
//! A request's session goes `Absent → Live` when something is first written, `Live → Live` under a new id at
//! [`Session::sign_in`], `Live → Absent` at [`Session::sign_out`]. A cookie whose session has ended makes it
//! `Ended`, which reads like `Absent`.

mod error;
mod layer;
mod life;
mod pass;
mod vault;
mod visit;
mod who;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
pub use lethe_state::sessions::Lifetime;
use lethe_state::{
    error::Error as StateError,
    idempotency::Fingerprint,
    sessions::{Change, Patch, SessionId},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use self::{
    error::Error,
    layer::SessionLayer,
    life::{Event, LOG_TARGET, Life},
    pass::PASS_LIFE,
    vault::COOKIE_TOKEN_BYTES_MAX,
    who::Who,
};
use self::{
    vault::Vault,
    visit::{Current, Shared},
};

/// How often [`Session::update`] tries before it gives up. Each failed try means that another request's write to
/// the same field succeeded.
pub const UPDATE_TRIES_MAX: u32 = 32;

/// The session of the request, as a handler holds it. Cheap to clone; all clones are the same session.
///
/// The session is loaded when a handler or middleware first takes it as an argument; a request whose handler
/// does not costs the engine nothing. Extraction fails with 503 when the engine cannot be reached.
///
/// What [`set`](Self::set) and [`remove`](Self::remove) have buffered is committed when the handler has answered,
/// unless it answered with a status of 500 or above. If the commit fails, the client gets the failure and
/// not the handler's response: 409 when the session ended while the handler ran, 503 when the engine cannot be
/// reached. Fields are written one by one: two requests that write different fields lose nothing, and of two
/// that [`set`](Self::set) the same field the later wins. What depends on the value that was there belongs in
/// [`update`](Self::update).
///
/// # Sessions that have ended
/// A cookie may name a session that was destroyed, revoked, expired or renewed. It reads as an anonymous,
/// empty session, and the cookie is left alone.
/// - If it had ended before the request was loaded, a write creates a fresh session and replaces the cookie:
///   otherwise a visitor who comes back after expiry could never write again.
/// - If it ended in between, the write fails with 409 and the cookie is left alone. Most likely the user has just
///   signed in or out in another tab, whose newer cookie must not be overwritten; and what was written belonged to
///   a state of affairs that is over. The next request comes with the newer cookie, or falls under the first rule.
///
/// What remains: a request that left the browser just before the answer to a sign-in in another tab arrived
/// there, but that was loaded after the renewal, and that writes. It cannot be told from one after expiry, and its
/// fresh session replaces the signed-in one; the user has to sign in again.
///
/// # Retried sign-ins
/// When a worker dies after it has renewed a session and before the browser has the new id, the same sign-in is
/// sent again with the old cookie. [`sign_in`](Self::sign_in) hands the ended id to the engine, which finds its
/// successor for [`RENEW_GRACE`](lethe_state::sessions::RENEW_GRACE), so that no field is lost.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(…)")
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::of(parts).await
    }
}

impl Session {
    /// Whether there is a layer that provides it.
    pub(crate) fn has_layer(parts: &Parts) -> bool {
        parts.extensions.get::<Arc<Shared>>().is_some()
    }

    /// The session of the request with this head.
    pub(crate) async fn of(parts: &Parts) -> Result<Self, Error> {
        let shared = parts.extensions.get::<Arc<Shared>>().ok_or(Error::NoLayer)?.clone();
        shared.load(parts).await?;
        Ok(Self { shared })
    }

    /// The secret id of a session that lives in an engine. One in a cookie has no name that would stay.
    pub(crate) fn id(&self) -> Option<String> {
        match &self.shared.visit().current {
            Current::Live(held) => Some(self.shared.vault.id(&held.cookie)?.to_text()),
            _ => None,
        }
    }

    /// Who is signed in; `None` for an anonymous visitor.
    pub fn user(&self) -> Option<String> {
        match &self.shared.visit().current {
            Current::Live(session) => session.user.clone(),
            _ => None,
        }
    }

    /// A field as this request sees it, with what it has buffered; `None` when there is none. Fails with
    /// [`Error::Decode`] when what is stored is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>, Error> {
        let value = self.shared.visit().value(field).cloned();
        value.map(|value| decode(field, value)).transpose()
    }

    /// Buffers a new value for a field. It is stored when the handler has answered.
    pub fn set<T: Serialize + ?Sized>(&self, field: &str, value: &T) -> Result<(), Error> {
        let value = encode(field, value)?;
        self.buffer(field, Some(value))
    }

    /// Buffers the removal of a field.
    pub fn remove(&self, field: &str) -> Result<(), Error> {
        self.buffer(field, None)
    }

    fn buffer(&self, field: &str, value: Option<Value>) -> Result<(), Error> {
        let mut visit = self.shared.visit();
        visit.check_open()?;
        visit.pending.insert(field.to_owned(), value);
        Ok(())
    }

    /// Changes a field at once, from the value it has now, and returns the new value. A field that does not exist
    /// begins as `T::default()`. When another request was faster, `change` runs again on what that one
    /// wrote, so it must depend on nothing but its argument.
    ///
    /// This does not wait for the handler's answer: it stays done when the handler fails. Fails with
    /// [`Error::Contended`] after [`UPDATE_TRIES_MAX`] tries, with [`Error::Ended`] when the session ended since it
    /// was loaded. Dropped while it waits, the change is made whole or not at all.
    pub async fn update<T, F>(&self, field: &str, mut change: F) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned + Default,
        F: FnMut(&mut T),
    {
        let _turn = self.shared.turn.lock().await;
        self.shared.visit().check_open()?;
        for _ in 0..UPDATE_TRIES_MAX {
            // A buffered value is newer than the stored one and does not depend on it.
            let (old, buffered) = {
                let visit = self.shared.visit();
                (visit.value(field).cloned(), visit.pending.contains_key(field))
            };
            let mut value: T = old.clone().map(|old| decode(field, old)).transpose()?.unwrap_or_default();
            change(&mut value);
            let new = encode(field, &value)?;
            if !buffered && old.as_ref() == Some(&new) {
                return Ok(value);
            }
            match self.shared.write_field(field, new, !buffered).await {
                Ok(()) => return Ok(value),
                Err(Error::State(StateError::Conflict { .. })) => self.shared.reload().await?,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended { field: field.to_owned() })
    }

    /// Signs `user` in, whose identity the caller has proven: gives the session a fresh id, so that whoever knew
    /// the old one is shut out (session fixation), and keeps its fields. What was buffered is stored in the same
    /// step, at once.
    ///
    /// When somebody else was signed in, their session is ended first and nothing of it is kept.
    pub async fn sign_in(&self, user: &str) -> Result<(), Error> {
        let shared = &self.shared;
        let _turn = shared.turn.lock().await;
        shared.visit().check_open()?;
        let known = match shared.known_session() {
            Some((cookie, Some(held))) if held.user.as_deref().is_some_and(|other| other != user) => {
                shared.vault.destroy(&cookie).await?;
                shared.doubt(&cookie);
                shared.tell(Event::SignedOut, &cookie, held.user.as_deref());
                shared.visit().forget();
                None
            }
            known => known,
        };
        let pending = shared.visit().pending.clone();
        let lifetime = shared.lifetime;
        let renewed = match known {
            Some((cookie, held)) => {
                let patch = patch(&pending);
                let renewed =
                    shared.vault.renew(&cookie, held.as_deref(), Some(user), patch, lifetime).await?;
                shared.doubt(&cookie);
                renewed
            }
            None => None,
        };
        let session = match renewed {
            Some(session) => session,
            None => shared.vault.create(Some(user), visit::fields(&pending), lifetime).await?,
        };
        shared.tell(Event::SignedIn, &session.cookie, Some(user));
        let mut visit = shared.visit();
        visit.written(&pending);
        visit.enter(session);
        Ok(())
    }

    /// Gives the session another id, and keeps its user and its fields: to be called whenever what the user may do changes
    /// and who it is does not, as with a new password, another role or a second factor (OWASP Session Management Cheat Sheet,
    /// "Renew the Session ID After Any Privilege Level Change"). What was buffered is stored in the same step, at once.
    ///
    /// Without a session there is nothing to do. Fails with [`Error::Ended`] when it ended since it was loaded.
    pub async fn renew(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let _turn = shared.turn.lock().await;
        shared.visit().check_open()?;
        let Some((cookie, Some(held))) = shared.known_session() else { return Ok(()) };
        let pending = shared.visit().pending.clone();
        let user = held.user.as_deref();
        let renewed =
            shared.vault.renew(&cookie, Some(&held), user, patch(&pending), shared.lifetime).await?;
        shared.doubt(&cookie);
        let session = renewed.ok_or(Error::Ended)?;
        shared.tell(Event::Renewed, &session.cookie, user);
        let mut visit = shared.visit();
        visit.written(&pending);
        visit.enter(session);
        Ok(())
    }

    /// Signs the user out: ends the session with all its fields, at once, and clears the cookie. What was buffered
    /// is dropped; what is written afterwards begins a new, anonymous session.
    pub async fn sign_out(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let _turn = shared.turn.lock().await;
        shared.visit().check_open()?;
        if let Some((cookie, held)) = shared.known_session() {
            shared.vault.destroy(&cookie).await?;
            shared.doubt(&cookie);
            if let Some(held) = held {
                shared.tell(Event::SignedOut, &cookie, held.user.as_deref());
            }
        }
        let mut visit = shared.visit();
        visit.pending.clear();
        visit.forget();
        Ok(())
    }
}

impl Session {
    /// Stores what was buffered, and takes no more writes: for a layer that must know it stored before it goes on.
    pub(crate) async fn commit(&self) -> Result<(), Error> {
        self.shared.commit().await
    }

    /// Tells this visitor from all others: the user, or the session of one who is not signed in. The session's id is a
    /// secret, of which only the hash is shown. A token has none that outlives the next token.
    pub(crate) fn identity(&self) -> Option<String> {
        let (cookie, held) = self.shared.known_session()?;
        match (held.and_then(|held| held.user.clone()), &self.shared.vault) {
            // A user of one realm is not the one of that name in another: the gateway sees those of all.
            (Some(user), _) => match SessionId::parse(&cookie) {
                Some(id) if !id.realm().is_common() => Some(format!("user@{}:{user}", id.realm())),
                _ => Some(format!("user:{user}")),
            },
            (None, Vault::Stored(_)) => {
                Some(format!("session:{}", Fingerprint(Sha256::digest(cookie.as_bytes()).into())))
            }
            (None, Vault::Token(_)) => None,
        }
    }
}

/// The patch that writes what was buffered, whatever is there.
fn patch(pending: &visit::Pending) -> Patch {
    let change = |value: &Option<Value>| Change { value: value.clone(), expect: None };
    Patch { changes: pending.iter().map(|(field, value)| (field.clone(), change(value))).collect() }
}

fn encode<T: Serialize + ?Sized>(field: &str, value: &T) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|source| Error::Encode { field: field.to_owned(), source })
}

fn decode<T: DeserializeOwned>(field: &str, value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|source| Error::Decode { field: field.to_owned(), source })
}
