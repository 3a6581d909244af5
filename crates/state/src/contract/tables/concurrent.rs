//! What tables promise when many write at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Fixture, apply, increment, put, revision_of, value, write};
use crate::{
    error::Error,
    tables::{Action, Condition, Outcome, Scan},
};

const TASKS: usize = 12;
const ROUNDS: usize = 20;

/// Tasks that read, add one and write back under compare-and-set lose none of their additions.
pub async fn compare_and_set_loses_nothing(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    apply(tables, put("n", "0")).await;
    let tasks = (0..TASKS).map(|_| {
        let tables = tables.clone();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            while revisions.len() < ROUNDS {
                let row = tables.get("t", "n").await.unwrap().unwrap();
                let next: usize = std::str::from_utf8(&row.value).unwrap().parse::<usize>().unwrap() + 1;
                let action = Action::Put { value: next.to_string().into(), ttl: None };
                match tables.apply(vec![write("n", Condition::Revision(row.revision), action)]).await {
                    Ok(outcomes) => revisions.push(revision_of(outcomes[0])),
                    Err(Error::Conflict { found, .. }) => assert!(found > Some(row.revision)),
                    Err(error) => panic!("{error}"),
                }
            }
            revisions
        })
    });
    let mut revisions = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        let of_task = task.await.unwrap();
        assert!(of_task.is_sorted(), "revisions grow as a task sees them");
        revisions.extend(of_task);
    }
    assert_eq!(revisions.len(), TASKS * ROUNDS, "each write has its own revision");
    assert_eq!(value(tables, "n").await.unwrap(), (TASKS * ROUNDS).to_string());
}

/// Increments need no reading first: all of them count, and each sees another value.
pub async fn concurrent_increments_add_up(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let tasks = (0..TASKS).map(|_| {
        let tables = tables.clone();
        tokio::spawn(async move {
            let mut values = Vec::new();
            for _ in 0..ROUNDS {
                match apply(&tables, increment("n", 1)).await {
                    Outcome::Incremented { value, .. } => values.push(value),
                    other => panic!("{other:?}"),
                }
            }
            values
        })
    });
    let mut values = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        values.extend(task.await.unwrap());
    }
    assert_eq!(values, (1..=(TASKS * ROUNDS) as i64).collect());
}

/// A reader sees all writes of a batch or none: money that moves between accounts is never missing.
pub async fn a_batch_is_one_step_to_readers(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let accounts = ["a", "b", "c"];
    tables.apply(accounts.map(|account| put(account, "100")).to_vec()).await.unwrap();
    let moving = Arc::new(AtomicBool::new(true));
    let reader = tokio::spawn({
        let (tables, moving) = (tables.clone(), moving.clone());
        async move {
            let mut reads = 0;
            while moving.load(Ordering::SeqCst) || reads == 0 {
                let page = tables.scan("t", &Scan::default()).await.unwrap();
                let total: i64 = page
                    .rows
                    .iter()
                    .map(|row| std::str::from_utf8(&row.value).unwrap().parse::<i64>().unwrap())
                    .sum();
                assert_eq!(total, 300, "{:?}", page.rows);
                reads += 1;
            }
        }
    });
    let movers = (0..4).map(|mover| {
        let tables = tables.clone();
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let (from, to) = (accounts[(mover + round) % 3], accounts[(mover + round + 1) % 3]);
                tables.apply(vec![increment(from, -1), increment(to, 1)]).await.unwrap();
            }
        })
    });
    for mover in movers.collect::<Vec<_>>() {
        mover.await.unwrap();
    }
    moving.store(false, Ordering::SeqCst);
    reader.await.unwrap();
}
