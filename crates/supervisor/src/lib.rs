//! The supervisor: starts workers, watches them, drains and replaces them, and publishes who may get requests
//! as a watched [`lethe_model::roster::Roster`]. It knows nothing of HTTP routes or of the gateway.
//!
//! A [`service::Spec`] has N places, and each place runs one worker at a time, over and over:
//! `supervisor` (the handle) → `fleet` (one service: its places and the commands on them) → `place` (one
//! worker after the other) → `launch` (the process). `restart` and `rollout` decide and touch
//! nothing, but for `rollout::rolling`, which does what `rollout::steps` decides.

mod board;
mod cell;
mod cgroup;
pub mod descriptors;
mod fleet;
mod guard;
pub mod home;
pub mod kin;
pub mod launch;
pub mod logs;
mod memory;
mod orphans;
mod output;
mod place;
mod port;
mod process;
pub mod program;
mod ready;
pub mod resources;
mod restart;
pub mod rollout;
pub mod service;
mod socket;
pub mod supervisor;
mod usage;
pub mod warm_up;
