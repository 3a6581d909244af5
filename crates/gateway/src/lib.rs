//! The gateway: accepts requests, gives each to a worker of the roster, and when the worker is lost saves what can be
//! saved. It gets a watched roster and gives samples; it never reaches into the supervisor.
//!
//! A request's way by file: `accept` → `http1` (or another [`downstream::Downstream`]) → `request`, with `head`, `admit`,
//! `route` and `headers` → `allowance`, if the route has limits → `once`, if its requests are done once → `forward` (the loop of attempts, with `queue` and `balance` to find a worker and `verdict` to judge a loss) →
//! `exchange` (one attempt) on a `link`, or `problem` if it fails. Each core (`core`) has all of these for itself.

mod accept;
pub mod access_log;
mod admit;
pub mod allowance;
mod balance;
mod batch;
mod body_budget;
mod buffer;
mod chunked;
mod client;
mod clock;
mod concurrency;
pub mod config;
mod connection;
mod core;
mod crowd;
mod descriptors;
mod downstream;
mod ejection;
mod exchange;
mod field;
mod follow;
mod forward;
pub mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
mod gradient;
mod h2c;
mod head;
mod headers;
mod health;
mod histogram;
mod http1;
mod http2;
mod joint;
mod json;
mod keeping;
pub mod ledger;
mod line;
mod link;
mod listen;
mod moment;
mod observer;
mod once;
#[cfg(feature = "otel")]
pub mod otel;
mod outbox;
mod pace;
mod problem;
pub mod proxy_protocol;
mod queue;
mod record;
mod request;
mod resume;
mod retry_budget;
mod rotation;
mod route;
mod server_timing;
mod service;
mod shard;
mod slices;
mod slow_start;
mod socket;
pub mod stats;
mod suspicion;
pub mod tls;
mod trace;
mod tunnel;
mod upload;
mod upstream;
mod verdict;
mod via;
mod wanted;
mod watch;
