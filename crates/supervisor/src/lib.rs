//! The supervisor: starts workers, watches them, drains and replaces them, and publishes who may get requests
//! as a watched [`lethe_model::roster::Roster`]. It knows nothing of HTTP routes or of the gateway.

pub mod logs;
pub mod service;
pub mod supervisor;
