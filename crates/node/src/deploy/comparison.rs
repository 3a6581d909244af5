//! Counts what the workers of both versions do, from the gateway's counters of each worker, and asks the verdict. Both are
//! compared over the time in which workers of both were there; afterwards, while the new one is watched alone, its last
//! half minute against that.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use lethe_gateway::{gateway::Gateway, stats::WorkerStats};
use lethe_model::service::{InstanceId, ServiceName};
use lethe_supervisor::{
    rollout::rolling::{Comparison, Sides},
    supervisor::Supervisor,
};

use super::verdict::{Guard, Tally, judge};

/// Comparisons, of which there is one each second, that are recent.
const RECENT: usize = 30;

/// Compares the versions of one service.
pub(crate) struct Comparer {
    service: ServiceName,
    gateway: Arc<Gateway>,
    supervisor: Supervisor,
    guard: Guard,
    counts: Counts,
}

impl Comparer {
    pub(crate) fn new(
        service: ServiceName,
        gateway: Arc<Gateway>,
        supervisor: Supervisor,
        guard: Guard,
    ) -> Self {
        Self { service, gateway, supervisor, guard, counts: Counts::default() }
    }

    /// How the versions do now.
    pub(crate) fn compare(&mut self, sides: &Sides) -> Comparison {
        let counted = self.gateway.snapshot().workers;
        self.counts.enter(sides, &counted);
        let out = self.gateway.out(self.service.as_str());
        let roster = Arc::clone(&self.supervisor.roster().borrow());
        let workers = roster.services.get(&self.service).into_iter().flat_map(|workers| workers.iter());
        let is_out = workers.filter(|worker| out.iter().any(|gate| Arc::ptr_eq(gate, &worker.gate)));
        let out: BTreeSet<InstanceId> = is_out.map(|worker| worker.instance.clone()).collect();
        Comparison { out, worse: self.counts.verdict(&self.guard) }
    }
}

/// What was counted so far.
#[derive(Default)]
struct Counts {
    /// As it stood at the last entry.
    last: BTreeMap<InstanceId, WorkerStats>,
    /// What the old workers have done in all their life.
    life: Tally,
    /// What both have done while both were there.
    old: Tally,
    new: Tally,
    /// What the new ones have done of late, each entry by itself.
    recent: VecDeque<Tally>,
}

