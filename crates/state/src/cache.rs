//! Cache: values that could be computed again, computed by one worker for all. An entry is fresh for a while, then stale:
//! still given to everybody, while one worker at a time has the right to compute it anew. What was removed never comes back
//! with a value that was begun before.

#[cfg(any(feature = "embedded", feature = "redis"))]
pub(crate) mod rule;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{error::Error, feed::Feed};

/// Longest name of a cache, in bytes: lower-case ASCII letters, digits, `-` and `_`.
pub const CACHE_NAME_BYTES_MAX: usize = 64;
/// The cache with the lists of what is asked for most, an entry for each service. A service that has any cache has its own entry.
pub const HOT_CACHE: &str = "lethe-hot";
/// Longest key, in bytes of UTF-8. A key is any text but the empty one, without NUL.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest life of an entry, fresh and stale together: 366 days.
pub const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest lease of a claim, and longest pause after one was given back: an hour.
pub const LEASE_MAX: Duration = Duration::from_secs(3600);
/// Most keys of one [`Cache::get_many`].
pub const READ_KEYS_MAX: usize = 256;
/// One [`Cache::get_many`] ends when its values have reached this many bytes.
pub const READ_BYTES_MAX: usize = 2 << 20;
/// Most entries of a cache, whatever it was given room for.
pub const ENTRIES_MAX: u32 = 1_000_000;
/// Most bytes of a cache, keys and values, whatever it was given room for: 1 GiB.
pub const BYTES_MAX: u64 = 1 << 30;
/// An entry counts as last used when it last was, or up to so long before: so long it may be read without a write.
pub const USED_STEP: Duration = Duration::from_secs(10);

/// What is known under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value; `None` when it is known that there is none.
    pub value: Option<Bytes>,
    /// For how long it is fresh from now on, by the engine's clock; zero when it is stale.
    pub fresh: Duration,
    /// For how long it may be used from now on, fresh or stale; more than zero.
    pub left: Duration,
}

/// The right to compute the value of a key. It is lost when the key or its whole cache is removed, and when its lease is over
/// and another one was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The cache.
    pub cache: String,
    /// The key.
    pub key: String,
    /// Tells it from all other claims.
    pub token: u64,
    /// How often in a row a claim on this key was given back with a pause, since it was last filled.
    pub failures: u32,
}

/// How a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// There is a fresh entry.
    Fresh(Entry),
    /// There is a stale entry, to be used at once. Who has the claim computes it anew, for all; it is `None` while somebody
    /// does, or while the pause after a failure lasts.
    Stale(Entry, Option<Claim>),
    /// There is nothing, and it is this caller's to compute it.
    Missing(Claim),
    /// There is nothing, and another worker computes it. Its lease ends after so long, unless it is extended.
    Busy(Duration),
}

/// How much a cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Entries, from 1 to [`ENTRIES_MAX`].
    pub entries: u32,
    /// Bytes of keys and values, from [`Room::BYTES_MIN`] to [`BYTES_MAX`].
    pub bytes: u64,
}

impl Room {
    /// The least bytes that a cache may be given: so many that any entry fits.
    pub const BYTES_MIN: u64 = (VALUE_BYTES_MAX + KEY_BYTES_MAX) as u64;
}

impl Default for Room {
    /// 10,000 entries, and 64 MiB.
    fn default() -> Self {
        Self { entries: 10_000, bytes: 64 << 20 }
    }
}

/// What was computed, and for how long it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The value, at most [`VALUE_BYTES_MAX`]; `None` says that there is none, which is remembered too.
    pub value: Option<Bytes>,
    /// For how long it is fresh.
    pub fresh: Duration,
    /// For how long it may be used after that. Both together are more than nothing, and at most [`LIFE_MAX`].
    pub stale: Duration,
    /// How much the cache may hold from now on.
    pub room: Room,
}

/// How much a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Its entries, with those that have just expired or are just computed for the first time.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// An engine that keeps caches. A cache exists from its first entry on.
///
/// Everything in it could be computed again: an engine may lose all of it at any time, but never gives a value that was removed
/// or replaced before. When there is no more room, entries that were not used for longest go first, nearly: [`USED_STEP`] tells
/// how nearly. The time is the engine's own; when that clock is set back, entries and leases last twice as long as they
/// were to at most.
///
/// Every method is cancellation safe in this sense: a dropped call either happens whole or not at all. A claim that nobody got
/// to see ends with its lease.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// How a key stands; and the right to compute it, if that is to be done and nobody else does. `lease` is at least 1 ms and
    /// at most [`LEASE_MAX`].
    async fn begin(&self, cache: &str, key: &str, lease: Duration) -> Result<Begun, Error>;

    /// Lets a claim last `lease` from now on; false when it is lost.
    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error>;

    /// Keeps what was computed under a claim, and ends the claim; false when it is lost, and then nothing was kept. One whose
    /// lease is over is not lost for as long again, as long as nobody else has claimed the key.
    async fn fill(&self, claim: &Claim, fill: Fill) -> Result<bool, Error>;

    /// Gives a claim back; false when it is lost. For `pause`, at most [`LEASE_MAX`], nobody gets another one on this key, which
    /// counts as a failure; without a pause the next one gets it at once. What is there already stays.
    async fn abandon(&self, claim: &Claim, pause: Duration) -> Result<bool, Error>;

    /// Reads entries, in the order of the keys and `None` for what is missing; of at most [`READ_KEYS_MAX`] keys. They may be
    /// fewer than the keys, but at least one, when their values are long ([`READ_BYTES_MAX`]): ask again for the rest.
    async fn get_many(&self, cache: &str, keys: &[String]) -> Result<Vec<Option<Entry>>, Error>;

    /// Reads one entry.
    async fn get(&self, cache: &str, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.get_many(cache, &[key.to_owned()]).await?.pop().flatten())
    }

    /// Removes what is known under a key, and ends a claim on it: a value that is just being computed is not kept.
    async fn remove(&self, cache: &str, key: &str) -> Result<(), Error>;

    /// Does that to all keys of a cache.
    async fn clear(&self, cache: &str) -> Result<(), Error>;

    /// How much a cache holds.
    async fn usage(&self, cache: &str) -> Result<Usage, Error>;

    /// Follows which keys of a cache are filled or removed from now on. When the whole cache is cleared, the feed fails. What
    /// goes for want of room is not told: it is no less true.
    async fn follow(&self, cache: &str) -> Result<Feed, Error>;
}
