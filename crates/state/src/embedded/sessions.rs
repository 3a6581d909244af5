//! Sessions in SQLite. Only a hash of the secret id is stored, so that who reads the file cannot act as
//! anyone. An id that ends leaves a tombstone, by which it is known never to be used again.

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
#[cfg(feature = "server")]
use bytes::Bytes;
use rusqlite::Params;

#[cfg(feature = "server")]
use super::session_row::Text;
use super::{
    Store,
    command::{Stale, Txn},
    failure::Stop,
    session_row::{Found, Hash, Loaded, Tombstone, find},
};
#[cfg(feature = "server")]
use crate::wire;
use crate::{
    Millis,
    clock::{after, millis},
    error::Error,
    feed::{Feed, followers::Topic},
    realm::Realm,
    rules::check_user,
    sessions::{
        Change, LIST_MAX, NewSession, Patch, RENEW_GRACE, Renewed, Session, SessionId, SessionInfo, Sessions,
    },
};

/// How long after a session's absolute expiry the tombstones of its ids are kept: a day, in milliseconds. Until then
/// they are known to be gone; later, as ids that never were.
const TOMBSTONE_KEPT_MS: Millis = 24 * 3600 * 1000;
/// Most renewals that a repeated renewal is followed through. Each is a call that came again within the grace.
const RENEWALS_FOLLOWED_MAX: usize = 64;
/// Random bytes in a handle.
const HANDLE_BYTES: usize = 9;

#[async_trait]
impl Sessions for Store {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        let NewSession { realm, user, fields, lifetime } = new;
        check_user(user.as_deref())?;
        let owner = user.map(|user| realm.owner(&user).into_owned());
        let (idle_ms, absolute_ms) = (millis(lifetime.idle), millis(lifetime.absolute));
        if idle_ms == 0 || absolute_ms == 0 {
            return Err(Error::Invalid("a session's lifetimes are 1 ms at least".into()));
        }
        let change = |value| Change { value: Some(value), expect: None };
        let patch =
            Patch { changes: fields.into_iter().map(|(name, value)| (name, change(value))).collect() };
        let mut random = [0; HANDLE_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| Error::Unavailable(format!("the system gives no random numbers: {error}")))?;
        let (id, handle) = (SessionId::random_in(realm)?, BASE64_URL_SAFE_NO_PAD.encode(random));
        let hash = id.hash();
        let loaded = self.writer.submit(move |txn| {
            let absolute_expires_at = after(txn.now, lifetime.absolute).min(Millis::MAX - TOMBSTONE_KEPT_MS);
            let mut session = Loaded::new(owner, txn.now, idle_ms, absolute_expires_at);
            session.insert(txn, &hash, &handle)?;
            session.change(txn, &patch)?;
            Ok(session)
        });
        Ok(loaded.await?.into_session(id))
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        let (hash, now) = (id.hash(), self.clock.now());
        let loaded = self.readers.look_up(|connection| find(connection, &hash, now)?.live()).await?;
        if !loaded.times().is_past_half(now) {
            return Ok(loaded.into_session(id.clone()));
        }
        let touched = self.writer.submit(move |txn| {
            let mut session = find(txn.connection(), &hash, txn.now)?.live()?;
            session.touch(txn)?;
            txn.changes_session(&hash);
            Ok(session)
        });
        match touched.await {
            // A full disk must not end what can still be read.
            Err(Error::Engine(error)) => {
                tracing::warn!(error = %error, "the idle time of a session could not be moved on");
                Ok(loaded.into_session(id.clone()))
            }
            touched => Ok(touched?.into_session(id.clone())),
        }
    }

    #[cfg(feature = "server")]
    async fn load_json(&self, id: &SessionId) -> Result<Bytes, Error> {
        let (hash, now) = (id.hash(), self.clock.now());
        let mark = self.recent.mark(&hash);
        let read = |connection: &_| find::<Text>(connection, &hash, now)?.live();
        let loaded = self.readers.look_up(read).await?;
        let times = loaded.times();
        if times.is_past_half(now) {
            let json = serde_json::to_vec(&wire::Session::from(self.load(id).await?));
            return json.map(Bytes::from).map_err(|error| Error::Engine(error.into()));
        }
        let mut json = loaded.into_json(id).map_err(|error| Error::Engine(error.into()))?;
        json.shrink_to_fit();
        let json = Bytes::from(json);
        if let Some(mark) = mark {
            self.recent.keep(id, mark, times, json.clone());
        }
        Ok(json)
    }

    #[cfg(feature = "server")]
    fn recall_json(&self, id: &SessionId) -> Option<Bytes> {
        self.recent.get(id, self.clock.now())
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        let hash = id.hash();
        let patched = self.writer.submit(move |txn| {
            let mut session = find(txn.connection(), &hash, txn.now)?.live()?;
            session.change(txn, &patch)?;
            session.touch(txn)?;
            txn.changes_session(&hash);
            if !patch.changes.is_empty() {
                txn.tell(|| stale(&hash));
            }
            Ok(session)
        });
        Ok(patched.await?.into_session(id.clone()))
    }

    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        check_user(user)?;
        let (old, new_id) = (id.hash(), SessionId::random_in(id.realm().clone())?);
        let owner = user.map(|user| id.realm().owner(user).into_owned());
        let new = new_id.hash();
        let renewed = self.writer.submit(move |txn| {
            let Renewable { hash, mut session, between } = find_renewable(txn, old, owner.as_deref())?;
            session.change(txn, &patch)?;
            bury(txn, &hash, &new, owner.as_deref(), session.absolute_expires_at)?;
            session.rename(txn, &new, owner)?;
            txn.changes_session(&hash);
            txn.tell(|| stale(&hash));
            Ok((session, between))
        });
        let (session, between) = renewed.await?;
        let between = between.iter().map(public_name).collect();
        Ok(Renewed { session: session.into_session(new_id), between })
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        let hash = id.hash();
        self.writer.submit(move |txn| end(txn, "hash = ?3", (txn.now, TOMBSTONE_KEPT_MS, hash))).await?;
        Ok(())
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        check_user(Some(user))?;
        let realm = realm.cloned().unwrap_or_default();
        let (owner, now) = (realm.owner(user).into_owned(), self.clock.now());
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT handle, created_at, idle_expires_at, absolute_expires_at FROM sessions
                 WHERE user = ?1 AND idle_expires_at > ?2 ORDER BY created_at DESC, serial DESC LIMIT ?3",
                )?;
                let infos = statement.query_map((owner, now, LIST_MAX as i64), |row| {
                    Ok(SessionInfo {
                        handle: row.get(0)?,
                        realm: realm.clone(),
                        created_at: row.get(1)?,
                        idle_expires_at: row.get(2)?,
                        absolute_expires_at: row.get(3)?,
                    })
                })?;
                Ok(infos.collect::<Result<Vec<_>, _>>()?)
            })
            .await
    }

    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        check_user(Some(user))?;
        let realm = realm.cloned().unwrap_or_default();
        let (owner, handle) = (realm.owner(user).into_owned(), handle.map(str::to_owned));
        self.writer
            .submit(move |txn| {
                let which = "user = ?3 AND (?4 IS NULL OR handle = ?4)";
                Ok(end(txn, which, (txn.now, TOMBSTONE_KEPT_MS, &owner, &handle))?.live)
            })
            .await
    }

    async fn follow(&self) -> Result<Feed, Error> {
        self.follow_topic(Topic::Sessions).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

/// That copies of a session are stale.
pub(super) fn stale(hash: &Hash) -> Stale {
    (Topic::Sessions, public_name(hash))
}

/// The [public name](SessionId::public_name) of the id with this hash.
fn public_name(hash: &Hash) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(hash)
}

