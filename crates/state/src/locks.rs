//! Locks: one holder at a time, for as long as its lease lasts. A holder that was paused does not know that its lease is
//! over, so each lease has a fencing token, larger than those of all earlier holders: tables and blobs take it and refuse an
//! older one.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Millis, error::Error};

/// Longest name of a lock and of a holder, in bytes of UTF-8: any text but the empty one, without NUL.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest lease: a day. A holder that needs it for longer renews it.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most locks in one page of a list.
pub const LIST_MAX: usize = 1000;

/// The largest token, so that every engine and JSON's readers in other languages have a type for it.
pub const TOKEN_MAX: Token = i64::MAX as Token;

/// The table in which callers keep the fences of locks, a row for each lock: who was granted a lock may set its fence.
pub const FENCES_TABLE: &str = "lethe-fences";

/// Grows with each lease of a lock, over all its holders. Never 0, and never given twice, also after the lock was let go,
/// its lease has ended, or the engine was restarted.
pub type Token = u64;

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The lock's name.
    pub name: String,
    /// Who holds it, for people: a worker's name, a job.
    pub holder: String,
    /// The fencing token.
    pub token: Token,
    /// When it ends unless it is renewed, by the engine's clock.
    pub expires_at: Millis,
}

/// Some locks that are held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The leases, in the order of the names' bytes.
    pub leases: Vec<Lease>,
    /// Where the next page begins: the `after` to ask for. `None` when there are no more.
    pub next: Option<String>,
}

/// An engine that keeps locks.
///
/// Leases are judged by the engine's clock. Every method is cancellation safe in this sense: a dropped call either happens
/// whole or not at all; a lease that nobody got to see ends by itself.
#[async_trait]
pub trait Locks: Send + Sync + 'static {
    /// Takes the lock, if nobody holds it; else `None`. A holder of the same name is somebody else too: it renews instead.
    /// `lease` is at least 1 ms and at most [`LEASE_MAX`].
    async fn acquire(&self, name: &str, holder: &str, lease: Duration) -> Result<Option<Lease>, Error>;

    /// Lets a lease last `lease` from now on, with the same token; `None` when it is over or somebody else's. A lease that is
    /// over is never brought back, even if nobody took the lock since.
    async fn renew(&self, name: &str, token: Token, lease: Duration) -> Result<Option<Lease>, Error>;

    /// Lets the lock go, if it is still held by this token; whether it was.
    async fn release(&self, name: &str, token: Token) -> Result<bool, Error>;

    /// Who holds the lock.
    async fn look(&self, name: &str) -> Result<Option<Lease>, Error>;

    /// The locks that are held, behind `after`, at most `most`; 0 and what is over [`LIST_MAX`] mean [`LIST_MAX`].
    async fn list(&self, after: Option<&str>, most: usize) -> Result<Page, Error>;

    /// Gives what is kept as records, to move it; `None` if this engine cannot.
    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        None
    }
}
