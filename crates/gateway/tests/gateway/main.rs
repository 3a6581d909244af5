//! The gateway against raw sockets on both sides: the test plays the client and each worker byte by byte, so that
//! every moment at which a worker can be lost is exactly the one that is meant.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod allowance;
mod choosing;
mod desk;
mod edge;
mod forward;
mod handover;
mod http1;
mod lab;
mod limits;
mod observe;
mod once;
#[cfg(feature = "otel")]
mod otel;
mod overload;
mod refused;
mod reload;
mod resume;
mod retry;
mod retry_on;
mod smuggling;
mod stall;
mod storm;
mod stream;
mod tls;
mod unix;
mod zero;
