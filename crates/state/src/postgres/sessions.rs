//! Sessions in PostgreSQL. Only a hash of the secret id is stored, so that who reads the database cannot act as anyone. An
//! id that ends leaves a tombstone, by which it is known never to be used again.
//!
//! A patch first reads, and writes if the session still has the version that was read; when somebody else was quicker, it
//! holds the session while it decides.

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sqlx::{PgConnection, Row};

use super::{
    Store,
    attempt::attempt,
    failure::Stop,
    session_row::{COLUMNS, Found, Hash, Loaded, Tombstone},
    sql::statements,
};
use crate::{
    Millis,
    clock::millis,
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
/// Longest lifetime: half of what a number can say, so that the sum with any time of day is one too.
const LIFETIME_MS_MAX: Millis = Millis::MAX / 2;
/// Most renewals that a repeated renewal is followed through. Each is a call that came again within the grace.
const RENEWALS_FOLLOWED_MAX: usize = 64;
/// Random bytes in a handle.
const HANDLE_BYTES: usize = 9;

statements! {
    /// What is said to PostgreSQL of sessions.
    Sql {
        // The id is random: the same once more is the same call once more.
        create: "INSERT INTO {s}.sessions (hash, handle, user_name, fields, version, created_at, idle_ms,
                     idle_expires_at, absolute_expires_at)
                 VALUES ($2, $3, $4, $5, $6, {now}, $7, {now} + least($7, $8), {now} + $8)
                 ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash
                 RETURNING created_at, idle_expires_at, absolute_expires_at",
        find: &format!("SELECT {COLUMNS}, {{now}} FROM {{s}}.sessions WHERE hash = $2"),
        hold: &format!("SELECT {COLUMNS}, {{now}} FROM {{s}}.sessions WHERE hash = $2 FOR UPDATE"),
        find_tombstone: "SELECT successor, user_name, ended_at, {now} FROM {s}.tombstones WHERE hash = $2",
        touch: &format!("UPDATE {{s}}.sessions SET idle_expires_at = greatest(idle_expires_at, $3)
                 WHERE hash = $2 AND idle_expires_at > {{now}} RETURNING {COLUMNS}"),
        swap: "UPDATE {s}.sessions
               SET fields = $3, version = $4, idle_expires_at = greatest(idle_expires_at, $5)
               WHERE hash = $2 AND version = $6 AND idle_expires_at > {now}
               RETURNING idle_expires_at",
        keep: "UPDATE {s}.sessions SET fields = $2, version = $3, idle_expires_at = $4 WHERE hash = $1",
        renew: &format!("WITH buried AS (
                    INSERT INTO {{s}}.tombstones (hash, successor, user_name, ended_at, forget_at)
                    VALUES ($1, $2, $3, $7, $8 + {TOMBSTONE_KEPT_MS})
                )
                UPDATE {{s}}.sessions
                SET hash = $2, user_name = $3, fields = $4, version = $5, idle_expires_at = $6 WHERE hash = $1"),
        destroy: &end("hash", "SELECT hash FROM {s}.sessions WHERE hash = $2 FOR UPDATE"),
        // Whoever ends several sessions holds them in the same order. A renewal that this has waited for has changed the
        // hash, and not the serial number, by which alone the session is found again in the state of before.
        revoke: &end("user_name = $2 AND serial", "SELECT serial FROM {s}.sessions
                      WHERE user_name = $2 AND ($3::text IS NULL OR handle = $3) ORDER BY serial FOR UPDATE"),
        list: "SELECT handle, created_at, idle_expires_at, absolute_expires_at FROM {s}.sessions
               WHERE user_name = $2 AND idle_expires_at > {now}
               ORDER BY created_at DESC, serial DESC LIMIT $3",
    }
}

/// A statement that makes tombstones of the sessions that `which` holds, and counts them: all, and those that were alive.
///
/// What is held is what a session has become by then, and it is looked for, `by` what `which` says of it, where it was when the
/// statement began (PostgreSQL's manual, "Read Committed Isolation Level"). So that must be nothing that may have changed
/// meanwhile, unless the session is not meant any more when it has.
pub(super) fn end(by: &str, which: &str) -> String {
    format!(
        "WITH chosen AS MATERIALIZED ({which}),
         ended AS (
             DELETE FROM {{s}}.sessions WHERE {by} IN (SELECT * FROM chosen)
             RETURNING hash, idle_expires_at, absolute_expires_at
         ),
         buried AS (
             INSERT INTO {{s}}.tombstones (hash, ended_at, forget_at)
             SELECT hash, {{now}}, absolute_expires_at + {TOMBSTONE_KEPT_MS} FROM ended
         )
         SELECT count(*), count(*) FILTER (WHERE idle_expires_at > {{now}}) FROM ended"
    )
}

#[async_trait]
impl Sessions for Store {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        let NewSession { realm, user, fields, lifetime } = new;
        check_user(user.as_deref())?;
        let owner = user.map(|user| realm.owner(&user).into_owned());
        let idle_ms = millis(lifetime.idle).min(LIFETIME_MS_MAX);
        let absolute_ms = millis(lifetime.absolute).min(LIFETIME_MS_MAX);
        if idle_ms == 0 || absolute_ms == 0 {
            return Err(Error::Invalid("a session's lifetimes are 1 ms at least".into()));
        }
        let change = |value| Change { value: Some(value), expect: None };
        let patch =
            Patch { changes: fields.into_iter().map(|(name, value)| (name, change(value))).collect() };
        let mut session = Loaded::new(owner, idle_ms);
        session.change(&patch)?;
        let (id, handle) = (SessionId::random_in(realm)?, handle()?);
        let hash = id.hash();
        let times = attempt!(self, Repeatable, |connection| async {
            let query = sqlx::query(self.sql.sessions.create.clone()).bind(self.now()).bind(hash);
            let query = query.bind(&handle).bind(&session.owner).bind(session.fields_text()?);
            let query = query.bind(session.version).bind(idle_ms).bind(absolute_ms);
            let row = query.fetch_one(connection).await?;
            Ok::<(Millis, Millis, Millis), Stop>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        })?;
        (session.created_at, session.idle_expires_at, session.absolute_expires_at) = times;
        Ok(session.into_session(id))
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        let hash = id.hash();
        let (found, now) = attempt!(self, Repeatable, |connection| find(self, connection, &hash, false))?;
        let loaded = found.live()?;
        if !loaded.is_past_half(now) {
            return Ok(loaded.into_session(id.clone()));
        }
        match touch(self, &hash, loaded.moved(now)).await {
            Ok(Some(touched)) => Ok(touched.into_session(id.clone())),
            Ok(None) => {
                // It has ended in between.
                let (found, _) =
                    attempt!(self, Repeatable, |connection| find(self, connection, &hash, false))?;
                Ok(found.live()?.into_session(id.clone()))
            }
            // A full disk, or a server that is going away, must not end what was just read.
            Err(error) => {
                tracing::warn!(%error, "the idle time of a session could not be moved on");
                Ok(loaded.into_session(id.clone()))
            }
        }
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        let hash = id.hash();
        let (found, now) = attempt!(self, Repeatable, |connection| find(self, connection, &hash, false))?;
        let mut session = found.live()?;
        let version = session.version;
        session.change(&patch)?;
        session.touch(now);
        if let Some(idle_expires_at) = swap(self, &hash, &session, version).await? {
            session.idle_expires_at = idle_expires_at;
            return Ok(session.into_session(id.clone()));
        }
        let patched =
            attempt!(self, Transaction, |connection| hold_and_patch(self, connection, &hash, &patch))?;
        Ok(patched.into_session(id.clone()))
    }

    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        check_user(user)?;
        let (old, new_id) = (id.hash(), SessionId::random_in(id.realm().clone())?);
        let owner = user.map(|user| id.realm().owner(user));
        let owner = owner.as_deref();
        let new = new_id.hash();
        let renewed =
            attempt!(self, Transaction, |connection| renew(self, connection, old, &new, owner, &patch))?;
        let (session, between) = renewed;
        let between = between.iter().map(|hash| BASE64_URL_SAFE_NO_PAD.encode(hash)).collect();
        Ok(Renewed { session: session.into_session(new_id), between })
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        let hash = id.hash();
        attempt!(self, Repeatable, |connection| async {
            let query = sqlx::query(self.sql.sessions.destroy.clone()).bind(self.now()).bind(hash);
            query.execute(connection).await?;
            Ok::<_, Stop>(())
        })
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        check_user(Some(user))?;
        let realm = realm.cloned().unwrap_or_default();
        let owner = &*realm.owner(user);
        attempt!(self, Repeatable, |connection| async {
            let query = sqlx::query(self.sql.sessions.list.clone()).bind(self.now()).bind(owner);
            let rows = query.bind(LIST_MAX as i64).fetch_all(connection).await?;
            let infos = rows.iter().map(|row| {
                Ok::<_, Stop>(SessionInfo {
                    handle: row.try_get(0)?,
                    realm: realm.clone(),
                    created_at: row.try_get(1)?,
                    idle_expires_at: row.try_get(2)?,
                    absolute_expires_at: row.try_get(3)?,
                })
            });
            infos.collect::<Result<Vec<_>, _>>()
        })
    }

    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        check_user(Some(user))?;
        let realm = realm.cloned().unwrap_or_default();
        let owner = &*realm.owner(user);
        // A handle with a NUL is nobody's, and PostgreSQL has no such text.
        if handle.is_some_and(|handle| handle.contains('\0')) {
            return Ok(0);
        }
        attempt!(self, Once, |connection| async {
            let query = sqlx::query(self.sql.sessions.revoke.clone()).bind(self.now()).bind(owner);
            let row = query.bind(handle).fetch_one(connection).await?;
            Ok::<_, Stop>(row.try_get::<i64, _>(1)?.cast_unsigned())
        })
    }

    async fn follow(&self) -> Result<Feed, Error> {
        self.follow_topic(Topic::Sessions).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

fn handle() -> Result<String, Error> {
    let mut random = [0; HANDLE_BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| Error::Unavailable(format!("the system gives no random numbers: {error}")))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// Looks an id up, and what time it is; holds the session to the end of the transaction if asked to.
async fn find(
    store: &Store,
    connection: &mut PgConnection,
    hash: &Hash,
    hold: bool,
) -> Result<(Found, Millis), Stop> {
    let sql = &store.sql.sessions;
    let statement = if hold { &sql.hold } else { &sql.find };
    let query = sqlx::query(statement.clone()).bind(store.now()).bind(hash);
    if let Some(row) = query.fetch_optional(&mut *connection).await? {
        let (session, now) = (Loaded::read(&row)?, row.try_get(7)?);
        let is_live = session.idle_expires_at > now;
        return Ok((if is_live { Found::Live(session) } else { Found::Ended(None) }, now));
    }
    // An id that ends between the two reads has its tombstone by now, and one that began was known to nobody.
    let query = sqlx::query(sql.find_tombstone.clone()).bind(store.now()).bind(hash);
    let Some(row) = query.fetch_optional(connection).await? else { return Ok((Found::Never, 0)) };
    let successor = row.try_get::<Option<Vec<u8>>, _>(0)?.and_then(|hash| hash.try_into().ok());
    let tombstone = Tombstone { successor, owner: row.try_get(1)?, ended_at: row.try_get(2)? };
    Ok((Found::Ended(Some(tombstone)), row.try_get(3)?))
}

/// Moves the idle time on; `None` when the session has ended.
async fn touch(store: &Store, hash: &Hash, idle_expires_at: Millis) -> Result<Option<Loaded>, Error> {
    attempt!(store, Repeatable, |connection| async {
        let query = sqlx::query(store.sql.sessions.touch.clone()).bind(store.now()).bind(hash);
        let row = query.bind(idle_expires_at).fetch_optional(connection).await?;
        row.as_ref().map(Loaded::read).transpose()
    })
}

/// Writes a session that was changed, if it still has this version, and says until when it lives then.
async fn swap(store: &Store, hash: &Hash, session: &Loaded, version: i64) -> Result<Option<Millis>, Error> {
    attempt!(store, Once, |connection| async {
        let query = sqlx::query(store.sql.sessions.swap.clone()).bind(store.now()).bind(hash);
        let query = query.bind(session.fields_text()?).bind(session.version);
        let query = query.bind(session.idle_expires_at).bind(version);
        let row = query.fetch_optional(connection).await?;
        Ok::<_, Stop>(row.map(|row| row.try_get(0)).transpose()?)
    })
}

/// Changes a session that nobody else changes meanwhile.
async fn hold_and_patch(
    store: &Store,
    connection: &mut PgConnection,
    hash: &Hash,
    patch: &Patch,
) -> Result<Loaded, Stop> {
    let (found, now) = find(store, connection, hash, true).await?;
    let mut session = found.live()?;
    session.change(patch)?;
    session.touch(now);
    sqlx::query(store.sql.sessions.keep.clone())
        .bind(hash)
        .bind(session.fields_text()?)
        .bind(session.version)
        .bind(session.idle_expires_at)
        .execute(connection)
        .await?;
    Ok(session)
}

async fn renew(
    store: &Store,
    connection: &mut PgConnection,
    old: Hash,
    new: &Hash,
    owner: Option<&str>,
    patch: &Patch,
) -> Result<(Loaded, Vec<Hash>), Stop> {
    let Renewable { hash, mut session, between, now } = hold_renewable(store, connection, old, owner).await?;
    session.change(patch)?;
    session.owner = owner.map(str::to_owned);
    session.idle_expires_at = session.moved(now);
    sqlx::query(store.sql.sessions.renew.clone())
        .bind(hash)
        .bind(new)
        .bind(owner)
        .bind(session.fields_text()?)
        .bind(session.version)
        .bind(session.idle_expires_at)
        .bind(now)
        .bind(session.absolute_expires_at)
        .execute(connection)
        .await?;
    Ok((session, between))
}

/// A session that may be renewed, and that nobody else can change now.
struct Renewable {
    /// Of the id that it has now.
    hash: Hash,
    session: Loaded,
    /// Those of its ids that came after the one asked for.
    between: Vec<Hash>,
    now: Millis,
}

/// The session to renew: the one with this id, or, when the id was renewed for the same user within the grace,
/// the one it became.
async fn hold_renewable(
    store: &Store,
    connection: &mut PgConnection,
    mut hash: Hash,
    owner: Option<&str>,
) -> Result<Renewable, Stop> {
    let mut between = Vec::new();
    while between.len() <= RENEWALS_FOLLOWED_MAX {
        match find(store, connection, &hash, true).await? {
            (Found::Live(session), now) if between.is_empty() || session.owner.as_deref() == owner => {
                return Ok(Renewable { hash, session, between, now });
            }
            (
                Found::Ended(Some(Tombstone { successor: Some(successor), owner: renewed_for, ended_at })),
                now,
            ) if owner.is_some()
                && renewed_for.as_deref() == owner
                && now.saturating_sub(ended_at) < millis(RENEW_GRACE) =>
            {
                hash = successor;
                between.push(hash);
            }
            (Found::Never, _) => return Err(Error::NotFound.into()),
            (Found::Live(_) | Found::Ended(_), _) => break,
        }
    }
    Err(Error::Gone.into())
}
