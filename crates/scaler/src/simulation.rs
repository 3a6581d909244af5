//! A day of load against a policy, second by second, without waiting for it: workers that take time to start and to
//! serve, a queue before them, and a policy that sees what it would see in earnest. Nothing is drawn at random; what
//! chance does to a queue is in the formula ([`queue`]).

pub mod load;
pub mod policy;
pub mod queue;
mod workers;

use std::time::Duration;

use crate::{
    simulation::{
        policy::{Observation, Policy},
        queue::Queue,
        workers::Workers,
    },
    time::Time,
};

/// What the workers are like, and what is wished of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// How long a worker is busy with a request, on average.
    pub service_time: Duration,
    /// How long it is until a new worker is ready.
    pub startup: Duration,
    /// How many requests a worker serves at a time; at least one.
    pub slots: u32,
    /// Requests that take longer than this are counted.
    pub goal: Duration,
    /// No fewer workers.
    pub min: u32,
    /// No more workers; at least one, and at least `min`.
    pub max: u32,
    /// How busy the workers should be, from above 0 to 1: a share of their CPU, or of their slots.
    pub utilization: f64,
}

impl Model {
    /// Requests that one worker serves in a second.
    pub fn rate(&self) -> f64 {
        f64::from(self.slots) / self.service_time.as_secs_f64()
    }
}

/// A second of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Second {
    /// Requests that came.
    pub load: f64,
    /// Workers that served.
    pub ready: u32,
    /// Workers that were starting.
    pub starting: u32,
    /// The 99th percentile of how long the requests that came took, in seconds.
    pub p99: f64,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Which policy.
    pub name: &'static str,
    /// Each second.
    pub seconds: Vec<Second>,
    /// Workers, starting ones included, times hours.
    pub worker_hours: f64,
    /// Requests that came.
    pub requests: f64,
    /// Those of them that took longer than the goal.
    pub over: f64,
    /// How often the number of workers was changed.
    pub changes: u32,
    /// The most workers that there were.
    pub most: u32,
}

/// Plays `load`, in requests a second for each second, against `policy`. It begins with as many ready workers as the
/// first second needs at the wished utilization.
pub fn play(model: &Model, load: &[f64], mut policy: Policy) -> Outcome {
    let (min, max) = policy.bounds(model);
    let first = load.first().copied().unwrap_or(0.0) / (model.rate() * model.utilization);
    let mut workers = Workers::new((first.ceil() as u32).clamp(min, max.max(min)));
    let mut queue = Queue::default();
    let mut outcome = Outcome {
        name: policy.name(),
        seconds: Vec::with_capacity(load.len()),
        worker_hours: 0.0,
        requests: 0.0,
        over: 0.0,
        changes: 0,
        most: 0,
    };
    for (second, load) in (0_i64..).zip(load.iter().copied()) {
        let begin = Time::from_micros(second * 1_000_000);
        workers.get_ready(begin);
        let passed = queue.pass(model, load, &workers, begin);
        let now = begin.plus(Duration::from_secs(1));
        let (busy, inside, waiting) = (passed.busy, passed.inside, passed.waiting);
        let observation = Observation { now, workers: &workers, busy, inside, waiting };
        let current = workers.wanted();
        if let Some(desired) = policy.look(model, &observation)
            && desired != current
        {
            workers.scale(desired, now.plus(model.startup), now);
            outcome.changes += 1;
        }
        let (ready, starting) = (passed.ready, workers.starting());
        outcome.seconds.push(Second { load, ready, starting, p99: passed.p99 });
        outcome.worker_hours += f64::from(ready + starting) / 3_600.0;
        outcome.requests += load;
        outcome.over += passed.over;
        outcome.most = outcome.most.max(ready + starting);
    }
    outcome
}

#[cfg(test)]
mod tests;
