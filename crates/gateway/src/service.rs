//! One core's view of a service: who of its workers may get requests and whose turn it is. It follows the roster by what
//! has changed, so that a change costs a look at each entry of a list and no more, however many workers there are.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use lethe_model::{
    gate::Gate,
    roster::{Protocol, Worker, WorkerState},
    service::ServiceName,
};

use crate::{
    concurrency::Noted,
    config::{self, Class, Ejection},
    joint::Joint,
    queue::Pass,
    retry_budget::RetryBudget,
    rotation::Rotation,
    shard::Shard,
    upstream::Upstream,
};

/// Each sweep looks at this part of the workers with idle connections, or at [`SWEEP_MIN`] if those are more, so that it
/// never takes long.
const SWEEP_PART: usize = 4;
const SWEEP_MIN: usize = 256;

/// A service, as one core sees it.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) home: Rc<Home>,
    pub(crate) retry_budget: RetryBudget,
    /// Those that may get requests, in turn.
    pub(crate) rotation: RefCell<Rotation<Rc<Upstream>>>,
    /// All workers that exist, in the roster's order.
    entries: RefCell<Vec<Entry>>,
    /// The same by the address of their gate.
    by_gate: RefCell<HashMap<usize, Rc<Upstream>>>,
    /// Where the next sweep begins.
    swept: Cell<usize>,
}

/// A worker, with what is compared when the roster changes side by side.
struct Entry {
    gate: *const Gate,
    state: WorkerState,
    weight: u32,
    upstream: Rc<Upstream>,
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
    pub(crate) protocol: Cell<Protocol>,
    /// Ready workers that have their full share. While there is none, all count as new, and have the same.
    pub(crate) full: Cell<usize>,
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
            protocol: Cell::default(),
            full: Cell::new(0),
            pooled: RefCell::default(),
        };
        let service = Rc::new(Self {
            name,
            home: Rc::new(home),
            retry_budget: RetryBudget::new(now),
            rotation: RefCell::new(Rotation::new(core)),
            entries: RefCell::default(),
            by_gate: RefCell::default(),
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
        self.home.protocol.set(config.protocol);
    }

    /// Follows the roster: keeps what is known about workers that stay, and closes the idle connections of those
    /// that may not get requests any more.
    pub(crate) fn apply(&self, roster: &[Worker], shard: &Shard, now: Instant) {
        let mut changes = Changes::default();
        let mut left = Vec::new();
        let mut entries = self.entries.borrow_mut();
        // The roster is in order of age: what stays is a part of what was, followed by what is new.
        let mut rest = roster;
        entries.retain_mut(|entry| match rest {
            [worker, after @ ..] if entry.gate == Arc::as_ptr(&worker.gate) => {
                rest = after;
                entry.follow(worker, &mut changes);
                true
            }
            _ => {
                left.push((entry.state, Rc::clone(&entry.upstream)));
                false
            }
        });
        let mut joined = Vec::new();
        let mut by_gate = self.by_gate.borrow_mut();
        for worker in rest {
            let key = Arc::as_ptr(&worker.gate) as usize;
            // Found here if the order was another one, which loses nothing.
            let known = by_gate.get(&key).map(Rc::clone);
            let upstream = known.clone().unwrap_or_else(|| Upstream::new(worker, &self.home));
            let mut entry = Entry {
                gate: Arc::as_ptr(&worker.gate),
                state: WorkerState::Starting,
                weight: worker.weight,
                upstream,
            };
            if known.is_some() {
                let was = left.iter().position(|(_, upstream)| Rc::ptr_eq(upstream, &entry.upstream));
                if let Some((state, _)) = was.map(|at| left.swap_remove(at)) {
                    (entry.state, entry.weight) = (state, entry.upstream.weight.get());
                }
            } else {
                by_gate.insert(key, Rc::clone(&entry.upstream));
                joined.push((entry.upstream.instance.clone(), Arc::clone(&entry.upstream.stats)));
            }
            entry.follow(worker, &mut changes);
            entries.push(entry);
        }
        for (state, upstream) in &left {
            by_gate.remove(&(Arc::as_ptr(&upstream.gate) as usize));
            upstream.standing.set_listed(false);
            if *state == WorkerState::Ready {
                changes.out.push(Rc::clone(upstream));
            }
        }
        if !left.is_empty() || !joined.is_empty() {
            shard.change_workers(
                left.iter().map(|(_, upstream)| (&upstream.instance, &upstream.stats)),
                joined,
            );
        }
        drop((entries, by_gate));
        self.turn_over(changes, now);
    }

    /// Takes workers into the rotation and out of it.
    fn turn_over(&self, changes: Changes, now: Instant) {
        let Home { core, joint, full, slow_start, ejection, .. } = &*self.home;
        let Changes { ready, out, reweighed } = changes;
        if ready.is_empty() && out.is_empty() && reweighed.is_empty() {
            return;
        }
        let mut rotation = self.rotation.borrow_mut();
        let gone: HashSet<*const Upstream> = out.iter().chain(&reweighed).map(Rc::as_ptr).collect();
        match (&out[..], &reweighed[..]) {
            ([], []) => {}
            // Nearly always; comparing is much cheaper than hashing.
            ([gone], []) => rotation.remove(|upstream| Rc::ptr_eq(upstream, gone)),
            _ => rotation.remove(|upstream| gone.contains(&Rc::as_ptr(upstream))),
        }
        for upstream in &out {
            full.set(full.get() - usize::from(upstream.warmth.is_full()));
            upstream.set_ready(false);
        }
        // All that are new at the same time are new together.
        let warms_up = !slow_start.get().is_zero() && full.get() > 0;
        for upstream in &ready {
            if warms_up {
                upstream.warmth.begin(now);
            } else {
                upstream.warmth.complete();
                full.set(full.get() + 1);
            }
            upstream.set_ready(true);
        }
        let new = ready.into_iter().chain(reweighed);
        rotation.insert(new.map(|upstream| (upstream.weight.get(), upstream)));
        joint.set_ready(rotation.len(), ejection.get().out_percent_max, now);
        drop(rotation);
        joint.line.news(Some(*core));
    }

    /// The worker behind `gate`, entered for a request of this core, if it is one that may get requests. The slot is
    /// the caller's again if it is not.
    pub(crate) fn take_over(&self, gate: &Arc<Gate>, now: Instant) -> Option<(Rc<Upstream>, Pass)> {
        let by_gate = self.by_gate.borrow();
        let upstream = by_gate.get(&(Arc::as_ptr(gate) as usize))?;
        let is_usable = upstream.is_ready() && upstream.passed_over_until(now).is_none();
        is_usable.then(|| (Rc::clone(upstream), Pass::of(upstream)))
    }

    /// How many may be inside a worker for one more of `class` to be let in.
    pub(crate) fn limit(&self, class: Class) -> Option<u32> {
        self.home.joint.limit.of(class)
    }

    /// When the first of those that are passed over is asked again, as far as that is known. O(workers).
    pub(crate) fn soonest(&self, now: Instant) -> Option<Instant> {
        let entries = self.entries.borrow();
        let ready = entries.iter().filter(|entry| entry.state == WorkerState::Ready);
        ready.filter_map(|entry| entry.upstream.passed_over_until(now)?).min()
    }

    /// Does what is to be done each tenth of a second while the core has connections: closes connections to workers that
    /// were idle for too long, tells the adaptive limit what was seen, and has those who wait look again, for whatever
    /// changes without a sign. Returns whether connections are left.
    pub(crate) fn tick(&self, now: Instant) -> bool {
        if self.home.adapts.get() {
            self.home.joint.limit.take(&self.home.seen, now);
        }
        self.retry_budget.turn(now);
        self.home.joint.line.news(Some(self.home.core));
        self.sweep(now)
    }

    fn sweep(&self, now: Instant) -> bool {
        let mut pooled = self.home.pooled.borrow_mut();
        let count = pooled.len().div_ceil(SWEEP_PART).max(SWEEP_MIN).min(pooled.len());
        let mut index = self.swept.get();
        for _ in 0..count {
            index = if index < pooled.len() { index } else { 0 };
            let upstream = pooled[index].upgrade();
            if upstream.as_ref().is_some_and(|upstream| upstream.sweep(now) > 0) {
                index += 1;
                continue;
            }
            pooled.swap_remove(index);
            if let Some(upstream) = upstream {
                upstream.is_pooled.set(false);
            }
        }
        self.swept.set(index);
        !pooled.is_empty()
    }
}

