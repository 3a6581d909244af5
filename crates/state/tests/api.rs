//! The state API from both of its ends: the contract of every kind through `remote` → unix socket → `server` →
//! embedded engine, requests written by hand as a client without a library sends them, and what happens when an end
//! goes away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "api/blobs.rs"]
mod blobs;
#[path = "api/cache.rs"]
mod cache;
#[path = "api/contract.rs"]
mod contract;
#[path = "api/feeds.rs"]
mod feeds;
#[path = "api/frames.rs"]
mod frames;
#[path = "api/harness.rs"]
mod harness;
#[path = "api/idempotency.rs"]
mod idempotency;
#[path = "api/lifecycle.rs"]
mod lifecycle;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/locks.rs"]
mod locks;
#[path = "api/near.rs"]
mod near;
#[path = "api/realms.rs"]
mod realms;
#[path = "api/sessions.rs"]
mod sessions;
#[path = "api/tables.rs"]
mod tables;