/// A session that may be renewed.
struct Renewable {
    /// Of the id that it has now.
    hash: Hash,
    session: Loaded,
    /// Those of its ids that came after the one asked for.
    between: Vec<Hash>,
}

/// The session to renew: the one with this id, or, when the id was renewed for the same user within the grace,
/// the one it became.
fn find_renewable(txn: &Txn<'_>, mut hash: Hash, owner: Option<&str>) -> Result<Renewable, Stop> {
    let mut between = Vec::new();
    while between.len() <= RENEWALS_FOLLOWED_MAX {
        match find(txn.connection(), &hash, txn.now)? {
            Found::Live(session) if between.is_empty() || session.owner.as_deref() == owner => {
                return Ok(Renewable { hash, session, between });
            }
            Found::Ended(Some(Tombstone { successor: Some(successor), owner: renewed_for, ended_at }))
                if owner.is_some()
                    && renewed_for.as_deref() == owner
                    && txn.now.saturating_sub(ended_at) < millis(RENEW_GRACE) =>
            {
                hash = successor;
                between.push(hash);
            }
            Found::Never => return Err(Error::NotFound.into()),
            Found::Live(_) | Found::Ended(_) => break,
        }
    }
    Err(Error::Gone.into())
}

/// Leaves a tombstone for an id that was renewed.
fn bury(
    txn: &Txn<'_>,
    hash: &Hash,
    successor: &Hash,
    owner: Option<&str>,
    absolute_expires_at: Millis,
) -> rusqlite::Result<()> {
    let mut statement = txn.prepared(
        "INSERT INTO tombstones (hash, successor, user, ended_at, forget_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    statement.execute((hash, successor, owner, txn.now, absolute_expires_at + TOMBSTONE_KEPT_MS))?;
    Ok(())
}

/// How many sessions were ended.
struct Ended {
    /// All of them.
    all: usize,
    /// Those that had not expired.
    live: u64,
}

/// Ends the sessions that `which` selects. Parameters 1 and 2 are the time and [`TOMBSTONE_KEPT_MS`]; those of
/// `which` follow.
fn end(txn: &mut Txn<'_>, which: &str, parameters: impl Params + Clone) -> Result<Ended, Stop> {
    txn.prepared(&format!(
        "INSERT INTO tombstones (hash, ended_at, forget_at)
         SELECT hash, ?1, absolute_expires_at + ?2 FROM sessions WHERE {which}"
    ))?
    .execute(parameters.clone())?;
    // Their fields go with them: the reference cascades.
    let mut statement =
        txn.prepared(&format!("DELETE FROM sessions WHERE {which} RETURNING idle_expires_at, hash, ?1, ?2"))?;
    let mut rows = statement.query(parameters)?;
    let mut ended = Ended { all: 0, live: 0 };
    while let Some(row) = rows.next()? {
        ended.all += 1;
        let hash = row.get(1)?;
        txn.changes_session(&hash);
        // Of those that had expired, everybody knows by the clock.
        if row.get::<_, Millis>(0)? > txn.now {
            ended.live += 1;
            txn.tell(|| stale(&hash));
        }
    }
    Ok(ended)
}

/// Turns at most `limit` expired sessions into tombstones; how many it did.
pub(super) fn end_expired(txn: &mut Txn<'_>, limit: usize) -> Result<usize, Stop> {
    let which = "serial IN (SELECT serial FROM sessions WHERE idle_expires_at <= ?1 LIMIT ?3)";
    Ok(end(txn, which, (txn.now, TOMBSTONE_KEPT_MS, limit as i64))?.all)
}
