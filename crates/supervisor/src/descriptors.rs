//! How many descriptors `lethe` may have open. The usual limit of 1024 is soon used up by clients' connections, and then no
//! worker can be started in the place of one that died. So it is raised for `lethe`, and workers get it as it was, because
//! there are programs that do not expect more (`select(2)`).

use std::{io, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is asked for unless more is needed: the gateway's connections on both sides, with room for the rest.
const DESCRIPTORS: u64 = 1 << 16;

static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit of this process as far as it may, to a sensible number and to that which is `needed`. Called once, at
/// the start.
pub fn raise(needed: u64) -> io::Result<()> {
    let before = getrlimit(Resource::Nofile);
    let wanted = needed.max(DESCRIPTORS);
    let wanted = before.maximum.map_or(wanted, |most| most.min(wanted));
    if before.current.is_none_or(|now| now >= wanted) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(wanted), maximum: before.maximum };
    let _ = BEFORE.set(before);
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Sets the limit of this process to what it was. For a child between fork and exec: async-signal-safe.
pub fn restore() -> io::Result<()> {
    match BEFORE.get() {
        Some(before) => Ok(setrlimit(Resource::Nofile, *before)?),
        None => Ok(()),
    }
}
