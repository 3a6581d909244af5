//! One session as it is stored, and what is decided about it in memory: whether it lives, how a patch changes its fields,
//! when its idle time moves on. The columns `user_name` have owners: see [`crate::realm`].

use std::collections::BTreeMap;

use sqlx::{Row, postgres::PgRow};

use super::failure::Stop;
use crate::{
    Millis,
    error::Error,
    rules::{check_field, check_size},
    sessions::{Field, Patch, SESSION_BYTES_MAX, Session, SessionId},
};

/// The SHA-256 of a secret id.
pub(super) type Hash = [u8; 32];

/// The columns of a session, in the order that [`Loaded::read`] knows.
pub(super) const COLUMNS: &str =
    "user_name, fields, version, created_at, idle_ms, idle_expires_at, absolute_expires_at";

/// What there is to an id.
pub(super) enum Found {
    /// A session.
    Live(Loaded),
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

/// A session that has not expired.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) owner: Option<String>,
    pub(super) fields: BTreeMap<String, Field>,
    /// Grows with each change of fields, which have it as their revision.
    pub(super) version: i64,
    pub(super) created_at: Millis,
    pub(super) idle_ms: Millis,
    pub(super) idle_expires_at: Millis,
    pub(super) absolute_expires_at: Millis,
}

impl Found {
    /// The session, or the error for the caller.
    pub(super) fn live(self) -> Result<Loaded, Error> {
        match self {
            Self::Live(session) => Ok(session),
            Self::Ended(_) => Err(Error::Gone),
            Self::Never => Err(Error::NotFound),
        }
    }
}

impl Loaded {
    /// A session that is not stored yet: only then does it have its times.
    pub(super) fn new(owner: Option<String>, idle_ms: Millis) -> Self {
        Self {
            owner,
            fields: BTreeMap::new(),
            version: 1,
            created_at: 0,
            idle_ms,
            idle_expires_at: 0,
            absolute_expires_at: 0,
        }
    }

    /// Reads [`COLUMNS`].
    pub(super) fn read(row: &PgRow) -> Result<Self, Stop> {
        let fields =
            serde_json::from_str(row.try_get(1)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Self {
            owner: row.try_get(0)?,
            fields,
            version: row.try_get(2)?,
            created_at: row.try_get(3)?,
            idle_ms: row.try_get(4)?,
            idle_expires_at: row.try_get(5)?,
            absolute_expires_at: row.try_get(6)?,
        })
    }

    /// The fields as they are stored.
    pub(super) fn fields_text(&self) -> Result<String, Stop> {
        Ok(serde_json::to_string(&self.fields).map_err(|error| sqlx::Error::Encode(error.into()))?)
    }

    /// When the idle time ends if it begins anew.
    pub(super) fn moved(&self, now: Millis) -> Millis {
        now.saturating_add(self.idle_ms).min(self.absolute_expires_at)
    }

    /// Whether so much of the idle time has passed that use moves it on.
    pub(super) fn is_past_half(&self, now: Millis) -> bool {
        self.idle_expires_at.saturating_sub(now) < self.idle_ms / 2 && self.moved(now) > self.idle_expires_at
    }

    /// Counts as use: moves the idle time on if more than half of it has passed.
    pub(super) fn touch(&mut self, now: Millis) {
        if self.is_past_half(now) {
            self.idle_expires_at = self.moved(now);
        }
    }

    /// Changes fields, each if it is as expected, and all only if they stay within the limit.
    pub(super) fn change(&mut self, patch: &Patch) -> Result<(), Error> {
        if patch.changes.is_empty() {
            return Ok(());
        }
        self.version += 1;
        for (index, (name, change)) in patch.changes.iter().enumerate() {
            let found = self.fields.get(name).map(|field| field.revision);
            if change.expect.is_some_and(|expected| expected != found.unwrap_or(0)) {
                return Err(Error::Conflict { index, key: name.clone(), found });
            }
            match &change.value {
                None => drop(self.fields.remove(name)),
                Some(value) => {
                    check_field(name, value)?;
                    let field = Field { value: value.clone(), revision: self.version.cast_unsigned() };
                    self.fields.insert(name.clone(), field);
                }
            }
        }
        let bytes = self.fields.iter().map(|(name, field)| name.len() + field.value.to_string().len()).sum();
        check_size("the session's fields", bytes, SESSION_BYTES_MAX)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sessions::Change;

    fn session() -> Loaded {
        Loaded { idle_expires_at: 1000, absolute_expires_at: 1800, ..Loaded::new(None, 1000) }
    }

    #[test]
    fn the_idle_time_moves_past_its_half_and_never_past_the_absolute_one() {
        let mut session = session();
        session.touch(500);
        assert_eq!(session.idle_expires_at, 1000);
        session.touch(501);
        assert_eq!(session.idle_expires_at, 1501);
        session.touch(1400);
        assert_eq!(session.idle_expires_at, 1800);
        assert!(!session.is_past_half(1799));
    }

    #[test]
    fn a_field_that_is_made_again_has_a_larger_revision() {
        let mut session = session();
        let change = |value| Patch { changes: [("f".into(), Change { value, expect: None })].into() };
        session.change(&change(Some(json!(1)))).unwrap();
        let first = session.fields["f"].revision;
        session.change(&change(None)).unwrap();
        session.change(&change(Some(json!(1)))).unwrap();
        assert!(session.fields["f"].revision > first);
    }
}
