//! What all cores hold jointly for one service: the limit of requests for each worker, the line of those who wait, and
//! what is thought of each worker. On a request's usual way it is only read; it is written when somebody must wait, when
//! a worker fails, and when the roster changes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use lethe_model::gate::Gate;

use crate::{
    concurrency::Limit,
    config,
    ejection::{Outs, Standing},
    follow::key,
    line::Line,
    stats::ServiceStats,
    wanted::{Bell, Want},
};

/// One service, as all cores see it.
#[derive(Debug)]
pub(crate) struct Joint {
    pub(crate) limit: Limit,
    pub(crate) line: Line,
    pub(crate) outs: Outs,
    /// Whether a worker is wanted where there is none.
    pub(crate) want: Want,
    /// Workers that may get requests.
    ready: AtomicUsize,
    epoch: Instant,
    /// By the address of their gate, which is theirs for as long as the standing is here. A tree, since a table would now
    /// and then be gone through as a whole, while all cores wait.
    standings: Mutex<BTreeMap<usize, Listed>>,
}

/// What is thought of a worker, and how many follow a roster that has it.
#[derive(Debug)]
struct Listed {
    standing: Arc<Standing>,
    by: usize,
}

impl Joint {
    pub(crate) fn new(service: &config::Service, bell: &Bell, now: Instant) -> Arc<Self> {
        let want = Want::new(bell);
        want.configure(service.from_zero);
        Arc::new(Self {
            limit: Limit::new(service.concurrency, now),
            line: Line::default(),
            outs: Outs::default(),
            want,
            ready: AtomicUsize::new(0),
            epoch: now,
            standings: Mutex::default(),
        })
    }

    /// Follows a changed configuration. To be called once, not by each core.
    pub(crate) fn configure(&self, service: &config::Service, now: Instant) {
        self.limit.configure(service.concurrency, now);
        self.want.configure(service.from_zero);
    }

    /// What is thought of the worker behind `gate`, the same for all who ask. To be called by each who follows the roster
    /// when the worker is in it, and [undone](Self::unlist) when it no longer is.
    pub(crate) fn list(&self, gate: &Arc<Gate>) -> Arc<Standing> {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Listed { standing: Standing::new(Arc::clone(gate), self.epoch), by: 0 };
        let listed = standings.entry(key(gate)).or_insert_with(new);
        listed.by += 1;
        Arc::clone(&listed.standing)
    }

    /// The worker is no longer in the roster that somebody follows; with the last one it is forgotten.
    pub(crate) fn unlist(&self, standing: &Standing) {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(standing.gate());
        if let Some(listed) = standings.get_mut(&key) {
            listed.by -= 1;
            if listed.by == 0 {
                standing.leave();
                standings.remove(&key);
            }
        }
    }

    /// Notes how many workers may get requests; each core says the same. Returns whether one that was out is asked again
    /// for that reason.
    pub(crate) fn set_ready(&self, ready: usize, out_percent_max: u8, now: Instant) -> bool {
        let before = self.ready.swap(ready, Relaxed);
        ready < before && self.outs.keep_floor(out_percent_max, ready, now)
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

    /// The gates of the workers that live and are passed over at `now`.
    pub(crate) fn out(&self, now: Instant) -> Vec<Arc<Gate>> {
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let out = standings.values().filter(|listed| listed.standing.counts(now));
        out.map(|listed| Arc::clone(listed.standing.gate())).collect()
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
        let joint = Joint::new(&config::Service::default(), &Bell::default(), now);
        assert_eq!(joint.stats(now), ServiceStats::default());
        let concurrency = config::Concurrency::Limited(3);
        joint.configure(&config::Service { concurrency, ..config::Service::default() }, now);
        assert_eq!(joint.stats(now).concurrency_limit, Some(3));
    }

    #[test]
    fn all_think_the_same_of_a_worker() {
        let joint = Joint::new(&config::Service::default(), &Bell::default(), Instant::now());
        let gates: Vec<Arc<Gate>> = (0..100).map(|_| Gate::new()).collect();
        let (first, other) = (joint.list(&gates[0]), joint.list(&gates[1]));
        assert!(Arc::ptr_eq(&first, &joint.list(&gates[0])) && !Arc::ptr_eq(&first, &other));
        joint.unlist(&first);
        assert!(Arc::ptr_eq(&first, &joint.list(&gates[0])), "somebody still has it in his roster");
        joint.unlist(&first);
        joint.unlist(&first);
        assert!(!Arc::ptr_eq(&first, &joint.list(&gates[0])), "who has left is forgotten");
        for gate in &gates {
            let standing = joint.list(gate);
            joint.unlist(&standing);
        }
        assert_eq!(joint.standings.lock().unwrap().len(), 2);
    }
}
