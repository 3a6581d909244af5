//! One core's view of a service: who of its workers may get requests and whose turn it is, and what they have in common.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use lethe_model::{gate::Gate, roster::Protocol, service::ServiceName, workers::Workers};

use crate::{
    concurrency::Noted,
    config::{self, Class, Ejection},
    follow::key,
    joint::Joint,
    link::Link,
    queue::Pass,
    retry_budget::RetryBudget,
    rotation::Rotation,
    slices::Slices,
    suspicion::Suspicions,
    upstream::Upstream,
};

/// Each sweep looks at this part of the workers with idle connections, or at [`SWEEP_MIN`] if those are more.
const SWEEP_PART: usize = 4;
const SWEEP_MIN: usize = 256;

/// A service, as one core sees it.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) home: Rc<Home>,
    pub(crate) retry_budget: RetryBudget,
    /// Those that may get requests, in turn.
    pub(crate) rotation: RefCell<Rotation<Rc<Upstream>>>,
    /// All workers that exist, by the address of their gate. A tree, since a table would now and then be gone through as a
    /// whole.
    pub(crate) known: RefCell<BTreeMap<usize, Rc<Upstream>>>,
    /// The workers that it has come up to.
    pub(crate) followed: RefCell<Workers>,
    /// Where the next sweep begins.
    swept: Cell<usize>,
}

/// What the workers of one service have in common on one core.
pub(crate) struct Home {
    /// The core's number.
    pub(crate) core: usize,
    pub(crate) joint: Arc<Joint>,
    /// What the adaptive limit is told; unused without one.
    pub(crate) seen: Noted,
    pub(crate) adapts: Cell<bool>,
    pub(crate) ejection: Cell<Ejection>,
    pub(crate) slow_start: Cell<Duration>,
    /// How long a request waits where no worker is ready; `None` for as long as it waits for its turn.
    pub(crate) start_wait: Cell<Option<Duration>>,
    pub(crate) protocol: Cell<Protocol>,
    /// Ready workers that have their full share. While there is none, all count as new, and have the same.
    pub(crate) full: Cell<usize>,
    /// Workers that refused a connection.
    pub(crate) suspicions: Suspicions,
    /// Workers with idle connections. They have this, so it does not have them.
    pub(crate) pooled: RefCell<Vec<Weak<Upstream>>>,
}

impl Service {
    /// `core` is the core's number; each begins the rotation elsewhere.
    pub(crate) fn new(
        name: ServiceName,
        joint: Arc<Joint>,
        config: &config::Service,
        core: usize,
        now: Instant,
    ) -> Rc<Self> {
        let home = Home {
            core,
            joint,
            seen: Noted::default(),
            adapts: Cell::new(false),
            ejection: Cell::new(Ejection::default()),
            slow_start: Cell::new(Duration::ZERO),
            start_wait: Cell::new(None),
            protocol: Cell::default(),
            full: Cell::new(0),
            suspicions: Suspicions::new(now),
            pooled: RefCell::default(),
        };
        let service = Rc::new(Self {
            name,
            home: Rc::new(home),
            retry_budget: RetryBudget::new(now),
            rotation: RefCell::default(),
            known: RefCell::default(),
            followed: RefCell::default(),
            swept: Cell::new(0),
        });
        service.configure(config);
        service
    }

    /// Follows a changed configuration. What the cores hold jointly follows by [`Joint::configure`].
    pub(crate) fn configure(&self, config: &config::Service) {
        self.home.adapts.set(matches!(config.concurrency, config::Concurrency::Adaptive { .. }));
        self.home.ejection.set(config.ejection);
        self.home.slow_start.set(config.slow_start);
        self.home.start_wait.set(config.start_wait);
        self.home.protocol.set(config.protocol);
    }

    /// The worker behind `gate`, entered for a request of this core, if it is one that may get requests, and none of those
    /// that were `tried`. The slot is the caller's again if it is not.
    pub(crate) fn take_over(
        &self,
        gate: &Arc<Gate>,
        tried: &[Rc<Upstream>],
        now: Instant,
    ) -> Option<(Rc<Upstream>, Pass)> {
        let known = self.known.borrow();
        let upstream = known.get(&key(gate))?;
        let is_tried = tried.iter().any(|tried| Rc::ptr_eq(tried, upstream));
        let is_usable = !is_tried && upstream.is_ready() && upstream.passed_over_until(now).is_none();
        is_usable.then(|| (Rc::clone(upstream), Pass::of(upstream)))
    }

