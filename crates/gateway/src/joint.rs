//! What all cores hold jointly for one service: the limit of requests for each worker, the line of those who wait, and
//! what is thought of each worker. On a request's usual way it is only read; it is written when somebody must wait, when
//! a worker fails, and when the roster changes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use lethe_model::gate::Gate;

use crate::{
    concurrency::Limit,
    config,
    ejection::{Outs, Standing},
    line::Line,
    stats::ServiceStats,
};

/// One service, as all cores see it.
#[derive(Debug)]
pub(crate) struct Joint {
    pub(crate) limit: Limit,
    pub(crate) line: Line,
    pub(crate) outs: Outs,
    /// Workers that may get requests.
    ready: AtomicUsize,
    epoch: Instant,
    standings: Mutex<Standings>,
}

#[derive(Debug, Default)]
struct Standings {
    /// By the address of their gate, which is theirs for as long as the standing lives.
    of: HashMap<usize, Weak<Standing>>,
    /// With so many, those that are gone are taken out.
    full: usize,
}

impl Joint {
    pub(crate) fn new(service: &config::Service, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            limit: Limit::new(service.concurrency, now),
            line: Line::default(),
            outs: Outs::default(),
            ready: AtomicUsize::new(0),
            epoch: now,
            standings: Mutex::default(),
        })
    }

    /// Follows a changed configuration. To be called once, not by each core.
    pub(crate) fn configure(&self, service: &config::Service, now: Instant) {
        self.limit.configure(service.concurrency, now);
    }

    /// What is thought of the worker behind `gate`, the same for all who ask.
    pub(crate) fn standing(&self, gate: &Arc<Gate>) -> Arc<Standing> {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::as_ptr(gate) as usize;
        if let Some(known) = standings.of.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        // Now and then, so that it is paid for by those that were added since.
        if standings.of.len() >= standings.full {
            standings.of.retain(|_, standing| standing.strong_count() > 0);
            standings.full = 2 * standings.of.len() + 64;
        }
        let standing = Standing::new(Arc::clone(gate), self.epoch);
        standings.of.insert(key, Arc::downgrade(&standing));
        standing
    }

    /// Notes how many workers may get requests; each core says the same.
    pub(crate) fn set_ready(&self, ready: usize, out_percent_max: u8, now: Instant) {
        let before = self.ready.swap(ready, Relaxed);
        if ready < before {
            self.outs.keep_floor(out_percent_max, ready, now);
        }
    }

    /// Workers that may get requests.
    pub(crate) fn ready(&self) -> usize {
        self.ready.load(Relaxed)
    }

    /// A request has left `gate`.
    pub(crate) fn left(&self, gate: &Arc<Gate>) {
        // Without a limit nobody waits for others to leave.
        if self.limit.each().is_some() {
            self.line.left(gate, &self.limit);
        }
    }

    /// What is to be told of the service.
    pub(crate) fn stats(&self, now: Instant) -> ServiceStats {
        let (out, ejections) = self.outs.counted(now);
        let ([timely, batch], [timely_shed, batch_shed]) = (self.line.lengths(), self.line.shed_so_far());
        ServiceStats {
            out,
            ejections,
            queued_timely: timely,
            queued_batch: batch,
            shed_timely: timely_shed,
            shed_batch: batch_shed,
            concurrency_limit: self.limit.each(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_may_change() {
        let now = Instant::now();
        let joint = Joint::new(&config::Service::default(), now);
        assert_eq!(joint.stats(now), ServiceStats::default());
        let concurrency = config::Concurrency::Limited(3);
        joint.configure(&config::Service { concurrency, ..config::Service::default() }, now);
        assert_eq!(joint.stats(now).concurrency_limit, Some(3));
    }

    #[test]
    fn all_think_the_same_of_a_worker() {
        let joint = Joint::new(&config::Service::default(), Instant::now());
        let gates: Vec<Arc<Gate>> = (0..100).map(|_| Gate::new()).collect();
        let first = joint.standing(&gates[0]);
        for gate in &gates[1..] {
            joint.standing(gate);
        }
        assert!(Arc::ptr_eq(&first, &joint.standing(&gates[0])));
        assert!(!Arc::ptr_eq(&first, &joint.standing(&gates[1])));
        for _ in 0..10_000 {
            joint.standing(&Gate::new());
        }
        let known = joint.standings.lock().unwrap().of.len();
        assert!(known < 1000, "those that are gone are forgotten: {known}");
    }
}
