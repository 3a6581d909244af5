//! The prover: runs a service several times over, each worker in a world of its own, plays the same journeys against
//! different mixes of workers, and finds what one worker keeps that another one would need.
//!
//! `yard` makes worlds (`world`), `worker` runs one worker in one, `pool` starts them ahead. `stage` plays one journey as a
//! `schedule` says, `trial` compares what comes back with what one worker gives (`noise`) and searches for the steps that matter,
//! `whereabouts` finds where the thing is kept, `middle` what a step leaves behind whose worker is killed at work on it. `proof` is all of it.

mod clock;
mod content;
pub mod contrast;
mod detector;
pub mod disk;
mod failure;
pub mod finding;
pub mod gate;
pub mod hidden;
mod middle;
pub mod noise;
pub mod output;
pub mod pool;
mod preload;
pub mod proof;
pub mod relay;
mod repetition;
pub mod replay;
pub mod report;
pub mod schedule;
pub mod scratch;
pub mod service;
pub mod stage;
mod tap;
pub mod trace;
mod trial;
mod whereabouts;
pub mod worker;
pub mod world;
pub mod yard;
