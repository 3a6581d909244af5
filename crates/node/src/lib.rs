//! The composition root: reads what shall run, starts every room, wires the watched values between them, and ends them
//! in the right order. The rooms never import each other; here they meet.

pub mod allowance;
mod attendant;
pub mod build;
mod coming;
pub mod config;
pub mod deploy;
mod doors;
mod figures;
mod folder;
mod follow;
mod handover;
mod hangup;
pub mod heir;
pub mod inheritance;
pub mod interruption;
mod ledger;
pub mod node;
pub mod notify;
pub mod plan;
pub mod port;
pub mod release;
pub mod reload;
pub mod scaling;
mod secrets;
pub mod signals;
pub mod source;
mod store;
mod visitor;
mod waking;
