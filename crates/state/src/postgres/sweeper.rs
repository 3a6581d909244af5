//! The sweeper: removes what nobody can see any more, in small steps: expired rows, expired sessions, tombstones that have
//! served, locks that ended long ago, idempotency keys that are not kept any longer. Every worker has one, and one at a
//! time works.

use std::{sync::Weak, time::Duration};

use sqlx::{PgConnection, Row};
use tokio::time::sleep;

use super::{
    Store, attempt::attempt, failure::Stop, feeds, schema::advisory_lock, sessions::end, sql::statements,
};
use crate::{clock::jittered, error::Error};

/// How often expired things are looked for, at the least. They are invisible from the moment they expire; only the room they take
/// waits so long.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Most rows of a kind that one step removes, so that nobody waits long for what it holds.
const STEP_ROWS_MAX: i64 = 256;
/// Most steps in a row; what is left waits for the next round, and perhaps another worker.
const STEPS_MAX: usize = 256;
/// How long the row of a lock stays after its lease, in milliseconds: far longer than any statement may take that draws the
/// token of its next lease.
const LOCK_KEPT_MS: i64 = 24 * 3600 * 1000;

/// What was swept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired rows of tables.
    pub rows: u64,
    /// Expired sessions, which became tombstones.
    pub sessions: u64,
    /// Tombstones that nobody needs any more.
    pub tombstones: u64,
    /// Locks that ended long ago.
    pub locks: u64,
    /// Idempotency keys that are not kept any longer.
    pub idempotency: u64,
}

impl Swept {
    fn add(&mut self, step: Self) {
        self.rows += step.rows;
        self.sessions += step.sessions;
        self.tombstones += step.tombstones;
        self.locks += step.locks;
        self.idempotency += step.idempotency;
    }

    /// Whether a step found less than it may remove, of every kind.
    fn is_all(self) -> bool {
        let most = self.rows.max(self.sessions).max(self.tombstones).max(self.locks).max(self.idempotency);
        most < STEP_ROWS_MAX.cast_unsigned()
    }
}

// What somebody holds is passed over: it is just being used, or swept by the next step.
statements! {
    /// What removes each kind.
    Sql {
        claim: "SELECT pg_try_advisory_xact_lock($1)",
        rows: "DELETE FROM {s}.rows WHERE (table_name, key) IN (
                   SELECT table_name, key FROM {s}.rows WHERE expires_at <= {now}
                   ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        tombstones: "DELETE FROM {s}.tombstones WHERE hash IN (
                   SELECT hash FROM {s}.tombstones WHERE forget_at <= {now}
                   ORDER BY forget_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        // What is renewed meanwhile has not expired.
        sessions: &end("hash", "SELECT hash FROM {s}.sessions WHERE idle_expires_at <= {now}
                   ORDER BY idle_expires_at LIMIT $2 FOR UPDATE SKIP LOCKED"),
        locks: &format!("DELETE FROM {{s}}.locks WHERE name IN (
                   SELECT name FROM {{s}}.locks WHERE expires_at <= {{now}} - {LOCK_KEPT_MS}
                   ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)"),
        idempotency: "DELETE FROM {s}.idempotency WHERE (scope, key) IN (
                   SELECT scope, key FROM {s}.idempotency WHERE expires_at <= {now}
                   ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    }
}

/// Sweeps every so often, for as long as there is a store.
pub(super) async fn run(store: Weak<Store>) {
    loop {
        sleep(jittered(SWEEP_EVERY)).await;
        let Some(store) = store.upgrade() else { return };
        match sweep(&store).await {
            Ok(swept) if swept == Swept::default() => {}
            Ok(swept) => tracing::debug!(?swept, "expired state was removed"),
            Err(error) => tracing::debug!(%error, "expired state could not be removed; it is tried again"),
        }
    }
}

/// Removes what has expired by now, unless another worker is just doing so.
pub(super) async fn sweep(store: &Store) -> Result<Swept, Error> {
    let mut all = Swept::default();
    for _ in 0..STEPS_MAX {
        let step = attempt!(store, Transaction, |connection| step(store, connection))?;
        let Some(step) = step else { break };
        all.add(step);
        if step.is_all() {
            break;
        }
    }
    feeds::forget(store).await?;
    Ok(all)
}

/// One step; `None` when another worker is at it.
async fn step(store: &Store, connection: &mut PgConnection) -> Result<Option<Swept>, Stop> {
    let sql = &store.sql.sweeper;
    let lock = advisory_lock(&store.schema, "sweeper");
    let claim = sqlx::query(sql.claim.clone()).bind(lock).fetch_one(&mut *connection).await?;
    if !claim.try_get::<bool, _>(0)? {
        return Ok(None);
    }
    let mut removed = [0; 4];
    for (statement, removed) in
        [&sql.rows, &sql.tombstones, &sql.locks, &sql.idempotency].iter().zip(&mut removed)
    {
        let query = sqlx::query((*statement).clone()).bind(store.now()).bind(STEP_ROWS_MAX);
        *removed = query.execute(&mut *connection).await?.rows_affected();
    }
    let query = sqlx::query(sql.sessions.clone()).bind(store.now()).bind(STEP_ROWS_MAX);
    let sessions = query.fetch_one(connection).await?.try_get::<i64, _>(0)?.cast_unsigned();
    let [rows, tombstones, locks, idempotency] = removed;
    Ok(Some(Swept { rows, sessions, tombstones, locks, idempotency }))
}
