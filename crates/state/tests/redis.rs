//! The redis engine on real servers: the contract of every kind on one server and on a cluster, and what happens when servers
//! are killed, slow or away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "redis/cache.rs"]
mod cache;
#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/contract.rs"]
mod contract;
#[path = "redis/faults.rs"]
mod faults;
#[path = "redis/feeds.rs"]
mod feeds;
#[path = "redis/harness.rs"]
mod harness;
#[path = "redis/keyspace.rs"]
mod keyspace;
#[path = "redis/limits.rs"]
mod limits;
#[path = "redis/moving.rs"]
mod moving;
#[path = "redis/near.rs"]
mod near;
#[path = "redis/once.rs"]
mod once;
#[path = "redis/proxy.rs"]
mod proxy;
#[path = "redis/refusals.rs"]
mod refusals;
#[path = "redis/revocation.rs"]
mod revocation;
#[path = "redis/sentinel.rs"]
mod sentinel;
#[path = "redis/server.rs"]
mod server;
#[path = "redis/tls.rs"]
mod tls;
