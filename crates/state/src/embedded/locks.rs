//! Locks in SQLite: a row for each lease. Tokens are drawn from the counter that all revisions come from, so that none
//! is given twice, whatever becomes of the rows.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use super::{Store, command::Txn, failure::Stop, tables::text_key};
use crate::{
    Millis,
    clock::after,
    error::Error,
    locks::{LIST_MAX, Lease, Locks, Page, Token},
    rules::{check_lease, check_lock, key_range},
};

#[async_trait]
impl Locks for Store {
    async fn acquire(&self, name: &str, holder: &str, lease: Duration) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        check_lock(holder)?;
        check_lease(lease)?;
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.writer
            .submit(move |txn| {
                if find(txn.connection(), &name, txn.now)?.is_some() {
                    return Ok(None);
                }
                let expires_at = after(txn.now, lease);
                let lease = Lease { name, holder, token: txn.next_revision(), expires_at };
                write(txn, &lease)?;
                Ok(Some(lease))
            })
            .await
    }

    async fn renew(&self, name: &str, token: Token, lease: Duration) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        check_lease(lease)?;
        let name = name.to_owned();
        self.writer
            .submit(move |txn| {
                let Some(mut held) = held_by(txn, &name, token)? else { return Ok(None) };
                held.expires_at = after(txn.now, lease);
                write(txn, &held)?;
                Ok(Some(held))
            })
            .await
    }

    async fn release(&self, name: &str, token: Token) -> Result<bool, Error> {
        check_lock(name)?;
        let name = name.to_owned();
        self.writer
            .submit(move |txn| {
                if held_by(txn, &name, token)?.is_none() {
                    return Ok(false);
                }
                txn.prepared("DELETE FROM locks WHERE name = ?1")?.execute([name.as_bytes()])?;
                Ok(true)
            })
            .await
    }

    async fn look(&self, name: &str) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        let now = self.clock.now();
        self.readers.look_up(|connection| Ok(find(connection, name, now)?)).await
    }

    async fn list(&self, after: Option<&str>, most: usize) -> Result<Page, Error> {
        let most = if most == 0 { LIST_MAX } else { most.min(LIST_MAX) };
        let ((first, end), now) = (key_range("", after), self.clock.now());
        self.readers.read(move |connection| Ok(read_page(connection, &first, &end, most, now)?)).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

const COLUMNS: &str = "name, holder, token, expires_at";

fn lease(sql: &SqlRow<'_>) -> rusqlite::Result<Lease> {
    Ok(Lease {
        name: text_key(sql, 0)?,
        holder: sql.get(1)?,
        token: sql.get::<_, i64>(2)?.cast_unsigned(),
        expires_at: sql.get(3)?,
    })
}

/// Who holds the lock now.
fn find(connection: &Connection, name: &str, now: Millis) -> rusqlite::Result<Option<Lease>> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM locks WHERE name = ?1 AND expires_at > ?2"))?;
    statement.query_row((name.as_bytes(), now), lease).optional()
}

/// The lease, if it is of this token and not over.
fn held_by(txn: &Txn<'_>, name: &str, token: Token) -> rusqlite::Result<Option<Lease>> {
    Ok(find(txn.connection(), name, txn.now)?.filter(|held| held.token == token))
}

fn write(txn: &Txn<'_>, lease: &Lease) -> rusqlite::Result<()> {
    let mut statement =
        txn.prepared(&format!("INSERT OR REPLACE INTO locks ({COLUMNS}) VALUES (?1, ?2, ?3, ?4)"))?;
    statement.execute((lease.name.as_bytes(), &lease.holder, lease.token.cast_signed(), lease.expires_at))?;
    Ok(())
}

fn read_page(
    connection: &Connection,
    first: &[u8],
    end: &[u8],
    most: usize,
    now: Millis,
) -> rusqlite::Result<Page> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM locks WHERE name >= ?1 AND name < ?2 AND expires_at > ?3 ORDER BY name LIMIT ?4"
    ))?;
    // One more than is wanted tells whether there are more.
    let found = statement.query_map((first, end, now, most as i64 + 1), lease)?;
    let mut leases = found.collect::<Result<Vec<_>, _>>()?;
    let more = leases.len() > most;
    leases.truncate(most);
    let next = leases.last().filter(|_| more).map(|last| last.name.clone());
    Ok(Page { leases, next })
}

/// Removes leases that are over, at most so many.
pub(super) fn forget_ended(txn: &Txn<'_>, most: usize) -> Result<usize, Stop> {
    let mut statement = txn.prepared(
        "DELETE FROM locks WHERE name IN (SELECT name FROM locks WHERE expires_at <= ?1 LIMIT ?2)",
    )?;
    Ok(statement.execute((txn.now, most as i64))?)
}
