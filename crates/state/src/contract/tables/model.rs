//! A table does what a map in memory does: random batches, compared write by write.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use tokio::runtime::Handle;

use super::Fixture;
use crate::{
    error::Error,
    tables::{Action, Condition, Outcome, Scan, Tables, Write},
};

/// Keys to values. Revisions are the engine's own affair; a model of them would be a copy of it.
type Model = BTreeMap<String, Vec<u8>>;

/// Random batches of writes have the same outcomes in the engine as in a map, and leave the same rows. Needs
/// a runtime of several threads.
pub async fn it_agrees_with_a_map(fixture: Fixture) {
    let tables = fixture.engines.tables.clone();
    let handle = Handle::current();
    let run = move || {
        let case = AtomicUsize::new(0);
        let config =
            Config { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
        // The random seed of a failure is in the shrunk batches that are printed with it.
        TestRunner::new(config)
            .run(&prop::collection::vec(prop::collection::vec(write(), 1..6), 1..8), |batches| {
                let table = format!("case-{}", case.fetch_add(1, Ordering::Relaxed));
                handle.block_on(check(&tables, &table, batches))
            })
            .unwrap_or_else(|error| panic!("{error}"));
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

fn write() -> impl Strategy<Value = Write> {
    let key = prop_oneof![Just("a"), Just("b"), Just("a/b")].prop_map(String::from);
    let condition = prop_oneof![
        5 => Just(Condition::Any),
        1 => Just(Condition::Absent),
        1 => Just(Condition::Present),
        1 => Just(Condition::Revision(u64::MAX)),
    ];
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..9),
    ];
    let by = prop_oneof![-3..4_i64, any::<i64>()];
    let action = prop_oneof![
        Just(Action::Check),
        value.prop_map(|value| Action::Put { value: value.into(), ttl: None }),
        Just(Action::Delete),
        by.prop_map(|by| Action::Increment { by, ttl: None }),
        (1..9_u64).prop_map(|token| Action::Fence { token }),
    ];
    (key, condition, action).prop_map(|(key, condition, action)| Write {
        table: String::new(),
        key,
        condition,
        action,
    })
}

async fn check(tables: &Arc<dyn Tables>, table: &str, batches: Vec<Vec<Write>>) -> Result<(), TestCaseError> {
    let mut model = Model::new();
    for mut batch in batches {
        for write in &mut batch {
            table.clone_into(&mut write.table);
        }
        let expected = apply(&mut model, &batch);
        let found = tables.apply(batch.clone()).await;
        let found = found.map(|outcomes| outcomes.into_iter().map(without_revision).collect::<Vec<_>>());
        let found = found.map_err(|error| match error {
            Error::Conflict { index, .. } => format!("conflict at {index}"),
            Error::Fenced { index, newest, .. } => format!("fenced at {index} by {newest}"),
            Error::NotAnInteger { key } => format!("{key} is no integer"),
            other => panic!("{other}"),
        });
        prop_assert_eq!(found, expected, "{:?}", batch);
        let page = tables.scan(table, &Scan::default()).await.unwrap();
        let rows: Model = page.rows.into_iter().map(|row| (row.key, row.value.to_vec())).collect();
        prop_assert_eq!(&rows, &model, "after {:?}", batch);
    }
    Ok(())
}

fn without_revision(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Put { .. } => Outcome::Put { revision: 0 },
        Outcome::Incremented { value, .. } => Outcome::Incremented { value, revision: 0 },
        other => other,
    }
}

/// What a batch is expected to do to the model.
fn apply(model: &mut Model, batch: &[Write]) -> Result<Vec<Outcome>, String> {
    let mut after = model.clone();
    let mut outcomes = Vec::new();
    for (index, write) in batch.iter().enumerate() {
        let key = &write.key;
        let holds = match write.condition {
            Condition::Any => true,
            Condition::Absent => !after.contains_key(key),
            Condition::Present => after.contains_key(key),
            Condition::Revision(_) => false,
        };
        if !holds {
            return Err(format!("conflict at {index}"));
        }
        outcomes.push(match &write.action {
            Action::Check => Outcome::Checked,
            Action::Put { value, .. } => {
                after.insert(key.clone(), value.to_vec());
                Outcome::Put { revision: 0 }
            }
            Action::Delete => Outcome::Deleted { existed: after.remove(key).is_some() },
            Action::Fence { token } => {
                match integer(after.get(key)).and_then(|newest| u64::try_from(newest).ok()) {
                    None => return Err(format!("{key} is no integer")),
                    Some(newest) if *token < newest => return Err(format!("fenced at {index} by {newest}")),
                    Some(_) => after.insert(key.clone(), token.to_string().into_bytes()),
                };
                Outcome::Fenced
            }
            Action::Increment { by, .. } => {
                let old = integer(after.get(key));
                let Some(value) = old.and_then(|old| old.checked_add(*by)) else {
                    return Err(format!("{key} is no integer"));
                };
                after.insert(key.clone(), value.to_string().into_bytes());
                Outcome::Incremented { value, revision: 0 }
            }
        });
    }
    *model = after;
    Ok(outcomes)
}

/// The integer that a row holds; an absent one counts as 0.
fn integer(value: Option<&Vec<u8>>) -> Option<i64> {
    let Some(value) = value else { return Some(0) };
    std::str::from_utf8(value).ok()?.parse().ok()
}
