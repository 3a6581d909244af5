//! The simulated workers: those that started together are one entry, since they are alike.

use std::{collections::VecDeque, time::Duration};

use crate::{
    samples::{Instance, Reading},
    time::Time,
};

/// After so long it does not matter any more when a worker was started; those are all alike.
const OLD: Duration = Duration::from_secs(900);

/// Workers that started together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cohort {
    count: u32,
    started: Time,
    ready: Time,
}

/// The workers, oldest first.
#[derive(Clone, Debug)]
pub struct Workers {
    ready: VecDeque<Cohort>,
    starting: VecDeque<Cohort>,
    ready_count: u32,
    starting_count: u32,
}

impl Workers {
    /// So many that have been ready for long.
    pub fn new(count: u32) -> Self {
        let cohort = Cohort { count, started: Time::LONG_AGO, ready: Time::LONG_AGO };
        Self { ready: [cohort].into(), starting: VecDeque::new(), ready_count: count, starting_count: 0 }
    }

    /// How many serve.
    pub fn ready(&self) -> u32 {
        self.ready_count
    }

    /// How many are on their way.
    pub fn starting(&self) -> u32 {
        self.starting_count
    }

    /// How many there should be.
    pub fn wanted(&self) -> u32 {
        self.ready_count + self.starting_count
    }

    /// When the next ones will be ready.
    pub fn next_ready(&self) -> Option<Time> {
        self.starting.front().map(|cohort| cohort.ready)
    }

    /// Lets those that have started by now serve.
    pub fn get_ready(&mut self, now: Time) {
        while let Some(cohort) = self.starting.front().copied().filter(|cohort| cohort.ready <= now) {
            self.starting.pop_front();
            self.starting_count -= cohort.count;
            self.ready_count += cohort.count;
            self.ready.push_back(cohort);
        }
        while let Some([first, second]) = self.ready.make_contiguous().first_chunk().copied()
            && now - second.started > OLD
        {
            self.ready.pop_front();
            let merged = Cohort { count: first.count + second.count, ..first };
            self.ready[0] = merged;
        }
    }

    /// Makes it so many: new ones begin to start; the newest leave, those that are not ready first.
    pub fn scale(&mut self, wanted: u32, ready: Time, now: Time) {
        let current = self.wanted();
        if wanted > current {
            let count = wanted - current;
            self.starting.push_back(Cohort { count, started: now, ready });
            self.starting_count += count;
            return;
        }
        let surplus = current - wanted;
        let unready = surplus.min(self.starting_count);
        leave(&mut self.starting, unready);
        self.starting_count -= unready;
        leave(&mut self.ready, surplus - unready);
        self.ready_count -= surplus - unready;
    }

    /// Writes them down as a scaler sees them, each ready one using so much CPU of one core that it requests.
    pub fn write(&self, cpu_milli: i64, instances: &mut Vec<Instance>) {
        instances.clear();
        for (cohorts, is_ready) in [(&self.ready, true), (&self.starting, false)] {
            for cohort in cohorts {
                let cpu = Reading::Value(if is_ready { cpu_milli } else { 0 });
                let instance = Instance {
                    ready: Some(is_ready),
                    ready_since: if is_ready { cohort.ready } else { cohort.started },
                    started: Some(cohort.started),
                    cpu,
                    cpu_request: Some(1_000),
                    ..Instance::default()
                };
                instances.extend(std::iter::repeat_n(instance, cohort.count as usize));
            }
        }
    }
}

/// Takes so many of the newest away.
fn leave(cohorts: &mut VecDeque<Cohort>, mut count: u32) {
    while count > 0
        && let Some(newest) = cohorts.back_mut()
    {
        let leaving = newest.count.min(count);
        newest.count -= leaving;
        count -= leaving;
        if newest.count == 0 {
            cohorts.pop_back();
        }
    }
}
