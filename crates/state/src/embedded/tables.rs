//! Tables in SQLite: one row for each row, read by its key or a range of keys.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use super::{
    Store,
    command::{Extent, Txn},
    failure::Stop,
};
use crate::{
    Millis, Revision,
    clock::after,
    error::Error,
    feed::{Feed, followers::Topic},
    locks::Token,
    rules::{check_batch, check_key, check_name, key_range},
    tables::{
        Action, Condition, KEY_BYTES_MAX, Outcome, Page, Row, SCAN_ROWS_MAX, Scan, TABLE_NAME_BYTES_MAX,
        Tables, Write,
    },
};

/// A page of a scan ends when its keys and values have reached this many bytes, so that 1,000 large rows are
/// never in memory at once.
const SCAN_BYTES_MAX: usize = 2 << 20;

#[async_trait]
impl Tables for Store {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        check_key(key, KEY_BYTES_MAX)?;
        let now = self.clock.now();
        self.readers.look_up(|connection| Ok(read_row(connection, table, key, now)?)).await
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        let (table, scan, now) = (table.to_owned(), scan.clone(), self.clock.now());
        self.readers.read(move |connection| Ok(read_page(connection, &table, &scan, now)?)).await
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        check_batch(&batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // Each action looks first, and then writes one row.
        let extent = if batch.len() == 1 { Extent::OneStatement } else { Extent::Any };
        self.writer
            .submit_of(extent, move |txn| {
                batch.iter().enumerate().map(|(index, write)| apply(txn, index, write)).collect()
            })
            .await
    }

    async fn follow(&self, table: &str) -> Result<Feed, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        self.follow_topic(Topic::Table(table.into())).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

fn read_row(connection: &Connection, table: &str, key: &str, now: Millis) -> rusqlite::Result<Option<Row>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value, revision, expires_at FROM rows
         WHERE table_name = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
    )?;
    statement.query_row((table, key.as_bytes(), now), row).optional()
}

fn row(sql: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        key: text_key(sql, 0)?,
        value: Bytes::from(sql.get::<_, Vec<u8>>(1)?),
        revision: sql.get::<_, i64>(2)?.cast_unsigned(),
        expires_at: sql.get(3)?,
    })
}

/// A key, which was text when it was written.
pub(super) fn text_key(sql: &SqlRow<'_>, column: usize) -> rusqlite::Result<String> {
    String::from_utf8(sql.get(column)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, error.into())
    })
}

fn read_page(connection: &Connection, table: &str, scan: &Scan, now: Millis) -> rusqlite::Result<Page> {
    let limit = if scan.limit == 0 { SCAN_ROWS_MAX } else { scan.limit.min(SCAN_ROWS_MAX) };
    let (first, end) = key_range(&scan.prefix, scan.after.as_deref());
    let mut statement = connection.prepare_cached(
        "SELECT key, value, revision, expires_at FROM rows
         WHERE table_name = ?1 AND key >= ?2 AND key < ?3 AND (expires_at IS NULL OR expires_at > ?4)
         ORDER BY key",
    )?;
    let (mut page, mut bytes) = (Page::default(), 0);
    for row in statement.query_map((table, first, end, now), row)? {
        let row = row?;
        if page.rows.len() == limit || bytes >= SCAN_BYTES_MAX {
            page.next = page.rows.last().map(|last: &Row| last.key.clone());
            break;
        }
        bytes += row.key.len() + row.value.len();
        page.rows.push(row);
    }
    Ok(page)
}

/// Does one write of a batch.
fn apply(txn: &mut Txn<'_>, index: usize, write: &Write) -> Result<Outcome, Stop> {
    check_condition(txn, index, write)?;
    match &write.action {
        Action::Check => Ok(Outcome::Checked),
        Action::Put { value, ttl } => {
            let expires_at = ttl.map(|ttl| after(txn.now, ttl));
            Ok(Outcome::Put { revision: put(txn, write, value, expires_at)? })
        }
        Action::Delete => Ok(Outcome::Deleted { existed: delete(txn, write)? }),
        Action::Increment { by, ttl } => increment(txn, write, *by, *ttl),
        Action::Fence { token } => fence(txn, index, write, *token),
    }
}

