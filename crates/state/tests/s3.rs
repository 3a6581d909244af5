//! The s3 engine on two servers that know nothing of it: the contract of blobs, and what happens when a server is killed, slow or
//! away, or refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "objects/calls.rs"]
mod calls;
#[path = "s3/contract.rs"]
mod contract;
#[path = "s3/faults.rs"]
mod faults;
#[path = "s3/moto.rs"]
mod moto;
#[path = "s3/moving.rs"]
mod moving;
#[path = "objects/names.rs"]
mod names;
#[path = "redis/proxy.rs"]
mod proxy;
#[path = "s3/refusals.rs"]
mod refusals;
#[path = "objects/refused.rs"]
mod refused;
#[path = "s3/server.rs"]
mod server;
#[path = "s3/vault.rs"]
mod vault;
