//! Load on a service: users who come when they come, whether or not those before them have been served, each going through a journey.
//!
//! [`run::run`] plays a [`schedule::Schedule`] of arrivals and gives a [`report::Report`]. Latency is counted from the instant at which a
//! request was to be sent, so that a service that stops for a second is not measured by the few requests that waited for it.

pub mod capacity;
pub mod page;
pub mod plan;
pub mod recorder;
pub mod report;
pub mod run;
pub mod scalability;
pub mod schedule;
