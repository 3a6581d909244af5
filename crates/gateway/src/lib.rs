//! The gateway: accepts requests, gives each to a worker of the roster, and when the worker is lost saves what can be
//! saved. It gets a watched roster and gives samples; it never reaches into the supervisor.
//!
//! A request's way by file: `accept` → `request` → `admit` → `route` → `headers` → `forward` (the loop of attempts,
//! with `balance` to choose and `verdict` to judge a loss) → `attempt` → `link` → `body`, or `problem` if it fails.
//! Each core (`core`) has all of these for itself.

mod accept;
#[allow(dead_code, reason = "resumption, retries for a status and reload are still to call it")]
pub mod access_log;
mod admit;
mod attempt;
mod balance;
mod batch;
mod body;
mod client;
mod clock;
pub mod config;
mod core;
mod forward;
pub mod gateway;
mod headers;
mod histogram;
mod json;
mod link;
mod listen;
mod observer;
#[cfg(feature = "otel")]
pub mod otel;
mod problem;
#[allow(dead_code, reason = "resumption, retries for a status and reload are still to call it")]
mod record;
mod relay;
mod replay;
mod request;
mod route;
mod server_timing;
mod service;
mod shard;
pub mod stats;
mod trace;
mod upgrade;
mod verdict;
