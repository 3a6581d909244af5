//! A command: work for the writer, with the caller who waits for its result, and what it works with.

use std::{path::PathBuf, sync::Arc};

use rusqlite::{CachedStatement, Connection};
use tokio::sync::oneshot;

use super::{
    failure::{Failure, Stop},
    files::{Incoming, Outgoing},
    session_row::Hash,
};
use crate::{
    Millis, Revision, clock::whole_millis, error::Error, feed::followers::Topic, limits::gcra::Micros,
};

/// What a command works with: one transaction, shared with other commands but guarded by its own savepoint.
pub(super) struct Txn<'a> {
    /// The time of this group of commands.
    pub(super) now: Millis,
    /// The same time, in microseconds.
    pub(super) now_us: Micros,
    /// The only connection that writes.
    connection: &'a Connection,
    /// The revision given out last.
    last_revision: &'a mut Revision,
    /// The files whose fate hangs on the commit.
    files: Files,
    /// Of what copies are stale after the commit; `None` when nobody wants to know.
    stale: Option<Vec<Stale>>,
    /// The sessions that are other ones after the commit, or none.
    sessions: Vec<Hash>,
}

/// Of what copies are stale: where it is, and its name; the empty one for all that is there.
pub(super) type Stale = (Topic, String);

/// Files that a transaction brings in or leaves without a row.
#[derive(Default)]
pub(super) struct Files {
    /// They have a row once the transaction is committed.
    pub(super) incoming: Vec<Incoming>,
    /// They have none once the transaction is committed.
    pub(super) outgoing: Vec<Outgoing>,
}

impl<'a> Txn<'a> {
    /// `is_followed` says whether anybody wants to know of changes.
    pub(super) fn new(
        connection: &'a Connection,
        now_us: Micros,
        last_revision: &'a mut Revision,
        is_followed: bool,
    ) -> Self {
        let (files, stale) = (Files::default(), is_followed.then(Vec::new));
        let now = whole_millis(now_us);
        Self { now, now_us, connection, last_revision, files, stale, sessions: Vec::new() }
    }

    /// A statement that is prepared once for the connection.
    pub(super) fn prepared(&self, sql: &str) -> rusqlite::Result<CachedStatement<'a>> {
        self.connection.prepare_cached(sql)
    }

    /// The connection, for reads that readers share.
    pub(super) fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// A revision that was never given out before. One that is taken back with its command leaves a gap.
    pub(super) fn next_revision(&mut self) -> Revision {
        *self.last_revision += 1;
        *self.last_revision
    }

    /// No revision that is given out from now on is this or less.
    pub(super) fn raise(&mut self, last: Revision) {
        *self.last_revision = (*self.last_revision).max(last);
    }

    /// Keeps the file of a blob, if the transaction is committed.
    pub(super) fn bring_in(&mut self, file: Incoming) {
        self.files.incoming.push(file);
    }

    /// Removes the file of a blob, once the transaction is committed.
    pub(super) fn throw_out(&mut self, file: Outgoing) {
        self.files.outgoing.push(file);
    }

    /// Has those told who follow it that copies of something are stale, once the transaction is committed.
    pub(super) fn tell(&mut self, what: impl FnOnce() -> Stale) {
        if let Some(stale) = &mut self.stale {
            stale.push(what());
        }
    }

    /// A session is another one after the commit, or none: what was kept of it in memory is not believed from then on. Whatever
    /// changes a row of a session that may have been read says so.
    pub(super) fn changes_session(&mut self, hash: &Hash) {
        self.sessions.push(*hash);
    }

    /// What the command did to files, what is to be told, and the sessions that it changed.
    pub(super) fn into_parts(self) -> (Files, Vec<Stale>, Vec<Hash>) {
        (self.files, self.stale.unwrap_or_default(), self.sessions)
    }
}

impl Files {
    /// Adds those of another command.
    pub(super) fn append(&mut self, mut other: Self) {
        self.incoming.append(&mut other.incoming);
        self.outgoing.append(&mut other.outgoing);
    }

    /// The transaction is committed: what came in stays. Returns what is to be removed.
    pub(super) fn committed(self) -> Vec<Outgoing> {
        for file in self.incoming {
            // One that a later command of the group has thrown out again needs its marker until it is removed.
            if self.outgoing.iter().any(|old| old.name() == file.name()) {
                file.leave_in_doubt();
            } else {
                file.keep();
            }
        }
        self.outgoing
    }

