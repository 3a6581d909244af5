//! The gateway: accepts requests, gives each to a worker of the roster, and when the worker is lost saves what can be
//! saved. It gets a watched roster and gives samples; it never reaches into the supervisor.
//!
//! A request's way by file: `accept` → `request` → `admit` → `route` → `headers` → `forward` (the loop of attempts,
//! with `balance` to choose and `verdict` to judge a loss) → `attempt` → `link` → `body`, or `problem` if it fails.
//! Each core (`core`) has all of these for itself.

mod accept;
mod admit;
mod attempt;
mod balance;
mod body;
mod client;
pub mod config;
mod core;
#[allow(dead_code, reason = "the engine is yet to take it up")]
mod downstream;
mod forward;
pub mod gateway;
#[allow(dead_code, unused_imports, reason = "the engine is yet to take it up")]
mod h2c;
mod headers;
mod histogram;
#[allow(dead_code, unused_imports, reason = "the engine is yet to take it up")]
mod http2;
mod link;
mod listen;
mod problem;
mod relay;
mod replay;
mod request;
mod route;
mod service;
pub mod stats;
mod trace;
mod upgrade;
mod verdict;
