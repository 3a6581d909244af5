//! What the supervisor is told to run.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use lethe_model::{roster::Protocol, service::ServiceName};

/// One service to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: ServiceName,
    /// The program and its arguments; started directly, without a shell. A program without `/` is looked up in
    /// `PATH`, one with `/` is relative to `directory`.
    pub command: Vec<String>,
    /// How many workers.
    pub instances: u32,
    /// A path that must answer 2xx before the worker gets requests; without it, an accepting port is enough.
    pub ready: Option<String>,
    /// Where the worker listens.
    pub listener: Listener,
    /// What the worker speaks there.
    pub protocol: Protocol,
    /// How long in-flight requests may take to end, and then how long the process may take to exit after SIGTERM.
    pub drain: Duration,
    /// More environment variables, beside those of `lethe` itself and of the worker contract.
    pub env: BTreeMap<String, String>,
    /// The working directory; exists.
    pub directory: PathBuf,
}

/// Where a worker listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listener {
    /// It opens `127.0.0.1:$PORT` itself.
    #[default]
    Port,
    /// It serves file descriptor 3 (`LISTEN_FDS=1`, as systemd's `sd_listen_fds(3)` defines it).
    Inherited,
    /// It opens the unix socket `$SOCKET` itself, and gets no `PORT`.
    Socket,
}
