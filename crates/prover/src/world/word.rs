//! What is said on the channel between `lethe` and the first process of a world. Each request has one reply; before the
//! first request, the world says by itself how it was made.

use std::{net::SocketAddr, path::PathBuf};

use super::watch::{Seen, WatchMethod};
use serde::{Deserialize, Serialize};

/// What a world is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// A connection to the service, as seen from inside. The reply carries the socket.
    Connect(SocketAddr),
    /// The addresses that somebody listens on inside.
    Listening,
    /// Whether the service runs.
    Status,
    /// The service has started: its random numbers are the kernel's from now on.
    Booted,
    /// Asks the service to end, as a supervisor does: SIGTERM to the process that was started.
    Terminate,
    /// Empties a file, for this world alone.
    Empty(PathBuf),
    /// What was done with files since this was asked before.
    Seen,
    /// How many processes have this file in their memory, as a library.
    Loaded(PathBuf),
    /// How much of what was sent to this port, from anywhere, nobody has read yet.
    Unread(u16),
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The service was started. Carries a listening socket for each of the doors that could be opened.
    Ready {
        /// The doors, in the order of the sockets.
        doors: Vec<SocketAddr>,
        /// By what means files are watched.
        watch_method: WatchMethod,
        /// What could not be made as it should, one sentence each.
        notices: Vec<String>,
        /// The layers that can only be read, or are not there.
        weak: Vec<PathBuf>,
    },
    /// The world could not be made as those before it: in what.
    Unlike(String),
    /// The world could not be made.
    NoWorld(String),
    /// The world is there, but the program could not be started.
    NoProgram(String),
    /// The connection, with its socket.
    Connected,
    /// It could not be done: no connection, or a file that cannot be emptied.
    Refused(String),
    /// Done.
    Done,
    /// What was done with files.
    Seen(Seen),
    /// How many processes have it loaded, and how many have not.
    Loaded(usize, usize),
    /// So many bytes, and connections that were not accepted.
    Unread(u64),
    /// What is listened on.
    Listening(Vec<SocketAddr>),
    /// The service's process.
    Status {
        /// How the process that was started has ended, if it has.
        ended: Option<String>,
        /// Whether others that it has started still run.
        has_others: bool,
    },
}
