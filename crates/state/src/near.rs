//! Near copies: memory, in a worker, of what it has read from an engine, so that the next read is a look into memory. A feed
//! tells when a copy is stale; whatever casts doubt on the feed casts doubt on all copies.
//!
//! # What is promised
//! - Once a change is acknowledged, no read that begins [`SILENCE_MAX`](crate::feed::SILENCE_MAX) later sees what was before, and none
//!   that begins after the feed has told of it. Usually that is a few milliseconds.
//! - A worker reads what it has itself written: a write drops its copy before it returns.
//! - A read that was begun before a change, and comes back after it, never puts what it found in the place of something newer, for
//!   each reading is fenced ([`copies`]).
//! - When the feed fails, nothing that was kept is believed. While the engine itself cannot be reached, and only then, copies that were
//!   good when the feed was last heard may still be read for [`Bounds::outage_max`].
//! - No copy outlives what it is of, by this machine's clock.

pub mod copies;
mod counts;
mod failure;
mod flights;
mod follower;
mod sessions;
mod shelf;
mod tables;
#[cfg(test)]
mod tests;
mod trust;

use std::time::Duration;

pub use self::{
    copies::{Copied, Copies, Writing},
    counts::Counts,
    sessions::NearSessions,
    tables::NearTables,
};

/// How much is kept near, and for how long: the bounds of one kind, or of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most copies.
    pub entries_max: u64,
    /// Most bytes that they take, estimated. Each copy counts as `bytes_max / entries_max` at least. Who adds copies faster than the old
    /// ones are removed can exceed this for a moment, by at most a few MiB.
    pub bytes_max: u64,
    /// Oldest copy that is used without asking the engine again. Feeds make this unnecessary; it is what an error in an engine's feed,
    /// or a clock that was set back, could do at most.
    pub age_max: Duration,
    /// How long after the feed was last heard copies may be read while the engine cannot be reached; zero for never. Whoever is
    /// signed out elsewhere meanwhile can be seen here as signed in for so long, and can write nothing.
    pub outage_max: Duration,
}

impl Default for Bounds {
    /// 100,000 copies in 64 MiB, read anew after five minutes, and for half a minute when the engine is away.
    fn default() -> Self {
        Self {
            entries_max: 100_000,
            bytes_max: 64 << 20,
            age_max: Duration::from_secs(300),
            outage_max: Duration::from_secs(30),
        }
    }
}
