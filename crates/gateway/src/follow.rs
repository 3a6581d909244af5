//! How one core's view of a service follows the roster: by what differs from what it has followed already, so that it
//! pays for what has changed and not for what there is, and in slices, so that requests have their turn however much has
//! changed. Those who go are taken out before those who come are taken in.

use std::{rc::Rc, sync::Arc, time::Instant};

use lethe_model::{
    gate::Gate,
    roster::WorkerState,
    workers::{Change, Workers},
};

use crate::{
    link::Link,
    service::{Home, Service},
    shard::Shard,
    slices::Slices,
    upstream::Upstream,
};

/// By what a worker is known: it is its own for as long as anybody has the gate.
pub(crate) fn key(gate: &Arc<Gate>) -> usize {
    Arc::as_ptr(gate) as usize
}

impl Service {
    /// Whether it has come up to these workers.
    pub(crate) fn has_followed(&self, workers: &Workers) -> bool {
        self.followed.borrow().is_same(workers)
    }

    /// Comes up to these workers, at `now`: keeps what is known about those that stay, and closes the idle connections of
    /// those that may not get requests any more.
    ///
    /// One call at a time, and not cancellation safe: workers that were taken in by one that was broken off would stay.
    pub(crate) async fn follow(&self, workers: &Workers, shard: &Shard, slices: &mut Slices, now: Instant) {
        let Home { core, joint, full, slow_start, ejection, .. } = &*self.home;
        let before = self.followed.borrow().clone();
        let began_empty = self.rotation.borrow().len() == 0;
        for change in before.changes_to(workers) {
            for link in self.take_out(change, shard) {
                drop(link);
                slices.step().await;
            }
            slices.step().await;
        }
        // All that are new at the same time are new together.
        let warms_up = !slow_start.get().is_zero() && full.get() > 0;
        let mut is_news = false;
        for change in before.changes_to(workers) {
            is_news |= self.take_in(change, shard, warms_up.then_some(now));
            slices.step().await;
        }
        if began_empty {
            self.rotation.borrow_mut().skip(*core);
        }
        self.followed.replace(workers.clone());
        is_news |= joint.set_ready(self.rotation.borrow().len(), ejection.get().out_percent_max, now);
        // It is news too that the last one has left while requests waited for their turn.
        if is_news || self.start_wait().is_some() {
            joint.line.news(Some(*core));
        }
    }

    /// Takes a worker out that may not get requests any more, or is gone. Returns its idle connections, to be closed.
    #[allow(clippy::vec_box, reason = "links are large, and go from hand to hand boxed")]
    fn take_out(&self, Change { before, after }: Change<'_>, shard: &Shard) -> Vec<Box<Link>> {
        let Some(before) = before else { return Vec::new() };
        let key = key(&before.gate);
        let after = after.filter(|after| Arc::ptr_eq(&after.gate, &before.gate));
        let upstream = {
            let mut known = self.known.borrow_mut();
            if after.is_some() { known.get(&key).cloned() } else { known.remove(&key) }
        };
        let Some(upstream) = upstream else { return Vec::new() };
        if after.is_none() {
            shard.forget_worker(&upstream.instance, &upstream.stats);
            self.home.joint.unlist(&upstream.standing);
        }
        let is_ready = after.is_some_and(|after| after.state == WorkerState::Ready);
        if is_ready || !upstream.is_ready() {
            return Vec::new();
        }
        self.rotation.borrow_mut().remove(key);
        let full = &self.home.full;
        full.set(full.get() - usize::from(upstream.warmth.is_full()));
        upstream.retire()
    }

    /// Takes a worker in that is new, may get requests from now on, or has another weight. It warms up if there is a time
    /// from which on. Returns whether there is one more that may get requests.
    fn take_in(&self, Change { after, .. }: Change<'_>, shard: &Shard, warms_up: Option<Instant>) -> bool {
        let Some(worker) = after else { return false };
        let key = key(&worker.gate);
        let join = || {
            let upstream = Upstream::new(worker, &self.home);
            shard.count_worker(upstream.instance.clone(), Arc::clone(&upstream.stats));
            upstream
        };
        let upstream = Rc::clone(self.known.borrow_mut().entry(key).or_insert_with(join));
        let is_reweighed = upstream.weight.replace(worker.weight) != worker.weight;
        let is_new = worker.state == WorkerState::Ready && !upstream.is_ready();
        if is_new {
            match warms_up {
                Some(since) => upstream.warmth.begin(since),
                None => {
                    upstream.warmth.complete();
                    self.home.full.set(self.home.full.get() + 1);
                }
            }
            upstream.set_ready();
        }
        if is_new || (is_reweighed && upstream.is_ready()) {
            self.rotation.borrow_mut().insert(key, worker.weight, upstream);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, future::poll_fn, pin::pin, time::Duration};

    use lethe_model::{
        roster::{Worker, WorkerState::*},
        service::InstanceId,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config,
        service::tests::{apply, apply_at, service, turn, with, worker},
    };

    fn of(service: &Service, worker: &Worker) -> Rc<Upstream> {
        Rc::clone(&service.known.borrow()[&key(&worker.gate)])
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
        assert_eq!((service.known.borrow().len(), service.followed.borrow().len()), (1, 1));
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
            let known = service.known.borrow().clone();
            apply(&service, &roster);
            let mut got: Vec<char> = turns(&service, numbers.len()).chars().collect();
            got.sort();
            let mut expected: Vec<char> = numbers.chars().collect();
            expected.sort();
            assert_eq!(got, expected);
            for (gate, upstream) in service.known.borrow().iter() {
                let same = known.get(gate).is_none_or(|known| Rc::ptr_eq(known, upstream));
                assert!(same, "{} is the same as before, in {numbers}", upstream.instance);
            }
            assert_eq!(service.known.borrow().len(), numbers.len());
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
        assert!(of(&service, &workers[0]).is_ready());
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
        apply_at(&service, &workers, begin);
        assert_eq!(service.home.full.get(), 2, "all are new");
        workers.push(worker(3, Ready));
        apply_at(&service, &workers, begin);
        let upstream = of(&service, &workers[2]);
        let at = |s| begin + Duration::from_secs(s);
        assert_eq!((upstream.share(at(5)), service.home.full.get()), (0.5, 2));
        workers.drain(..2);
        apply_at(&service, &workers, at(5));
        assert_eq!(upstream.share(at(5)), 1.0, "beside none that is full");
        workers.push(worker(4, Ready));
        apply_at(&service, &workers, at(6));
        assert_eq!((upstream.share(at(10)), service.home.full.get()), (1.0, 2));
        // Who comes where there was none has the whole at once, and who joins that one does not.
        apply_at(&service, &[], at(20));
        let mut workers = vec![worker(5, Ready)];
        apply_at(&service, &workers, at(21));
        workers.push(worker(6, Ready));
        apply_at(&service, &workers, at(22));
        let shares = [0, 1].map(|index| of(&service, &workers[index]).share(at(27)));
        assert_eq!(shares, [1.0, 0.5]);
    }

    fn bring(service: &Service, workers: &Workers) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (shard, mut slices) = (Shard::default(), Slices::begin());
        runtime.block_on(service.follow(workers, &shard, &mut slices, Instant::now()));
    }

