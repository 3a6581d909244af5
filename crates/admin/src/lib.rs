//! What an operator sees and commands: the control API on a unix socket, with its client, and `/healthz`, `/readyz`
//! and `/metrics` on a TCP address. It holds handles to the other rooms and keeps nothing but a few samples.

mod accept;
pub mod api;
pub mod client;
pub mod control;
pub mod exposition;
pub mod follow;
pub mod handles;
pub mod interruption;
mod metrics;
pub mod operator;
pub mod peer;
mod problem;
mod process;
pub mod releases;
pub mod runtime;
mod sample;
pub mod stop;
pub mod timestamp;

pub use handles::Handles;
