//! What a SIGHUP means. It has two meanings that a process cannot tell apart by the signal: an operator asks for the
//! configuration to be read again, or the terminal has gone in which `lethe up` was started. So the terminal is asked.

use std::fs::File;

use rustix::{process::getpgrp, termios::tcgetpgrp};

/// The terminal in whose foreground this process was started, if it was.
pub(crate) struct Terminal {
    was_there: bool,
}

impl Terminal {
    /// Looks where this process was started. In the background it is a daemon's, which outlives its terminal.
    pub(crate) fn of_start() -> Self {
        // The terminal first: a process group of outside of this process namespace is 0, and rustix takes it for a bug.
        let is_foreground = |tty: File| tcgetpgrp(&tty).is_ok_and(|group| group == getpgrp());
        Self { was_there: controlling().is_some_and(is_foreground) }
    }

    /// Whether it has gone since. The kernel takes the terminal away from all processes of the session before it sends
    /// them SIGHUP.
    pub(crate) fn has_gone(&self) -> bool {
        self.was_there && controlling().is_none()
    }
}

/// The controlling terminal; there is none when it cannot be opened (tty(4)).
fn controlling() -> Option<File> {
    File::open("/dev/tty").ok()
}
