//! One session as it is stored, and each of the small writes that its life is made of. The columns `user` have owners: see
//! [`crate::realm`].

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, types::Type};
#[cfg(feature = "server")]
use serde_json::value::RawValue;

use super::{command::Txn, failure::Stop};
#[cfg(feature = "server")]
use crate::wire;
use crate::{
    Millis, Revision,
    error::Error,
    rules::{check_field, check_size},
    sessions::{Change, Field, Patch, SESSION_BYTES_MAX, Session, SessionId},
};

/// The SHA-256 of a secret id.
pub(super) type Hash = [u8; 32];

/// What there is to an id.
pub(super) enum Found<F> {
    /// A session.
    Live(Loaded<F>),
    /// Nothing any more.
    Ended(Option<Tombstone>),
    /// Nothing that is remembered.
    Never,
}

/// What is left of an id.
pub(super) struct Tombstone {
    /// The id that it was renewed to.
    pub(super) successor: Option<Hash>,
    /// Whose session it became by that.
    pub(super) owner: Option<String>,
    /// When it ended.
    pub(super) ended_at: Millis,
}

/// A session that is not expired.
pub(super) struct Loaded<F = Fields> {
    serial: i64,
    pub(super) owner: Option<String>,
    created_at: Millis,
    idle_ms: Millis,
    idle_expires_at: Millis,
    pub(super) absolute_expires_at: Millis,
    fields: F,
}

/// Until when a session lives, and whether its use is worth a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) idle_ms: Millis,
    pub(super) idle_expires_at: Millis,
    pub(super) absolute_expires_at: Millis,
}

impl Times {
    /// Whether it has not expired. The absolute expiry is never before that of idle time.
    pub(super) fn is_live(&self, now: Millis) -> bool {
        self.idle_expires_at > now
    }

    /// Whether so much of the idle time has passed that use moves it on.
    pub(super) fn is_past_half(&self, now: Millis) -> bool {
        let moved = now.saturating_add(self.idle_ms).min(self.absolute_expires_at);
        self.idle_expires_at.saturating_sub(now) < self.idle_ms / 2 && moved > self.idle_expires_at
    }
}

/// The fields by name.
pub(super) type Fields = BTreeMap<String, Field>;

/// What the fields of a session are gathered in.
pub(super) trait Gather: Default {
    /// Adds one; its value is JSON. They come in the order of their names.
    fn add(&mut self, name: &str, value: &str, revision: Revision) -> serde_json::Result<()>;
}

impl Gather for Fields {
    fn add(&mut self, name: &str, value: &str, revision: Revision) -> serde_json::Result<()> {
        self.insert(name.to_owned(), Field { value: serde_json::from_str(value)?, revision });
        Ok(())
    }
}

/// The JSON object that the fields are in the state API, not closed yet.
#[cfg(feature = "server")]
#[derive(Default)]
pub(super) struct Text(String);

#[cfg(feature = "server")]
impl Gather for Text {
    fn add(&mut self, name: &str, value: &str, revision: Revision) -> serde_json::Result<()> {
        let Self(text) = self;
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(&serde_json::to_string(name)?);
        text.push_str(":{\"value\":");
        text.push_str(value);
        text.push_str(",\"revision\":");
        text.push_str(&revision.to_string());
        text.push('}');
        Ok(())
    }
}

#[cfg(feature = "server")]
impl Loaded<Text> {
    /// The session as the state API writes it.
    pub(super) fn into_json(self, id: &SessionId) -> serde_json::Result<Vec<u8>> {
        let Text(mut fields) = self.fields;
        fields.push_str(if fields.is_empty() { "{}" } else { "}" });
        serde_json::to_vec(&wire::Session {
            id: id.to_text(),
            user: self.owner.map(|owner| id.realm().user_of(owner)),
            // Reads through it: what is stored may not be JSON any more, and would end up as an answer that is none.
            fields: RawValue::from_string(fields)?,
            created_at: self.created_at,
            idle_ms: self.idle_ms,
            idle_expires_at: self.idle_expires_at,
            absolute_expires_at: self.absolute_expires_at,
        })
    }
}

/// Looks an id up. What it finds held at one moment between two commits.
pub(super) fn find<F: Gather>(
    connection: &Connection,
    hash: &Hash,
    now: Millis,
) -> rusqlite::Result<Found<F>> {
    if let Some(session) = read(connection, hash)? {
        return Ok(if session.times().is_live(now) { Found::Live(session) } else { Found::Ended(None) });
    }
    // An id that ends between the two reads has its tombstone by now, and one that began was known to nobody.
    let mut statement =
        connection.prepare_cached("SELECT successor, user, ended_at FROM tombstones WHERE hash = ?1")?;
    let tombstone = statement.query_row([hash], |row| {
        Ok(Tombstone { successor: row.get(0)?, owner: row.get(1)?, ended_at: row.get(2)? })
    });
    Ok(tombstone.optional()?.map_or(Found::Never, |tombstone| Found::Ended(Some(tombstone))))
}

