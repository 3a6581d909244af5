//! The pool of connections, seen from outside: what it keeps, whom it lets wait, what it does with connections that are
//! old, lost or left in the middle of something.

use std::time::Duration;

use lethe_state::{Engines, error::Error, tables::Row};
use sqlx::PgConnection;
use tokio::task::JoinHandle;

use crate::{bounded, connection, count, engine, eventually, execute, number, put, unavailable};

/// Keeps the engine's statements on tables waiting until the connection says `COMMIT`.
async fn block(schema: &str) -> PgConnection {
    let mut connection = connection().await;
    execute(&mut connection, format!("BEGIN; LOCK TABLE {schema}.rows IN ACCESS EXCLUSIVE MODE")).await;
    connection
}

/// A call that waits for the blocker.
fn get(engines: &Engines) -> JoinHandle<Result<Option<Row>, Error>> {
    let tables = engines.tables.clone();
    tokio::spawn(async move { tables.get("t", "k").await })
}

/// The minimum is there before anyone asks, and calls one after the other need no more.
#[tokio::test]
async fn the_minimum_is_kept_and_used_again() {
    let (engine, _) = engine("&min=3&max=5").await;
    eventually(async || engine.figures().idle == 3).await;
    for _ in 0..20 {
        count(&engine.engines(), "n").await.unwrap();
    }
    let figures = engine.figures();
    assert_eq!((figures.size, figures.created_total, figures.in_use), (3, 3, 0), "{figures:?}");
    assert!(figures.acquired_total >= 20, "{figures:?}");
}

/// Who finds all connections in use waits, and is told why when none comes back in time.
#[tokio::test]
async fn who_waits_too_long_is_told_why() {
    let (engine, schema) = engine("&min=0&max=1&acquire_timeout=300ms").await;
    let mut blocker = block(&schema).await;
    let first = get(&engine.engines());
    eventually(async || engine.figures().in_use == 1).await;
    let second = get(&engine.engines());
    eventually(async || engine.figures().waiting == 1).await;
    let why = unavailable(bounded(second).await.unwrap());
    assert!(why.contains("all 1 are in use") && why.contains("max="), "{why}");
    assert_eq!((engine.figures().timeouts_total, engine.figures().waiting), (1, 0));
    execute(&mut blocker, "COMMIT").await;
    assert_eq!(bounded(first).await.unwrap().unwrap(), None);
    assert_eq!(count(&engine.engines(), "n").await.unwrap(), 1, "nothing is wrong with the server");
}

/// A connection that was lost while it rested is found out before it is used: the write on it is done, and done once.
#[tokio::test]
async fn a_connection_that_was_cut_is_not_used() {
    let (engine, schema) = engine("&min=2&max=2&validate_after=0ms").await;
    eventually(async || engine.figures().idle == 2).await;
    let mut connection = connection().await;
    for round in 1..=3 {
        execute(
            &mut connection,
            format!(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                 WHERE application_name = 'lethe' AND query LIKE '%{schema}.%' AND pid <> pg_backend_pid()"
            ),
        )
        .await;
        assert_eq!(count(&engine.engines(), "n").await.unwrap(), round);
    }
    assert!(engine.figures().lost_total > 0);
}

/// Connections end when they have lived long enough, and those that nobody uses when there are more than the minimum.
#[tokio::test]
async fn old_and_unused_connections_are_closed() {
    let (old, _) = engine("&min=0&max=1&max_lifetime=1ms").await;
    for n in 1..=3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(count(&old.engines(), "n").await.unwrap(), n);
    }
    assert!(old.figures().created_total >= 3, "{:?}", old.figures());

    let (unused, schema) = engine("&min=1&max=8&idle_timeout=1ms").await;
    let mut blocker = block(&schema).await;
    let calls: Vec<_> = (0..8).map(|_| get(&unused.engines())).collect();
    eventually(async || unused.figures().in_use == 8).await;
    execute(&mut blocker, "COMMIT").await;
    for call in calls {
        bounded(call).await.unwrap().unwrap();
    }
    eventually(async || unused.figures().size == 1).await;
}

/// A call that is dropped half-way takes its connection with it, and the place in the pool is free again.
#[tokio::test]
async fn a_dropped_call_leaves_no_connection_in_the_middle() {
    let (engine, schema) = engine("&min=0&max=1").await;
    let tables = engine.engines().tables;
    for batch in [vec![put("k", "v")], vec![put("k", "v"), put("l", "v")]] {
        let mut blocker = block(&schema).await;
        let call = tokio::spawn({
            let tables = tables.clone();
            async move { tables.apply(batch).await }
        });
        eventually(async || engine.figures().in_use == 1).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        execute(&mut blocker, "COMMIT").await;
        assert_eq!(engine.figures().in_use, 0);
        bounded(tables.get("t", "k")).await.unwrap();
    }
}

/// Closing waits for the calls that are under way, and refuses those that come later.
#[tokio::test]
async fn closing_waits_for_calls_that_are_under_way() {
    let (engine, schema) = engine("&min=2").await;
    let mut blocker = block(&schema).await;
    let call = get(&engine.engines());
    eventually(async || engine.figures().in_use == 1).await;
    let closing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.close(Duration::from_secs(60)).await }
    });
    execute(&mut blocker, "COMMIT").await;
    assert_eq!(bounded(call).await.unwrap().unwrap(), None);
    bounded(closing).await.unwrap();
    let why = unavailable(engine.engines().tables.get("t", "k").await);
    assert!(why.contains("closing"), "{why}");
    assert_eq!(engine.figures().size, 0);
    let left = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{schema}.%' AND pid <> pg_backend_pid()"
    );
    eventually(async || number(&mut blocker, left.clone()).await == 0).await;
}

/// What is too much for the server's patience is taken back by it, and the connection is as good as before.
#[tokio::test]
async fn a_statement_that_takes_too_long_is_cancelled() {
    let (engine, schema) = engine("&min=0&max=1&statement_timeout=300ms").await;
    let mut blocker = block(&schema).await;
    let why = unavailable(bounded(count(&engine.engines(), "n")).await);
    assert!(why.contains("statement timeout"), "{why}");
    execute(&mut blocker, "COMMIT").await;
    assert_eq!(count(&engine.engines(), "n").await.unwrap(), 1, "it was not done");
    assert_eq!(engine.figures().created_total, 1);
}
