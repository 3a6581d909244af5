//! What the gateway counted, as a snapshot for people and for metrics. It is serialisable, and adds up what the
//! shards of all cores say.

use std::{collections::BTreeMap, sync::Arc};

use lethe_model::service::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

use crate::{histogram::Sums, shard::Shard};

/// What was counted since the start, over all cores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Open client connections.
    pub connections: u64,
    /// Client connections accepted, by the protocol they spoke.
    pub connections_by: BTreeMap<Protocol, u64>,
    /// TLS handshakes that came to an end.
    pub tls_handshakes: u64,
    /// TLS handshakes that did not.
    pub tls_failed: u64,
    /// Requests answered, by status class: index 0 is 1xx, 4 is 5xx.
    pub responses: [u64; 5],
    /// Attempts made again.
    pub retries: u64,
    /// Attempts made again, by what made them necessary.
    pub retries_by: BTreeMap<Retry, u64>,
    /// Requests answered with `Lethe-Outcome: unknown`.
    pub unknown: u64,
    /// Responses cut half-way because a worker was lost.
    pub cut: u64,
    /// Responses whose worker was lost half-way and that were continued from another one.
    pub resumed: u64,
    /// Requests whose client went away before it had the whole response.
    pub client_gone: u64,
    /// Requests that wait for a worker now.
    pub queued: u64,
    /// How long requests waited for a worker, those that did: as [`WorkerStats::latency_us`].
    pub queue_us: Vec<(u64, u64)>,
    /// The sum of those times, in microseconds.
    pub queue_sum_us: u64,
    /// Requests turned away for want of capacity.
    pub shed: u64,
    /// Requests turned away for want of capacity, by what was wanting.
    pub shed_by: BTreeMap<Shed, u64>,
    /// Connections to workers that were opened.
    pub upstream_opened: u64,
    /// Attempts made on a connection that had served another one before.
    pub upstream_reused: u64,
    /// Lines that the access log lacks, because it could not be written as fast as requests came.
    pub log_dropped: u64,
    /// Spans that were not exported.
    pub spans_dropped: u64,
    /// By route, under its label; what met no route is under [`UNROUTED`].
    pub routes: BTreeMap<String, RouteStats>,
    /// By worker.
    pub workers: BTreeMap<InstanceId, WorkerStats>,
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceStats>,
}

/// What was counted for one service, and how it is now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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

/// Who wants what the workers of a service have no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Requests that wait for a worker now.
    pub waiting: u64,
    /// Requests that were turned away, since the service is known.
    pub shed: u64,
}

/// The label of what was refused before a route was found. Labels of routes contain a `/`.
pub const UNROUTED: &str = "none";

/// What was counted for one route. Kept while the route is configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteStats {
    /// Where it leads; `None` for what met no route.
    pub service: Option<ServiceName>,
    /// Requests answered, by status class: index 0 is 1xx, 4 is 5xx.
    pub responses: [u64; 5],
    /// Requests that its limits refused, which came too early.
    pub limited: u64,
    /// Requests that were refused because they could not be counted.
    pub limits_away: u64,
    /// Requests that passed although they could not be counted.
    pub uncounted: u64,
    /// Requests that were given the answer of an earlier one with the same `Idempotency-Key`.
    pub replayed: u64,
    /// Requests that were refused for their `Idempotency-Key`.
    pub once_refused: u64,
    /// Requests that were refused because it could not be told whether they were done before.
    pub once_away: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// From the request's head to the response's, waiting and retries included: as [`WorkerStats::latency_us`].
    pub latency_us: Vec<(u64, u64)>,
    /// The sum of those times, in microseconds.
    pub latency_sum_us: u64,
}

/// What was counted for one worker. Kept while it is in the roster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStats {
    /// Responses it gave.
    pub requests: u64,
    /// Attempts that ended without a response.
    pub failures: u64,
    /// Those of its responses that say that it failed: 5xx, but for 501 and 505; and those that broke off.
    pub errors: u64,
    /// How many responses took how long to their head: `(upper bound in microseconds, count)`, not cumulative,
    /// only buckets that are not empty, upwards.
    pub latency_us: Vec<(u64, u64)>,
    /// The sum of those times, in microseconds.
    pub latency_sum_us: u64,
}

/// Defines an enum whose values have a name for people and machines, and a place in an array of counts.
macro_rules! named {
    ($(#[$of:meta])* $name:ident { $($(#[$each:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$each])* #[serde(rename = $text)] $value,)* }

        impl $name {
            /// All there are, in order.
            pub const ALL: &[Self] = &[$(Self::$value,)*];

            /// Its name, as logs and metrics have it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)* }
            }
        }
    };
}

named! {
    /// What a client speaks.
    Protocol {
        /// HTTP/1.0.
        Http10 = "HTTP/1.0",
        /// HTTP/1.1.
        Http11 = "HTTP/1.1",
        /// HTTP/2.
        Http2 = "HTTP/2",
    }
}

named! {
    /// Why an attempt was made again.
    Retry {
        /// Nothing of the request had been sent.
        Unsent = "unsent",
        /// The worker was lost before its response began, and the request may be repeated.
        Lost = "lost",
        /// The worker was lost in the middle of a response that was held back.
        Held = "held",
        /// The worker was lost in the middle of a response that the client was reading, and the rest was asked for.
        Streamed = "streamed",
        /// The worker answered 503, or refused the stream.
        Unavailable = "unavailable",
        /// The worker did not answer in time.
        Timeout = "timeout",
    }
}

named! {
    /// Why a request was turned away for want of capacity.
    Shed {
        /// Too many were waiting.
        QueueFull = "queue_full",
        /// It waited as long as it may.
        QueueTimeout = "queue_timeout",
        /// The workers refused it for want of their own.
        Overloaded = "overloaded",
    }
}

/// Adds the shards of all cores up, beside what they hold jointly for each service.
pub(crate) fn snapshot<'a>(
    shards: impl IntoIterator<Item = &'a Arc<Shard>>,
    services: BTreeMap<ServiceName, ServiceStats>,
) -> Snapshot {
    let queued = services.values().map(|service| service.queued_timely + service.queued_batch).sum();
    let mut sum = Snapshot { queued, services, ..Snapshot::default() };
    let mut queue = Sums::new();
    let mut routes: BTreeMap<String, Sums> = BTreeMap::new();
    let mut workers: BTreeMap<InstanceId, Sums> = BTreeMap::new();
    for shard in shards {
        shard.add_to(&mut sum);
        shard.queue.add_to(&mut queue);
        shard.each_route(|label, route| {
            let total = sum.routes.entry(label.to_owned()).or_default();
            let latency = routes.entry(label.to_owned()).or_insert_with(Sums::new);
            route.add_to(total, latency);
        });
        shard.each_worker(|instance, worker| {
            let total = sum.workers.entry(instance.clone()).or_default();
            worker.add_to(total, workers.entry(instance.clone()).or_insert_with(Sums::new));
        });
    }
    (sum.queue_us, sum.queue_sum_us) = (queue.buckets(), queue.micros());
    for (route, latency) in sum.routes.values_mut().zip(routes.values()) {
        (route.latency_us, route.latency_sum_us) = (latency.buckets(), latency.micros());
    }
    for (worker, latency) in sum.workers.values_mut().zip(workers.values()) {
        (worker.latency_us, worker.latency_sum_us) = (latency.buckets(), latency.micros());
    }
    sum
}
