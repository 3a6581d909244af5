//! Tables: rows of bytes under a key, read one by one or by prefix, written in atomic batches with a
//! condition on each write. Put, delete, compare-and-set and increment are all one operation,
//! [`Tables::apply`], with the wish as data.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Millis, Revision, error::Error, feed::Feed, locks::Token};

/// Longest table name, in bytes: lower-case ASCII letters, digits, `-` and `_`.
pub const TABLE_NAME_BYTES_MAX: usize = 64;
/// The table of token keys, a row for each ring. Who can read a ring can sign with it; so a service that may use sessions has the
/// one of its own name, and all of them only if it was given the table.
pub const TOKEN_KEYS_TABLE: &str = "lethe-token-keys";
/// Longest key, in bytes of UTF-8. A key is any text but the empty one, without NUL.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most writes in one batch.
pub const BATCH_WRITES_MAX: usize = 128;
/// Most rows in one page of a scan.
pub const SCAN_ROWS_MAX: usize = 1000;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Its value. An integer that was made by an increment is its decimal text.
    pub value: Bytes,
    /// Changes with each write to the row.
    pub revision: Revision,
    /// From when on it does not exist any more; `None` for never.
    pub expires_at: Option<Millis>,
}

/// Which rows to read, in the order of their keys' bytes.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only keys after this one.
    pub after: Option<String>,
    /// At most this many rows; 0 and what is over [`SCAN_ROWS_MAX`] mean [`SCAN_ROWS_MAX`]. A page may hold fewer
    /// rows than there are: only `next` tells whether it was the last.
    pub limit: usize,
}

/// Some rows of a scan.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where the next page begins: the `after` to ask for. `None` when there are no more rows.
    pub next: Option<String>,
}

/// What must hold for a write to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// The row does not exist.
    Absent,
    /// The row exists.
    Present,
    /// The row exists with this revision.
    Revision(Revision),
}

/// What a write does to its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the condition alone counts, for the whole batch.
    Check,
    /// Sets the value, and the expiry: after `ttl`, or never.
    Put {
        /// The new value.
        value: Bytes,
        /// How long the row exists; `None` for always.
        ttl: Option<Duration>,
    },
    /// Removes the row, if it is there.
    Delete,
    /// Adds to the integer in the row; an absent row counts as 0. A row that exists keeps its expiry.
    Increment {
        /// How much, may be negative.
        by: i64,
        /// How long a row that is made by this increment exists; `None` for always.
        ttl: Option<Duration>,
    },
    /// Lets the batch be done only by the newest holder of a lock: the row keeps the largest fencing token that was seen,
    /// as decimal text, and a smaller one fails the whole batch with [`Error::Fenced`]. Sets a larger one, or the first,
    /// for always.
    ///
    /// In one step with the other writes, it holds what a lock alone cannot: a holder that was paused past the end of its
    /// lease, and does not know, changes nothing. Who deletes the row, or puts something else there, opens the fence.
    Fence {
        /// The token of the lease ([`crate::locks::Lease::token`]).
        token: Token,
    },
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The table; it exists from its first row on.
    pub table: String,
    /// The row's key.
    pub key: String,
    /// What must hold.
    pub condition: Condition,
    /// What is done.
    pub action: Action,
}

/// What one write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition held, and nothing was to be done.
    Checked,
    /// The value is set.
    Put {
        /// The row's new revision.
        revision: Revision,
    },
    /// The row is not there any more.
    Deleted {
        /// Whether it was there before.
        existed: bool,
    },
    /// The integer was added to.
    Incremented {
        /// Its new value.
        value: i64,
        /// The row's new revision.
        revision: Revision,
    },
    /// No larger token was seen, and no smaller one is taken from now on.
    Fenced,
}

/// An engine that keeps tables.
///
/// Every method is cancellation safe in this sense: a dropped call either happens whole or not at all.
/// What `apply` has acknowledged survives `kill -9` of any process.
#[async_trait]
pub trait Tables: Send + Sync + 'static {
    /// One row, or `None`.
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error>;

    /// Some rows, in the order of their keys.
    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, Error>;

    /// Does all of `batch` in one step, or none of it, in its order; the outcomes stand in the same
    /// order. Later writes see earlier ones.
    ///
    /// Fails with [`Error::Conflict`] when a condition does not hold, and with [`Error::Fenced`] when a fence has seen a
    /// larger token.
    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error>;

    /// Follows which rows of a table are written from now on.
    async fn follow(&self, table: &str) -> Result<Feed, Error>;

    /// Gives what is kept as records, to move it; `None` if this engine cannot.
    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        None
    }
}
