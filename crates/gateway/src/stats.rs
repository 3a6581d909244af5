//! What the gateway counted, as a snapshot for people and for metrics.

use std::collections::BTreeMap;

use lethe_model::service::InstanceId;
use serde::{Deserialize, Serialize};

/// What was counted since the start, over all cores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
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
    /// Requests that waited for a worker now.
    pub queued: u64,
    /// Requests turned away because the queue was full or the wait too long.
    pub shed: u64,
    /// By worker.
    pub workers: BTreeMap<InstanceId, WorkerStats>,
}

/// What was counted for one worker. Kept while it is in the roster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Responses it gave.
    pub requests: u64,
    /// Attempts that ended without a response.
    pub failures: u64,
    /// How many responses took how long to their head: `(upper bound in microseconds, count)`, not cumulative,
    /// only buckets that are not empty, upwards.
    pub latency_us: Vec<(u64, u64)>,
}
