//! The service that is proven: what is started, and what it is told.

use std::{path::PathBuf, time::Duration};

/// How long a worker may take until it listens, when nothing else is said.
pub const START_MAX: Duration = Duration::from_secs(30);

/// What each worker runs.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is called; workers get it as `LETHE_SERVICE`.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs, absolute.
    pub directory: PathBuf,
    /// Environment beside that of this process.
    pub env: Vec<(String, String)>,
    /// Unix sockets in the scratch folder that workers can reach.
    pub sockets: Vec<PathBuf>,
    /// A path that answers with a status of 2xx when a worker is ready; without one it is when it listens.
    pub ready: Option<String>,
    /// How long a worker may take until it is.
    pub start_max: Duration,
}
