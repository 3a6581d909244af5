//! The engine's own tables: made, and brought to this version, by whichever worker comes first. The others wait for it.
//! A schema that is foreign or newer is refused and left untouched.

use sha2::{Digest, Sha256};
use sqlx::{Acquire, AssertSqlSafe, Executor, PgConnection, Row};

use super::failure::{Failure, Stop};

/// What brings version `n` to `n + 1`, each in one transaction. Steps are only ever added.
const STEPS: &[&str] = &[include_str!("schema/1.sql"), include_str!("schema/2.sql")];

/// Longest wait, in milliseconds, for another worker that is just bringing the schema to this version.
const WAIT_MS: u32 = 60_000;

/// Brings the schema to this version. Each step is one transaction (PostgreSQL takes back changes of tables too), so one
/// that was interrupted has not begun, and the next worker begins there.
pub(super) async fn migrate(connection: &mut PgConnection, schema: &str) -> Result<(), Stop> {
    migrate_with(connection, schema, STEPS).await
}

/// Names a lock of PostgreSQL's ("advisory") for a purpose of this schema's.
pub(super) fn advisory_lock(schema: &str, purpose: &str) -> i64 {
    let hash: [u8; 32] = Sha256::digest(format!("lethe/state/{schema}/{purpose}")).into();
    hash.iter().take(8).fold(0, |number, byte| (number << 8) | i64::from(*byte))
}

async fn migrate_with(connection: &mut PgConnection, schema: &str, steps: &[&str]) -> Result<(), Stop> {
    check_encoding(connection).await?;
    let known = i32::try_from(steps.len()).unwrap_or(i32::MAX);
    // The usual case needs no lock.
    if version(connection, schema).await? == Some(known) {
        return Ok(());
    }
    for step in steps.iter().zip(1..) {
        let mut transaction = connection.begin().await?;
        let done = take_step(&mut transaction, schema, step, known).await;
        match done {
            Ok(()) => transaction.commit().await?,
            Err(stop) => {
                transaction.rollback().await?;
                return Err(stop);
            }
        }
    }
    Ok(())
}

/// Takes one step, if nobody else has by now.
async fn take_step(
    connection: &mut PgConnection,
    schema: &str,
    (step, number): (&&str, i32),
    known: i32,
) -> Result<(), Stop> {
    // A step may take longer than other statements, and so may the wait for whoever takes it.
    let begin = format!("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {WAIT_MS}");
    connection.execute(AssertSqlSafe(begin)).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(advisory_lock(schema, "schema"))
        .execute(&mut *connection)
        .await?;
    let found = version(connection, schema).await?;
    if found.is_some_and(|found| found > known) {
        let found = found.unwrap_or_default();
        return Err(crate::error::Error::from(Failure::Newer { schema: schema.into(), found, known }).into());
    }
    if found.is_some_and(|found| found >= number) {
        return Ok(());
    }
    if found.is_none() {
        begin_schema(connection, schema).await?;
    }
    connection.execute(AssertSqlSafe(step.replace("{s}", schema))).await?;
    let note = format!("UPDATE {schema}.lethe SET version = {number}");
    connection.execute(AssertSqlSafe(note)).await?;
    tracing::info!(schema, version = number, "the schema in PostgreSQL was brought to a new version");
    Ok(())
}

/// The schema's version; `None` when lethe has not made it yet.
async fn version(connection: &mut PgConnection, schema: &str) -> Result<Option<i32>, Stop> {
    // The catalogue is asked, since a session that has once not found a name does not look for it again until it touches
    // another table: it would not see what was made while it waited for the lock.
    let is_there = sqlx::query(
        "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                        WHERE nspname = $1 AND relname = 'lethe')",
    )
    .persistent(false)
    .bind(schema)
    .fetch_one(&mut *connection)
    .await?;
    if !is_there.try_get::<bool, _>(0)? {
        return Ok(None);
    }
    let sql = AssertSqlSafe(format!("SELECT version FROM {schema}.lethe"));
    let row = sqlx::query(sql).persistent(false).fetch_optional(&mut *connection).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Makes the schema, or moves into an empty one, and notes that it is lethe's.
async fn begin_schema(connection: &mut PgConnection, schema: &str) -> Result<(), Stop> {
    let found = sqlx::query(
        "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = pg_namespace.oid)
         FROM pg_namespace WHERE nspname = $1",
    )
    .persistent(false)
    .bind(schema)
    .fetch_optional(&mut *connection)
    .await?;
    match found.map(|row| row.try_get::<i64, _>(0)).transpose()? {
        Some(0) => {}
        Some(_) => {
            return Err(crate::error::Error::from(Failure::Foreign { schema: schema.into() }).into());
        }
        // Made only when it is not there, since that needs a right that what follows does not.
        None => {
            connection.execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await?;
        }
    }
    let note = format!(
        "CREATE TABLE {schema}.lethe (id integer PRIMARY KEY CHECK (id = 1), version integer NOT NULL);
         INSERT INTO {schema}.lethe VALUES (1, 0)"
    );
    connection.execute(AssertSqlSafe(note)).await?;
    Ok(())
}

async fn check_encoding(connection: &mut PgConnection) -> Result<(), Stop> {
    let row = sqlx::query("SELECT current_setting('server_encoding')")
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    let encoding: String = row.try_get(0)?;
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(crate::error::Error::from(Failure::Encoding { encoding }).into())
}
