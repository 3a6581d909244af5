//! The verbs that `lethe` starts itself with, which nobody types: the processes of a world, and the sweeper.

use std::{env, path::Path, process::ExitCode};

use crate::{scratch, world};

/// Does what this process was started for, if that is one of these verbs. To be asked before anything else is done: these
/// processes have one thread and stay small.
pub fn run() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    let (verb, argument) = (arguments.next()?, arguments.next());
    match (verb.as_str(), argument) {
        ("world", Some(spec)) => Some(world::outer(&spec)),
        ("world-init", Some(spec)) => Some(world::init(&spec)),
        ("sweep", Some(folder)) => Some(scratch::sweep(Path::new(&folder))),
        _ => None,
    }
}
