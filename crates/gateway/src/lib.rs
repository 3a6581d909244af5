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
mod forward;
pub mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
mod headers;
mod histogram;
mod link;
mod listen;
mod problem;
pub mod proxy_protocol;
mod relay;
mod replay;
mod request;
mod route;
mod service;
pub mod stats;
pub mod tls;
mod trace;
mod upgrade;
mod verdict;
