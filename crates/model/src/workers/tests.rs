//! The list beside a plain map to which the same is done, over many random histories.

use std::{collections::BTreeMap, net::SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::{
    gate::Gate,
    roster::{Protocol, WorkerState},
    service::ServiceName,
};

fn instance(number: u64) -> InstanceId {
    InstanceId::new(&ServiceName::new("shop").unwrap(), number)
}

fn worker(number: u64) -> Worker {
    Worker {
        instance: instance(number),
        address: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        protocol: Protocol::Http1,
        state: WorkerState::Starting,
        gate: Gate::new(),
        weight: Worker::WEIGHT,
    }
}

fn numbers(workers: &Workers) -> Vec<u64> {
    workers.iter().map(|worker| worker.instance.number().unwrap()).collect()
}

/// What a change says, as `-1` for one that left, `+2` for one that joined, `=3` for one that is otherwise now.
fn told(before: &Workers, after: &Workers) -> Vec<String> {
    let tell = |change: Change<'_>| match (change.before, change.after) {
        (Some(old), None) => format!("-{}", old.instance.number().unwrap()),
        (None, Some(new)) => format!("+{}", new.instance.number().unwrap()),
        (Some(old), Some(new)) => {
            assert_eq!(old.instance, new.instance);
            format!("={}", new.instance.number().unwrap())
        }
        (None, None) => panic!("nothing"),
    };
    before.changes_to(after).map(tell).collect()
}

#[test]
fn the_oldest_come_first() {
    let mut workers: Workers = [7, 10, 2, 9].map(worker).into_iter().collect();
    assert_eq!(numbers(&workers), [2, 7, 9, 10], "by number, not by letters");
    assert_eq!(workers[3].instance, instance(10));
    assert!(workers.remove(&instance(7)) && !workers.remove(&instance(7)));
    assert!(!workers.update(&instance(7), |_| panic!("it is gone")));
    assert_eq!((numbers(&workers), workers.len()), (vec![2, 9, 10], 3));
    assert!(workers.get(&instance(9)).is_some() && workers.get(&instance(7)).is_none());
}

#[test]
fn changes_are_told() {
    let before: Workers = (0..1000).map(worker).collect();
    let mut after = before.clone();
    assert!(before.is_same(&after) && told(&before, &after).is_empty());
    after.remove(&instance(3));
    after.update(&instance(500), |worker| worker.state = WorkerState::Ready);
    after.insert(worker(1000));
    assert_eq!(told(&before, &after), ["-3", "=500", "+1000"]);
    assert_eq!(told(&after, &before), ["+3", "=500", "-1000"]);
    after.update(&instance(500), |worker| worker.state = WorkerState::Starting);
    after.remove(&instance(1000));
    assert_eq!(told(&before, &after), ["-3"], "what was taken back is no change");
    // Another one of that name.
    after.insert(worker(4));
    assert_eq!(told(&before, &after), ["-3", "=4"]);
    assert_eq!(told(&Workers::default(), &before).len(), 1000);
}

/// The pieces that are looked into for what differs, and those that a change makes anew.
fn pieces_apart(before: &Workers, after: &Workers) -> usize {
    let shared = |piece: &&Piece| before.pieces.iter().any(|known| Arc::ptr_eq(known, piece));
    after.pieces.len() - after.pieces.iter().filter(shared).count()
}

