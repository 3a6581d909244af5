//! Tables in PostgreSQL: one row for each row, read by its key or a range of keys. A batch of one write is one statement
//! where that can be (`single`); all others hold their rows while they are decided upon (`batch`).

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{PgConnection, Row as SqlRow, postgres::PgRow};

use super::{Store, attempt::attempt, failure::Stop, sql::statements};
use crate::{
    error::Error,
    feed::{Feed, followers::Topic},
    rules::{check_batch, check_key, check_name, key_range},
    tables::{KEY_BYTES_MAX, Outcome, Page, Row, SCAN_ROWS_MAX, Scan, TABLE_NAME_BYTES_MAX, Tables, Write},
};

mod batch;
mod plan;
mod single;

/// A page of a scan ends when its keys and values have reached this many bytes, so that 1,000 large rows are
/// never in memory at once.
const SCAN_BYTES_MAX: i64 = 2 << 20;

statements! {
    /// What is said to PostgreSQL of tables.
    Statements {
        get: "SELECT key, value, revision, expires_at FROM {s}.rows
              WHERE table_name = $2 AND key = $3 AND (expires_at IS NULL OR expires_at > {now})",
        // Sizes are known without reading large values, which are kept apart.
        scan: "SELECT key, value, revision, expires_at, found FROM (
                   SELECT *, count(*) OVER () AS found, coalesce(sum(octet_length(key) + octet_length(value))
                       OVER (ORDER BY key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
                   FROM (SELECT key, value, revision, expires_at FROM {s}.rows
                         WHERE table_name = $2 AND key >= $3 AND key < $4
                         AND (expires_at IS NULL OR expires_at > {now})
                         ORDER BY key LIMIT $5) AS first_ones
               ) AS measured WHERE bytes_before < $6 ORDER BY key",
    }
}

/// The statements of all of this kind.
pub(super) struct Sql {
    reads: Statements,
    single: single::Statements,
    batch: batch::Statements,
}

impl Sql {
    /// The statements for this schema.
    pub(super) fn new(schema: &str) -> Self {
        Self {
            reads: Statements::new(schema),
            single: single::Statements::new(schema),
            batch: batch::Statements::new(schema),
        }
    }
}

#[async_trait]
impl Tables for Store {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        check_key(key, KEY_BYTES_MAX)?;
        attempt!(self, Repeatable, |connection| read_row(self, connection, table, key))
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        attempt!(self, Repeatable, |connection| read_page(self, connection, table, scan))
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        check_batch(&batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if let [write] = &batch[..]
            && let Some(outcome) = single::apply(self, write).await?
        {
            return Ok(vec![outcome]);
        }
        attempt!(self, Transaction, |connection| batch::apply(self, connection, &batch))
    }

    async fn follow(&self, table: &str) -> Result<Feed, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        self.follow_topic(Topic::Table(table.into())).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

async fn read_row(
    store: &Store,
    connection: &mut PgConnection,
    table: &str,
    key: &str,
) -> Result<Option<Row>, Stop> {
    let query = sqlx::query(store.sql.tables.reads.get.clone()).bind(store.now()).bind(table);
    let row = query.bind(key.as_bytes()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &PgRow) -> Result<Row, Stop> {
    Ok(Row {
        key: text_key(row, 0)?,
        value: Bytes::from(row.try_get::<Vec<u8>, _>(1)?),
        revision: row.try_get::<i64, _>(2)?.cast_unsigned(),
        expires_at: row.try_get(3)?,
    })
}

/// A key, which was text when it was written.
pub(super) fn text_key(row: &PgRow, column: usize) -> Result<String, Stop> {
    let key = String::from_utf8(row.try_get(column)?);
    Ok(key.map_err(|error| sqlx::Error::Decode(error.into()))?)
}

async fn read_page(
    store: &Store,
    connection: &mut PgConnection,
    table: &str,
    scan: &Scan,
) -> Result<Page, Stop> {
    let limit = if scan.limit == 0 { SCAN_ROWS_MAX } else { scan.limit.min(SCAN_ROWS_MAX) };
    let (first, end) = key_range(&scan.prefix, scan.after.as_deref());
    let found = sqlx::query(store.sql.tables.reads.scan.clone())
        .bind(store.now())
        .bind(table)
        .bind(first)
        .bind(end)
        // One more than is wanted tells whether there are more.
        .bind(limit as i64 + 1)
        .bind(SCAN_BYTES_MAX)
        .fetch_all(connection)
        .await?;
    let all = found.first().map_or(Ok(0), |row| row.try_get::<i64, _>(4))?;
    let rows = found.iter().take(limit).map(read).collect::<Result<Vec<_>, _>>()?;
    let next = rows.last().filter(|_| (rows.len() as i64) < all).map(|last| last.key.clone());
    Ok(Page { rows, next })
}