    #[test]
    fn ten_thousand_workers_and_a_thousand_changes() {
        let service = service("shop");
        let mut workers: Workers = (0..10_000).map(|number| worker(number, Ready)).collect();
        bring(&service, &workers);
        for change in 0..1000u64 {
            let gone = workers[(change * 7919 % 10_000) as usize].instance.clone();
            workers.remove(&gone);
            workers.insert(worker(10_000 + change, Ready));
            bring(&service, &workers);
            assert!(turn(&service).is_some());
        }
        let mut seen = BTreeSet::new();
        for _ in 0..10_000 {
            assert!(seen.insert(turn(&service).unwrap().instance.clone()), "one turn each");
        }
        assert!(workers.iter().all(|worker| seen.contains(&worker.instance)));
    }

    /// What a service has come to: of each worker the name, whether it may get requests, and its weight.
    fn state(service: &Service) -> Vec<(InstanceId, bool, u32)> {
        let known = service.known.borrow();
        let of =
            |upstream: &Rc<Upstream>| (upstream.instance.clone(), upstream.is_ready(), upstream.weight.get());
        let mut state: Vec<_> = known.values().map(of).collect();
        state.sort();
        state
    }

    fn check(service: &Service, workers: &Workers) {
        let of = |worker: &Worker| (worker.instance.clone(), worker.state == Ready, worker.weight);
        let mut wanted: Vec<_> = workers.iter().map(of).collect();
        wanted.sort();
        assert_eq!(state(service), wanted);
        let ready = workers.iter().filter(|worker| worker.state == Ready).count();
        let rotation = service.rotation.borrow();
        assert_eq!(
            (rotation.len(), service.home.joint.ready(), service.home.full.get()),
            (ready, ready, ready)
        );
        let in_turn: BTreeSet<_> = (0..ready).map(|index| &rotation.get(index).unwrap().instance).collect();
        assert_eq!(in_turn.len(), ready, "each has one place");
        assert!(workers.iter().all(|worker| in_turn.contains(&worker.instance) == (worker.state == Ready)));
        assert!(workers.iter().all(|worker| service.known.borrow().contains_key(&key(&worker.gate))));
    }

    /// Does one of the things that happen to workers.
    fn happen(workers: &mut Workers, what: u8, number: u64) {
        let instance = worker(number, Starting).instance;
        let state = [Starting, Ready, Draining][usize::from(what) % 3];
        match what {
            0..3 => workers.insert(Worker { weight: u32::from(what) + 1, ..worker(number, state) }),
            3..5 => _ = workers.remove(&instance),
            5..11 => _ = workers.update(&instance, |worker| worker.state = state),
            11..13 => _ = workers.update(&instance, |worker| worker.weight = u32::from(what) - 9),
            _ => *workers = workers.iter().cloned().collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Two cores: one sees each roster, the other one only some.
        #[test]
        fn who_falls_behind_comes_to_the_same(
            history in proptest::collection::vec((0..14_u8, 0..100_u64, any::<bool>()), 1..200),
        ) {
            let (steady, late) = (service("shop"), service("shop"));
            let mut workers = Workers::default();
            for (what, number, is_seen) in history {
                happen(&mut workers, what, number);
                bring(&steady, &workers);
                check(&steady, &workers);
                if is_seen {
                    bring(&late, &workers);
                    check(&late, &workers);
                }
            }
            bring(&late, &workers);
            prop_assert_eq!(state(&late), state(&steady));
        }
    }

    #[test]
    fn requests_have_their_turn_in_between() {
        let service = service("shop");
        let workers: Workers = (0..5_000).map(|number| worker(number, Ready)).collect();
        let (shard, mut slices) = (Shard::default(), Slices::begin());
        let mut following = pin!(service.follow(&workers, &shard, &mut slices, Instant::now()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut turns = 0;
        runtime.block_on(poll_fn(|cx| {
            let poll = following.as_mut().poll(cx);
            // Those who are there already get requests.
            turns += usize::from(poll.is_pending() && turn(&service).is_some());
            poll
        }));
        assert!(turns > 1, "so many take more than one slice");
        check(&service, &workers);
    }
}
