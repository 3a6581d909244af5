//! Connections that are kept: that of one user between steps, and those that users leave to others.

use std::sync::{Arc, Mutex, PoisonError};

use super::exchange::Connection;
use crate::destination::Destination;

/// The most connections without a request that a pool keeps.
const IDLE_MAX: usize = 1024;

/// Connections to one destination that users have left. Clones are the same pool.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Vec<Connection>>>);

/// Where one user keeps the connection between steps.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    kept: Option<Connection>,
    pool: Option<Pool>,
}

impl Pool {
    /// The one that was used last, so that those which nobody needs grow old; those that have are closed.
    fn take(&self, destination: &Destination) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.serves(destination) {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push(connection);
    }
}

impl Shelf {
    pub(super) fn of(pool: Pool) -> Self {
        Self { kept: None, pool: Some(pool) }
    }

    /// A connection to `destination` on which no request is.
    pub(super) fn take(&mut self, destination: &Destination) -> Option<Connection> {
        let kept = self.kept.take().filter(|kept| kept.serves(destination));
        kept.or_else(|| self.pool.as_ref()?.take(destination))
    }

    pub(super) fn keep(&mut self, connection: Option<Connection>) {
        self.kept = connection;
    }

    pub(super) fn clear(&mut self) {
        self.kept = None;
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if let (Some(pool), Some(kept)) = (&self.pool, self.kept.take()) {
            pool.put(kept);
        }
    }
}
