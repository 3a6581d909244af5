//! Which worker gets a request: in turn, the less loaded of two, or any. A worker is only chosen by entering its
//! gate, so a worker that is leaving is never sent anything, and one that has all the requests it may have gets no more.

use std::{cell::Cell, rc::Rc};

use lethe_model::gate::Refusal;

use crate::{
    config::{Balance, Class},
    moment::Moment,
    queue::Pass,
    service::Service,
    upstream::Upstream,
};

/// How often the dice are thrown for a worker that may be asked, before all are asked in turn.
const DRAWS_MAX: usize = 6;

/// Random numbers that are good enough to spread load and to name requests; not for secrets (xorshift64*).
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    /// Seeded by the system; a fixed seed if that has no randomness to give.
    pub(crate) fn new() -> Self {
        Self::seeded(getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Cell::new(seed | 1))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Any number below `bound`, or 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether something happens that is this likely.
    fn hits(&self, likelihood: f64) -> bool {
        likelihood >= 1.0 || (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= likelihood
    }
}

/// So many workers in turn are asked at most before a request waits instead. Where there are more, some of them end a
/// request in any moment, and who waits gets that place.
pub(crate) const OFFERS_MAX: usize = 128;

/// Chooses a ready worker that is not in `tried` and enters it for a request of `class`. When all others are out of the
/// question, other than for being busy, one that was tried may be tried again; and when every worker is passed over for its
/// failures or its health, so may they be, but never one that is dead or leaving.
pub(crate) fn choose(
    service: &Service,
    balance: Balance,
    class: Class,
    tried: &mut Vec<Rc<Upstream>>,
    dice: &Dice,
    now: &Moment,
) -> Option<(Rc<Upstream>, Pass)> {
    let limit = service.limit(class);
    let was_full = Cell::new(false);
    let mut look = Look { service, limit, tried: &tried[..], dice, now, panics: false, was_full: &was_full };
    if let Some(found) = look.find(balance) {
        return Some(found);
    }
    // As long as one is merely busy, the request waits for it.
    if !was_full.get() && !look.tried.is_empty() {
        look.tried = &[];
        if let Some(found) = look.find(balance) {
            tried.clear();
            return Some(found);
        }
    }
    if was_full.get() {
        return None;
    }
    look.panics = true;
    look.find(balance)
}

/// One look at the workers.
struct Look<'a> {
    service: &'a Service,
    limit: Option<u32>,
    tried: &'a [Rc<Upstream>],
    dice: &'a Dice,
    now: &'a Moment,
    /// Those that are passed over for their failures or their health are asked too.
    panics: bool,
    /// A worker had all the requests it may have.
    was_full: &'a Cell<bool>,
}

