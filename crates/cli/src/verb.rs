//! The verbs, one file each.

pub mod completions;
pub mod down;
pub mod drain;
pub mod kill;
pub mod logs;
pub mod ps;
pub mod reload;
pub mod restart;
pub mod scale;
pub mod simulate;
pub mod state;
pub mod up;
pub mod upgrade;
