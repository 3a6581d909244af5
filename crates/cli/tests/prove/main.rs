//! `lethe prove` against real programs: each violation is named rightly, each fixed twin gives no false alarm, bad input is answered
//! with what to do, and nothing of the user's files is changed.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "all of this is a test")]

mod bad_input;
mod cases;
mod chance;
mod detectors;
mod files;
mod journeys;
mod lab;
mod levels;
mod openapi;
mod polls;
mod recorded;
#[path = "../e2e/recorder.rs"]
mod recorder;
mod replay;
mod schedules;
mod services;
mod terminal;
mod traces;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../e2e/visitor.rs"]
mod visitor;
