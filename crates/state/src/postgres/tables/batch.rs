//! A batch in one transaction: first all its rows are held, then it is decided in memory what becomes of them (`plan`),
//! then that is written.
//!
//! A row that is there is held by a lock on it; a key that has no row, by a placeholder that nobody else sees. Rows come
//! first, and each sort in the order of keys, so that batches wait for each other but never in a circle.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sqlx::{PgConnection, Row};

use super::plan::{Content, Held, Key, plan};
use crate::{
    Millis,
    postgres::{Store, failure::Stop, sql::statements},
    tables::{Outcome, Write},
};

statements! {
    /// The steps of a batch.
    Statements {
        // Revisions are drawn from rows that are held already: outside of the inner query.
        hold: "WITH held AS MATERIALIZED (
                   SELECT table_name, key, value, revision, expires_at FROM {s}.rows
                   WHERE (table_name, key) IN (SELECT * FROM unnest($2::text[], $3::bytea[]))
                   ORDER BY table_name, key FOR UPDATE
               )
               SELECT *, nextval('{s}.revisions'), {now} FROM held",
        // A placeholder has expired long ago, should anyone ever see it.
        place: "WITH placed AS (
                    INSERT INTO {s}.rows (table_name, key, value, revision, expires_at)
                    SELECT new.table_name, new.key, '', 0, 0
                    FROM unnest($2::text[], $3::bytea[]) AS new (table_name, key)
                    ORDER BY new.table_name COLLATE \"C\", new.key
                    ON CONFLICT DO NOTHING RETURNING table_name, key
                )
                SELECT *, nextval('{s}.revisions'), {now} FROM placed",
        write: "WITH gone AS (
                    DELETE FROM {s}.rows
                    WHERE (table_name, key) IN (SELECT * FROM unnest($6::text[], $7::bytea[]))
                )
                UPDATE {s}.rows AS old
                SET value = new.value, revision = new.revision, expires_at = new.expires_at
                FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[])
                    AS new (table_name, key, value, revision, expires_at)
                WHERE old.table_name = new.table_name AND old.key = new.key",
    }
}

/// Does the batch, within the connection's transaction.
pub(super) async fn apply(
    store: &Store,
    connection: &mut PgConnection,
    batch: &[Write],
) -> Result<Vec<Outcome>, Stop> {
    let keys: BTreeSet<Key<'_>> =
        batch.iter().map(|write| (write.table.as_str(), write.key.as_str())).collect();
    let (mut rows, now) = hold(store, connection, &keys).await?;
    let outcomes = plan(batch, &mut rows, now)?;
    write(store, connection, &rows).await?;
    Ok(outcomes)
}

/// Holds all rows with these keys, whether they exist or not, to the end of the transaction.
async fn hold<'a>(
    store: &Store,
    connection: &mut PgConnection,
    keys: &BTreeSet<Key<'a>>,
) -> Result<(BTreeMap<Key<'a>, Held>, Millis), Stop> {
    let sql = &store.sql.tables.batch;
    let (mut held, mut now) = (BTreeMap::new(), Millis::MIN);
    let (tables, bytes) = columns(keys.iter());
    let query = sqlx::query(sql.hold.clone()).bind(store.now()).bind(tables).bind(bytes);
    for row in query.fetch_all(&mut *connection).await? {
        now = row.try_get(6)?;
        let expires_at: Option<Millis> = row.try_get(4)?;
        let content = Content {
            value: Bytes::from(row.try_get::<Vec<u8>, _>(2)?),
            revision: row.try_get::<i64, _>(3)?.cast_unsigned(),
            expires_at,
        };
        let is_live = expires_at.is_none_or(|at| at > now);
        let key = key_of(keys, row.try_get(0)?, row.try_get(1)?)?;
        let block = row.try_get::<i64, _>(5)?.cast_unsigned();
        held.insert(key, Held { content: is_live.then_some(content), block });
    }
    let missing: BTreeSet<Key<'_>> = keys.iter().filter(|key| !held.contains_key(*key)).copied().collect();
    if missing.is_empty() {
        return Ok((held, now));
    }
    let (tables, bytes) = columns(missing.iter());
    let query = sqlx::query(sql.place.clone()).bind(store.now()).bind(tables).bind(bytes);
    for row in query.fetch_all(connection).await? {
        now = row.try_get(3)?;
        let key = key_of(&missing, row.try_get(0)?, row.try_get(1)?)?;
        held.insert(key, Held { content: None, block: row.try_get::<i64, _>(2)?.cast_unsigned() });
    }
    // Somebody has made one of the rows in between.
    if held.len() < keys.len() { Err(Stop::Raced) } else { Ok((held, now)) }
}

/// Writes what has become of the rows. All of them are there, if only as placeholders: those without content go.
async fn write(
    store: &Store,
    connection: &mut PgConnection,
    rows: &BTreeMap<Key<'_>, Held>,
) -> Result<(), Stop> {
    let (mut put, mut contents, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for (key, row) in rows {
        match &row.content {
            // It is as it was before the block was drawn.
            Some(content) if content.revision < row.block => {}
            Some(content) => {
                put.push(*key);
                contents.push(content);
            }
            None => gone.push(*key),
        }
    }
    if put.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let (put_tables, put_keys) = columns(put.iter());
    let (gone_tables, gone_keys) = columns(gone.iter());
    sqlx::query(store.sql.tables.batch.write.clone())
        .bind(put_tables)
        .bind(put_keys)
        .bind(contents.iter().map(|content| &content.value[..]).collect::<Vec<_>>())
        .bind(contents.iter().map(|content| content.revision.cast_signed()).collect::<Vec<_>>())
        .bind(contents.iter().map(|content| content.expires_at).collect::<Vec<_>>())
        .bind(gone_tables)
        .bind(gone_keys)
        .execute(connection)
        .await?;
    Ok(())
}

/// Keys as the arrays that PostgreSQL unnests.
fn columns<'a>(keys: impl Iterator<Item = &'a Key<'a>>) -> (Vec<&'a str>, Vec<&'a [u8]>) {
    keys.map(|(table, key)| (*table, key.as_bytes())).unzip()
}

/// The one of these keys that a row has.
fn key_of<'a>(keys: &BTreeSet<Key<'a>>, table: &str, key: &[u8]) -> Result<Key<'a>, Stop> {
    let found = keys.iter().copied().find(|wanted| wanted.0 == table && wanted.1.as_bytes() == key);
    Ok(found.ok_or(sqlx::Error::RowNotFound)?)
}