/// What has changed for the rotation.
#[derive(Default)]
struct Changes {
    /// May get requests from now on.
    ready: Vec<Rc<Upstream>>,
    /// May not any more.
    out: Vec<Rc<Upstream>>,
    /// Still may, with another weight.
    reweighed: Vec<Rc<Upstream>>,
}

impl Entry {
    fn follow(&mut self, worker: &Worker, changes: &mut Changes) {
        if (self.state, self.weight) == (worker.state, worker.weight) {
            return;
        }
        let (was_ready, is_ready) = (self.state == WorkerState::Ready, worker.state == WorkerState::Ready);
        let weighs_other = self.weight != worker.weight;
        (self.state, self.weight) = (worker.state, worker.weight);
        self.upstream.weight.set(worker.weight);
        let list = match (was_ready, is_ready) {
            (false, true) => &mut changes.ready,
            (true, false) => &mut changes.out,
            (true, true) if weighs_other => &mut changes.reweighed,
            _ => return,
        };
        list.push(Rc::clone(&self.upstream));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use lethe_model::{roster::WorkerState::*, service::InstanceId};

    use super::*;
    use crate::config::Route;

    pub(crate) fn service(name: &str) -> Rc<Service> {
        with(name, &config::Service::default())
    }

    pub(crate) fn with(name: &str, config: &config::Service) -> Rc<Service> {
        let now = Instant::now();
        Service::new(ServiceName::new(name).unwrap(), Joint::new(config, now), config, 0, now)
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

    pub(crate) fn apply(service: &Service, roster: &[Worker]) {
        service.apply(roster, &Shard::default(), Instant::now());
    }

    /// The next of the rotation.
    pub(crate) fn turn(service: &Service) -> Option<Rc<Upstream>> {
        service.rotation.borrow_mut().next(|upstream| Some(Rc::clone(upstream)))
    }

    fn turns(service: &Service, count: usize) -> String {
        let name = |upstream: Rc<Upstream>| upstream.instance.as_str().trim_start_matches("shop-").to_owned();
        (0..count).map(|_| turn(service).map_or("-".into(), name)).collect()
    }

    #[test]
    fn follows_the_roster() {
        let service = service("shop");
        let (mut one, two) = (worker(1, Ready), worker(2, Starting));
        apply(&service, &[one.clone(), two.clone()]);
        assert_eq!((turns(&service, 2), service.home.joint.ready()), ("11".into(), 1));
        let known = turn(&service).unwrap();
        one.state = Draining;
        apply(&service, &[one.clone(), two.clone()]);
        assert_eq!((turn(&service).is_none(), service.home.joint.ready()), (true, 0));
        assert!(!known.is_ready());
        one.state = Ready;
        apply(&service, &[one.clone(), two.clone()]);
        assert!(Rc::ptr_eq(&known, &turn(&service).unwrap()), "what is known stays");
        apply(&service, std::slice::from_ref(&two));
        assert_eq!((service.entries.borrow().len(), service.by_gate.borrow().len()), (1, 1));
        apply(&service, &[two, one]);
        assert!(!Rc::ptr_eq(&known, &turn(&service).unwrap()), "who left is forgotten");
    }

    #[test]
    fn any_change_of_the_roster() {
        let service = service("shop");
        let of = |numbers: &str| -> Vec<u64> { numbers.bytes().map(|b| u64::from(b - b'0')).collect() };
        let all: Vec<Worker> = (0..10).map(|number| worker(number, Ready)).collect();
        for numbers in ["123", "123", "1234", "134", "", "5", "567", "765", "7", "17", "987", "123456789"] {
            let roster: Vec<Worker> =
                of(numbers).into_iter().map(|number| all[number as usize].clone()).collect();
            let known = service.by_gate.borrow().clone();
            apply(&service, &roster);
            let mut got: Vec<char> = turns(&service, numbers.len()).chars().collect();
            got.sort();
            let mut expected: Vec<char> = numbers.chars().collect();
            expected.sort();
            assert_eq!(got, expected);
            for (gate, upstream) in service.by_gate.borrow().iter() {
                let same = known.get(gate).is_none_or(|known| Rc::ptr_eq(known, upstream));
                assert!(same, "{} is the same as before, in {numbers}", upstream.instance);
            }
            assert_eq!(service.entries.borrow().len(), numbers.len());
            assert_eq!(service.home.full.get(), numbers.len());
        }
    }

    #[test]
    fn a_weight_may_change() {
        let service = service("shop");
        let mut workers = [worker(1, Ready), worker(2, Ready)];
        apply(&service, &workers);
        workers[0].weight = 3;
        apply(&service, &workers);
        assert!(service.entries.borrow()[0].upstream.is_ready());
        assert_eq!((service.home.full.get(), service.home.joint.ready()), (2, 2));
        let got = turns(&service, 40);
        assert_eq!(got.matches('1').count(), 30, "{got}");
    }

    #[test]
    fn who_joins_others_warms_up() {
        let config = config::Service { slow_start: Duration::from_secs(10), ..config::Service::default() };
        let service = with("shop", &config);
        let begin = Instant::now();
        let mut workers = vec![worker(1, Ready), worker(2, Ready)];
        service.apply(&workers, &Shard::default(), begin);
        assert_eq!(service.home.full.get(), 2, "all are new");
        workers.push(worker(3, Ready));
        service.apply(&workers, &Shard::default(), begin);
        let upstream = service.entries.borrow()[2].upstream.clone();
        let at = |s| begin + Duration::from_secs(s);
        assert_eq!((upstream.share(at(5)), service.home.full.get()), (0.5, 2));
        workers.drain(..2);
        service.apply(&workers, &Shard::default(), at(5));
        assert_eq!(upstream.share(at(5)), 1.0, "beside none that is full");
        workers.push(worker(4, Ready));
        service.apply(&workers, &Shard::default(), at(6));
        assert_eq!((upstream.share(at(10)), service.home.full.get()), (1.0, 2));
    }

    #[test]
    fn ten_thousand_workers_and_a_thousand_changes() {
        let service = service("shop");
        let mut workers: Vec<Worker> = (0..10_000).map(|number| worker(number, Ready)).collect();
        apply(&service, &workers);
        for change in 0..1000u64 {
            workers.remove((change * 7919 % 10_000) as usize);
            workers.push(worker(10_000 + change, Ready));
            apply(&service, &workers);
            assert!(turn(&service).is_some());
        }
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            assert!(seen.insert(turn(&service).unwrap().instance.clone()), "one turn each");
        }
        assert!(workers.iter().all(|worker| seen.contains(&worker.instance)));
    }
}
