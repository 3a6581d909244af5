//! The nouns that several rooms share: a service's name, a worker, the roster, the gate through which
//! requests reach a worker, a date. No I/O happens here.

pub mod calendar;
pub mod gate;
pub mod roster;
pub mod service;
pub mod workers;