impl Look<'_> {
    fn find(&self, balance: Balance) -> Option<(Rc<Upstream>, Pass)> {
        let chosen = match balance {
            Balance::RoundRobin => None,
            Balance::LeastLoaded => self.lighter_of_two(),
            Balance::Random => self.any(),
        };
        if chosen.is_some() {
            return chosen;
        }
        let mut was_cold = false;
        let mut rotation = self.service.rotation.borrow_mut();
        let in_turn = rotation.next(OFFERS_MAX, |upstream| {
            let is_warm = upstream.takes_turn(self.now);
            was_cold |= !is_warm;
            if is_warm { self.enter(upstream) } else { None }
        });
        // Better a cold worker than none.
        let mut any = || rotation.next(OFFERS_MAX, |upstream| self.enter(upstream));
        in_turn.or_else(|| if was_cold { any() } else { None })
    }

    /// Enters a worker, if it may be asked.
    fn enter(&self, upstream: &Rc<Upstream>) -> Option<(Rc<Upstream>, Pass)> {
        if !self.may_ask(upstream) {
            return None;
        }
        match upstream.gate.admit(self.limit) {
            Ok(()) => Some((Rc::clone(upstream), Pass::of(upstream))),
            Err(refusal) => {
                self.was_full.set(self.was_full.get() || refusal == Refusal::Full);
                None
            }
        }
    }

    fn may_ask(&self, upstream: &Rc<Upstream>) -> bool {
        !upstream.is_suspect(self.now)
            && (self.panics || !upstream.is_out(self.now))
            && !self.tried.iter().any(|tried| Rc::ptr_eq(tried, upstream))
    }

    /// The less loaded of two random workers, by requests in flight × latency (the power of two choices).
    fn lighter_of_two(&self) -> Option<(Rc<Upstream>, Pass)> {
        let rotation = self.service.rotation.borrow();
        let count = rotation.len() as u64;
        if count < 2 {
            return None;
        }
        for _ in 0..DRAWS_MAX / 2 {
            let one = self.dice.below(count);
            let two = (one + 1 + self.dice.below(count - 1)) % count;
            let [one, two] = [one, two]
                .map(|index| rotation.get(index as usize).filter(|upstream| self.may_ask(upstream)));
            let (first, second) = match (one, two) {
                (Some(one), Some(two)) => {
                    let now = self.now.get();
                    let swap = is_lighter(two.load(now), one.load(now));
                    if swap { (Some(two), Some(one)) } else { (Some(one), Some(two)) }
                }
                (one, two) => (one.or(two), None),
            };
            let found = first.and_then(|upstream| self.enter(upstream));
            if let Some(found) = found.or_else(|| second.and_then(|upstream| self.enter(upstream))) {
                return Some(found);
            }
        }
        None
    }

    /// Any worker, by weight and, while it warms up, by its share.
    fn any(&self) -> Option<(Rc<Upstream>, Pass)> {
        let rotation = self.service.rotation.borrow();
        (0..DRAWS_MAX).find_map(|_| {
            let upstream = rotation.any_by_weight(|bound| self.dice.below(bound))?;
            let is_cold = !upstream.warmth.is_full() && !self.dice.hits(upstream.share(self.now.get()));
            if is_cold { None } else { self.enter(upstream) }
        })
    }
}

