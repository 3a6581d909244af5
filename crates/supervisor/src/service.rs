//! What the supervisor is told to run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use lethe_model::{roster::Protocol, service::ServiceName};

use crate::resources::Resources;

/// One service to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: ServiceName,
    /// The program and its arguments; started directly, without a shell. A program without `/` is looked up in
    /// `PATH`, one with `/` is relative to `directory`.
    pub command: Vec<String>,
    /// Which release of the service this is, as workers get it in `LETHE_RELEASE`; 0 if nobody counts.
    pub release: u64,
    /// How many workers.
    pub instances: u32,
    /// A path that must answer 2xx before the worker gets requests; without it, an accepting port is enough.
    pub ready: Option<String>,
    /// Paths that a new worker is asked for before it gets requests, in this order.
    pub warm_up: Vec<String>,
    /// Where the worker listens.
    pub listener: Listener,
    /// What the worker speaks there.
    pub protocol: Protocol,
    /// How long in-flight requests may take to end, and then how long the process may take to exit after SIGTERM.
    pub drain: Duration,
    /// More environment variables, beside those of `lethe` itself and of the worker contract.
    pub env: BTreeMap<String, String>,
    /// Environment variables of `lethe` itself that its workers do not get, unless they are in `env`.
    pub withheld: BTreeSet<String>,
    /// The working directory; exists.
    pub directory: PathBuf,
    /// What each worker may use.
    pub resources: Resources,
}

/// What the workers of each service get as `LETHE_STATE`.
#[derive(Clone)]
pub struct StateUrls(Arc<dyn Fn(&ServiceName) -> String + Send + Sync>);

impl StateUrls {
    /// Those that `of` gives.
    pub fn new(of: impl Fn(&ServiceName) -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// That of a service.
    pub(crate) fn of(&self, service: &ServiceName) -> String {
        self.0(service)
    }
}

impl fmt::Debug for StateUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateUrls(…)")
    }
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