impl Counts {
    fn enter(&mut self, sides: &Sides, counted: &BTreeMap<InstanceId, WorkerStats>) {
        let is_first = self.last.is_empty();
        let (old, mut new) = (self.since(&sides.old, counted), self.since(&sides.new, counted));
        // An answer that fails fails, also that of a worker which has just started; a slow one says nothing yet.
        let warm: Vec<InstanceId> =
            sides.new.iter().filter(|it| !sides.cold.contains(*it)).cloned().collect();
        new.latency_us = self.since(&warm, counted).latency_us;
        self.last = sides.old.iter().chain(&sides.new).fold(BTreeMap::new(), |mut last, instance| {
            let stats = counted.get(instance).cloned().unwrap_or_default();
            last.insert(instance.clone(), stats);
            last
        });
        self.life.add(&old);
        // What they did before is not of this time.
        if !is_first && !sides.old.is_empty() && !sides.new.is_empty() {
            self.old.add(&old);
            self.new.add(&new);
        }
        self.recent.push_back(new);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// What these have done since the last entry.
    fn since(&self, instances: &[InstanceId], counted: &BTreeMap<InstanceId, WorkerStats>) -> Tally {
        let nothing = WorkerStats::default();
        let mut tally = Tally::default();
        for instance in instances {
            let Some(now) = counted.get(instance) else { continue };
            let before = self.last.get(instance).unwrap_or(&nothing);
            let count =
                |stats: &WorkerStats| (stats.requests + stats.failures, stats.errors + stats.failures);
            let ((attempts, failed), (attempts_before, failed_before)) = (count(now), count(before));
            let past: BTreeMap<u64, u64> = before.latency_us.iter().copied().collect();
            let latency = now.latency_us.iter().map(|&(bound, count)| {
                (bound, count.saturating_sub(past.get(&bound).copied().unwrap_or_default()))
            });
            tally.add(&Tally {
                attempts: attempts.saturating_sub(attempts_before),
                failed: failed.saturating_sub(failed_before),
                latency_us: latency.collect(),
            });
        }
        tally
    }

    fn verdict(&self, guard: &Guard) -> Option<String> {
        // Where both were there for too short a time to tell, as with a single worker, all that the old ones did counts.
        let usual = if self.old.attempts < guard.requests_min { &self.life } else { &self.old };
        let recent = self.recent.iter().fold(Tally::default(), |mut sum, tally| {
            sum.add(tally);
            sum
        });
        judge(guard, usual, &self.new).or_else(|| judge(guard, usual, &recent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(numbers: &[u64]) -> Vec<InstanceId> {
        let web = ServiceName::new("web").unwrap();
        numbers.iter().map(|number| InstanceId::new(&web, *number)).collect()
    }

    fn sides(old: &[u64], new: &[u64]) -> Sides {
        Sides { old: names(old), new: names(new), ..Sides::default() }
    }

    fn stats(requests: u64, errors: u64, latency_us: &[(u64, u64)]) -> WorkerStats {
        WorkerStats { requests, errors, latency_us: latency_us.into(), ..WorkerStats::default() }
    }

    fn counted(workers: &[(u64, WorkerStats)]) -> BTreeMap<InstanceId, WorkerStats> {
        workers.iter().map(|(number, stats)| (names(&[*number]).remove(0), stats.clone())).collect()
    }

    #[test]
    fn both_are_compared_over_the_same_time() {
        let guard = Guard::default();
        let mut counts = Counts::default();
        let old = sides(&[1, 2], &[]);
        let both = sides(&[1, 2], &[3]);
        let new = sides(&[], &[3, 4]);
        // All was well for long, then the database is gone: for both.
        counts.enter(&old, &counted(&[(1, stats(90_000, 0, &[])), (2, stats(90_000, 0, &[]))]));
        counts.enter(
            &both,
            &counted(&[
                (1, stats(90_100, 100, &[])),
                (2, stats(90_100, 100, &[])),
                (3, stats(100, 100, &[])),
            ]),
        );
        assert_eq!((counts.old.attempts, counts.old.failed, counts.new.failed), (200, 200, 100));
        assert_eq!(counts.verdict(&guard), None);
        // From here on it is only the new one that fails.
        counts.enter(
            &both,
            &counted(&[
                (1, stats(92_100, 100, &[])),
                (2, stats(92_100, 100, &[])),
                (3, stats(2_100, 2_100, &[])),
            ]),
        );
        assert!(counts.verdict(&guard).unwrap().contains("100.0 % of its 2100 answers fail"));
        // A worker that has died takes nothing back.
        counts.enter(&both, &counted(&[(1, stats(92_200, 100, &[]))]));
        assert_eq!(counts.old.attempts, 4_300);
        assert_eq!(counts.new.attempts, 2_100);
        // Later it is the last half minute that tells.
        let mut counts = Counts::default();
        counts.enter(&old, &counted(&[(1, stats(1000, 0, &[]))]));
        let mut answers = 0;
        for _ in 0..10 * RECENT {
            answers += 100;
            counts.enter(&new, &counted(&[(3, stats(answers, 0, &[]))]));
            assert_eq!(counts.verdict(&guard), None);
        }
        counts.enter(&new, &counted(&[(3, stats(answers + 1000, 1000, &[]))]));
        assert!(counts.verdict(&guard).is_some(), "a thousand of 31000 would not be much");
    }

    /// What a new worker does while its caches are empty.
    #[test]
    fn slow_at_first_is_not_slow() {
        let cold = Sides { cold: names(&[2]).into_iter().collect(), ..sides(&[1], &[2]) };
        let of = |answers: u64, slow: u64, errors: u64| {
            let usual = stats(1_000 + answers, 0, &[(1_000, 1_000 + answers)]);
            let new = stats(answers, errors, &[(1_000, answers - slow), (900_000, slow)]);
            counted(&[(1, usual), (2, new)])
        };
        let mut counts = Counts::default();
        counts.enter(&cold, &of(0, 0, 0));
        counts.enter(&cold, &of(200, 200, 0));
        assert_eq!(counts.verdict(&Guard::default()), None, "it is cold");
        counts.enter(&sides(&[1], &[2]), &of(400, 200, 0));
        assert_eq!(counts.verdict(&Guard::default()), None, "what it did before is not of now");
        counts.enter(&sides(&[1], &[2]), &of(600, 400, 0));
        assert!(counts.verdict(&Guard::default()).unwrap().starts_with("95 of 100 answers"));
        let mut counts = Counts::default();
        counts.enter(&cold, &of(0, 0, 0));
        counts.enter(&cold, &of(200, 200, 200));
        assert!(counts.verdict(&Guard::default()).unwrap().contains("fail"), "errors are errors");
    }

    #[test]
    fn without_a_common_time_the_old_ones_life_is_what_counts() {
        let mut counts = Counts::default();
        let usual = &[(1_000, 500)][..];
        counts.enter(&sides(&[1], &[]), &counted(&[(1, stats(500, 5, usual))]));
        let slow = stats(100, 0, &[(900_000, 100)]);
        counts.enter(&sides(&[], &[2]), &counted(&[(2, slow)]));
        let said = counts.verdict(&Guard::default()).unwrap();
        assert_eq!(said, "95 of 100 answers take up to 900.0 ms, those of the old version up to 1.0 ms");
    }
}