    /// How long a request waits for a worker to start; `None` if one is ready, or if that is no other matter than to wait
    /// for its turn.
    pub(crate) fn start_wait(&self) -> Option<Duration> {
        self.home.start_wait.get().filter(|_| self.rotation.borrow().len() == 0)
    }

    /// How many may be inside a worker for one more of `class` to be let in.
    pub(crate) fn limit(&self, class: Class) -> Option<u32> {
        self.home.joint.limit.of(class)
    }

    /// When the first of those that are passed over is asked again, as far as that is known. O(those that fail).
    pub(crate) fn soonest(&self, now: Instant) -> Option<Instant> {
        let (trusted, back) = (self.home.suspicions.next_end(now), self.home.joint.outs.next_back(now));
        trusted.into_iter().chain(back).min()
    }

    /// Does what is to be done each tenth of a second while the core has connections: tells the adaptive limit what was
    /// seen, and has those who wait look again, for whatever changes without a sign.
    pub(crate) fn tick(&self, now: Instant) {
        if self.home.adapts.get() {
            self.home.joint.limit.take(&self.home.seen, now);
        }
        self.retry_budget.turn(now);
        self.home.joint.line.news(Some(self.home.core));
    }

    /// Closes connections to workers that were idle for too long, of a part of the workers. Returns whether connections
    /// are left. One call at a time. Cancellation safe: the next call goes on.
    pub(crate) async fn sweep(&self, now: Instant, slices: &mut Slices) -> bool {
        let pooled = self.home.pooled.borrow().len();
        for _ in 0..pooled.div_ceil(SWEEP_PART).max(SWEEP_MIN).min(pooled) {
            for link in self.sweep_next(now) {
                drop(link);
                slices.step().await;
            }
            slices.step().await;
        }
        !self.home.pooled.borrow().is_empty()
    }

    /// The connections to the next worker that were idle for too long, to be closed.
    #[allow(clippy::vec_box, reason = "links are large, and go from hand to hand boxed")]
    fn sweep_next(&self, now: Instant) -> Vec<Box<Link>> {
        let mut pooled = self.home.pooled.borrow_mut();
        let index = if self.swept.get() < pooled.len() { self.swept.get() } else { 0 };
        let upstream = pooled.get(index).and_then(Weak::upgrade);
        let (left, expired) =
            upstream.as_ref().map_or((0, Vec::new()), |upstream| upstream.take_expired(now));
        self.swept.set(index + 1);
        if left == 0 && index < pooled.len() {
            pooled.swap_remove(index);
            self.swept.set(index);
            if let Some(upstream) = upstream {
                upstream.is_pooled.set(false);
            }
        }
        expired
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use lethe_model::{
        roster::{Worker, WorkerState},
        service::InstanceId,
    };

    use super::*;
    use crate::{config::Route, shard::Shard, wanted::Bell};

    pub(crate) fn service(name: &str) -> Rc<Service> {
        with(name, &config::Service::default())
    }

    pub(crate) fn with(name: &str, config: &config::Service) -> Rc<Service> {
        let now = Instant::now();
        Service::new(
            ServiceName::new(name).unwrap(),
            Joint::new(config, &Bell::default(), now),
            config,
            0,
            now,
        )
    }

    pub(crate) fn route_to(name: &str) -> Route {
        Route::everything_to(ServiceName::new(name).unwrap())
    }

    pub(crate) fn worker(number: u64, state: WorkerState) -> Worker {
        Worker {
            instance: InstanceId::new(&ServiceName::new("shop").unwrap(), number),
            address: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            protocol: Protocol::Http1,
            state,
            gate: Gate::new(),
            weight: 1,
        }
    }

    pub(crate) fn apply(service: &Service, workers: &[Worker]) {
        apply_at(service, workers, Instant::now());
    }

    pub(crate) fn apply_at(service: &Service, workers: &[Worker], now: Instant) {
        let workers = workers.iter().cloned().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(service.follow(&workers, &Shard::default(), &mut Slices::begin(), now));
    }

    /// The next of the rotation.
    pub(crate) fn turn(service: &Service) -> Option<Rc<Upstream>> {
        service.rotation.borrow_mut().next(usize::MAX, |upstream| Some(Rc::clone(upstream)))
    }
}
