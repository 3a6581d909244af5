//! The rules of near copies, on an engine whose every move a test decides.

mod desk;
mod outage;
mod rules;
mod schedule;
mod tables;
