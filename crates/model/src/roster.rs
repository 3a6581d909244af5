//! The roster: the workers that exist now and what each may be asked. The supervisor publishes it as
//! a watched value, the gateway reads it, and each change is a new snapshot, which shares with the one before all that
//! has not changed.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    gate::Gate,
    service::{InstanceId, ServiceName},
    workers::Workers,
};

/// What may be asked of a worker. Starting → Ready → Draining → Gone; any state may go to Gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Its process exists, and does not answer yet.
    Starting,
    /// It may get requests.
    Ready,
    /// It finishes what it has; nothing new is sent to it.
    Draining,
    /// Its process has ended.
    Gone,
}

impl WorkerState {
    /// The state's name, as shown and logged.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a worker listens. Shown as `127.0.0.1:8080` or `unix:/path/to/its.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket's path, of at most 107 bytes (unix(7)).
    Unix(Arc<Path>),
}

impl Address {
    /// The host that a request names which is Lethe's own, such as a health check: a unix socket has none.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => "localhost".into(),
        }
    }

    /// The port, if it is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }

    /// The unix socket's path, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a worker speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113, section 3.3); gRPC needs it.
    H2c,
}

/// One worker, as the gateway sees it.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its name.
    pub instance: InstanceId,
    /// Where it listens.
    pub address: Address,
    /// What it speaks there, which is a matter of its version: while workers are replaced, others may speak something else.
    pub protocol: Protocol,
    /// What may be asked of it.
    pub state: WorkerState,
    /// Entered for each request that is sent to it.
    pub gate: Arc<Gate>,
    /// Its share of the requests beside the other workers of its service: [`WEIGHT`](Self::WEIGHT) unless said
    /// otherwise. 0 counts as 1.
    pub weight: u32,
}

impl Worker {
    /// The weight of a worker that is like any other.
    pub const WEIGHT: u32 = 1;

    /// Whether all is the same about it and `other`, which is another worker if its gate is another one.
    pub fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.gate, &other.gate) && (self.state, self.weight) == (other.state, other.weight)
    }
}

/// A snapshot of all workers. A service that is configured and has no worker is present with none.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// Grows by at least one with each change.
    pub generation: u64,
    /// The workers of each service, oldest first. Those that are gone are not listed.
    pub services: BTreeMap<ServiceName, Workers>,
}

impl Roster {
    /// The workers of `service` that may get requests.
    pub fn ready(&self, service: &str) -> impl Iterator<Item = &Worker> {
        let workers = self.services.get(service).into_iter().flat_map(Workers::iter);
        workers.filter(|worker| worker.state == WorkerState::Ready)
    }
}
