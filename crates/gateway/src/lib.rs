//! The gateway: accepts requests, gives each to a worker of the roster, and when the worker is lost saves what can be
//! saved. It gets a watched roster and gives samples; it never reaches into the supervisor.
//!
//! A request's way by file: `accept` → `http1` (or another [`downstream::Downstream`]) → `request`, with `head`, `admit`,
//! `route` and `headers` → `forward` (the loop of attempts, with `balance` to choose and `verdict` to judge a loss) →
//! `exchange` (one attempt) on a `link`, or `problem` if it fails. Each core (`core`) has all of these for itself.

mod accept;
mod admit;
mod balance;
mod buffer;
mod chunked;
mod client;
pub mod config;
mod connection;
mod core;
mod downstream;
mod exchange;
mod field;
mod forward;
pub mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
mod head;
mod headers;
mod histogram;
mod http1;
mod http2;
mod link;
mod listen;
mod outbox;
mod problem;
pub mod proxy_protocol;
mod request;
mod resume;
mod route;
mod service;
mod socket;
pub mod stats;
pub mod tls;
mod trace;
mod tunnel;
mod upload;
mod verdict;
mod watch;
