//! The nouns of the control API, as JSON, shared by the server, the client and `lethe … --json`.
//!
//! Requests and answers: `GET /v1/status` → [`Status`]; `GET /v1/logs?name=&lines=&follow=` → [`Line`]s, one JSON
//! object a line; `POST /v1/workers/{instance}/kill` with [`Kill`]; `POST /v1/workers/{instance}/drain`;
//! `POST /v1/services/{service}/scale` with [`Scale`] → [`Scaled`]; `POST /v1/services/{service}/restart` → [`Restarted`];
//! `POST /v1/reload` → [`Reloaded`]; `POST /v1/upgrade` with [`Upgrade`] → [`Upgraded`]; `POST /v1/down` with [`Down`]. Errors are a [`Problem`] (RFC 9457).

use std::{net::SocketAddr, path::PathBuf};

use lethe_model::{
    roster::WorkerState,
    service::{InstanceId, ServiceName},
};
use lethe_supervisor::logs;
use serde::{Deserialize, Serialize};

use crate::{stop::Wish, timestamp::Timestamp};

/// A running `lethe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// Where it speaks TLS, which may be `listen` itself; `null` when nowhere.
    #[serde(default)]
    pub tls: Option<SocketAddr>,
    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub admin: Option<SocketAddr>,
    /// Where it keeps state; absolute.
    pub state_dir: PathBuf,
    /// The URL of its state API, as workers get it in `LETHE_STATE`.
    #[serde(default)]
    pub state: Option<String>,
    /// Since when.
    pub started_at: Timestamp,
}

impl Node {
    /// Where its services are, the preferred address first.
    pub fn urls(&self) -> Vec<String> {
        let plain = (self.tls != Some(self.listen)).then(|| format!("http://{}", self.listen));
        self.tls.map(|address| format!("https://{address}")).into_iter().chain(plain).collect()
    }
}

/// All there is to see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub node: Node,
    /// The gateway's totals.
    pub gateway: Gateway,
    /// The services, also those without a worker.
    pub services: Vec<Service>,
    /// The workers, by service and age.
    pub workers: Vec<Worker>,
}

/// The gateway's totals. Counts are since the start; rates and quantiles are of the last seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// Open client connections.
    pub connections: u64,
    /// Requests answered, by status class: index 0 is 1xx, 4 is 5xx.
    pub responses: [u64; 5],
    /// Attempts made again because a worker was lost.
    pub retries: u64,
    /// Requests answered with `Lethe-Outcome: unknown`.
    pub unknown: u64,
    /// Responses cut half-way because a worker was lost.
    pub cut: u64,
    /// Requests that wait for a worker now.
    pub queued: u64,
    /// Requests turned away because the queue was full or the wait too long.
    pub shed: u64,
    /// Requests answered each second.
    pub requests_per_s: f64,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Workers that it shall have.
    pub wanted: u32,
    /// Workers that may get requests.
    pub ready: usize,
    /// Workers in any state.
    pub workers: usize,
}

/// One worker. Counts are since it started; rates, quantiles and `cpu_percent` are of the last seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub instance: InstanceId,
    /// Its process id; `null` while it waits to be started again after a failure.
    pub pid: Option<u32>,
    /// Its port on 127.0.0.1; `null` if it has none yet, or listens on a unix socket.
    pub port: Option<u16>,
    /// The path of its unix socket; `null` if it has none yet, or listens on a port.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// What may be asked of it.
    pub state: WorkerState,
    /// When its process was started.
    pub started_at: Timestamp,
    /// How many workers died in its place before it.
    pub restarts: u64,
    /// Requests inside it now.
    pub in_flight: u64,
    /// Responses it gave.
    pub requests: u64,
    /// Attempts that ended without a response.
    pub failures: u64,
    /// Responses each second.
    pub requests_per_s: f64,
    /// Half of its responses took no longer, in microseconds to their head; `null` when there were none.
    pub p50_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<u64>,
    /// CPU used, in percent of one processor.
    pub cpu_percent: f64,
    /// CPU time used so far, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// What is wrong with it, for people.
    pub trouble: Option<String>,
}

/// One line that a worker printed, or that `lethe` said about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it was read.
    pub at: Timestamp,
    /// The worker's service.
    pub service: ServiceName,
    /// The worker.
    pub instance: InstanceId,
    /// Where it came from.
    pub source: logs::Source,
    /// The text, without its line end.
    pub text: String,
}

impl From<&logs::Line> for Line {
    fn from(line: &logs::Line) -> Self {
        Self {
            at: line.at.into(),
            service: line.service.clone(),
            instance: line.instance.clone(),
            source: line.source,
            text: line.text.clone(),
        }
    }
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// An instance or a service; all of them when missing.
    #[serde(default)]
    pub name: Option<String>,
    /// How many of the past at most; [`LINES_DEFAULT`] when missing.
    #[serde(default)]
    pub lines: Option<usize>,
    /// Whether those to come are wanted too.
    #[serde(default)]
    pub follow: bool,
}

/// Lines of the past when the caller does not say how many.
pub const LINES_DEFAULT: usize = 200;

/// `POST /v1/workers/{instance}/kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// The signal's number, 1 to 64; SIGKILL when missing.
    #[serde(default = "sigkill")]
    pub signal: i32,
}

fn sigkill() -> i32 {
    9
}

/// `POST /v1/services/{service}/scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many workers there shall be, at most [`INSTANCES_MAX`].
    pub instances: u32,
}

/// The answer to `POST /v1/services/{service}/scale`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// What a person should know beside.
    pub notices: Vec<String>,
}

/// The most workers of one service: a slip of the finger must not start a million processes.
pub const INSTANCES_MAX: u32 = 1000;

/// The answer to `POST /v1/services/{service}/restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// How many workers were replaced.
    pub replaced: u32,
}

/// The answer to `POST /v1/reload`, when everything is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is different now, one line each; empty when nothing is.
    pub changes: Vec<String>,
    /// What a person should know beside.
    pub notices: Vec<String>,
}

/// `POST /v1/upgrade`: another program takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// The program; absolute.
    pub binary: PathBuf,
    /// How long it may take until all its workers are ready, in seconds; [`UPGRADE_TIMEOUT_S`] when missing.
    #[serde(default = "upgrade_timeout_s")]
    pub timeout_s: u64,
}

/// How long a program that is to take over has when nothing says otherwise.
pub const UPGRADE_TIMEOUT_S: u64 = 60;

fn upgrade_timeout_s() -> u64 {
    UPGRADE_TIMEOUT_S
}

/// The answer to `POST /v1/upgrade`, when the other process is in charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The process that has left; it still finishes its requests.
    pub before: u32,
    /// The process that has taken over.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// `POST /v1/down`, answered with 202 before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Down {
    /// `drain` or `now`; `drain` when missing.
    #[serde(default = "drain")]
    pub how: Wish,
}

fn drain() -> Wish {
    Wish::Drain
}

/// An error (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What kind of error, the same text for each of its kind.
    pub title: String,
    /// What is wrong here and what to do next.
    pub detail: String,
}