fn read<F: Gather>(connection: &Connection, hash: &Hash) -> rusqlite::Result<Option<Loaded<F>>> {
    let mut statement = connection.prepare_cached(
        "SELECT serial, user, created_at, idle_ms, idle_expires_at, absolute_expires_at,
                name, value, session_fields.revision
         FROM sessions LEFT JOIN session_fields ON session = serial WHERE hash = ?1",
    )?;
    let mut rows = statement.query([hash])?;
    let mut session = None;
    while let Some(row) = rows.next()? {
        let session = match &mut session {
            Some(session) => session,
            empty => empty.insert(Loaded {
                serial: row.get(0)?,
                owner: row.get(1)?,
                created_at: row.get(2)?,
                idle_ms: row.get(3)?,
                idle_expires_at: row.get(4)?,
                absolute_expires_at: row.get(5)?,
                fields: F::default(),
            }),
        };
        if let Some(name) = row.get_ref(6)?.as_str_or_null()? {
            let revision = row.get::<_, i64>(8)?.cast_unsigned();
            session
                .fields
                .add(name, row.get_ref(7)?.as_str()?, revision)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(7, Type::Text, error.into()))?;
        }
    }
    Ok(session)
}

impl<F> Found<F> {
    /// The session, or the error for the caller.
    pub(super) fn live(self) -> Result<Loaded<F>, Stop> {
        match self {
            Self::Live(session) => Ok(session),
            Self::Ended(_) => Err(Error::Gone.into()),
            Self::Never => Err(Error::NotFound.into()),
        }
    }
}

impl<F> Loaded<F> {
    /// Until when it lives.
    pub(super) fn times(&self) -> Times {
        let Self { idle_ms, idle_expires_at, absolute_expires_at, .. } = *self;
        Times { idle_ms, idle_expires_at, absolute_expires_at }
    }
}

impl Loaded {
    /// A session that begins now, and is not stored yet.
    pub(super) fn new(
        owner: Option<String>,
        now: Millis,
        idle_ms: Millis,
        absolute_expires_at: Millis,
    ) -> Self {
        let idle_expires_at = now.saturating_add(idle_ms).min(absolute_expires_at);
        let fields = BTreeMap::new();
        Self { serial: 0, owner, created_at: now, idle_ms, idle_expires_at, absolute_expires_at, fields }
    }

    /// Stores it, without fields.
    pub(super) fn insert(&mut self, txn: &Txn<'_>, hash: &Hash, handle: &str) -> rusqlite::Result<()> {
        let mut statement = txn.prepared(
            "INSERT INTO sessions
             (hash, handle, user, created_at, idle_ms, idle_expires_at, absolute_expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        self.serial = statement.insert((
            hash,
            handle,
            &self.owner,
            self.created_at,
            self.idle_ms,
            self.idle_expires_at,
            self.absolute_expires_at,
        ))?;
        Ok(())
    }

    /// Counts as use: moves the idle time on if more than half of it has passed.
    pub(super) fn touch(&mut self, txn: &Txn<'_>) -> rusqlite::Result<()> {
        if !self.times().is_past_half(txn.now) {
            return Ok(());
        }
        self.idle_expires_at = txn.now.saturating_add(self.idle_ms).min(self.absolute_expires_at);
        txn.prepared("UPDATE sessions SET idle_expires_at = ?2 WHERE serial = ?1")?
            .execute((self.serial, self.idle_expires_at))?;
        Ok(())
    }

    /// Gives it another id and owner, which counts as use.
    pub(super) fn rename(
        &mut self,
        txn: &Txn<'_>,
        hash: &Hash,
        owner: Option<String>,
    ) -> rusqlite::Result<()> {
        self.owner = owner;
        self.idle_expires_at = txn.now.saturating_add(self.idle_ms).min(self.absolute_expires_at);
        txn.prepared("UPDATE sessions SET hash = ?2, user = ?3, idle_expires_at = ?4 WHERE serial = ?1")?
            .execute((self.serial, hash, &self.owner, self.idle_expires_at))?;
        Ok(())
    }

    /// Changes fields, each if it is as expected, and all only if they stay within the limit.
    pub(super) fn change(&mut self, txn: &mut Txn<'_>, patch: &Patch) -> Result<(), Stop> {
        for (index, (name, change)) in patch.changes.iter().enumerate() {
            let found = self.fields.get(name).map(|field| field.revision);
            if change.expect.is_some_and(|expected| expected != found.unwrap_or(0)) {
                return Err(Error::Conflict { index, key: name.clone(), found }.into());
            }
            self.change_field(txn, name, change)?;
        }
        if patch.changes.is_empty() {
            return Ok(());
        }
        let bytes: i64 = txn
            .prepared(
                "SELECT coalesce(sum(octet_length(name) + octet_length(value)), 0)
                 FROM session_fields WHERE session = ?1",
            )?
            .query_row([self.serial], |row| row.get(0))?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(check_size("the session's fields", bytes, SESSION_BYTES_MAX)?)
    }

    fn change_field(&mut self, txn: &mut Txn<'_>, name: &str, change: &Change) -> Result<(), Stop> {
        let Some(value) = &change.value else {
            self.fields.remove(name);
            txn.prepared("DELETE FROM session_fields WHERE session = ?1 AND name = ?2")?
                .execute((self.serial, name))?;
            return Ok(());
        };
        check_field(name, value)?;
        let revision = txn.next_revision();
        txn.prepared(
            "INSERT INTO session_fields (session, name, value, revision) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (session, name) DO UPDATE SET value = excluded.value, revision = excluded.revision",
        )?
        .execute((self.serial, name, value.to_string(), revision.cast_signed()))?;
        self.fields.insert(name.to_owned(), Field { value: value.clone(), revision });
        Ok(())
    }

    /// The session as callers know it.
    pub(super) fn into_session(self, id: SessionId) -> Session {
        Session {
            user: self.owner.map(|owner| id.realm().user_of(owner)),
            id,
            fields: self.fields.into(),
            created_at: self.created_at,
            idle_ms: self.idle_ms,
            idle_expires_at: self.idle_expires_at,
            absolute_expires_at: self.absolute_expires_at,
        }
    }
}
