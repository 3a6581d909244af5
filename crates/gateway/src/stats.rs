//! What the gateway counted, as a snapshot for people and for metrics. Each core counts in a shard of its own, by
//! plain loads and stores, and a snapshot adds the shards up.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use lethe_model::service::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

use crate::histogram::{Histogram, Sums};

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
    /// TLS handshakes that failed.
    #[serde(default)]
    pub tls_failed: u64,
    /// By worker.
    pub workers: BTreeMap<InstanceId, WorkerStats>,
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceStats>,
}

/// What was counted for one service, and how it is now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Workers that live and are passed over now, since they keep failing or their health check fails.
    pub out: u64,
    /// How often a worker was passed over since the start.
    pub ejections: u64,
    /// Timely requests that wait for a worker now.
    pub queued_timely: u64,
    /// Batch requests that wait for a worker now.
    pub queued_batch: u64,
    /// Timely requests that were turned away.
    pub shed_timely: u64,
    /// Batch requests that were turned away.
    pub shed_batch: u64,
    /// Requests that one worker gets at a time; none if any number.
    pub concurrency_limit: Option<u32>,
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

/// A number with one writer and many readers. It costs the writer two plain memory operations and no bus lock.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn subtract(&self, less: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(less), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one core counted. Written by that core alone.
#[derive(Default)]
pub(crate) struct Shard {
    pub(crate) connections: Count,
    pub(crate) retries: Count,
    pub(crate) unknown: Count,
    pub(crate) cut: Count,
    pub(crate) shed: Count,
    pub(crate) tls_failed: Count,
    responses: [Count; 5],
    /// Locked when the roster changes and when a snapshot is taken, never for a request.
    workers: Mutex<BTreeMap<InstanceId, Arc<WorkerShard>>>,
}

/// What one core counted for one worker.
pub(crate) struct WorkerShard {
    requests: Count,
    pub(crate) failures: Count,
    latency: Histogram,
}

impl WorkerShard {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { requests: Count::default(), failures: Count::default(), latency: Histogram::new() })
    }

    /// Counts a response and the time to its head.
    pub(crate) fn answered(&self, latency: Duration) {
        self.requests.add(1);
        self.latency.record(latency.as_micros().min(u128::from(u64::MAX)) as u64);
    }
}

impl Shard {
    /// Counts a response to a client.
    pub(crate) fn responded(&self, status: u16) {
        if let Some(count) = self.responses.get(usize::from(status / 100).wrapping_sub(1)) {
            count.add(1);
        }
    }

    /// Counts for other workers than before: those that left, by what was counted for them, and those that joined.
    pub(crate) fn change_workers<'a>(
        &self,
        left: impl IntoIterator<Item = (&'a InstanceId, &'a Arc<WorkerShard>)>,
        joined: impl IntoIterator<Item = (InstanceId, Arc<WorkerShard>)>,
    ) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for (instance, shard) in left {
            // Another worker may have its name by now.
            if workers.get(instance).is_some_and(|known| Arc::ptr_eq(known, shard)) {
                workers.remove(instance);
            }
        }
        workers.extend(joined);
    }

    /// What is counted for each worker. A copy, so that a core whose roster changes never waits for who adds it all up.
    fn workers(&self) -> Vec<(InstanceId, Arc<WorkerShard>)> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|(instance, shard)| (instance.clone(), Arc::clone(shard))).collect()
    }
}

/// Adds the shards of all cores up, beside what they hold jointly for each service.
pub(crate) fn snapshot<'a>(
    shards: impl IntoIterator<Item = &'a Arc<Shard>>,
    services: BTreeMap<ServiceName, ServiceStats>,
) -> Snapshot {
    let queued = services.values().map(|service| service.queued_timely + service.queued_batch).sum();
    let mut sum = Snapshot { queued, services, ..Snapshot::default() };
    let mut latencies: BTreeMap<InstanceId, Sums> = BTreeMap::new();
    for shard in shards {
        sum.connections += shard.connections.get();
        sum.retries += shard.retries.get();
        sum.unknown += shard.unknown.get();
        sum.cut += shard.cut.get();
        sum.shed += shard.shed.get();
        sum.tls_failed += shard.tls_failed.get();
        for (sum, count) in sum.responses.iter_mut().zip(&shard.responses) {
            *sum += count.get();
        }
        for (instance, worker) in shard.workers() {
            let total = sum.workers.entry(instance.clone()).or_default();
            total.requests += worker.requests.get();
            total.failures += worker.failures.get();
            worker.latency.add_to(latencies.entry(instance.clone()).or_insert_with(Sums::new));
        }
    }
    for (instance, latency) in latencies {
        if let Some(worker) = sum.workers.get_mut(&instance) {
            worker.latency_us = latency.buckets();
        }
    }
    sum
}
