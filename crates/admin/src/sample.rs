//! Rates from counts: what happened between a sample of a few seconds ago and now.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use lethe_gateway::stats::{Snapshot, WorkerStats};
use lethe_supervisor::supervisor::WorkerStatus;

use crate::{api, timestamp::Timestamp};

/// Between two samples.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Samples kept; the oldest is what rates are measured from.
const SAMPLES_MAX: usize = 5;

/// The counts at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The moment.
    pub at: Instant,
    /// The gateway's counts.
    pub traffic: Snapshot,
    /// The workers and what they used.
    pub workers: Vec<WorkerStatus>,
}

/// The last few samples, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Samples(VecDeque<Sample>);

impl Samples {
    /// Adds a sample, and drops the oldest when there are enough.
    pub fn keep(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// What is shown at `now`, whose wall-clock time is `clock`. A worker that is younger than the oldest sample is
    /// measured from its start.
    pub fn rates(&self, now: &Sample, clock: SystemTime) -> (api::Gateway, Vec<api::Worker>) {
        let before = self.0.front();
        let workers = now.workers.iter().map(|worker| self.worker(worker, now, clock)).collect();
        let traffic = &now.traffic;
        let answered = |snapshot: &Snapshot| snapshot.responses.iter().sum::<u64>();
        let requests_per_s = before.map_or(0.0, |before| {
            let more = answered(traffic).saturating_sub(answered(&before.traffic));
            rate(more, now.at.saturating_duration_since(before.at))
        });
        let gateway = api::Gateway {
            connections: traffic.connections,
            responses: traffic.responses,
            retries: traffic.retries,
            unknown: traffic.unknown,
            cut: traffic.cut,
            queued: traffic.queued,
            shed: traffic.shed,
            requests_per_s,
        };
        (gateway, workers)
    }

    fn worker(&self, worker: &WorkerStatus, now: &Sample, clock: SystemTime) -> api::Worker {
        let earlier = self.0.front().and_then(|sample| {
            let same =
                |earlier: &&WorkerStatus| earlier.instance == worker.instance && earlier.pid == worker.pid;
            Some((sample, sample.workers.iter().find(same)?))
        });
        let started_at = Timestamp::from(worker.started_at);
        let (elapsed, cpu_ms_before) = match earlier {
            Some((sample, earlier)) => (now.at.saturating_duration_since(sample.at), earlier.cpu_ms),
            None => (started_at.age_at(clock), 0),
        };
        let nothing = WorkerStats::default();
        let stats = now.traffic.workers.get(&worker.instance).unwrap_or(&nothing);
        let before = earlier.and_then(|(sample, _)| sample.traffic.workers.get(&worker.instance));
        let before = before.unwrap_or(&nothing);
        let latency = difference(&stats.latency_us, &before.latency_us);
        let cpu_ms = worker.cpu_ms.saturating_sub(cpu_ms_before);
        api::Worker {
            service: worker.service.clone(),
            instance: worker.instance.clone(),
            release: worker.release,
            pid: worker.pid,
            port: worker.port,
            socket: worker.socket.clone(),
            state: worker.state,
            started_at,
            restarts: worker.restarts,
            memory_kills: worker.memory_kills,
            in_flight: worker.in_flight,
            requests: stats.requests,
            failures: stats.failures,
            requests_per_s: rate(stats.requests.saturating_sub(before.requests), elapsed),
            p50_us: quantile(&latency, 50),
            p99_us: quantile(&latency, 99),
            // Milliseconds of CPU a second are tenths of a percent of one processor.
            cpu_percent: rate(cpu_ms, elapsed) / 10.0,
            cpu_ms: worker.cpu_ms,
            memory_bytes: worker.memory_bytes,
            memory_limit_bytes: worker.memory_limit_bytes,
            trouble: worker.trouble.clone(),
        }
    }
}

/// `count` in `elapsed`, each second, to a tenth; zero for no time at all.
fn rate(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    (count as f64 / elapsed.as_secs_f64() * 10.0).round() / 10.0
}

/// What was added to a histogram since `before`. Both are sorted by bound.
fn difference(now: &[(u64, u64)], before: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let past = |bound: u64| match before.binary_search_by_key(&bound, |bucket| bucket.0) {
        Ok(at) => before[at].1,
        Err(_) => 0,
    };
    now.iter().map(|&(bound, count)| (bound, count.saturating_sub(past(bound)))).collect()
}

/// The bound of the bucket in which `percent` of the values lie at or below; `None` without values.
fn quantile(buckets: &[(u64, u64)], percent: u64) -> Option<u64> {
    let total: u64 = buckets.iter().map(|bucket| bucket.1).sum();
    let wanted = (total * percent).div_ceil(100).max(1);
    let mut seen = 0;
    buckets.iter().find_map(|&(bound, count)| {
        seen += count;
        (seen >= wanted && total > 0).then_some(bound)
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use lethe_model::{
        roster::WorkerState,
        service::{InstanceId, ServiceName},
    };

    use super::*;

    const START: SystemTime = UNIX_EPOCH;

    fn sample(at: Instant, requests: u64, cpu_ms: u64, latency_us: &[(u64, u64)]) -> Sample {
        let shop = ServiceName::new("shop").unwrap();
        let instance = InstanceId::new(&shop, 1);
        let stats =
            WorkerStats { requests, failures: 0, latency_us: latency_us.into(), ..WorkerStats::default() };
        let traffic = Snapshot {
            responses: [0, requests, 0, 0, 1],
            workers: [(instance.clone(), stats)].into(),
            ..Snapshot::default()
        };
        let worker = WorkerStatus {
            service: shop,
            instance,
            pid: Some(7),
            port: Some(1),
            socket: None,
            state: WorkerState::Ready,
            started_at: START,
            release: 1,
            ready_at: Some(START),
            restarts: 0,
            in_flight: 0,
            cpu_ms,
            memory_bytes: 0,
            memory_limit_bytes: None,
            memory_kills: 0,
            trouble: None,
        };
        Sample { at, traffic, workers: vec![worker] }
    }

    #[test]
    fn rates_are_of_the_last_samples() {
        let begin = Instant::now();
        let mut samples = Samples::default();
        for second in 0..10 {
            samples.keep(sample(
                begin + Duration::from_secs(second),
                second * 100,
                second * 20,
                &[(500, 90)],
            ));
        }
        // Five samples are kept, so that the oldest is that of second 5.
        let now = sample(begin + Duration::from_secs(10), 700, 600, &[(200, 1), (500, 188), (9_000, 1)]);
        let (gateway, workers) = samples.rates(&now, START + Duration::from_secs(1000));
        assert_eq!(gateway.requests_per_s, 40.0);
        assert_eq!(gateway.responses, [0, 700, 0, 0, 1]);
        let worker = &workers[0];
        assert_eq!((worker.requests, worker.requests_per_s, worker.cpu_percent), (700, 40.0, 10.0));
        assert_eq!((worker.p50_us, worker.p99_us), (Some(500), Some(500)));
    }

    #[test]
    fn a_young_worker_is_measured_from_its_start() {
        let now = sample(Instant::now(), 50, 1000, &[(100, 50)]);
        let (gateway, workers) = Samples::default().rates(&now, START + Duration::from_secs(5));
        assert_eq!(
            (gateway.requests_per_s, workers[0].requests_per_s, workers[0].cpu_percent),
            (0.0, 10.0, 20.0)
        );
        let (_, workers) = Samples::default().rates(&now, START);
        assert_eq!(workers[0].requests_per_s, 0.0);
    }

    #[test]
    fn a_process_in_the_same_place_begins_at_zero() {
        let begin = Instant::now();
        let mut samples = Samples::default();
        let mut earlier = sample(begin, 1000, 5000, &[(100, 1000)]);
        earlier.workers[0].pid = Some(6);
        samples.keep(earlier);
        let now = sample(begin + Duration::from_secs(1), 10, 100, &[(700, 10)]);
        let (_, workers) = samples.rates(&now, START + Duration::from_secs(1));
        assert_eq!(
            (workers[0].requests_per_s, workers[0].cpu_percent, workers[0].p50_us),
            (10.0, 10.0, Some(700))
        );
    }

    #[test]
    fn quantiles() {
        for (buckets, percent, wanted) in [
            (&[][..], 50, None),
            (&[(10, 0)], 50, None),
            (&[(10, 1)], 50, Some(10)),
            (&[(10, 1)], 99, Some(10)),
            (&[(10, 50), (20, 50)], 50, Some(10)),
            (&[(10, 49), (20, 51)], 50, Some(20)),
            (&[(10, 99), (20, 1)], 99, Some(10)),
            (&[(10, 98), (20, 2)], 99, Some(20)),
        ] {
            assert_eq!(quantile(buckets, percent), wanted, "{buckets:?} {percent}");
        }
    }
}
