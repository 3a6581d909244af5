//! What one core counts. Each core counts in a shard of its own, by plain loads and stores, so that counting costs no
//! bus lock; whoever wants totals adds the shards up.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use lethe_model::service::{InstanceId, ServiceName};

use crate::{
    config::Route,
    histogram::{Histogram, Sums},
    stats::{Protocol, Retry, RouteStats, Shed, Snapshot, UNROUTED, WorkerStats},
};

/// Workers whose counts are copied while the lock is held.
const WORKERS_AT_A_TIME: usize = 64;

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

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one core counted. Written by that core alone.
#[derive(Default)]
pub(crate) struct Shard {
    pub(crate) connections: Count,
    pub(crate) tls_handshakes: Count,
    pub(crate) tls_failed: Count,
    pub(crate) unknown: Count,
    pub(crate) cut: Count,
    pub(crate) resumed: Count,
    pub(crate) client_gone: Count,
    pub(crate) upstream_opened: Count,
    pub(crate) upstream_reused: Count,
    pub(crate) log_dropped: Count,
    pub(crate) spans_dropped: Count,
    /// Waits for a worker.
    pub(crate) queue: Histogram,
    /// What met no route.
    pub(crate) unrouted: Arc<RouteShard>,
    /// By status class; what routes counted may go with them, this stays.
    responses: [Count; 5],
    connections_by: [Count; Protocol::ALL.len()],
    retries: [Count; Retry::ALL.len()],
    shed: [Count; Shed::ALL.len()],
    /// Locked when the configuration changes and when a snapshot is taken, never for a request.
    routes: Mutex<Vec<Arc<RouteShard>>>,
    /// Locked when the roster changes and when a snapshot is taken, never for a request.
    workers: Mutex<BTreeMap<InstanceId, Arc<WorkerShard>>>,
}

impl Shard {
    /// Counts an accepted client connection, once it is known what it speaks.
    pub(crate) fn accepted(&self, protocol: Protocol) {
        self.connections_by[protocol as usize].add(1);
    }

    /// Counts a response to a client.
    pub(crate) fn responded(&self, status: u16) {
        count_class(&self.responses, status);
    }

    /// Counts an attempt that is made again.
    pub(crate) fn retried(&self, why: Retry) {
        self.retries[why as usize].add(1);
    }

    /// Counts a request that was turned away.
    pub(crate) fn shed(&self, why: Shed) {
        self.shed[why as usize].add(1);
    }

    /// Counts how long a request waited for a worker.
    pub(crate) fn waited(&self, time: Duration) {
        self.queue.record(micros(time));
    }

    /// Counts for one more worker from now on.
    pub(crate) fn count_worker(&self, instance: InstanceId, shard: Arc<WorkerShard>) {
        lock(&self.workers).insert(instance, shard);
    }

    /// What was counted for a worker is forgotten.
    pub(crate) fn forget_worker(&self, instance: &InstanceId, shard: &Arc<WorkerShard>) {
        let mut workers = lock(&self.workers);
        // Another worker may have its name by now.
        if workers.get(instance).is_some_and(|known| Arc::ptr_eq(known, shard)) {
            workers.remove(instance);
        }
    }

    /// Replaces the set of routes that are counted, and returns the counts of each, in the order given. A route that
    /// was there before, for the same host, path and service, goes on counting.
    pub(crate) fn set_routes(&self, routes: &[Route]) -> Vec<Arc<RouteShard>> {
        let mut old = lock(&self.routes);
        let mut new: Vec<Arc<RouteShard>> = Vec::with_capacity(routes.len());
        for route in routes {
            let label = label(route);
            let same = |shard: &&Arc<RouteShard>| {
                shard.label == label && shard.service.as_ref() == Some(&route.service)
            };
            let known = new.iter().chain(old.iter()).find(same).cloned();
            let service = Some(route.service.clone());
            new.push(
                known.unwrap_or_else(|| Arc::new(RouteShard { label, service, ..RouteShard::default() })),
            );
        }
        old.clone_from(&new);
        new
    }

    /// Adds the plain counts to `sum`.
    pub(crate) fn add_to(&self, sum: &mut Snapshot) {
        for (total, count) in [
            (&mut sum.connections, &self.connections),
            (&mut sum.tls_handshakes, &self.tls_handshakes),
            (&mut sum.tls_failed, &self.tls_failed),
            (&mut sum.unknown, &self.unknown),
            (&mut sum.cut, &self.cut),
            (&mut sum.resumed, &self.resumed),
            (&mut sum.client_gone, &self.client_gone),
            (&mut sum.upstream_opened, &self.upstream_opened),
            (&mut sum.upstream_reused, &self.upstream_reused),
            (&mut sum.log_dropped, &self.log_dropped),
            (&mut sum.spans_dropped, &self.spans_dropped),
        ] {
            *total = total.wrapping_add(count.get());
        }
        add_each(&mut sum.connections_by, Protocol::ALL, &self.connections_by);
        sum.retries += add_each(&mut sum.retries_by, Retry::ALL, &self.retries);
        sum.shed += add_each(&mut sum.shed_by, Shed::ALL, &self.shed);
        for (total, count) in sum.responses.iter_mut().zip(&self.responses) {
            *total += count.get();
        }
    }

