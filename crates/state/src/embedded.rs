//! The embedded engine: SQLite with one writer and group commit, and a folder of blobs beside it. It needs
//! nothing installed, and what it has acknowledged survives `kill -9` and power cuts; of limits and caches, `kill -9` alone.
//!
//! A write goes `writer` → `command` → commit → answer; a read goes to the `readers`, which see the last commit
//! and never wait for the writer. Each kind of state is one file that both use.
//!
//! While one `lethe` takes over from another, two engines have the folder open ([`Embedded::open_beside`]). They are safe
//! beside each other because nothing that another writer could change is kept in memory then (`recent`): the revision is read in each
//! transaction, ids are random or given by SQLite, expiry is judged by the machine's clock, and a reader that finds a
//! blob's file gone looks at its row again. Feeds of changes fail when the other one has written (`feeds`). What only a sole engine may do is left out: settling what is in doubt, which
//! would remove files that the other one is just writing; another schema; and emptying the log at the end.

mod blob_fences;
mod blobs;
mod cache;
mod command;
pub mod failure;
mod feeds;
mod files;
mod idempotency;
mod limits;
mod locks;
mod portable;
mod readers;
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the state API reads sessions as JSON"))]
mod recent;
mod schema;
mod session_row;
mod sessions;
mod solitude;
pub mod sweeper;
mod tables;
mod writer;

use std::{
    fs::{self, TryLockError},
    io::{self, Read, Seek, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use self::{
    failure::Failure,
    files::Files,
    readers::Readers,
    recent::Recent,
    solitude::Solitude,
    sweeper::{Swept, Unlinker},
    writer::{Desk, Writer},
};
use crate::{
    Engines,
    clock::{Clock, SystemClock},
    error::Error,
    feed::followers::Followers,
    figures::Figures,
};

/// The database's file name in the state folder.
pub const DATABASE: &str = "state.db";
/// The file name of the database of limits. While no engine runs it may be removed: then nothing counts that was done before.
pub const LIMITS: &str = "limits.db";
/// The file name of the database of caches. While no engine runs it may be removed: then nothing is cached.
pub const CACHE: &str = "cache.db";
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
    claim: Claim,
}

/// The claim of an engine on its folder. Clones are the same.
#[derive(Clone)]
pub struct Claim {
    lock: Arc<Lock>,
    /// Whether another process was given it too.
    shared: Arc<AtomicBool>,
}

/// The locked file. A lock belongs to the open file (flock(2)), which a process that is just being started holds too until
/// it runs its program; so it is let go by word, unless it was given away on purpose.
struct Lock {
    file: fs::File,
    /// It never becomes false again: the other one may go on for long after this one is in charge.
    is_given_away: Arc<AtomicBool>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.is_given_away.load(Ordering::Relaxed) {
            // It is let go by the close that follows in any case.
            let _ = self.file.unlock();
        }
    }
}

/// What the kinds of state work with.
struct Store {
    writer: Writer,
    readers: Readers,
    limits: Base,
    cache: Base,
    recent: Arc<Recent>,
    clock: Arc<dyn Clock>,
    files: Arc<Files>,
    followers: Arc<Followers>,
    /// Those who follow caches.
    cache_followers: Arc<Followers>,
    /// Whether another process may write to the folder too, now or until somewhat ago.
    is_shared: Arc<AtomicBool>,
}

