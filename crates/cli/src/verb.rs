//! The verbs, one file each.

pub mod completions;
pub mod deploy;
pub mod down;
pub mod drain;
pub mod export;
pub mod history;
pub mod kill;
pub mod load;
pub mod logs;
pub mod prove;
pub mod ps;
pub mod record;
pub mod reload;
pub mod restart;
pub mod rollback;
pub mod scale;
pub mod simulate;
pub mod state;
pub mod up;
pub mod upgrade;
