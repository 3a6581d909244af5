//! The nouns that several rooms share: a service's name, a worker, the roster, the gate through which
//! requests reach a worker, a date. No I/O happens here but one question over HTTP/2, on a connection that its caller has
//! made.

pub mod calendar;
pub mod gate;
pub mod h2c_question;
pub mod roster;
pub mod service;
pub mod workers;