/// A database of its own.
struct Base {
    writer: Writer,
    readers: Readers,
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
        let connection = schema::open_writer(&schema::STATE, &database)?;
        let limits = schema::open_writer(&schema::LIMITS, &directory.join(LIMITS))?;
        let cache = cache::open(&directory.join(CACHE))?;
        let files = Files::open(directory.join(BLOBS))?;
        settle(&files, &connection, &database)?;
        Self::begin(directory, clock, lock, [connection, limits, cache], files, false)
    }

    /// Opens the state in a folder that another process has open and goes on to use for a while: `lock` is that one's
    /// [`Claim::share`], inherited. [`Claim::hold`] is called once the other one leaves. Blocks for a few milliseconds.
    ///
    /// Fails as [`Embedded::open`] does, and with [`Failure::Older`] when the database would have to be brought to
    /// another schema.
    pub fn open_beside(directory: &Path, lock: OwnedFd) -> Result<Self, Error> {
        let lock = adopt(directory, lock)?;
        let connection = schema::open_beside(&schema::STATE, &directory.join(DATABASE))?;
        let limits = schema::open_beside(&schema::LIMITS, &directory.join(LIMITS))?;
        let cache = schema::open_beside(&schema::CACHE, &directory.join(CACHE))?;
        let files = Files::open(directory.join(BLOBS))?;
        let connections = [connection, limits, cache];
        Self::begin(directory, Arc::new(SystemClock), lock, connections, files, true)
    }

    /// Its claim on the folder.
    pub fn claim(&self) -> Claim {
        self.claim.clone()
    }

    fn begin(
        directory: &Path,
        clock: Arc<dyn Clock>,
        lock: fs::File,
        connections: [rusqlite::Connection; 3],
        files: Arc<Files>,
        shared: bool,
    ) -> Result<Self, Error> {
        let is_given_away = Arc::new(AtomicBool::new(shared));
        let lock = Lock { file: lock, is_given_away: is_given_away.clone() };
        let claim = Claim { lock: Arc::new(lock), shared: Arc::new(AtomicBool::new(shared)) };
        schema::sync_folder(directory).map_err(|error| Failure::io("write", directory, &error))?;
        let (unlinker, unlinked) = Unlinker::new();
        let thread_failure = |error| Failure::io("start a thread for", directory, &error);
        let solitude = Arc::<Solitude>::default();
        let base = |name, file, connection: rusqlite::Connection, followers, recent| {
            let database = Arc::new(directory.join(file));
            let readers = Readers::open(database.clone(), Arc::clone(&solitude))?;
            let (clock, unlinker, claim) = (clock.clone(), unlinker.clone(), claim.clone());
            let data_version =
                writer::read_data_version(&connection).map_err(|error| Failure::sqlite(&database, &error))?;
            let desk = Desk {
                connection,
                database,
                clock,
                unlinker,
                claim,
                followers,
                recent,
                data_version,
                revisions: None,
            };
            let (writer, thread) =
                Writer::start(name, desk, Arc::clone(&solitude)).map_err(thread_failure)?;
            Ok::<_, Failure>((Base { writer, readers }, thread))
        };
        let [state, limits, cache] = connections;
        let recent = Arc::new(Recent::new(is_given_away.clone(), Arc::clone(&solitude)));
        let [followers, cache_followers] = [(); 2].map(|()| Arc::<Followers>::default());
        let (Base { writer, readers }, writer_thread) =
            base("state-writer", DATABASE, state, followers.clone(), Some(recent.clone()))?;
        let (limits, limits_thread) = base("limits-writer", LIMITS, limits, Arc::default(), None)?;
        let (cache, cache_thread) = base("cache-writer", CACHE, cache, cache_followers.clone(), None)?;
        drop(unlinker);
        let writers = sweeper::Writers {
            state: writer.downgrade(),
            limits: limits.writer.downgrade(),
            cache: cache.writer.downgrade(),
        };
        let sweeper_thread = sweeper::start(writers, unlinked).map_err(thread_failure)?;
        let threads = vec![writer_thread, limits_thread, cache_thread, sweeper_thread];
        let is_shared = is_given_away;
        let store = Arc::new(Store {
            writer,
            readers,
            limits,
            cache,
            recent,
            clock,
            files,
            followers,
            cache_followers,
            is_shared,
        });
        Ok(Self { store, threads, claim })
    }

    /// The engine, by kind of state.
    pub fn engines(&self) -> Engines {
        let store = &self.store;
        Engines {
            sessions: store.clone(),
            tables: store.clone(),
            blobs: store.clone(),
            limits: store.clone(),
            locks: store.clone(),
            idempotency: store.clone(),
            cache: store.clone(),
        }
    }

    /// What it is doing, told whenever it is asked; nothing, once the engine was closed.
    pub fn watch(&self) -> impl Fn(&mut Figures) + Send + Sync + 'static {
        let Store { writer, limits, cache, .. } = &*self.store;
        // They would keep the threads running otherwise.
        let writers = [(writer, DATABASE), (&limits.writer, LIMITS), (&cache.writer, CACHE)]
            .map(|(writer, database)| (writer.downgrade(), database));
        move |figures| {
            let running =
                writers.iter().filter_map(|(writer, database)| Some((writer.upgrade()?, *database)));
            figures.writers.extend(running.map(|(writer, database)| writer.figures(database)));
        }
    }

    /// Removes what has expired by now, and says how much it was. The engine does so by itself every few
    /// seconds; nobody sees an expired thing in between.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let Store { writer, limits, cache, .. } = &*self.store;
        sweeper::sweep(writer, &limits.writer, &cache.writer).await
    }

    /// Does what was asked of the engine before, and closes its files. Calls that come later, through whatever
    /// is left of its [`Engines`], fail with [`Error::Unavailable`].
    pub async fn close(self) {
        self.store.recent.end();
        self.store.writer.close().await;
        self.store.readers.close().await;
        for base in [&self.store.limits, &self.store.cache] {
            base.writer.close().await;
            base.readers.close().await;
        }
        let Self { store, threads, .. } = self;
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

impl Claim {
    /// For a process that is to inherit it and open the folder too, with [`Embedded::open_beside`]. The folder stays
    /// claimed until both have let go.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.shared.store(true, Ordering::Relaxed);
        self.lock.is_given_away.store(true, Ordering::Relaxed);
        Ok(self.lock.file.try_clone()?.into())
    }

    fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// This engine is the one that goes on, whichever of the two it is: it is named in the lock, and empties the log at
    /// its end.
    pub fn hold(&self) {
        self.shared.store(false, Ordering::Relaxed);
        // Only the text of an error depends on it.
        if let Err(error) = write_holder(&self.lock.file) {
            tracing::debug!(%error, "the lock names another process");
        }
    }
}

