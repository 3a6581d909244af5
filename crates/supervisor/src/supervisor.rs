//! The handle by which the rest of `lethe` commands the supervisor.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use lethe_model::{
    roster::{Roster, WorkerState},
    service::{InstanceId, ServiceName},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{logs::Line, service::Spec};

/// What the supervisor needs to begin.
#[derive(Clone, Debug)]
pub struct Config {
    /// The services to run.
    pub services: Vec<Spec>,
    /// What workers get as `LETHE_STATE`.
    pub state_url: Option<String>,
    /// The program that is started, with the argument `guard`, to end the workers if `lethe` is killed.
    pub guard: PathBuf,
}

/// One worker, as shown to people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub instance: InstanceId,
    /// Its process id; `None` while it waits to be started again after a failure.
    pub pid: Option<u32>,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// What may be asked of it.
    pub state: WorkerState,
    /// When its process was started.
    pub started_at: SystemTime,
    /// How many workers died in its place before it (a place is one of the N of the service).
    pub restarts: u64,
    /// Requests inside it now.
    pub in_flight: u64,
    /// CPU time used so far, in milliseconds, of its whole process group as far as it can be read.
    pub cpu_ms: u64,
    /// Resident memory in bytes, of its leader.
    pub memory_bytes: u64,
    /// Why it is backed off or was last seen to fail, for people; `None` when all is well.
    pub trouble: Option<String>,
}

/// Why the supervisor did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such service; the text names those that exist.
    #[error("no service `{name}`; there are: {known}")]
    NoService {
        /// What was asked for.
        name: String,
        /// What there is, joined by commas.
        known: String,
    },
    /// No such worker.
    #[error("no worker `{0}`; `lethe ps` lists them")]
    NoWorker(String),
    /// The new workers of a rolling restart could not start; the old ones were kept.
    #[error("{service}: the new worker did not become ready: {reason}; the old workers keep serving")]
    Rollout {
        /// The service.
        service: ServiceName,
        /// What happened, with the worker's last lines.
        reason: String,
    },
    /// The system refused.
    #[error("{0}")]
    System(String),
    /// The supervisor is stopping.
    #[error("lethe is stopping")]
    Stopping,
}

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    _inner: Arc<()>,
}

#[allow(clippy::todo, missing_docs, unused_variables)]
impl Supervisor {
    /// Starts the guard and all workers, and returns at once; readiness shows in the roster.
    pub async fn start(config: Config) -> Result<Self, Error> {
        todo!()
    }
    /// The watched roster.
    pub fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        todo!()
    }
    /// All workers, by service and age.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        todo!()
    }
    /// Sends a signal (a number, as in `kill -9`) to a worker's process group, without draining.
    pub async fn kill(&self, instance: &str, signal: i32) -> Result<(), Error> {
        todo!()
    }
    /// Drains a worker and replaces it (launch before terminate); returns when it has ended.
    pub async fn drain(&self, instance: &str) -> Result<(), Error> {
        todo!()
    }
    /// Sets the number of workers; returns when the new ones are ready and the surplus ones have ended.
    pub async fn scale(&self, service: &str, instances: u32) -> Result<(), Error> {
        todo!()
    }
    /// Replaces all workers of a service one after the other, each new one ready before an old one leaves.
    /// Returns the number replaced.
    pub async fn restart(&self, service: &str) -> Result<u32, Error> {
        todo!()
    }
    /// Drains all workers at once and ends them. When it returns no worker process is left.
    pub async fn stop(&self) {
        todo!()
    }
    /// Ends all workers with SIGKILL, now.
    pub fn kill_all(&self) {
        todo!()
    }
    /// The last lines kept (at most `lines_max`), oldest first, of one worker, one service or all (`None`).
    /// `name` may be an instance (also one that is gone) or a service.
    pub fn logs(&self, name: Option<&str>, lines_max: usize) -> Result<Vec<Line>, Error> {
        todo!()
    }
    /// The lines from now on, of all workers. A receiver that lags learns how many it missed.
    pub fn follow(&self) -> tokio::sync::broadcast::Receiver<Arc<Line>> {
        todo!()
    }
}

/// Runs the guard (the hidden verb `lethe guard`): reads process groups from standard input, waits for its end,
/// which means that `lethe` has died, and kills those groups. Returns the exit status.
pub fn guard() -> i32 {
    1
}
