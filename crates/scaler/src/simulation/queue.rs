//! How long requests take when so many come and so many workers serve.
//!
//! What comes beyond what can be served waits and is served first in, first out: the backlog. What chance adds below
//! that is the waiting of the queue M/M/m, by Sakasegawa's approximation (Annals of the Institute of Statistical
//! Mathematics 29, 1977): a request waits at all with probability ρ^(√(2(m+1)) − 1), and who waits, waits
//! exponentially, on average 1 ÷ (m μ (1 − ρ)). The formula is for a queue that has been as busy for long; a nearly full
//! one takes so long to get there that above [`BUSY_MAX`] it is the backlog that counts.

use crate::{
    simulation::{Model, workers::Workers},
    time::Time,
};

/// No queue is taken to be busier by chance alone.
const BUSY_MAX: f64 = 0.95;

/// The requests that wait for more than chance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queue {
    backlog: f64,
}

/// What became of a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passed {
    /// Workers that served.
    pub ready: u32,
    /// How busy they were, from 0 to 1.
    pub busy: f64,
    /// Requests that were being served at its end.
    pub inside: f64,
    /// Requests that were waiting at its end.
    pub waiting: f64,
    /// Of those that came, how many take longer than the goal.
    pub over: f64,
    /// The 99th percentile of how long those that came take, in seconds.
    pub p99: f64,
}

impl Queue {
    /// Lets a second pass in which `load` requests come.
    pub(super) fn pass(&mut self, model: &Model, load: f64, workers: &Workers, now: Time) -> Passed {
        let ready = workers.ready();
        let capacity = f64::from(ready) * model.rate();
        let before = self.backlog;
        let served = capacity.min(before + load);
        self.backlog = before + load - served;
        let busy = if ready == 0 { 0.0 } else { served / capacity };
        let inside = served * model.service_time.as_secs_f64();
        let waits = [before, self.backlog].map(|backlog| wait(backlog, capacity, model, workers, now));
        let chance = Chance::new(model, ready, busy);
        let over = load * chance.share_over(model, waits);
        let p99 = model.service_time.as_secs_f64() + waits[1].max(waits[0]) + chance.p99();
        Passed { ready, busy, inside, waiting: self.backlog, over, p99 }
    }
}

/// How long the last of a backlog waits for its turn, in seconds. With no worker, that is until one is ready; with none
/// on its way, nobody can say.
fn wait(backlog: f64, capacity: f64, model: &Model, workers: &Workers, now: Time) -> f64 {
    if capacity > 0.0 {
        return backlog / capacity;
    }
    match workers.next_ready() {
        _ if backlog == 0.0 => 0.0,
        Some(ready) => (ready - now).as_secs_f64() + backlog / (f64::from(workers.starting()) * model.rate()),
        None => model.startup.as_secs_f64() + 1.0,
    }
}

/// What chance adds.
struct Chance {
    /// How likely it is to wait at all.
    waits: f64,
    /// One over how long who waits, waits on average; in 1/s.
    rate: f64,
}

impl Chance {
    fn new(model: &Model, ready: u32, busy: f64) -> Self {
        let slots = f64::from(ready) * f64::from(model.slots);
        let busy = busy.min(BUSY_MAX);
        let waits = if ready == 0 { 0.0 } else { busy.powf((2.0 * (slots + 1.0)).sqrt() - 1.0) };
        Self { waits, rate: slots / model.service_time.as_secs_f64() * (1.0 - busy) }
    }

    /// The share of requests that take longer than the goal, where the first of them waits for so long a backlog and
    /// the last for so long a one.
    fn share_over(&self, model: &Model, [first, last]: [f64; 2]) -> f64 {
        let slack = model.goal.as_secs_f64() - model.service_time.as_secs_f64();
        let (low, high) = (first.min(last), first.max(last));
        if low >= slack {
            return 1.0;
        }
        // Those in between are spread evenly.
        let beyond = if high > slack { (high - slack) / (high - low) } else { 0.0 };
        let middle = f64::midpoint(low, high.min(slack));
        let by_chance = self.waits * (-self.rate * (slack - middle)).exp();
        beyond + (1.0 - beyond) * by_chance
    }

    fn p99(&self) -> f64 {
        if self.waits <= 0.01 { 0.0 } else { (self.waits / 0.01).ln() / self.rate }
    }
}