fn check_condition(txn: &Txn<'_>, index: usize, write: &Write) -> Result<(), Stop> {
    if write.condition == Condition::Any {
        return Ok(());
    }
    let mut statement = txn.prepared(
        "SELECT revision FROM rows
         WHERE table_name = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
    )?;
    let found: Option<Revision> = statement
        .query_row((&write.table, write.key.as_bytes(), txn.now), |row| row.get::<_, i64>(0))
        .optional()?
        .map(i64::cast_unsigned);
    let holds = match write.condition {
        Condition::Any => true,
        Condition::Absent => found.is_none(),
        Condition::Present => found.is_some(),
        Condition::Revision(expected) => found == Some(expected),
    };
    if holds { Ok(()) } else { Err(Error::Conflict { index, key: write.key.clone(), found }.into()) }
}

fn put(
    txn: &mut Txn<'_>,
    write: &Write,
    value: &[u8],
    expires_at: Option<Millis>,
) -> rusqlite::Result<Revision> {
    let revision = txn.next_revision();
    txn.prepared(
        "INSERT INTO rows (table_name, key, value, revision, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (table_name, key) DO UPDATE
         SET value = excluded.value, revision = excluded.revision, expires_at = excluded.expires_at",
    )?
    .execute((&write.table, write.key.as_bytes(), value, revision.cast_signed(), expires_at))?;
    txn.tell(|| (Topic::Table(write.table.as_str().into()), write.key.clone()));
    Ok(revision)
}

fn delete(txn: &mut Txn<'_>, write: &Write) -> rusqlite::Result<bool> {
    let mut statement =
        txn.prepared("DELETE FROM rows WHERE table_name = ?1 AND key = ?2 RETURNING expires_at")?;
    let expiry: Option<Option<Millis>> =
        statement.query_row((&write.table, write.key.as_bytes()), |row| row.get(0)).optional()?;
    if expiry.is_some() {
        txn.tell(|| (Topic::Table(write.table.as_str().into()), write.key.clone()));
    }
    // A row that had expired was not there for anyone.
    Ok(expiry.is_some_and(|expires_at| expires_at.is_none_or(|at| at > txn.now)))
}

fn increment(txn: &mut Txn<'_>, write: &Write, by: i64, ttl: Option<Duration>) -> Result<Outcome, Stop> {
    let (old, expires_at) = match read_row(txn.connection(), &write.table, &write.key, txn.now)? {
        Some(row) => (integer(&row.value), row.expires_at),
        None => (Some(0), ttl.map(|ttl| after(txn.now, ttl))),
    };
    let value = old
        .and_then(|old| old.checked_add(by))
        .ok_or_else(|| Error::NotAnInteger { key: write.key.clone() })?;
    let revision = put(txn, write, value.to_string().as_bytes(), expires_at)?;
    Ok(Outcome::Incremented { value, revision })
}

fn fence(txn: &mut Txn<'_>, index: usize, write: &Write, token: Token) -> Result<Outcome, Stop> {
    let found = read_row(txn.connection(), &write.table, &write.key, txn.now)?;
    if let Some(row) = &found {
        let newest = integer(&row.value).and_then(|newest| Token::try_from(newest).ok());
        let newest = newest.ok_or_else(|| Error::NotAnInteger { key: write.key.clone() })?;
        if token < newest {
            return Err(Error::Fenced { index, key: write.key.clone(), token, newest }.into());
        }
        // The usual case, a holder that goes on, changes nothing.
        if token == newest && row.expires_at.is_none() {
            return Ok(Outcome::Fenced);
        }
    }
    put(txn, write, token.to_string().as_bytes(), None)?;
    Ok(Outcome::Fenced)
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
