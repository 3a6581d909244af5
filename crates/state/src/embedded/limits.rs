//! Limits in SQLite: one row for each key that is not at rest. A call is judged by what was committed last: one that is
//! refused, or that only asks, changes nothing and is answered right there, so that whoever is refused all the time costs
//! a look-up and never waits for the writer. A call that is allowed is judged again by the writer, which keeps it.
//!
//! They have a database and a writer of their own. What is counted survives the end of the process, however it comes, but
//! no call waits for the disk: after a power cut, a key may have up to its whole burst back. Nothing is kept in memory, so
//! that two engines on one folder, as while one `lethe` takes over from another, count together and exactly.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};

use super::{Store, command::Txn, tables::text_key};
use crate::{
    clock::whole_millis,
    error::Error,
    limits::{
        KEY_BYTES_MAX, LIMIT_NAME_BYTES_MAX, LIST_MAX, Limits, Page, TAKES_MAX, Take, Usage, Verdict,
        gcra::{self, Micros, Pace},
    },
    rules::{check_key, check_name, key_range},
};

/// A call, and what its quota comes to.
struct Call {
    take: Take,
    pace: Pace,
}

/// What becomes of some calls.
struct Judgement {
    verdicts: Vec<Verdict>,
    /// What is to be kept of them: which call, and when the whole burst of its key is there again.
    changes: Vec<(usize, Micros)>,
}

#[async_trait]
impl Limits for Store {
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        let calls = check(takes)?;
        let now = self.clock.now_us();
        let seen = self.limits.readers.look_up(|connection| Ok(judge(connection, &calls, now)?)).await?;
        if seen.changes.is_empty() {
            return Ok(seen.verdicts);
        }
        self.limits.writer.submit(move |txn| Ok(take(txn, &calls)?)).await
    }

    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error> {
        check_name("limit", limit, LIMIT_NAME_BYTES_MAX)?;
        check_key(key, KEY_BYTES_MAX)?;
        let (limit, key) = (limit.to_owned(), key.to_owned());
        self.limits.writer.submit(move |txn| Ok(remove(txn, &limit, &key)?)).await
    }

    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error> {
        check_name("limit", limit, LIMIT_NAME_BYTES_MAX)?;
        let (limit, after, now) = (limit.to_owned(), after.map(str::to_owned), self.clock.now_us());
        let most = if most == 0 { LIST_MAX } else { most.min(LIST_MAX) };
        self.limits
            .readers
            .read(move |connection| Ok(read_page(connection, &limit, after.as_deref(), most, now)?))
            .await
    }
}

fn check(takes: Vec<Take>) -> Result<Vec<Call>, Error> {
    if takes.is_empty() || takes.len() > TAKES_MAX {
        let count = takes.len();
        return Err(Error::Invalid(format!("{count} calls of limits at once, expected 1 to {TAKES_MAX}")));
    }
    for (index, Take { limit, key, .. }) in takes.iter().enumerate() {
        check_name("limit", limit, LIMIT_NAME_BYTES_MAX)?;
        check_key(key, KEY_BYTES_MAX)?;
        if takes[..index].iter().any(|other| other.limit == *limit && other.key == *key) {
            return Err(Error::Invalid(format!("the key `{key}` of the limit `{limit}` is asked for twice")));
        }
    }
    takes.into_iter().map(|take| Ok(Call { pace: take.quota.pace()?, take })).collect()
}

/// Decides on calls that are done all or none.
fn judge(connection: &Connection, calls: &[Call], now: Micros) -> rusqlite::Result<Judgement> {
    let read = |call: &Call| read(connection, &call.take.limit, &call.take.key);
    let kept: Vec<Option<Micros>> = calls.iter().map(read).collect::<Result<_, _>>()?;
    let keys = || calls.iter().zip(&kept);
    let mut decisions: Vec<_> =
        keys().map(|(call, kept)| gcra::decide(call.pace, *kept, now, call.take.cost)).collect();
    if !decisions.iter().all(|decision| decision.verdict.allowed) {
        // Those that would have been allowed take nothing.
        for ((call, kept), decision) in keys().zip(&mut decisions) {
            if decision.verdict.allowed {
                *decision = gcra::decide(call.pace, *kept, now, 0);
            }
        }
    }
    let changes = decisions.iter().enumerate().filter_map(|(index, made)| Some((index, made.full_at?)));
    let changes = changes.collect();
    Ok(Judgement { verdicts: decisions.iter().map(|decision| decision.verdict).collect(), changes })
}

fn take(txn: &Txn<'_>, calls: &[Call]) -> rusqlite::Result<Vec<Verdict>> {
    let Judgement { verdicts, changes } = judge(txn.connection(), calls, txn.now_us)?;
    let mut keep = txn.prepared(
        "INSERT INTO limits (limit_name, key, full_at_us) VALUES (?1, ?2, ?3)
         ON CONFLICT (limit_name, key) DO UPDATE SET full_at_us = excluded.full_at_us",
    )?;
    for (index, full_at) in changes {
        let Take { limit, key, .. } = &calls[index].take;
        keep.execute((limit, key.as_bytes(), full_at))?;
    }
    Ok(verdicts)
}

fn read(connection: &Connection, limit: &str, key: &str) -> rusqlite::Result<Option<Micros>> {
    connection
        .prepare_cached("SELECT full_at_us FROM limits WHERE limit_name = ?1 AND key = ?2")?
        .query_row((limit, key.as_bytes()), |row| row.get(0))
        .optional()
}

fn remove(txn: &Txn<'_>, limit: &str, key: &str) -> rusqlite::Result<bool> {
    let mut statement =
        txn.prepared("DELETE FROM limits WHERE limit_name = ?1 AND key = ?2 RETURNING full_at_us")?;
    let full_at: Option<Micros> =
        statement.query_row((limit, key.as_bytes()), |row| row.get(0)).optional()?;
    // A key that was at rest had nothing missing.
    Ok(full_at.is_some_and(|full_at| full_at > txn.now_us))
}

/// Removes so many keys that are at rest; how many there were.
pub(super) fn remove_rested(txn: &Txn<'_>, most: usize) -> rusqlite::Result<usize> {
    txn.prepared("DELETE FROM limits WHERE id IN (SELECT id FROM limits WHERE full_at_us <= ?1 LIMIT ?2)")?
        .execute((txn.now_us, most as i64))
}

fn read_page(
    connection: &Connection,
    limit: &str,
    after: Option<&str>,
    most: usize,
    now: Micros,
) -> rusqlite::Result<Page> {
    let (first, end) = key_range("", after);
    let mut statement = connection.prepare_cached(
        "SELECT key, full_at_us FROM limits
         WHERE limit_name = ?1 AND key >= ?2 AND key < ?3 AND full_at_us > ?4 ORDER BY key LIMIT ?5",
    )?;
    let rows = statement.query_map((limit, first, end, now, most as i64 + 1), |row| {
        Ok(Usage { key: text_key(row, 0)?, full_at: whole_millis(row.get(1)?) })
    })?;
    let mut keys = rows.collect::<Result<Vec<_>, _>>()?;
    let more = keys.len() > most;
    keys.truncate(most);
    let next = if more { keys.last().map(|last| last.key.clone()) } else { None };
    Ok(Page { keys, next })
}
