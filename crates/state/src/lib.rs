//! The state tier: what a service must remember, kept outside its workers. Each kind of state is one
//! narrow trait ([`sessions::Sessions`], [`tables::Tables`], [`blobs::Blobs`], [`limits::Limits`],
//! [`idempotency::Idempotency`], [`locks::Locks`], [`cache::Cache`]); each engine implements the kinds it can, and passes the kind's
//! contract suite.
//!
//! Engines: `embedded` (feature `embedded`: SQLite and a blob directory), `redis`, `postgres`, `s3`, `azure` and `gcs` (features of these
//! names),
//! `remote` (feature `remote`: the state API of another process, which `server` serves). In front of any of them, `near` (feature
//! `near`) keeps copies of what was read.

mod absent;
#[cfg(feature = "azure")]
pub mod azure;
pub mod blobs;
#[cfg(any(feature = "postgres", feature = "redis", feature = "objects"))]
mod breaker;
pub mod cache;
pub mod clock;
#[cfg(feature = "contract")]
pub mod contract;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod error;
pub mod feed;
pub mod figures;
#[cfg(any(feature = "server", feature = "remote"))]
mod frames;
#[cfg(feature = "gcs")]
pub mod gcs;
#[cfg(feature = "server")]
pub mod grant;
pub mod idempotency;
pub mod limits;
pub mod locks;
pub mod metered;
#[cfg(feature = "near")]
pub mod near;
#[cfg(feature = "objects")]
mod objects;
pub mod open;
pub mod place;
pub mod portable;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "redis", feature = "objects"))]
mod query;
pub mod realm;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "remote")]
pub mod remote;
pub mod revocations;
#[cfg(any(
    feature = "embedded",
    feature = "postgres",
    feature = "redis",
    feature = "objects",
    feature = "server"
))]
mod rules;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(feature = "server")]
pub mod server;
pub mod sessions;
pub mod tables;
#[cfg(any(feature = "server", feature = "remote"))]
mod wire;

use std::sync::Arc;

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = i64;

/// A number that grows with each change, so that a writer can say which version it has seen. Never 0
/// for a thing that exists.
pub type Revision = u64;

/// The engines that keep each kind, as a service or the daemon holds them. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    /// Keeps sessions.
    pub sessions: Arc<dyn sessions::Sessions>,
    /// Keeps tables.
    pub tables: Arc<dyn tables::Tables>,
    /// Keeps blobs.
    pub blobs: Arc<dyn blobs::Blobs>,
    /// Keeps limits.
    pub limits: Arc<dyn limits::Limits>,
    /// Keeps locks.
    pub locks: Arc<dyn locks::Locks>,
    /// Keeps idempotency keys.
    pub idempotency: Arc<dyn idempotency::Idempotency>,
    /// Keeps caches.
    pub cache: Arc<dyn cache::Cache>,
}
