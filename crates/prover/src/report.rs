//! Forms of a proof that other tools and people read.

pub mod framework;
pub mod junit;
pub mod page;
pub mod sarif;
