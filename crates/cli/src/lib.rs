//! The `lethe` command line: one file a verb. `lethe up` runs services here; every other verb asks a running `lethe`
//! over its control socket.

pub mod ansi;
pub mod arguments;
pub mod clock;
pub mod curve;
pub mod events;
pub mod failure;
pub mod figures;
pub mod output;
pub mod paint;
pub mod running;
pub mod signal;
pub mod span;
pub mod table;
pub mod ui;
pub mod verb;
pub mod workers;

use std::process::ExitCode;

use arguments::Arguments;

/// Runs the verb that the process was started with. Exit statuses: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    // The guard outlives its `lethe` by a moment, and there is one for each: it stays as small as it can.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "guard") {
        let status = lethe_supervisor::supervisor::guard();
        return ExitCode::from(u8::try_from(status).unwrap_or(1));
    }
    if let Some(status) = lethe_prover::hidden::run() {
        return status;
    }
    let (arguments, is_json) = Arguments::read();
    match arguments.verb.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::Failure::from(error).report(is_json),
    }
}
