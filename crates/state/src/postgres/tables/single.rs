//! A batch of one write as one statement: one round trip, and no lock is held any longer than the server itself needs. A
//! statement that does nothing leaves it to the general way to find out why.

use std::time::Duration;

use sqlx::Row;

use crate::{
    clock::millis,
    error::Error,
    postgres::{Store, attempt::attempt, failure::Stop, sql::statements},
    tables::{Action, Condition, Outcome, Write},
};

/// An expiry is no later than this after now: half of what a number can say, so that the sum is one too.
const TTL_MS_MAX: i64 = i64::MAX / 2;

// A revision for a row that is there is drawn in SET, when the row is held: those of a row grow in the order of its writes.
statements! {
    /// Puts, deletes and increments.
    Statements {
        put: "INSERT INTO {s}.rows AS old (table_name, key, value, revision, expires_at)
              VALUES ($2, $3, $4, nextval('{s}.revisions'), {now} + $5)
              ON CONFLICT (table_name, key) DO UPDATE
              SET value = excluded.value, revision = nextval('{s}.revisions'), expires_at = excluded.expires_at
              RETURNING revision",
        put_if_absent: "INSERT INTO {s}.rows AS old (table_name, key, value, revision, expires_at)
              VALUES ($2, $3, $4, nextval('{s}.revisions'), {now} + $5)
              ON CONFLICT (table_name, key) DO UPDATE
              SET value = excluded.value, revision = nextval('{s}.revisions'), expires_at = excluded.expires_at
              WHERE old.expires_at <= {now}
              RETURNING revision",
        put_if_present: "UPDATE {s}.rows
              SET value = $4, revision = nextval('{s}.revisions'), expires_at = {now} + $5
              WHERE table_name = $2 AND key = $3 AND (expires_at IS NULL OR expires_at > {now})
              AND ($6::bigint IS NULL OR revision = $6)
              RETURNING revision",
        delete: "DELETE FROM {s}.rows WHERE table_name = $2 AND key = $3
              RETURNING expires_at IS NULL OR expires_at > {now}",
        delete_if_present: "DELETE FROM {s}.rows
              WHERE table_name = $2 AND key = $3 AND (expires_at IS NULL OR expires_at > {now})
              AND ($4::bigint IS NULL OR revision = $4)
              RETURNING true",
        // Values that look like integers are at most 20 bytes, and so is what is computed with.
        increment: "INSERT INTO {s}.rows AS old (table_name, key, value, revision, expires_at)
              VALUES ($2, $3, convert_to($4::bigint::text, 'UTF8'), nextval('{s}.revisions'), {now} + $5)
              ON CONFLICT (table_name, key) DO UPDATE
              SET value = CASE WHEN old.expires_at <= {now} THEN excluded.value
                      ELSE convert_to((encode(old.value, 'escape')::numeric + $4)::text, 'UTF8') END,
                  revision = nextval('{s}.revisions'),
                  expires_at = CASE WHEN old.expires_at <= {now} THEN excluded.expires_at ELSE old.expires_at END
              WHERE CASE
                  WHEN old.expires_at <= {now} THEN true
                  WHEN octet_length(old.value) > 20 THEN false
                  WHEN encode(old.value, 'escape') !~ '^-?[0-9]+$' THEN false
                  ELSE encode(old.value, 'escape')::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
                      AND encode(old.value, 'escape')::numeric + $4
                          BETWEEN -9223372036854775808 AND 9223372036854775807
              END
              RETURNING revision, encode(value, 'escape')::bigint",
    }
}

/// Does the write, if it can be done in one statement and there is nothing in its way.
pub(super) async fn apply(store: &Store, write: &Write) -> Result<Option<Outcome>, Error> {
    match &write.action {
        Action::Put { value, ttl } => put(store, write, value, *ttl).await,
        Action::Delete => delete(store, write).await,
        Action::Increment { by, ttl } if write.condition == Condition::Any => {
            increment(store, write, *by, *ttl).await
        }
        Action::Check | Action::Increment { .. } | Action::Fence { .. } => Ok(None),
    }
}

fn ttl_ms(ttl: Option<Duration>) -> Option<i64> {
    ttl.map(|ttl| millis(ttl).min(TTL_MS_MAX))
}

/// The revision that a condition asks for.
fn expected(condition: Condition) -> Option<i64> {
    match condition {
        Condition::Revision(revision) => Some(revision.cast_signed()),
        Condition::Any | Condition::Absent | Condition::Present => None,
    }
}

async fn put(
    store: &Store,
    write: &Write,
    value: &[u8],
    ttl: Option<Duration>,
) -> Result<Option<Outcome>, Error> {
    let sql = &store.sql.tables.single;
    let (statement, is_expected) = match write.condition {
        Condition::Any => (&sql.put, false),
        Condition::Absent => (&sql.put_if_absent, false),
        Condition::Present | Condition::Revision(_) => (&sql.put_if_present, true),
    };
    attempt!(store, Once, |connection| async {
        let query = sqlx::query(statement.clone()).bind(store.now()).bind(&write.table);
        let mut query = query.bind(write.key.as_bytes()).bind(value).bind(ttl_ms(ttl));
        if is_expected {
            query = query.bind(expected(write.condition));
        }
        let row = query.fetch_optional(connection).await?;
        let revision = row.map(|row| row.try_get::<i64, _>(0)).transpose()?;
        Ok::<_, Stop>(revision.map(|revision| Outcome::Put { revision: revision.cast_unsigned() }))
    })
}

async fn delete(store: &Store, write: &Write) -> Result<Option<Outcome>, Error> {
    let sql = &store.sql.tables.single;
    let (statement, is_expected) = match write.condition {
        Condition::Any => (&sql.delete, false),
        Condition::Present | Condition::Revision(_) => (&sql.delete_if_present, true),
        Condition::Absent => return Ok(None),
    };
    attempt!(store, Once, |connection| async {
        let query = sqlx::query(statement.clone()).bind(store.now()).bind(&write.table);
        let mut query = query.bind(write.key.as_bytes());
        if is_expected {
            query = query.bind(expected(write.condition));
        }
        let row = query.fetch_optional(connection).await?;
        let existed = row.map(|row| row.try_get::<bool, _>(0)).transpose()?;
        let existed = if is_expected { existed } else { Some(existed.unwrap_or(false)) };
        Ok::<_, Stop>(existed.map(|existed| Outcome::Deleted { existed }))
    })
}

async fn increment(
    store: &Store,
    write: &Write,
    by: i64,
    ttl: Option<Duration>,
) -> Result<Option<Outcome>, Error> {
    attempt!(store, Once, |connection| async {
        let query = sqlx::query(store.sql.tables.single.increment.clone()).bind(store.now());
        let query = query.bind(&write.table).bind(write.key.as_bytes()).bind(by).bind(ttl_ms(ttl));
        let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
        let (revision, value): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok::<_, Stop>(Some(Outcome::Incremented { value, revision: revision.cast_unsigned() }))
    })
}
