//! Which worker gets a request: round robin, or the less loaded of two. A worker is only chosen by entering its
//! gate, so a worker that is leaving is never sent anything.

use std::{cell::Cell, rc::Rc, time::Instant};

use lethe_model::gate::Pass;

use crate::{
    config::Balance,
    service::{Service, Upstream},
};

/// Random numbers that are good enough to spread load and to name requests; not for secrets (xorshift64*).
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    /// Seeded by the system; a fixed seed if that has no randomness to give.
    pub(crate) fn new() -> Self {
        let seed = getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15);
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

    fn below(&self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// What was found.
pub(crate) enum Choice {
    /// A worker, entered.
    Worker(Rc<Upstream>, Pass),
    /// Nobody for now; at the given time a worker that is passed over may be asked again.
    Nobody(Option<Instant>),
}

/// Chooses a ready worker that is not in `tried`. When all were tried, all may be tried again.
pub(crate) fn choose(
    service: &Service,
    balance: Balance,
    tried: &mut Vec<Rc<Upstream>>,
    dice: &Dice,
) -> Choice {
    let ready = service.ready();
    let found = look(service, &ready, balance, tried, dice).or_else(|| {
        if tried.is_empty() {
            return None;
        }
        tried.clear();
        look(service, &ready, balance, tried, dice)
    });
    match found {
        Some((upstream, pass)) => Choice::Worker(upstream, pass),
        None => {
            let now = Instant::now();
            Choice::Nobody(ready.iter().filter_map(|upstream| upstream.suspect_until(now)).min())
        }
    }
}

fn look(
    service: &Service,
    ready: &[Rc<Upstream>],
    balance: Balance,
    tried: &[Rc<Upstream>],
    dice: &Dice,
) -> Option<(Rc<Upstream>, Pass)> {
    let count = ready.len();
    if count == 0 {
        return None;
    }
    let first = match balance {
        Balance::RoundRobin => service.cursor.get() % count,
        Balance::LeastLoaded => lighter_of_two(ready, dice),
        Balance::Random => dice.below(count),
    };
    // From the first choice on, in order, to whoever may be asked and lets the request in.
    (0..count).map(|step| (first + step) % count).find_map(|index| {
        let upstream = &ready[index];
        if upstream.is_suspect() || tried.iter().any(|tried| Rc::ptr_eq(tried, upstream)) {
            return None;
        }
        let pass = upstream.gate.enter()?;
        service.cursor.set(index + 1);
        Some((Rc::clone(upstream), pass))
    })
}

/// The less loaded of two random workers, by requests in flight × latency (the power of two choices).
fn lighter_of_two(ready: &[Rc<Upstream>], dice: &Dice) -> usize {
    let count = ready.len();
    if count < 2 {
        return 0;
    }
    let one = dice.below(count);
    let two = (one + 1 + dice.below(count - 1)) % count;
    let load = |index: usize| {
        let upstream = &ready[index];
        (upstream.gate.in_flight() + 1, upstream.latency_us())
    };
    if is_lighter(load(two), load(one)) { two } else { one }
}

/// Whether load `a` is less than load `b`, each given as requests and latency. A worker that was never measured is
/// taken to be as fast as the other, so that a new one is neither flooded nor starved.
fn is_lighter(a: (u64, Option<f64>), b: (u64, Option<f64>)) -> bool {
    match (a.1, b.1) {
        (Some(fast), Some(slow)) => a.0 as f64 * fast < b.0 as f64 * slow,
        _ => a.0 < b.0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lethe_model::{roster::WorkerState::Ready, service::InstanceId};

    use super::*;
    use crate::service::tests::{service, worker};

    fn pick(
        service: &Service,
        balance: Balance,
        tried: &mut Vec<Rc<Upstream>>,
    ) -> Option<(Rc<Upstream>, Pass)> {
        match choose(service, balance, tried, &Dice::new()) {
            Choice::Worker(upstream, pass) => Some((upstream, pass)),
            Choice::Nobody(_) => None,
        }
    }

    #[test]
    fn round_robin_is_even_to_within_one() {
        let service = service("shop");
        service.apply(&[worker(1, Ready), worker(2, Ready), worker(3, Ready)]);
        let mut counts: BTreeMap<InstanceId, usize> = BTreeMap::new();
        for _ in 0..100 {
            let (upstream, _pass) = pick(&service, Balance::RoundRobin, &mut Vec::new()).unwrap();
            *counts.entry(upstream.instance.clone()).or_default() += 1;
        }
        assert!(counts.values().all(|&count| count == 33 || count == 34), "{counts:?}");
    }

    #[test]
    fn closed_gates_and_tried_workers_are_passed_over() {
        let service = service("shop");
        let workers = [worker(1, Ready), worker(2, Ready), worker(3, Ready)];
        service.apply(&workers);
        workers[0].gate.close();
        let mut tried = vec![service.ready()[1].clone()];
        for _ in 0..5 {
            let (upstream, _) = pick(&service, Balance::RoundRobin, &mut tried).unwrap();
            assert_eq!(upstream.instance, workers[2].instance);
        }
        // All that are left were tried: they may be tried again.
        workers[2].gate.close();
        let (upstream, _) = pick(&service, Balance::RoundRobin, &mut tried).unwrap();
        assert_eq!(upstream.instance, workers[1].instance);
        workers[1].gate.close();
        assert!(pick(&service, Balance::RoundRobin, &mut tried).is_none());
    }

    #[test]
    fn a_suspect_is_passed_over_until_its_time() {
        let service = service("shop");
        service.apply(&[worker(1, Ready)]);
        service.ready()[0].suspect(Instant::now());
        match choose(&service, Balance::RoundRobin, &mut Vec::new(), &Dice::new()) {
            Choice::Nobody(Some(until)) => assert!(until > Instant::now() - crate::service::SUSPECT_FOR),
            _ => panic!("the suspect was chosen"),
        }
    }

    #[test]
    fn the_idle_one_of_two_is_preferred() {
        let service = service("shop");
        let (busy, idle) = (worker(1, Ready), worker(2, Ready));
        let _inside: Vec<Pass> = (0..3).map(|_| busy.gate.enter().unwrap()).collect();
        service.apply(&[busy, idle.clone()]);
        for _ in 0..50 {
            let (upstream, _pass) = pick(&service, Balance::LeastLoaded, &mut Vec::new()).unwrap();
            assert_eq!(upstream.instance, idle.instance);
        }
    }

    #[test]
    fn loads_compare() {
        for (a, b, expected) in [
            ((1, Some(10.0)), (1, Some(20.0)), true),
            ((3, Some(10.0)), (1, Some(20.0)), false),
            ((1, None), (2, Some(1.0)), true),
            ((2, None), (1, Some(900.0)), false),
            ((1, None), (1, None), false),
        ] {
            assert_eq!(is_lighter(a, b), expected, "{a:?} {b:?}");
        }
    }
}