#[test]
fn a_change_copies_one_piece() {
    let before: Workers = (0..10_000).map(worker).collect();
    assert_eq!(before.pieces.len(), 10_000_usize.div_ceil(PIECE_MAX));
    for number in [0, 63, 64, 5000, 9999] {
        let mut after = before.clone();
        after.update(&instance(number), |worker| worker.state = WorkerState::Ready);
        assert_eq!(pieces_apart(&before, &after), 1);
        after.remove(&instance(number));
        assert_eq!(pieces_apart(&before, &after), 1);
        after.insert(worker(10_000));
        assert!(pieces_apart(&before, &after) <= 2);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Remove(u64),
    State(u64, WorkerState),
    Weight(u64, u32),
    /// All of these leave.
    Leave(u64, u64),
    /// All of these come.
    Come(u64, u64),
    /// The list is built anew, and so has nothing in common with what was.
    Rebuild,
    /// Somebody looks.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    const NUMBERS: u64 = 400;
    let state =
        prop_oneof![Just(WorkerState::Starting), Just(WorkerState::Ready), Just(WorkerState::Draining)];
    let stretch = || (0..NUMBERS, 0..200_u64);
    prop_oneof![
        6 => (0..NUMBERS).prop_map(Step::Insert),
        6 => (0..NUMBERS).prop_map(Step::Remove),
        4 => (0..NUMBERS, state).prop_map(|(number, state)| Step::State(number, state)),
        2 => (0..NUMBERS, 0..3_u32).prop_map(|(number, weight)| Step::Weight(number, weight)),
        1 => stretch().prop_map(|(from, count)| Step::Leave(from, count)),
        1 => stretch().prop_map(|(from, count)| Step::Come(from, count)),
        1 => Just(Step::Rebuild),
        6 => Just(Step::Look),
    ]
}

fn take(step: &Step, workers: &mut Workers, plain: &mut BTreeMap<u64, Worker>) {
    let insert = |number: u64, workers: &mut Workers, plain: &mut BTreeMap<u64, Worker>| {
        let new = worker(number);
        workers.insert(new.clone());
        plain.insert(number, new);
    };
    let change =
        |number: u64, workers: &mut Workers, plain: &mut BTreeMap<u64, Worker>, to: &dyn Fn(&mut Worker)| {
            assert_eq!(workers.update(&instance(number), to), plain.get_mut(&number).map(to).is_some());
        };
    match *step {
        Step::Insert(number) => insert(number, workers, plain),
        Step::Remove(number) => {
            assert_eq!(workers.remove(&instance(number)), plain.remove(&number).is_some());
        }
        Step::State(number, state) => change(number, workers, plain, &|worker| worker.state = state),
        Step::Weight(number, weight) => change(number, workers, plain, &|worker| worker.weight = weight),
        Step::Leave(from, count) => {
            for number in from..from + count {
                workers.remove(&instance(number));
                plain.remove(&number);
            }
        }
        Step::Come(from, count) => (from..from + count).for_each(|number| insert(number, workers, plain)),
        Step::Rebuild => *workers = workers.iter().cloned().collect(),
        Step::Look => {}
    }
}

fn check_shape(workers: &Workers) {
    assert!(workers.pieces.iter().all(|piece| (1..=PIECE_MAX).contains(&piece.len())));
    assert_eq!(workers.pieces.iter().map(|piece| piece.len()).sum::<usize>(), workers.len());
    let few = |pair: &[Piece]| pair[0].len() + pair[1].len() <= JOINED_MAX;
    let sizes = || workers.pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>();
    assert!(!workers.pieces.windows(2).any(few), "{:?}", sizes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// One who looks now and then, and so has missed any number of changes, comes by what he is told to what is.
    #[test]
    fn who_follows_by_changes_has_the_whole(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut workers, mut plain) = (Workers::default(), BTreeMap::new());
        let (mut seen, mut followed) = (workers.clone(), BTreeMap::<u64, Worker>::new());
        for step in steps.iter().chain([&Step::Look]) {
            take(step, &mut workers, &mut plain);
            check_shape(&workers);
            if !matches!(step, Step::Look) {
                continue;
            }
            for Change { before, after } in seen.changes_to(&workers) {
                if let Some(before) = before {
                    let known = followed.remove(&before.instance.number().unwrap()).unwrap();
                    prop_assert!(known.is_as(before), "told of what was never there");
                }
                if let Some(after) = after {
                    prop_assert!(before.is_none_or(|before| !before.is_as(after)), "told of nothing");
                    followed.insert(after.instance.number().unwrap(), after.clone());
                }
            }
            seen = workers.clone();
            prop_assert_eq!(numbers(&seen), plain.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(followed.len(), plain.len());
            prop_assert!(followed.values().zip(plain.values()).all(|(one, other)| one.is_as(other)));
            prop_assert!(seen.iter().zip(plain.values()).all(|(one, other)| one.is_as(other)));
        }
    }
}
