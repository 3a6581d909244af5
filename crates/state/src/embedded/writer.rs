//! The one writer of a database: a thread that takes what is queued, does each command in a savepoint of one transaction,
//! commits once, and only then answers all. So the wait for the disk is shared by everyone who waits. Where nobody else does, a command
//! is done by the thread that it comes from: there is one connection to write with, and who has it is the writer.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{
    Claim,
    command::{Command, Done, Extent, Files, Stale, Task, Txn, closing},
    failure::{Failure, Stop},
    files::Outgoing,
    recent::Recent,
    solitude::Solitude,
    sweeper::Unlinker,
};
use crate::{Revision, clock::Clock, error::Error, feed::followers::Followers, figures};

/// Most commands that wait for the writer; callers beyond it wait for room.
const COMMANDS_QUEUED_MAX: usize = 1024;
/// Most commands in one transaction, so that the first of them does not wait long for the last.
const GROUP_COMMANDS_MAX: usize = 256;
/// How many revisions are taken from the database at a time.
const REVISIONS_TAKEN: u64 = 1024;

/// Hands commands to the writer. Clones share it; the thread ends when the last of them is gone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    desk: Arc<SharedDesk>,
    database: Arc<PathBuf>,
    counts: Arc<Counts>,
}

/// Where commands are done, one group at a time. Nothing is there any more once the thread has ended.
struct SharedDesk {
    desk: Mutex<Option<Desk>>,
    solitude: Arc<Solitude>,
}

/// What the thread has done.
#[derive(Default)]
struct Counts {
    commands: AtomicU64,
    commits: AtomicU64,
    failures: AtomicU64,
}

/// The same, without keeping the thread running.
pub(super) struct WeakWriter {
    queue: mpsc::WeakSender<Message>,
    desk: Arc<SharedDesk>,
    database: Arc<PathBuf>,
    counts: Arc<Counts>,
}

/// What the thread owns.
pub(super) struct Desk {
    /// The only connection that writes.
    pub(super) connection: Connection,
    /// Its file, for error texts.
    pub(super) database: Arc<PathBuf>,
    /// Tells the time of each group.
    pub(super) clock: Arc<dyn Clock>,
    /// Takes the files that nothing refers to after a commit.
    pub(super) unlinker: Unlinker,
    /// Keeps other engines out of the folder for as long as the thread runs.
    pub(super) claim: Claim,
    /// Are told what has changed.
    pub(super) followers: Arc<Followers>,
    /// What was read of sessions, where there are any.
    pub(super) recent: Option<Arc<Recent>>,
    /// SQLite's `data_version` at the last group: it changes when another process has written.
    pub(super) data_version: i64,
    /// What is known of revisions, as long as nobody else writes.
    pub(super) revisions: Option<Revisions>,
}

/// Revisions that may be given out. They are taken from the database many at a time, so that few commits have to write a page for it;
/// what is left of them when the engine ends is a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Revisions {
    /// The one given out last.
    last: Revision,
    /// All above this are free, as the database says too.
    taken: Revision,
}

enum Message {
    Command(Box<dyn Command>),
    Close,
}

impl Writer {
    /// Starts the thread, of this name.
    pub(super) fn start(
        name: &str,
        desk: Desk,
        solitude: Arc<Solitude>,
    ) -> io::Result<(Self, thread::JoinHandle<()>)> {
        let (queue, commands) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let database = desk.database.clone();
        let counts = Arc::<Counts>::default();
        let desk = Arc::new(SharedDesk { desk: Mutex::new(Some(desk)), solitude });
        let thread = thread::Builder::new().name(name.into()).spawn({
            let (counts, desk) = (Arc::clone(&counts), Arc::clone(&desk));
            move || desk.serve(commands, &counts)
        })?;
        Ok((Self { queue, desk, database, counts }, thread))
    }

    /// What it is doing, for who watches.
    pub(super) fn figures(&self, database: &'static str) -> figures::Writer {
        figures::Writer {
            database,
            queued: (self.queue.max_capacity() - self.queue.capacity()) as u64,
            commands_total: self.counts.commands.load(Relaxed),
            commits_total: self.counts.commits.load(Relaxed),
            failures_total: self.counts.failures.load(Relaxed),
        }
    }

    /// Has `work` done, and waits until it is committed. Dropped before the writer got it, nothing is done;
    /// dropped later, it is done whole or not at all.
    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Stop> + Send + 'static,
    {
        self.submit_of(Extent::Any, work).await
    }

