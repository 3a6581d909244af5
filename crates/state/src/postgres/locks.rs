//! Locks in PostgreSQL: a row for each, which stays for a while after its lease, so that the token of the next one is drawn
//! when the row is held and is larger.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row, postgres::PgRow};

use super::{Store, attempt::attempt, failure::Stop, sql::statements, tables::text_key};
use crate::{
    clock::millis,
    error::Error,
    locks::{LIST_MAX, Lease, Locks, Page, Token},
    rules::{check_lease, check_lock, key_range},
};

statements! {
    /// What is said to PostgreSQL of locks.
    Sql {
        acquire: "INSERT INTO {s}.locks AS old (name, holder, token, expires_at)
                  VALUES ($2, $3, nextval('{s}.revisions'), {now} + $4)
                  ON CONFLICT (name) DO UPDATE
                  SET holder = excluded.holder, token = nextval('{s}.revisions'), expires_at = excluded.expires_at
                  WHERE old.expires_at <= {now}
                  RETURNING name, holder, token, expires_at",
        renew: "UPDATE {s}.locks SET expires_at = {now} + $4
                WHERE name = $2 AND token = $3 AND expires_at > {now}
                RETURNING name, holder, token, expires_at",
        release: "UPDATE {s}.locks SET expires_at = {now} WHERE name = $2 AND token = $3 AND expires_at > {now}",
        look: "SELECT name, holder, token, expires_at FROM {s}.locks WHERE name = $2 AND expires_at > {now}",
        list: "SELECT name, holder, token, expires_at FROM {s}.locks
               WHERE name >= $2 AND name < $3 AND expires_at > {now} ORDER BY name LIMIT $4",
    }
}

#[async_trait]
impl Locks for Store {
    async fn acquire(&self, name: &str, holder: &str, lease: Duration) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        check_lock(holder)?;
        check_lease(lease)?;
        attempt!(self, Once, |connection| async {
            let query = sqlx::query(self.sql.locks.acquire.clone()).bind(self.now()).bind(name.as_bytes());
            let row = query.bind(holder).bind(millis(lease)).fetch_optional(connection).await?;
            row.as_ref().map(read).transpose()
        })
    }

    async fn renew(&self, name: &str, token: Token, lease: Duration) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        check_lease(lease)?;
        attempt!(self, Repeatable, |connection| async {
            let query = sqlx::query(self.sql.locks.renew.clone()).bind(self.now()).bind(name.as_bytes());
            let query = query.bind(token.cast_signed()).bind(millis(lease));
            let row = query.fetch_optional(connection).await?;
            row.as_ref().map(read).transpose()
        })
    }

    async fn release(&self, name: &str, token: Token) -> Result<bool, Error> {
        check_lock(name)?;
        attempt!(self, Once, |connection| async {
            let query = sqlx::query(self.sql.locks.release.clone()).bind(self.now()).bind(name.as_bytes());
            let done = query.bind(token.cast_signed()).execute(connection).await?;
            Ok::<_, Stop>(done.rows_affected() > 0)
        })
    }

    async fn look(&self, name: &str) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        attempt!(self, Repeatable, |connection| async {
            let query = sqlx::query(self.sql.locks.look.clone()).bind(self.now()).bind(name.as_bytes());
            query.fetch_optional(connection).await?.as_ref().map(read).transpose()
        })
    }

    async fn list(&self, after: Option<&str>, most: usize) -> Result<Page, Error> {
        let most = if most == 0 { LIST_MAX } else { most.min(LIST_MAX) };
        let (first, end) = key_range("", after);
        let mut leases = attempt!(self, Repeatable, |connection| async {
            let query = sqlx::query(self.sql.locks.list.clone()).bind(self.now()).bind(&first).bind(&end);
            // One more than is wanted tells whether there are more.
            let rows = query.bind(most as i64 + 1).fetch_all(connection).await?;
            rows.iter().map(read).collect::<Result<Vec<_>, _>>()
        })?;
        let more = leases.len() > most;
        leases.truncate(most);
        let next = leases.last().filter(|_| more).map(|last| last.name.clone());
        Ok(Page { leases, next })
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

fn read(row: &PgRow) -> Result<Lease, Stop> {
    Ok(Lease {
        name: text_key(row, 0)?,
        holder: row.try_get(1)?,
        token: row.try_get::<i64, _>(2)?.cast_unsigned(),
        expires_at: row.try_get(3)?,
    })
}
