//! The gcs engine on a server that knows nothing of it: the contract of blobs, and what happens when the network fails, or the
//! server refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "objects/calls.rs"]
mod calls;
#[path = "gcs/contract.rs"]
mod contract;
#[path = "gcs/engine.rs"]
mod engine;
#[path = "objects/faults.rs"]
mod faults;
#[path = "gcs/moving.rs"]
mod moving;
#[path = "objects/names.rs"]
mod names;
#[path = "gcs/network.rs"]
mod network;
#[path = "redis/proxy.rs"]
mod proxy;
#[path = "gcs/refusals.rs"]
mod refusals;
#[path = "objects/refused.rs"]
mod refused;
#[path = "gcs/server.rs"]
mod server;
