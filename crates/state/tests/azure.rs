//! The azure engine on a server that knows nothing of it: the contract of blobs, and what happens when the network fails, or the
//! server refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "azure/azurite.rs"]
mod azurite;
#[path = "objects/calls.rs"]
mod calls;
#[path = "azure/contract.rs"]
mod contract;
#[path = "azure/engine.rs"]
mod engine;
#[path = "objects/faults.rs"]
mod faults;
#[path = "azure/moving.rs"]
mod moving;
#[path = "objects/names.rs"]
mod names;
#[path = "azure/network.rs"]
mod network;
#[path = "redis/proxy.rs"]
mod proxy;
#[path = "azure/refusals.rs"]
mod refusals;
#[path = "objects/refused.rs"]
mod refused;
