//! One core's view of a service and its workers: who may get requests, which connections to them are idle, how fast
//! they were, and who is waiting for one. It follows the roster; nothing here is shared between cores except each
//! worker's gate.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use lethe_model::{
    gate::Gate,
    roster::{Worker, WorkerState},
    service::{InstanceId, ServiceName},
};
use tokio::sync::Notify;

use crate::{link::Link, shard::WorkerShard};

/// A worker that refused a connection is passed over for this long, or until it leaves the roster: it has most
/// likely just died.
pub(crate) const SUSPECT_FOR: Duration = Duration::from_millis(50);
/// Idle connections are closed after this. Node and uvicorn close them after 5 s; being first avoids the race.
const POOL_IDLE_FOR: Duration = Duration::from_secs(4);

/// A service, as one core sees it.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    /// Woken when the roster has changed.
    pub(crate) changed: Notify,
    /// Requests of this core that wait for a worker.
    pub(crate) waiting: Cell<usize>,
    /// Where round robin goes on.
    pub(crate) cursor: Cell<usize>,
    /// All workers that exist.
    workers: RefCell<Vec<Rc<Upstream>>>,
    /// Those that may get requests.
    ready: RefCell<Rc<[Rc<Upstream>]>>,
}

impl Service {
    /// `cursor` differs from core to core, so that not all of them begin with the same worker.
    pub(crate) fn new(name: ServiceName, cursor: usize) -> Rc<Self> {
        Rc::new(Self {
            name,
            changed: Notify::new(),
            waiting: Cell::new(0),
            cursor: Cell::new(cursor),
            workers: RefCell::default(),
            ready: RefCell::new(Rc::new([])),
        })
    }

    /// The workers that may get requests now.
    pub(crate) fn ready(&self) -> Rc<[Rc<Upstream>]> {
        Rc::clone(&self.ready.borrow())
    }

    /// All workers that exist.
    pub(crate) fn workers(&self) -> Vec<Rc<Upstream>> {
        self.workers.borrow().clone()
    }

    /// Follows the roster: keeps what is known about workers that stay, and closes the idle connections of those
    /// that may not get requests any more.
    pub(crate) fn apply(&self, roster: &[Worker]) {
        let old = self.workers.take();
        let mut workers = Vec::with_capacity(roster.len());
        let mut ready = Vec::with_capacity(roster.len());
        for worker in roster {
            let known = old.iter().find(|upstream| Arc::ptr_eq(&upstream.gate, &worker.gate));
            let upstream = known.cloned().unwrap_or_else(|| Upstream::new(worker));
            upstream.set_ready(worker.state == WorkerState::Ready);
            if worker.state == WorkerState::Ready {
                ready.push(Rc::clone(&upstream));
            }
            workers.push(upstream);
        }
        let left = |upstream: &&Rc<Upstream>| !workers.iter().any(|worker| Rc::ptr_eq(worker, upstream));
        old.iter().filter(left).for_each(|upstream| upstream.set_ready(false));
        self.workers.replace(workers);
        self.ready.replace(ready.into());
        self.changed.notify_waiters();
    }
}

/// One worker, as one core sees it.
pub(crate) struct Upstream {
    pub(crate) instance: InstanceId,
    pub(crate) address: SocketAddr,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<WorkerShard>,
    /// Until when it is passed over.
    suspect_until: Cell<Option<Instant>>,
    /// Mean time to a response head in microseconds, the newer the weightier; 0 before the first.
    latency_us: Cell<f64>,
    is_ready: Cell<bool>,
    /// Idle connections, the most recently used last.
    #[allow(clippy::vec_box, reason = "links are large, and go from hand to hand boxed")]
    idle: RefCell<Vec<Box<Link>>>,
}

impl Upstream {
    fn new(worker: &Worker) -> Rc<Self> {
        Rc::new(Self {
            instance: worker.instance.clone(),
            address: worker.address,
            gate: Arc::clone(&worker.gate),
            stats: WorkerShard::new(),
            suspect_until: Cell::new(None),
            latency_us: Cell::new(0.0),
            is_ready: Cell::new(true),
            idle: RefCell::default(),
        })
    }

    /// Notes that it refused a connection.
    pub(crate) fn suspect(&self, now: Instant) {
        self.suspect_until.set(Some(now + SUSPECT_FOR));
        self.idle.borrow_mut().clear();
    }

    /// Until when it is passed over, if it is at `now`.
    pub(crate) fn suspect_until(&self, now: Instant) -> Option<Instant> {
        self.suspect_until.get().filter(|&until| now < until)
    }

    /// Whether it is passed over; the clock is only asked if there is reason to.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// Notes the time that a response took to its head.
    pub(crate) fn answered(&self, latency: Duration) {
        /// How much of the mean one more response makes.
        const WEIGHT: f64 = 0.1;
        self.stats.answered(latency);
        let (old, new) = (self.latency_us.get(), latency.as_secs_f64() * 1e6);
        self.latency_us.set(if old == 0.0 { new } else { old + (new - old) * WEIGHT });
    }

    /// Mean time to a response head in microseconds; `None` before the first.
    pub(crate) fn latency_us(&self) -> Option<f64> {
        Some(self.latency_us.get()).filter(|&latency| latency > 0.0)
    }

    fn set_ready(&self, ready: bool) {
        self.is_ready.set(ready);
        if !ready {
            self.idle.borrow_mut().clear();
        }
    }

    /// The most recently used idle connection.
    pub(crate) fn take_idle(&self) -> Option<Box<Link>> {
        self.idle.borrow_mut().pop()
    }

    /// Keeps a connection that may carry another request.
    pub(crate) fn put_idle(&self, mut link: Box<Link>, idle_max: usize) {
        let mut idle = self.idle.borrow_mut();
        if self.is_ready.get() && idle.len() < idle_max {
            link.reused = true;
            link.idle_since = None;
            idle.push(link);
        }
    }

    /// Closes connections that were idle for too long. Returns how many are left.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|link| {
            now.saturating_duration_since(*link.idle_since.get_or_insert(now)) < POOL_IDLE_FOR
        });
        idle.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Route;

    pub(crate) fn service(name: &str) -> Rc<Service> {
        Service::new(ServiceName::new(name).unwrap(), 0)
    }

    pub(crate) fn route_to(name: &str) -> Route {
        Route::everything_to(ServiceName::new(name).unwrap())
    }

    pub(crate) fn worker(number: u64, state: WorkerState) -> Worker {
        Worker {
            instance: InstanceId::new(&ServiceName::new("shop").unwrap(), number),
            address: ([127, 0, 0, 1], 1).into(),
            state,
            gate: Gate::new(),
        }
    }

    #[test]
    fn follows_the_roster() {
        let service = service("shop");
        let (mut one, two) = (worker(1, WorkerState::Ready), worker(2, WorkerState::Starting));
        service.apply(&[one.clone(), two.clone()]);
        assert_eq!((service.ready().len(), service.workers().len()), (1, 2));
        let known = service.ready()[0].clone();
        known.answered(Duration::from_millis(1));
        one.state = WorkerState::Draining;
        service.apply(&[one.clone(), two.clone()]);
        assert_eq!(service.ready().len(), 0);
        assert!(Rc::ptr_eq(&known, &service.workers()[0]), "what is known stays");
        service.apply(&[two]);
        assert_eq!(service.workers().len(), 1);
    }
}
