//! The gateway: accepts requests, gives each to a worker of the roster, and when the worker is lost saves what can be
//! saved. It gets a watched roster and gives samples; it never reaches into the supervisor.
//!
//! A request's way by file: `accept` → `request` → `admit` → `route` → `headers` → `forward` (the loop of attempts,
//! with `queue` and `balance` to find a worker and `verdict` to judge a loss) → `attempt` → `link` → `body`, or `problem` if it fails.
//! Each core (`core`) has all of these for itself.

mod accept;
mod admit;
mod attempt;
mod balance;
mod body;
mod client;
mod concurrency;
pub mod config;
mod core;
mod ejection;
mod forward;
pub mod gateway;
mod gradient;
mod headers;
mod health;
mod health_h2c;
mod histogram;
#[cfg_attr(not(test), expect(dead_code, reason = "a configuration that changes comes with the new engine"))]
mod joint;
mod line;
mod link;
mod listen;
mod moment;
mod pace;
mod problem;
mod queue;
mod relay;
mod replay;
mod request;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "retries for a status or a timeout come with the new engine")
)]
mod retry_budget;
mod rotation;
mod route;
mod service;
mod slow_start;
pub mod stats;
mod trace;
mod upgrade;
mod upstream;
mod verdict;
