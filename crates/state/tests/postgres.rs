//! The engine on PostgreSQL, with a real server: the contract of each kind, how the schema is made by many at once, and
//! what happens when the server or the way to it is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "postgres/contract.rs"]
mod contract;
#[path = "postgres/server.rs"]
mod server;