    /// Looks at what is counted for each route.
    pub(crate) fn each_route(&self, mut look: impl FnMut(&str, &RouteShard)) {
        look(UNROUTED, &self.unrouted);
        lock(&self.routes).iter().for_each(|route| look(&route.label, route));
    }

    /// Looks at what is counted for each worker. A core whose roster changes never waits for that: it is done without the
    /// lock, which is taken for a few at a time.
    pub(crate) fn each_worker(&self, mut look: impl FnMut(&InstanceId, &WorkerShard)) {
        let mut few: Vec<(InstanceId, Arc<WorkerShard>)> = Vec::with_capacity(WORKERS_AT_A_TIME);
        loop {
            let from = few.last().map_or(Bound::Unbounded, |(last, _)| Bound::Excluded(last.clone()));
            few.clear();
            {
                let workers = lock(&self.workers);
                let next = workers.range((from, Bound::Unbounded)).take(WORKERS_AT_A_TIME);
                few.extend(next.map(|(instance, worker)| (instance.clone(), Arc::clone(worker))));
            }
            few.iter().for_each(|(instance, worker)| look(instance, worker));
            if few.len() < WORKERS_AT_A_TIME {
                return;
            }
        }
    }
}

/// What one core counted for one route.
#[derive(Default)]
pub(crate) struct RouteShard {
    /// `host/path`, with `*` for any host.
    pub(crate) label: String,
    service: Option<ServiceName>,
    pub(crate) limited: Count,
    pub(crate) limits_away: Count,
    pub(crate) uncounted: Count,
    pub(crate) replayed: Count,
    pub(crate) once_refused: Count,
    pub(crate) once_away: Count,
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
    responses: [Count; 5],
    latency: Histogram,
}

impl RouteShard {
    /// Counts a response whose head went to the client so long after the request's head came.
    pub(crate) fn responded(&self, status: u16, latency: Duration) {
        count_class(&self.responses, status);
        self.latency.record(micros(latency));
    }

    /// Adds all to `total`, and the histogram to `latency`.
    pub(crate) fn add_to(&self, total: &mut RouteStats, latency: &mut Sums) {
        total.service.clone_from(&self.service);
        total.limited += self.limited.get();
        total.limits_away += self.limits_away.get();
        total.replayed += self.replayed.get();
        total.once_refused += self.once_refused.get();
        total.once_away += self.once_away.get();
        total.uncounted += self.uncounted.get();
        total.bytes_in += self.bytes_in.get();
        total.bytes_out += self.bytes_out.get();
        for (total, count) in total.responses.iter_mut().zip(&self.responses) {
            *total += count.get();
        }
        self.latency.add_to(latency);
    }
}

/// What one core counted for one worker.
#[derive(Default)]
pub(crate) struct WorkerShard {
    requests: Count,
    pub(crate) failures: Count,
    /// Responses that say that the worker failed, or broke off.
    pub(crate) errors: Count,
    latency: Histogram,
}

impl WorkerShard {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Counts a response and the time to its head.
    pub(crate) fn answered(&self, latency: Duration) {
        self.requests.add(1);
        self.latency.record(micros(latency));
    }

    /// Adds all to `total`, and the histogram to `latency`.
    pub(crate) fn add_to(&self, total: &mut WorkerStats, latency: &mut Sums) {
        total.requests += self.requests.get();
        total.failures += self.failures.get();
        total.errors += self.errors.get();
        self.latency.add_to(latency);
    }
}

/// What a route is called in logs and metrics: `host/path`, with `*` for any host and without a `/` at the end; and which
/// service it is, where several have a share.
fn label(route: &Route) -> String {
    let host = route.host.as_deref().unwrap_or("*").to_ascii_lowercase();
    let path = route.path.trim_end_matches('/');
    let label = if path.is_empty() { host + "/" } else { host + path };
    if route.weight.is_some() { format!("{label} to {}", route.service) } else { label }
}

fn count_class(classes: &[Count; 5], status: u16) {
    if let Some(count) = classes.get(usize::from(status / 100).wrapping_sub(1)) {
        count.add(1);
    }
}