    /// The same for work of a known extent.
    pub(super) async fn submit_of<T, F>(&self, extent: Extent, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Stop> + Send + 'static,
    {
        let (command, mut result) = Task::command(work, extent, self.database.clone());
        match self.desk.do_alone(command, &self.queue, &self.counts) {
            None => result.try_recv().unwrap_or_else(|_| Err(closing())),
            Some(command) => {
                self.queue.send(Message::Command(command)).await.map_err(|_| closing())?;
                result.await.unwrap_or_else(|_| Err(closing()))
            }
        }
    }

    /// The same for a thread that may wait.
    pub(super) fn submit_blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Stop> + Send + 'static,
    {
        let (command, result) = Task::command(work, Extent::Any, self.database.clone());
        self.queue.blocking_send(Message::Command(command)).map_err(|_| closing())?;
        result.blocking_recv().unwrap_or_else(|_| Err(closing()))
    }

    /// Lets the writer do what is queued by now, and end. Later commands are refused.
    pub(super) async fn close(&self) {
        // It fails only when the writer has ended already.
        let _ = self.queue.send(Message::Close).await;
    }

    /// A handle that does not keep the thread running.
    pub(super) fn downgrade(&self) -> WeakWriter {
        let (desk, database, counts) = (self.desk.clone(), self.database.clone(), self.counts.clone());
        WeakWriter { queue: self.queue.downgrade(), desk, database, counts }
    }
}

impl WeakWriter {
    /// The writer, if anyone still uses it and it was not closed.
    pub(super) fn upgrade(&self) -> Option<Writer> {
        let queue = self.queue.upgrade().filter(|queue| !queue.is_closed())?;
        let (desk, database, counts) = (self.desk.clone(), self.database.clone(), self.counts.clone());
        Some(Writer { queue, desk, database, counts })
    }
}

impl SharedDesk {
    fn serve(&self, mut queue: mpsc::Receiver<Message>, counts: &Counts) {
        while let Some(first) = queue.blocking_recv() {
            // Who has it may be a while, and others come.
            let mut desk = self.lock();
            let mut commands = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Command(command) => commands.push(command),
                    Message::Close => queue.close(),
                }
                next = (commands.len() < GROUP_COMMANDS_MAX).then(|| queue.try_recv().ok()).flatten();
            }
            let is_one = commands.len() == 1;
            if !self.commit(&mut desk, commands, counts, || is_one && queue.is_empty()) {
                return;
            }
        }
        if let Some(desk) = self.lock().take() {
            desk.end();
        }
    }

    /// Does a command here and now if who wants it is alone, and gives it back if it is for the thread.
    fn do_alone(
        &self,
        command: Box<dyn Command>,
        queue: &mpsc::Sender<Message>,
        counts: &Counts,
    ) -> Option<Box<dyn Command>> {
        self.solitude.disturb();
        let is_idle = queue.capacity() == queue.max_capacity() && !queue.is_closed();
        if !is_idle || !self.solitude.is_certain() {
            return Some(command);
        }
        let Some(mut desk) = self.desk.try_lock().ok().filter(|desk| desk.is_some()) else {
            return Some(command);
        };
        self.commit(&mut desk, vec![command], counts, || true);
        None
    }

    /// Does a group; false if there is no desk. A panic takes it away for good, and with it what was not committed: nobody would know
    /// how far it came.
    fn commit(
        &self,
        place: &mut Option<Desk>,
        group: Vec<Box<dyn Command>>,
        counts: &Counts,
        was_alone: impl FnOnce() -> bool,
    ) -> bool {
        let Some(mut desk) = place.take() else { return false };
        self.solitude.begin();
        let began = Instant::now();
        desk.commit(group, counts);
        *place = Some(desk);
        self.solitude.end(was_alone(), began.elapsed());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<Desk>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// The revisions that this group may give out. While one lethe takes over from another, both write: what the other has taken is
    /// above all that was given out here, and then nothing below it may be given out any more.
    fn revisions(&mut self) -> rusqlite::Result<Revisions> {
        let has_others = self.look_for_others()?;
        // Put back by a commit: what was taken by one that failed may not be in the database.
        if let Some(known) = self.revisions.take().filter(|_| !has_others) {
            return Ok(known);
        }
        let mut read = self.connection.prepare_cached("SELECT last_revision FROM counter")?;
        let taken = read.query_row([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?;
        Ok(Revisions { last: taken, taken })
    }

    /// Takes more revisions if more were given out than were taken.
    fn take_revisions(&self, revisions: &mut Revisions) -> rusqlite::Result<()> {
        if revisions.last > revisions.taken {
            // A whole number of times, so that what is exported from here and imported is the same in the end.
            revisions.taken = revisions.last.next_multiple_of(REVISIONS_TAKEN);
            let mut keep = self.connection.prepare_cached("UPDATE counter SET last_revision = ?1")?;
            keep.execute([revisions.taken.cast_signed()])?;
        }
        Ok(())
    }

    /// Does a group of commands in one transaction, tells those who follow, and answers the callers. In this order: what was
    /// acknowledged has been told.
    fn commit(&mut self, mut group: Vec<Box<dyn Command>>, counts: &Counts) {
        let mut stale = Vec::new();
        let result = self.transact(&mut group, &mut stale);
        counts.commands.fetch_add(group.len() as u64, Relaxed);
        let ended = if result.is_ok() { &counts.commits } else { &counts.failures };
        ended.fetch_add(1, Relaxed);
        if result.is_err() && !self.connection.is_autocommit() {
            self.execute("ROLLBACK").unwrap_or_else(|error| {
                tracing::error!(%error, "the state engine cannot roll back a transaction that failed");
            });
        }
        let committed = match &result {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        };
        // Also those of a commit that seems to have failed: it may not have.
        for (topic, name) in stale {
            match name.as_str() {
                "" => self.followers.fail_topic(&topic, "ends: all that was followed has changed"),
                name => self.followers.tell(&topic, name),
            }
        }
        for command in group {
            command.answer(committed);
        }
        for file in result.into_iter().flatten() {
            self.unlinker.unlink(file);
        }
    }

    /// Returns the files that nothing refers to any more; adds to `stale` what copies are stale of.
    fn transact(
        &mut self,
        group: &mut [Box<dyn Command>],
        stale: &mut Vec<Stale>,
    ) -> Result<Vec<Outgoing>, Failure> {
        let database = self.database.clone();
        let failure = |error| Failure::sqlite(&database, &error);
        let (mut files, mut sessions) = (Files::default(), Vec::new());
        self.execute("BEGIN IMMEDIATE").map_err(failure)?;
        let mut revisions = self.revisions().map_err(failure)?;
        let now_us = self.clock.now_us();
        for command in group {
            let has_savepoint = command.extent() == Extent::Any;
            if has_savepoint {
                self.execute("SAVEPOINT command").map_err(failure)?;
            }
            let is_followed = !self.followers.is_empty();
            let mut txn = Txn::new(&self.connection, now_us, &mut revisions.last, is_followed);
            match command.run(&mut txn) {
                Done::Keep => {
                    let (its_files, mut its_stale, mut its_sessions) = txn.into_parts();
                    files.append(its_files);
                    stale.append(&mut its_stale);
                    sessions.append(&mut its_sessions);
                }
                // SQLite ends the whole transaction by itself for some errors, such as a full disk; and of one that comes on
                // a damaged page, only a savepoint would take back what was written before it.
                Done::Failed(failure) if !has_savepoint || self.connection.is_autocommit() => {
                    return Err(failure);
                }
                Done::TakeBack | Done::Failed(_) if has_savepoint => {
                    self.execute("ROLLBACK TO command").map_err(failure)?;
                }
                Done::TakeBack | Done::Failed(_) => {}
            }
            if has_savepoint {
                self.execute("RELEASE command").map_err(failure)?;
            }
        }
        self.take_revisions(&mut revisions).map_err(failure)?;
        // Until this function ends: nobody is answered by then.
        let _doubt = self.recent.as_deref().map(|recent| recent.doubt(&sessions));
        match self.execute("COMMIT") {
            Ok(()) => {
                self.revisions = Some(revisions);
                Ok(files.committed())
            }
            Err(error) => {
                files.in_doubt();
                Err(failure(error))
            }
        }
    }

    /// Whether another process has written since the last group, as it may while one `lethe` takes over from another. Fails all feeds
    /// then: what it was that changed is not known here.
    fn look_for_others(&mut self) -> rusqlite::Result<bool> {
        let found = read_data_version(&self.connection)?;
        let has_others = std::mem::replace(&mut self.data_version, found) != found;
        if has_others {
            self.followers
                .fail("ends: another lethe writes to the same state, as while one takes over from another");
        }
        Ok(has_others)
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Brings the log into the database, so that the next start has nothing to recover. Where another process has the
    /// folder too, it is left to that one, which would have to wait meanwhile.
    fn end(self) {
        let Self { connection, claim, database, followers, .. } = self;
        followers.fail("ends: the state engine is being closed");
        if !claim.is_shared()
            && let Err(error) =
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        {
            tracing::warn!(%error, database = %database.display(), "the log stays apart until the next start");
        }
        drop(connection);
        drop(claim);
    }
}

/// A number that changes when another connection than this one has written to the database
/// (<https://sqlite.org/pragma.html#pragma_data_version>).
pub(super) fn read_data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}
