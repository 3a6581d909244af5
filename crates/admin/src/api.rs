//! The nouns of the control API, as JSON, shared by the server, the client and `lethe … --json`.
//!
//! Requests and answers: `GET /v1/status` → [`Status`]; `GET /v1/logs?name=&lines=&follow=` → [`Line`]s, one JSON
//! object a line; `POST /v1/workers/{instance}/kill` with [`Kill`]; `POST /v1/workers/{instance}/drain`;
//! `POST /v1/services/{service}/scale` with [`Scale`] → [`Scaled`]; `GET /v1/services/{service}/scaling` → [`Scaling`];
//! `GET /v1/services/{service}/scaling/{number}` → one decision's inputs, for `lethe simulate`;
//! `PUT /v1/services/{service}/metrics/{metric}` with a number; `POST /v1/services/{service}/restart` → [`Restarted`];
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
    /// Within what load decides; `null` where it does not.
    #[serde(default)]
    pub scale: Option<ServiceScale>,
}

/// Within what load decides how many workers a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceScale {
    /// No fewer.
    pub min: u32,
    /// No more.
    pub max: u32,
    /// Whether a number that was set by hand stands in its place.
    pub pinned: bool,
}

/// How the number of a service's workers is decided, and what was decided last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// The service.
    pub service: ServiceName,
    /// Within what.
    #[serde(flatten)]
    pub scale: ServiceScale,
    /// Workers that it shall have.
    pub wanted: u32,
    /// By what, in the order of the configuration.
    pub metrics: Vec<ScalingMetric>,
    /// What was decided, oldest first: the last ones that changed something, or could not be.
    pub decisions: Vec<Decision>,
}

/// A number that workers are counted by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalingMetric {
    /// Its name.
    pub name: String,
    /// What it is to what it should be: above 1 wants more workers. `null` when it was not asked, or fails.
    pub ratio: Option<f64>,
    /// Why it says nothing.
    pub failing: Option<String>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its number, by which its inputs can be had.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// How many workers there should have been.
    pub from: u32,
    /// How many there should be.
    pub to: u32,
    /// Why, in the order in which it was decided.
    pub reasons: Vec<String>,
    /// Why it could not be decided.
    #[serde(default)]
    pub error: Option<String>,
    /// What was wrong with the sources of numbers.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One worker. Counts are since it started; rates, quantiles and `cpu_percent` are of the last seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub instance: InstanceId,
    /// Which release of its service it is of; 0 if nobody counts.
    #[serde(default)]
    pub release: u64,
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
    /// How many of them the kernel killed for memory, as far as they had a cgroup that tells.
    #[serde(default)]
    pub memory_kills: u64,
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
    /// Memory in bytes: of all its processes if it has a cgroup, else resident of its leader.
    pub memory_bytes: u64,
    /// Memory beyond which it is killed, in bytes; `null` without a limit that is kept up.
    #[serde(default)]
    pub memory_limit_bytes: Option<u64>,
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

/// `POST /v1/services/{service}/scale`: one of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many workers there shall be, at most [`INSTANCES_MAX`], whatever the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Load decides again.
    #[serde(default)]
    pub auto: bool,
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

/// `POST /v1/interrupt`, answered with 202 at once: the machine is to go. What is missing is as the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interrupt {
    /// All has ended by then, in milliseconds from now on.
    pub deadline_ms: Option<u64>,
    /// Requests are still taken for so long, in milliseconds.
    pub settle_ms: Option<u64>,
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