/// Adds counts to totals by name, and returns the sum of what was added. All names are there, also those at zero.
fn add_each<T: Copy + Ord>(totals: &mut BTreeMap<T, u64>, names: &[T], counts: &[Count]) -> u64 {
    let add = |(name, count): (&T, &Count)| {
        let count = count.get();
        *totals.entry(*name).or_default() += count;
        count
    };
    names.iter().zip(counts).map(add).sum()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What is counted is valid at every moment, also after a panic of whoever held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{service::tests::route_to, stats::snapshot};

    #[test]
    fn labels() {
        for (host, path, wanted) in [
            (None, "/", "*/"),
            (None, "/api", "*/api"),
            (None, "/api/", "*/api"),
            (Some("Shop.example"), "/", "shop.example/"),
            (Some("shop.example"), "/a/b", "shop.example/a/b"),
        ] {
            let route = Route { host: host.map(Into::into), path: path.into(), ..route_to("shop") };
            assert_eq!(label(&route), wanted);
        }
    }

    #[test]
    fn a_route_that_stays_goes_on_counting() {
        let shard = Arc::new(Shard::default());
        let api = Route { path: "/api".into(), ..route_to("shop") };
        let counts = shard.set_routes(&[route_to("shop"), api.clone()]);
        counts[0].responded(200, Duration::from_micros(5));
        counts[1].responded(200, Duration::from_micros(5));
        // One stays, the other one now leads elsewhere.
        let moved = Route { path: "/api".into(), ..route_to("blog") };
        let counts = shard.set_routes(&[moved, route_to("shop")]);
        counts[1].responded(502, Duration::from_micros(7));
        let sum = snapshot([&shard], Default::default());
        assert_eq!(sum.routes["*/"].responses, [0, 1, 0, 0, 1]);
        assert_eq!(
            (sum.routes["*/"].latency_us.as_slice(), sum.routes["*/"].latency_sum_us),
            (&[(5, 1), (7, 1)][..], 12)
        );
        assert_eq!(
            sum.routes["*/api"],
            RouteStats { service: Some(ServiceName::new("blog").unwrap()), ..RouteStats::default() }
        );
        assert_eq!(sum.routes.keys().collect::<Vec<_>>(), ["*/", "*/api", UNROUTED]);
    }

    #[test]
    fn each_worker_is_looked_at_once() {
        let shard = Shard::default();
        let service = ServiceName::new("shop").unwrap();
        for count in [0, 1, WORKERS_AT_A_TIME - 1, WORKERS_AT_A_TIME, 3 * WORKERS_AT_A_TIME + 1] {
            for number in 0..count {
                shard.count_worker(InstanceId::new(&service, number as u64), WorkerShard::new());
            }
            let mut seen = Vec::new();
            shard.each_worker(|instance, _| seen.push(instance.clone()));
            assert_eq!(seen.len(), count);
            assert!(seen.is_sorted());
        }
        let gone = InstanceId::new(&service, 0);
        shard.forget_worker(&gone, &WorkerShard::new());
        let mut kept = None;
        shard.workers.lock().unwrap().get(&gone).inspect(|known| kept = Some(Arc::clone(known)));
        shard.forget_worker(&gone, &kept.expect("another worker of that name was meant"));
        assert!(!shard.workers.lock().unwrap().contains_key(&gone));
    }

    #[test]
    fn sums_over_cores_can_be_sent() {
        let shards = [Arc::new(Shard::default()), Arc::new(Shard::default())];
        let shop = InstanceId::new(&ServiceName::new("shop").unwrap(), 1);
        for shard in &shards {
            let worker = WorkerShard::new();
            worker.answered(Duration::from_micros(3));
            worker.errors.add(1);
            shard.count_worker(shop.clone(), worker);
            shard.retried(Retry::Held);
            shard.shed(Shed::QueueFull);
            shard.accepted(Protocol::Http2);
            shard.waited(Duration::from_micros(2));
            shard.responded(404);
            shard.set_routes(&[route_to("shop")])[0].bytes_out.add(10);
        }
        let sum = snapshot(&shards, Default::default());
        assert_eq!((sum.workers[&shop].requests, sum.workers[&shop].errors), (2, 2));
        assert_eq!((sum.retries, sum.retries_by[&Retry::Held], sum.retries_by[&Retry::Lost]), (2, 2, 0));
        assert_eq!((sum.shed, sum.shed_by[&Shed::QueueFull]), (2, 2));
        assert_eq!((sum.connections_by[&Protocol::Http2], sum.queue_us.as_slice()), (2, &[(2, 2)][..]));
        assert_eq!((sum.responses, sum.routes["*/"].bytes_out), ([0, 0, 0, 2, 0], 20));
        let worker = &sum.workers[&shop];
        assert_eq!(
            (worker.requests, worker.latency_us.as_slice(), worker.latency_sum_us),
            (2, &[(3, 2)][..], 6)
        );
        let text = serde_json::to_string(&sum).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), sum);
        assert!(text.contains(r#""retries_by":{"unsent":0,"lost":0,"held":2"#), "{text}");
    }
}
