//! The readers: a few connections that see the last commit and never wait for the writer.
//!
//! A look-up by key takes a few microseconds, less than handing it to another thread and waking up again
//! would (see `examples/state_throughput.rs`), so it is done where it is asked for. What may take longer,
//! a page of a scan, is done on the runtime's threads for blocking work; at least one connection is always
//! left to look-ups, so that these wait for nothing but each other.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{
    command::closing,
    failure::{Failure, Stop},
    schema,
    solitude::Solitude,
};
use crate::error::Error;

/// Connections for reading. Each costs a page cache of half a MiB at most.
const READERS: usize = 3;
/// How many of them longer reads may hold.
const LONG_READERS: usize = READERS - 1;

/// The pool. Clones share it.
#[derive(Clone)]
pub(super) struct Readers {
    database: Arc<PathBuf>,
    solitude: Arc<Solitude>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    long_permits: Arc<Semaphore>,
}

impl Readers {
    /// Opens the connections.
    pub(super) fn open(database: Arc<PathBuf>, solitude: Arc<Solitude>) -> Result<Self, Failure> {
        let idle = (0..READERS).map(|_| schema::open_reader(&database)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            database,
            solitude,
            idle: Arc::new(Mutex::new(idle)),
            permits: Arc::new(Semaphore::new(READERS)),
            long_permits: Arc::new(Semaphore::new(LONG_READERS)),
        })
    }

    /// Looks something up by key, on this thread.
    pub(super) async fn look_up<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Stop>,
    ) -> Result<T, Error> {
        self.solitude.disturb();
        let _permit = self.permits.acquire().await.map_err(|_| closing())?;
        self.with_connection(read)
    }

    /// Reads something longer, on a thread where that is no harm. Dropped, the read goes on to its end unseen.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Error> {
        self.solitude.disturb();
        let long_permit = self.long_permits.clone().acquire_owned().await.map_err(|_| closing())?;
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closing())?;
        let readers = self.clone();
        let result = tokio::task::spawn_blocking(move || {
            let _permits = (long_permit, permit);
            readers.with_connection(read)
        });
        result.await.unwrap_or_else(|_| Err(closing()))
    }

    /// Refuses later reads, waits for those that run, and closes the connections.
    pub(super) async fn close(&self) {
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        if let Ok(_permits) = self.permits.acquire_many(all).await {
            self.permits.close();
            self.long_permits.close();
            self.idle().clear();
        }
    }

    fn with_connection<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Stop>) -> Result<T, Error> {
        let connection = self.idle().pop().ok_or_else(closing)?;
        let result = read(&connection);
        self.idle().push(connection);
        result.map_err(|stop| stop.into_error(&self.database))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // Nothing that could panic is done under the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