/// Whether load `a` is less than load `b`, each given as requests and latency. A worker that was never measured is
/// taken to be as fast as the other, so that a new one is neither flooded nor starved.
fn is_lighter(a: (f64, Option<f64>), b: (f64, Option<f64>)) -> bool {
    match (a.1, b.1) {
        (Some(fast), Some(slow)) => a.0 * fast < b.0 * slow,
        _ => a.0 < b.0,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        time::{Duration, Instant},
    };

    use lethe_model::roster::{Worker, WorkerState::Ready};

    use super::*;
    use crate::{
        config::{self, Concurrency, Ejection},
        service::tests::{apply, apply_at, service, turn, with, worker},
    };

    const BALANCES: [Balance; 3] = [Balance::RoundRobin, Balance::LeastLoaded, Balance::Random];
    const SEED: u64 = 7;

    fn pick(
        service: &Service,
        balance: Balance,
        tried: &mut Vec<Rc<Upstream>>,
        now: Instant,
    ) -> Option<(Rc<Upstream>, Pass)> {
        thread_local!(static DICE: Dice = Dice::seeded(SEED));
        DICE.with(|dice| choose(service, balance, Class::Timely, tried, dice, &Moment::at(now)))
    }

    /// How often each worker is chosen, by its number.
    fn counts(service: &Service, balance: Balance, picks: usize, now: Instant) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..picks {
            let (upstream, _pass) = pick(service, balance, &mut Vec::new(), now).unwrap();
            *counts.entry(upstream.instance.as_str().to_owned()).or_default() += 1;
        }
        counts
    }

    fn workers(weights: &[u32]) -> Vec<Worker> {
        let weigh = |(number, &weight)| Worker { weight, ..worker(number as u64 + 1, Ready) };
        weights.iter().enumerate().map(weigh).collect()
    }

    #[test]
    fn round_robin_is_even_to_within_one() {
        let service = service("shop");
        apply(&service, &workers(&[1, 1, 1]));
        let counts = counts(&service, Balance::RoundRobin, 100, Instant::now());
        assert!(counts.values().all(|&count| count == 33 || count == 34), "{counts:?}");
    }

    #[test]
    fn weights_count_whatever_the_balance() {
        for balance in BALANCES {
            let service = service("shop");
            let workers = workers(&[1, 3]);
            apply(&service, &workers);
            let now = Instant::now();
            // The less loaded of two is chosen by load: so there must be some.
            let mut inside = Vec::new();
            for _ in 0..4000 {
                inside.push(pick(&service, balance, &mut Vec::new(), now).unwrap());
            }
            let heavy = workers[1].gate.in_flight();
            assert!((2850..=3150).contains(&heavy), "{balance:?}: {heavy} of 4000, seed {SEED}");
        }
    }

    #[test]
    fn a_cold_worker_gets_its_share_whatever_the_balance() {
        let config = config::Service { slow_start: Duration::from_secs(10), ..config::Service::default() };
        for balance in BALANCES {
            let service = with("shop", &config);
            let begin = Instant::now();
            let mut workers = workers(&[1]);
            apply_at(&service, &workers, begin);
            workers.push(worker(2, Ready));
            apply_at(&service, &workers, begin);
            let now = begin + Duration::from_secs(5);
            let mut inside = Vec::new();
            for _ in 0..3000 {
                inside.push(pick(&service, balance, &mut Vec::new(), now).unwrap());
            }
            let cold = workers[1].gate.in_flight();
            assert!((850..=1150).contains(&cold), "{balance:?}: {cold} of 3000, seed {SEED}");
        }
    }

    #[test]
    fn closed_gates_and_tried_workers_are_passed_over() {
        for balance in BALANCES {
            let service = service("shop");
            let workers = workers(&[1, 1, 1]);
            apply(&service, &workers);
            workers[0].gate.close();
            let _ = turn(&service);
            let mut tried = vec![turn(&service).unwrap()];
            let now = Instant::now();
            for _ in 0..5 {
                let (upstream, _pass) = pick(&service, balance, &mut tried, now).unwrap();
                assert_eq!(upstream.instance, workers[2].instance);
            }
            // All that are left were tried: they may be tried again.
            workers[2].gate.close();
            let (upstream, _pass) = pick(&service, balance, &mut tried, now).unwrap();
            assert_eq!(upstream.instance, workers[1].instance);
            workers[1].gate.close();
            assert!(pick(&service, balance, &mut tried, now).is_none());
        }
    }

    #[test]
    fn a_suspect_is_passed_over_until_its_time() {
        let service = service("shop");
        apply(&service, &workers(&[1]));
        let now = Instant::now();
        turn(&service).unwrap().suspect(now);
        assert!(pick(&service, Balance::RoundRobin, &mut Vec::new(), now).is_none());
        let until = service.soonest(now).unwrap();
        assert!(pick(&service, Balance::RoundRobin, &mut Vec::new(), until).is_some());
    }

    #[test]
    fn those_who_fail_are_passed_over_and_asked_when_there_is_nobody_else() {
        for balance in BALANCES {
            let ejection = Ejection { failures: 2, out_percent_max: 50, ..Ejection::default() };
            let service = with("shop", &config::Service { ejection, ..config::Service::default() });
            let workers = workers(&[1, 1]);
            apply(&service, &workers);
            let (now, bad) = (Instant::now(), turn(&service).unwrap());
            bad.failed(now);
            bad.failed(now);
            let counted = counts(&service, balance, 20, now);
            assert_eq!(counted.keys().collect::<Vec<_>>(), ["shop-2"], "{balance:?}");
            // The other one dies, and the roster does not yet say so.
            workers[1].gate.close();
            let (upstream, _pass) = pick(&service, balance, &mut Vec::new(), now).unwrap();
            assert_eq!(upstream.instance, workers[0].instance, "better one that fails than none");
            workers[0].gate.close();
            assert!(pick(&service, balance, &mut Vec::new(), now).is_none(), "the dead stay dead");
        }
    }

    #[test]
    fn full_workers_are_waited_for() {
        for balance in BALANCES {
            let ejection = Ejection { failures: 1, ..Ejection::default() };
            let concurrency = Concurrency::Limited(2);
            let service =
                with("shop", &config::Service { concurrency, ejection, ..config::Service::default() });
            apply(&service, &workers(&[1, 1, 1]));
            let now = Instant::now();
            turn(&service).unwrap().failed(now);
            let mut inside: Vec<_> =
                (0..4).map(|_| pick(&service, balance, &mut Vec::new(), now).unwrap()).collect();
            assert!(pick(&service, balance, &mut Vec::new(), now).is_none(), "nor one that fails");
            let (left, pass) = inside.pop().unwrap();
            drop(pass);
            let (found, _pass) = pick(&service, balance, &mut Vec::new(), now).unwrap();
            assert!(Rc::ptr_eq(&found, &left));
        }
    }

    #[test]
    fn the_busy_are_waited_for_rather_than_those_that_were_tried() {
        for balance in BALANCES {
            let concurrency = Concurrency::Limited(1);
            let service = with("shop", &config::Service { concurrency, ..config::Service::default() });
            let workers = workers(&[1, 1]);
            apply(&service, &workers);
            let now = Instant::now();
            let mut tried = vec![turn(&service).unwrap()];
            let (busy, pass) = pick(&service, balance, &mut tried, now).unwrap();
            assert!(pick(&service, balance, &mut tried, now).is_none(), "{balance:?}");
            // A slot of that one is for others, and one of the busy one is for this request.
            assert!(service.take_over(&tried[0].gate, &tried, now).is_none());
            drop(pass);
            busy.gate.admit(None).unwrap();
            assert!(service.take_over(&busy.gate, &tried, now).is_some());
            busy.gate.close();
            let (again, _pass) = pick(&service, balance, &mut tried, now).unwrap();
            assert!(!Rc::ptr_eq(&again, &busy) && tried.is_empty(), "{balance:?}: nobody else is left");
        }
    }

    #[test]
    fn not_all_of_many_are_asked_at_a_time() {
        const LOOKS: usize = 5;
        let concurrency = Concurrency::Limited(1);
        let service = with("shop", &config::Service { concurrency, ..config::Service::default() });
        let workers = workers(&[1; OFFERS_MAX * LOOKS]);
        apply(&service, &workers);
        let now = Instant::now();
        // Free is whose turn is the last one.
        let (last, others) = workers.split_last().unwrap();
        others.iter().for_each(|worker| worker.gate.admit(None).unwrap());
        let pick = || pick(&service, Balance::RoundRobin, &mut Vec::new(), now);
        assert!((1..LOOKS).all(|_| pick().is_none()));
        assert_eq!(pick().unwrap().0.instance, last.instance);
    }

    #[test]
    fn the_idle_one_of_two_is_preferred() {
        let service = service("shop");
        let workers = workers(&[1, 1]);
        (0..3).for_each(|_| workers[0].gate.admit(None).unwrap());
        apply(&service, &workers);
        let counts = counts(&service, Balance::LeastLoaded, 50, Instant::now());
        assert_eq!(counts["shop-2"], 50, "{counts:?}");
    }

    #[test]
    fn loads_compare() {
        for (a, b, expected) in [
            ((1.0, Some(10.0)), (1.0, Some(20.0)), true),
            ((3.0, Some(10.0)), (1.0, Some(20.0)), false),
            ((1.0, None), (2.0, Some(1.0)), true),
            ((2.0, None), (1.0, Some(900.0)), false),
            ((1.0, None), (1.0, None), false),
        ] {
            assert_eq!(is_lighter(a, b), expected, "{a:?} {b:?}");
        }
    }
}
