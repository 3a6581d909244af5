//! The embedded engine: SQLite with one writer and group commit, and a folder of blobs beside it. It needs
//! nothing installed, and what it has acknowledged survives `kill -9` and power cuts.
//!
//! A write goes `writer` → `command` → commit → answer; a read goes to the `readers`, which see the last commit
//! and never wait for the writer. Each kind of state is one file that both use.

mod blobs;
pub mod clock;
mod command;
pub mod failure;
mod files;
mod names;
mod readers;
mod schema;
mod session_row;
mod sessions;
pub mod sweeper;
mod tables;
mod writer;

use std::{
    fs::{self, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use self::{
    clock::{Clock, SystemClock},
    failure::Failure,
    files::Files,
    readers::Readers,
    sweeper::{Swept, Unlinker},
    writer::{Desk, Writer},
};
use crate::{Engines, error::Error};

/// The database's file name in the state folder.
pub const DATABASE: &str = "state.db";
/// The name of the file that is locked while an engine has the folder open.
pub const LOCK: &str = "lock";
/// The name of the folder of blobs.
pub const BLOBS: &str = "blobs";

/// An engine that keeps its state in a folder of its own.
///
/// Dropped, it does what was already asked of it and ends by itself; [`Embedded::close`] waits for that.
pub struct Embedded {
    store: Arc<Store>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// What the kinds of state work with.
struct Store {
    writer: Writer,
    readers: Readers,
    clock: Arc<dyn Clock>,
    files: Arc<Files>,
}

impl Embedded {
    /// Opens the state in a folder, made with permissions 0700 if it is not there. Blocks for a few milliseconds.
    ///
    /// Fails with [`Error::Engine`], whose source is a [`Failure`], when the folder is in use by another engine or
    /// cannot be written, and when the database is damaged, foreign or newer; nothing is changed then.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Self::open_with(directory, Arc::new(SystemClock))
    }

    /// The same with another clock.
    pub fn open_with(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        files::make_folder(directory).map_err(|error| Failure::io("create", directory, &error))?;
        let lock = lock(directory)?;
        let database = Arc::new(directory.join(DATABASE));
        let connection = schema::open_writer(&database)?;
        let files = Files::open(directory.join(BLOBS))?;
        let removed = files.settle(|file| {
            blobs::has_row(&connection, file).map_err(|error| Failure::sqlite(&database, &error))
        })?;
        if removed > 0 {
            tracing::info!(
                removed,
                "files of blobs that were not finished or not used any more were removed"
            );
        }
        schema::sync_folder(directory).map_err(|error| Failure::io("write", directory, &error))?;
        let readers = Readers::open(database.clone())?;
        let (unlinker, unlinked) = Unlinker::new();
        let desk = Desk { connection, database, clock: clock.clone(), unlinker, lock };
        let thread_failure = |error| Failure::io("start a thread for", directory, &error);
        let (writer, writer_thread) = Writer::start(desk).map_err(thread_failure)?;
        let sweeper_thread = sweeper::start(writer.downgrade(), unlinked).map_err(thread_failure)?;
        let store = Arc::new(Store { writer, readers, clock, files });
        Ok(Self { store, threads: vec![writer_thread, sweeper_thread] })
    }

    /// The engine, by kind of state.
    pub fn engines(&self) -> Engines {
        Engines { sessions: self.store.clone(), tables: self.store.clone(), blobs: self.store.clone() }
    }

    /// Removes what has expired by now, and says how much it was. The engine does so by itself every few
    /// seconds; nobody sees an expired thing in between.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        sweeper::sweep(&self.store.writer).await
    }

    /// Does what was asked of the engine before, and closes its files. Calls that come later, through whatever
    /// is left of its [`Engines`], fail with [`Error::Unavailable`].
    pub async fn close(self) {
        self.store.writer.close().await;
        self.store.readers.close().await;
        let Self { store, threads } = self;
        drop(store);
        let joined = tokio::task::spawn_blocking(|| {
            threads.into_iter().map(thread::JoinHandle::join).filter(Result::is_err).count()
        });
        match joined.await {
            Ok(0) => {}
            _ => tracing::error!("a thread of the state engine has panicked"),
        }
    }
}

/// Takes the folder for this process, until the file is dropped.
fn lock(directory: &Path) -> Result<fs::File, Failure> {
    let path: PathBuf = directory.join(LOCK);
    let failure = |error: std::io::Error| Failure::io("lock", &path, &error);
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failure)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The pid only makes the text better.
            let _ = file.read_to_string(&mut holder);
            return Err(Failure::InUse { folder: directory.display().to_string(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(failure(error)),
    }
    file.set_len(0).map_err(failure)?;
    write!(file, "{}", std::process::id()).map_err(failure)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