    /// Nobody knows whether the transaction is committed: all files stay, and so do their markers. Only as the engine
    /// is opened again is the log read, which tells which of them have a row.
    pub(super) fn in_doubt(self) {
        self.incoming.into_iter().for_each(Incoming::leave_in_doubt);
    }
}

/// How a command's work ended.
pub(super) enum Done {
    /// Its changes are to be committed.
    Keep,
    /// Its changes are to be taken back.
    TakeBack,
    /// The same, since SQLite failed, perhaps with the whole transaction.
    Failed(Failure),
}

/// How much of the database a command changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// By several statements perhaps, of which some are done when it turns out that it is refused: it has a savepoint of its own.
    Any,
    /// By one statement at most, and only after everything that could refuse it. Should that one fail, so does all that is
    /// committed with it.
    OneStatement,
}

/// A command of any result type.
pub(super) trait Command: Send {
    /// What must be done for it to be taken back.
    fn extent(&self) -> Extent;
    /// Does the work.
    fn run(&mut self, txn: &mut Txn<'_>) -> Done;
    /// Tells the caller how it ended.
    fn answer(self: Box<Self>, committed: Result<(), &Failure>);
}

/// The command of one caller.
pub(super) struct Task<T, F> {
    work: Option<F>,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
    database: Arc<PathBuf>,
    extent: Extent,
}

impl<T, F> Task<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut Txn<'_>) -> Result<T, Stop> + Send + 'static,
{
    /// A command that does `work`, and where its result comes.
    pub(super) fn command(
        work: F,
        extent: Extent,
        database: Arc<PathBuf>,
    ) -> (Box<dyn Command>, oneshot::Receiver<Result<T, Error>>) {
        let (reply, result) = oneshot::channel();
        (Box::new(Self { work: Some(work), result: None, reply, database, extent }), result)
    }
}

impl<T, F> Command for Task<T, F>
where
    T: Send,
    F: FnOnce(&mut Txn<'_>) -> Result<T, Stop> + Send,
{
    fn extent(&self) -> Extent {
        self.extent
    }

    fn run(&mut self, txn: &mut Txn<'_>) -> Done {
        // A caller who has left needs no work done.
        let Some(work) = self.work.take().filter(|_| !self.reply.is_closed()) else { return Done::TakeBack };
        match work(txn) {
            Ok(value) => {
                self.result = Some(Ok(value));
                Done::Keep
            }
            Err(Stop::Refused(error)) => {
                self.result = Some(Err(error));
                Done::TakeBack
            }
            Err(Stop::Sqlite(error)) => {
                let failure = Failure::sqlite(&self.database, &error);
                self.result = Some(Err(failure.clone().into()));
                Done::Failed(failure)
            }
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), &Failure>) {
        let result = match (committed, self.result) {
            // A refusal falls with the commit too: what stood in its way may have been taken back.
            (Err(failure), _) => Err(failure.clone().into()),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(closing()),
        };
        // The caller may have left; what is committed stands all the same.
        let _ = self.reply.send(result);
    }
}

/// What callers are told once the engine is being closed.
pub(super) fn closing() -> Error {
    Error::Unavailable("it is being closed".into())
}

#[cfg(test)]
mod tests {
    use crate::embedded::{command::Files, files::Files as Folder};

    #[test]
    fn a_file_that_came_and_went_in_one_group_is_found_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::open(directory.path().join("blobs")).unwrap();
        let (kept, replaced) = (folder.create().unwrap(), folder.create().unwrap());
        let (kept_name, replaced_name) = (kept.name().to_owned(), replaced.name().to_owned());
        let outgoing = vec![folder.outgoing(replaced_name.clone()).unwrap()];
        // Dropped instead of being removed, as by a crash.
        drop(Files { incoming: vec![kept, replaced], outgoing }.committed());
        assert!(folder.path(&kept_name).exists() && folder.path(&replaced_name).exists());
        assert_eq!(folder.settle(|name| Ok(name == kept_name)).unwrap(), 1);
        assert!(folder.path(&kept_name).exists() && !folder.path(&replaced_name).exists());
    }
}