/// Settles what a crash left in doubt.
fn settle(files: &Files, connection: &rusqlite::Connection, database: &Path) -> Result<(), Failure> {
    let removed = files
        .settle(|file| blobs::has_row(connection, file).map_err(|error| Failure::sqlite(database, &error)))?;
    if removed > 0 {
        tracing::info!(removed, "files of blobs that were not finished or not used any more were removed");
    }
    Ok(())
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
    write_holder(&file).map_err(failure)?;
    Ok(file)
}

/// Takes over a lock on the folder that another process holds too. It belongs to the open file, not to a process
/// (flock(2)), so that taking it again by the same file only finds out whether it is held.
fn adopt(directory: &Path, lock: OwnedFd) -> Result<fs::File, Failure> {
    let path: PathBuf = directory.join(LOCK);
    let failure = |error: io::Error| Failure::io("lock", &path, &error);
    let (file, there) = (fs::File::from(lock), fs::metadata(&path).map_err(failure)?);
    let inherited = file.metadata().map_err(failure)?;
    if (inherited.dev(), inherited.ino()) != (there.dev(), there.ino()) {
        return Err(failure(io::Error::other("what was inherited is the lock of another folder")));
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(failure(io::Error::other("what was inherited does not hold the lock")))
        }
        Err(TryLockError::Error(error)) => Err(failure(error)),
    }
}

/// Notes in the lock who holds it.
fn write_holder(mut file: &fs::File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(io::SeekFrom::Start(0))?;
    write!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests;
