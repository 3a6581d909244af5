//! The supervisor with real processes. Each test waits for what it expects to see, in the roster or in the log.

#![allow(missing_docs, clippy::unwrap_used)]

mod commands;
mod contract;
mod death;
mod guard;
mod home;
mod kin;
mod output;
mod resources;
mod rollout;
mod stage;
mod zero;
