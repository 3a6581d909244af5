//! Idempotency keys in SQLite: a row goes `claimed → claimed` by another owner when the first is dead, `claimed →
//! answered` once, and is forgotten when its time is over, or when its claim is given back.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::OptionalExtension;

use super::{Store, command::Txn, failure::Stop};
use crate::{
    Millis,
    clock::{after, millis},
    error::Error,
    idempotency::{Answer, Beginning, Begun, Claim, Idempotency, lines, rule},
};

#[async_trait]
impl Idempotency for Store {
    async fn begin(&self, beginning: Beginning) -> Result<Begun, Error> {
        rule::check_beginning(&beginning)?;
        self.writer.submit(move |txn| begin(txn, beginning)).await
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_time("a lease", lease)?;
        let claim = claim.clone();
        self.writer
            .submit(move |txn| {
                let until = after(txn.now, lease);
                let mut update = txn.prepared(
                    "UPDATE idempotency SET claimed_until = ?1, expires_at = ?1 + kept_ms
                     WHERE scope = ?2 AND key = ?3 AND token = ?4 AND status IS NULL AND expires_at > ?5",
                )?;
                let Claim { scope, key, token } = &claim;
                Ok(update.execute((until, scope, key.as_bytes(), token.cast_signed(), txn.now))? > 0)
            })
            .await
    }

    async fn finish(&self, claim: &Claim, answer: Answer) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_answer(&answer)?;
        let claim = claim.clone();
        self.writer
            .submit(move |txn| {
                let mut update = txn.prepared(
                    "UPDATE idempotency
                     SET status = ?1, fields = ?2, body = ?3, expires_at = ?4 + kept_ms
                     WHERE scope = ?5 AND key = ?6 AND token = ?7 AND status IS NULL AND expires_at > ?4",
                )?;
                let Claim { scope, key, token } = &claim;
                let (fields, body) = (lines::write(&answer.fields), &answer.body[..]);
                let key = (scope, key.as_bytes(), token.cast_signed());
                Ok(update.execute((answer.status, fields, body, txn.now, key.0, key.1, key.2))? > 0)
            })
            .await
    }

    async fn abandon(&self, claim: &Claim) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        let claim = claim.clone();
        self.writer
            .submit(move |txn| {
                let mut delete = txn.prepared(
                    "DELETE FROM idempotency
                     WHERE scope = ?1 AND key = ?2 AND token = ?3 AND status IS NULL AND expires_at > ?4",
                )?;
                let Claim { scope, key, token } = &claim;
                Ok(delete.execute((scope, key.as_bytes(), token.cast_signed(), txn.now))? > 0)
            })
            .await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

/// What is known of a key.
struct Known {
    fingerprint: Vec<u8>,
    owner: String,
    claimed_until: Millis,
    answer: Option<Answer>,
}

fn begin(txn: &mut Txn<'_>, beginning: Beginning) -> Result<Begun, Stop> {
    if let Some(known) = find(txn, &beginning)? {
        if known.fingerprint != beginning.fingerprint.0 {
            return Ok(Begun::Mismatched);
        }
        if let Some(answer) = known.answer {
            return Ok(Begun::Answered(answer));
        }
        if known.claimed_until > txn.now && !beginning.displaces.contains(&known.owner) {
            let left = u64::try_from(known.claimed_until - txn.now).unwrap_or(0);
            return Ok(Begun::Running(Duration::from_millis(left)));
        }
        if beginning.at_most_once {
            return Ok(Begun::Lost);
        }
    }
    Ok(Begun::Claimed(claim(txn, beginning)?))
}

fn find(txn: &Txn<'_>, beginning: &Beginning) -> rusqlite::Result<Option<Known>> {
    let mut select = txn.prepared(
        "SELECT fingerprint, owner, claimed_until, status, fields, body FROM idempotency
         WHERE scope = ?1 AND key = ?2 AND expires_at > ?3",
    )?;
    let known = select.query_row((&beginning.scope, beginning.key.as_bytes(), txn.now), |row| {
        let answer = match row.get::<_, Option<u16>>(3)? {
            None => None,
            Some(status) => {
                let (fields, body) = (row.get::<_, Vec<u8>>(4)?, row.get::<_, Vec<u8>>(5)?);
                Some(Answer { status, fields: lines::read(&fields.into()), body: body.into() })
            }
        };
        Ok(Known { fingerprint: row.get(0)?, owner: row.get(1)?, claimed_until: row.get(2)?, answer })
    });
    known.optional()
}

/// Claims the key, whatever is known of it.
fn claim(txn: &mut Txn<'_>, beginning: Beginning) -> rusqlite::Result<Claim> {
    let Beginning { scope, key, fingerprint, owner, lease, kept, .. } = beginning;
    let (token, kept_ms) = (txn.next_revision(), millis(kept));
    let claimed_until = after(txn.now, lease);
    let mut insert = txn.prepared(
        "INSERT INTO idempotency (scope, key, fingerprint, token, owner, claimed_until, kept_ms, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (scope, key) DO UPDATE
         SET fingerprint = excluded.fingerprint, token = excluded.token, owner = excluded.owner,
             claimed_until = excluded.claimed_until, kept_ms = excluded.kept_ms,
             expires_at = excluded.expires_at, status = NULL, fields = NULL, body = NULL",
    )?;
    insert.execute((
        &scope,
        key.as_bytes(),
        &fingerprint.0[..],
        token.cast_signed(),
        &owner,
        claimed_until,
        kept_ms,
        claimed_until.saturating_add(kept_ms),
    ))?;
    Ok(Claim { scope, key, token })
}

/// Forgets keys whose time is over, at most so many.
pub(super) fn forget_ended(txn: &Txn<'_>, most: usize) -> Result<usize, Stop> {
    let mut delete = txn.prepared(
        "DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)",
    )?;
    Ok(delete.execute((txn.now, most as i64))?)
}
