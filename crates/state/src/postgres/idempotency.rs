//! Idempotency keys in PostgreSQL: a key is claimed by one statement, if nobody has it; only when that does nothing is it
//! looked up why.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{Row, postgres::PgRow};

use super::{Store, attempt::attempt, failure::Stop, sql::statements};
use crate::{
    clock::millis,
    error::Error,
    idempotency::{Answer, Beginning, Begun, Claim, Idempotency, rule},
};

/// Most times that a key is claimed and looked up again because it came and went in between.
const LOOKS_MAX: usize = 16;

statements! {
    /// What is said to PostgreSQL of idempotency keys.
    Sql {
        claim: "INSERT INTO {s}.idempotency AS old
                    (scope, key, fingerprint, token, owner, claimed_until, kept_ms, expires_at)
                VALUES ($2, $3, $4, nextval('{s}.revisions'), $5, {now} + $6, $7, {now} + $6 + $7)
                ON CONFLICT (scope, key) DO UPDATE
                SET fingerprint = excluded.fingerprint, token = excluded.token, owner = excluded.owner,
                    claimed_until = excluded.claimed_until, kept_ms = excluded.kept_ms,
                    expires_at = excluded.expires_at, status = NULL, names = NULL, contents = NULL, body = NULL
                WHERE old.expires_at <= {now}
                OR (NOT $9 AND old.fingerprint = excluded.fingerprint AND old.status IS NULL
                    AND (old.claimed_until <= {now} OR old.owner = ANY ($8::text[])))
                RETURNING token",
        look: "SELECT fingerprint = $4, status, names, contents, body, claimed_until - {now},
                   claimed_until <= {now} OR owner = ANY ($5::text[])
               FROM {s}.idempotency WHERE scope = $2 AND key = $3 AND expires_at > {now}",
        extend: "UPDATE {s}.idempotency SET claimed_until = {now} + $5, expires_at = {now} + $5 + kept_ms
                 WHERE scope = $2 AND key = $3 AND token = $4 AND status IS NULL AND expires_at > {now}",
        finish: "UPDATE {s}.idempotency
                 SET status = $5, names = $6, contents = $7, body = $8, expires_at = {now} + kept_ms
                 WHERE scope = $2 AND key = $3 AND token = $4 AND status IS NULL AND expires_at > {now}",
        abandon: "DELETE FROM {s}.idempotency
                  WHERE scope = $2 AND key = $3 AND token = $4 AND status IS NULL AND expires_at > {now}",
    }
}

#[async_trait]
impl Idempotency for Store {
    async fn begin(&self, beginning: Beginning) -> Result<Begun, Error> {
        rule::check_beginning(&beginning)?;
        for _ in 0..LOOKS_MAX {
            if let Some(token) = claim(self, &beginning).await? {
                let Beginning { scope, key, .. } = beginning;
                return Ok(Begun::Claimed(Claim { scope, key, token }));
            }
            if let Some(begun) = look(self, &beginning).await? {
                return Ok(begun);
            }
        }
        Err(Error::Unavailable(format!("the key has come and gone {LOOKS_MAX} times while it was looked up")))
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_time("a lease", lease)?;
        attempt!(self, Repeatable, |connection| async {
            let query = sqlx::query(self.sql.idempotency.extend.clone()).bind(self.now());
            let query = query.bind(&claim.scope).bind(claim.key.as_bytes()).bind(claim.token.cast_signed());
            let done = query.bind(millis(lease)).execute(connection).await?;
            Ok::<_, Stop>(done.rows_affected() > 0)
        })
    }

    async fn finish(&self, claim: &Claim, answer: Answer) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_answer(&answer)?;
        let (names, contents): (Vec<&str>, Vec<&[u8]>) =
            answer.fields.iter().map(|(name, value)| (name.as_str(), &value[..])).unzip();
        attempt!(self, Once, |connection| async {
            let query = sqlx::query(self.sql.idempotency.finish.clone()).bind(self.now());
            let query = query.bind(&claim.scope).bind(claim.key.as_bytes()).bind(claim.token.cast_signed());
            let query =
                query.bind(i32::from(answer.status)).bind(&names).bind(&contents).bind(&answer.body[..]);
            let done = query.execute(connection).await?;
            Ok::<_, Stop>(done.rows_affected() > 0)
        })
    }

    async fn abandon(&self, claim: &Claim) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        attempt!(self, Once, |connection| async {
            let query = sqlx::query(self.sql.idempotency.abandon.clone()).bind(self.now());
            let query = query.bind(&claim.scope).bind(claim.key.as_bytes()).bind(claim.token.cast_signed());
            let done = query.execute(connection).await?;
            Ok::<_, Stop>(done.rows_affected() > 0)
        })
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

/// Claims the key, if it is free; with which token.
async fn claim(store: &Store, beginning: &Beginning) -> Result<Option<u64>, Error> {
    attempt!(store, Once, |connection| async {
        let query = sqlx::query(store.sql.idempotency.claim.clone()).bind(store.now());
        let query = query.bind(&beginning.scope).bind(beginning.key.as_bytes());
        let query = query.bind(beginning.fingerprint.0).bind(&beginning.owner).bind(millis(beginning.lease));
        let query =
            query.bind(millis(beginning.kept)).bind(&beginning.displaces).bind(beginning.at_most_once);
        let row = query.fetch_optional(connection).await?;
        let token = row.map(|row| row.try_get::<i64, _>(0)).transpose()?;
        Ok::<_, Stop>(token.map(i64::cast_unsigned))
    })
}

/// Looks up why the key is not free; `None` when it is by now.
async fn look(store: &Store, beginning: &Beginning) -> Result<Option<Begun>, Error> {
    attempt!(store, Repeatable, |connection| async {
        let query = sqlx::query(store.sql.idempotency.look.clone()).bind(store.now());
        let query = query.bind(&beginning.scope).bind(beginning.key.as_bytes());
        let query = query.bind(beginning.fingerprint.0).bind(&beginning.displaces);
        let row = query.fetch_optional(connection).await?;
        row.map_or(Ok(None), |row| read(&row, beginning.at_most_once))
    })
}

fn read(row: &PgRow, at_most_once: bool) -> Result<Option<Begun>, Stop> {
    if !row.try_get::<bool, _>(0)? {
        return Ok(Some(Begun::Mismatched));
    }
    if let Some(status) = row.try_get::<Option<i32>, _>(1)? {
        let status = u16::try_from(status).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let (names, contents): (Vec<String>, Vec<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
        let fields = names.into_iter().zip(contents.into_iter().map(Bytes::from)).collect();
        let body = Bytes::from(row.try_get::<Vec<u8>, _>(4)?);
        return Ok(Some(Begun::Answered(Answer { status, fields, body })));
    }
    if row.try_get(6)? {
        return Ok(at_most_once.then_some(Begun::Lost));
    }
    let left = u64::try_from(row.try_get::<i64, _>(5)?).unwrap_or(0);
    Ok(Some(Begun::Running(Duration::from_millis(left))))
}
