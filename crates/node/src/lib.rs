//! The composition root: reads what shall run, starts every room, wires the watched values between them, and ends them
//! in the right order. The rooms never import each other; here they meet.

pub mod allowance;
mod attendant;
pub mod build;
mod coming;
pub mod config;
mod doors;
mod folder;
mod handover;
mod hangup;
pub mod heir;
pub mod inheritance;
pub mod node;
pub mod notify;
pub mod plan;
pub mod port;
pub mod reload;
pub mod signals;
pub mod source;
