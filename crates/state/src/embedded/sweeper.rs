//! The sweeper: a thread that removes what nobody can see any more, in small steps between other commands:
//! expired rows and sessions, tombstones that have served, keys of limits that are at rest, leases that are over, entries of
//! caches that have ended, and files of overwritten or deleted blobs.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::{
    blob_fences, cache,
    command::Txn,
    failure::Stop,
    files::Outgoing,
    idempotency, limits, locks, sessions,
    writer::{WeakWriter, Writer},
};
use crate::error::Error;

/// How often expired things are looked for. They are invisible from the moment they expire; only the room they take
/// waits so long.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Most rows of a kind that one step removes, so that no command waits long behind it.
const STEP_ROWS_MAX: usize = 256;
/// Most entries of caches that one step removes. They are longer than rows, up to 1 MiB each.
const STEP_ENTRIES_MAX: usize = 32;
/// Most files that wait to be removed; what is over it stays until the next start.
const FILES_QUEUED_MAX: usize = 1024;

/// What was swept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired rows of tables.
    pub rows: usize,
    /// Expired sessions, which became tombstones.
    pub sessions: usize,
    /// Tombstones that nobody needs any more.
    pub tombstones: usize,
    /// Locks whose lease is over.
    pub locks: usize,
    /// Fences of blobs that were deleted long ago.
    pub fences: usize,
    /// Idempotency keys whose time is over.
    pub keys: usize,
    /// Keys of limits whose whole burst is there again.
    pub limits: usize,
    /// Entries of caches that have expired or were cleared.
    pub entries: usize,
}

impl Swept {
    fn add(&mut self, step: Self) {
        self.rows += step.rows;
        self.sessions += step.sessions;
        self.tombstones += step.tombstones;
        self.locks += step.locks;
        self.fences += step.fences;
        self.keys += step.keys;
        self.limits += step.limits;
        self.entries += step.entries;
    }

    /// Whether a step found less than it may remove, of every kind.
    fn is_all(self) -> bool {
        let Self { rows, sessions, tombstones, limits, locks, fences, keys, entries } = self;
        let rows = [rows, sessions, tombstones, limits, locks, fences, keys];
        rows.iter().all(|swept| *swept < STEP_ROWS_MAX) && entries < STEP_ENTRIES_MAX
    }
}

/// The writers of all databases.
pub(super) struct Writers {
    pub(super) state: WeakWriter,
    pub(super) limits: WeakWriter,
    pub(super) cache: WeakWriter,
}

/// Takes files to remove, without waiting.
#[derive(Clone)]
pub(super) struct Unlinker(SyncSender<Outgoing>);

impl Unlinker {
    /// The sender, and what the thread reads.
    pub(super) fn new() -> (Self, Receiver<Outgoing>) {
        let (sender, receiver) = sync_channel(FILES_QUEUED_MAX);
        (Self(sender), receiver)
    }

    /// Has the file removed soon.
    pub(super) fn unlink(&self, file: Outgoing) {
        if self.0.try_send(file).is_err() {
            tracing::debug!("too many files wait to be removed: one stays until the next start");
        }
    }
}

/// Starts the thread. It ends after the writers, when all files that these gave it are removed.
pub(super) fn start(writers: Writers, files: Receiver<Outgoing>) -> io::Result<thread::JoinHandle<()>> {
    let sweep = move || {
        let Writers { state, limits, cache } = &writers;
        for (writer, step) in [(state, step as Step), (limits, limits_step), (cache, cache_step)] {
            let Some(writer) = writer.upgrade() else { continue };
            if let Err(error) = sweep_blocking(&writer, step) {
                tracing::warn!(%error, "expired state could not be removed; it is tried again");
            }
        }
    };
    thread::Builder::new().name("state-sweeper".into()).spawn(move || serve(&files, SWEEP_EVERY, sweep))
}

/// Removes files as they come, and sweeps every so often, however many come.
fn serve(files: &Receiver<Outgoing>, every: Duration, mut sweep: impl FnMut()) {
    let mut next = Instant::now() + every;
    loop {
        match files.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(file) => file.unlink(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= next {
            sweep();
            next = Instant::now() + every;
        }
    }
}

/// Removes some of what has expired.
type Step = fn(&mut Txn<'_>) -> Result<Swept, Stop>;

fn sweep_blocking(writer: &Writer, step: Step) -> Result<(), Error> {
    while !writer.submit_blocking(step)?.is_all() {}
    Ok(())
}

/// Removes all that has expired by now, of the state, the limits and the caches.
pub(super) async fn sweep(state: &Writer, limits: &Writer, cache: &Writer) -> Result<Swept, Error> {
    let mut all = Swept::default();
    for (writer, step) in [(state, step as Step), (limits, limits_step), (cache, cache_step)] {
        loop {
            let swept = writer.submit(step).await?;
            all.add(swept);
            if swept.is_all() {
                break;
            }
        }
    }
    Ok(all)
}

fn limits_step(txn: &mut Txn<'_>) -> Result<Swept, Stop> {
    Ok(Swept { limits: limits::remove_rested(txn, STEP_ROWS_MAX)?, ..Swept::default() })
}

fn cache_step(txn: &mut Txn<'_>) -> Result<Swept, Stop> {
    Ok(Swept { entries: cache::remove_ended(txn, STEP_ENTRIES_MAX)?, ..Swept::default() })
}

fn step(txn: &mut Txn<'_>) -> Result<Swept, Stop> {
    let rows = txn
        .prepared("DELETE FROM rows WHERE id IN (SELECT id FROM rows WHERE expires_at <= ?1 LIMIT ?2)")?
        .execute((txn.now, STEP_ROWS_MAX as i64))?;
    let tombstones = txn
        .prepared(
            "DELETE FROM tombstones WHERE hash IN (SELECT hash FROM tombstones WHERE forget_at <= ?1 LIMIT ?2)",
        )?
        .execute((txn.now, STEP_ROWS_MAX as i64))?;
    let sessions = sessions::end_expired(txn, STEP_ROWS_MAX)?;
    let locks = locks::forget_ended(txn, STEP_ROWS_MAX)?;
    let fences = blob_fences::forget_ended(txn, STEP_ROWS_MAX)?;
    let keys = idempotency::forget_ended(txn, STEP_ROWS_MAX)?;
    Ok(Swept { rows, sessions, tombstones, locks, fences, keys, ..Swept::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::files::Files;

    #[test]
    fn a_stream_of_files_to_remove_does_not_put_sweeping_off() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path().join("blobs")).unwrap();
        let (unlinker, unlinked) = Unlinker::new();
        for n in 0..10 {
            unlinker.unlink(files.outgoing(format!("{n:032x}")).unwrap());
        }
        drop(unlinker);
        let mut sweeps = 0;
        serve(&unlinked, Duration::ZERO, || sweeps += 1);
        assert_eq!(sweeps, 10);
    }
}
