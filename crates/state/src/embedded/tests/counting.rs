//! What limits promise on this engine alone: over restarts, beside another engine, under a clock that is set back, and
//! what is left of them in the file.

use std::{path::Path, sync::Arc, time::Duration};

use super::{Embedded, ManualClock, put};
use crate::{
    embedded::{DATABASE, LIMITS, sweeper::Swept},
    limits::{Quota, Take},
};

const HOUR: Duration = Duration::from_secs(3600);
const QUOTA: Quota = Quota::per(100, Duration::from_secs(100 * 24 * 3600));

fn rows(directory: &Path) -> i64 {
    let connection = rusqlite::Connection::open(directory.join(LIMITS)).unwrap();
    connection.query_row("SELECT count(*) FROM limits", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn what_is_counted_survives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    engine.engines().limits.take("l", "k", QUOTA, 30).await.unwrap();
    // What a process that is killed leaves behind: files, but nothing that it would do at its end.
    let copy = tempfile::tempdir().unwrap();
    for file in [DATABASE, LIMITS, "limits.db-wal"] {
        std::fs::copy(directory.path().join(file), copy.path().join(file)).unwrap();
    }
    let after = Embedded::open(copy.path()).unwrap();
    assert_eq!(after.engines().limits.take("l", "k", QUOTA, 0).await.unwrap().remaining, 70);
    after.close().await;
    engine.close().await;
}

/// While one `lethe` takes over from another, the two count together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_on_one_folder_allow_one_burst() {
    let directory = tempfile::tempdir().unwrap();
    let old = Embedded::open(directory.path()).unwrap();
    let new = Embedded::open_beside(directory.path(), old.claim().share().unwrap()).unwrap();
    let callers = [&old, &new, &old, &new].map(|engine| {
        let limits = engine.engines().limits;
        tokio::spawn(async move {
            let mut allowed = 0;
            for _ in 0..40 {
                allowed += u32::from(limits.take("l", "k", QUOTA, 1).await.unwrap().allowed);
            }
            allowed
        })
    });
    let mut allowed = 0;
    for caller in callers {
        allowed += caller.await.unwrap();
    }
    assert_eq!(allowed, QUOTA.burst);
    old.close().await;
    new.close().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_costs_nobody_more_than_a_burst() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let (limits, quota) = (engine.engines().limits, Quota::per(5, Duration::from_secs(60)));
    limits.take("l", "k", quota, 5).await.unwrap();
    clock.set_back(1000 * HOUR);
    // Also when it keeps asking: the time runs from the first time that it asks.
    let mut waited = Duration::ZERO;
    loop {
        let verdict = limits.take("l", "k", quota, 5).await.unwrap();
        if verdict.allowed {
            break;
        }
        assert!(waited + verdict.retry_after <= Duration::from_secs(60), "{waited:?}: {verdict:?}");
        let step = verdict.retry_after.min(Duration::from_secs(7));
        clock.advance(step);
        waited += step;
    }
    assert_eq!(waited, Duration::from_secs(60));
    engine.close().await;
}

#[tokio::test]
async fn keys_at_rest_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let limits = engine.engines().limits;
    let quota = Quota::per(2, Duration::from_secs(2));
    for key in 0..600 {
        limits.take("l", &key.to_string(), quota, 1).await.unwrap();
    }
    limits.take("l", "busy", quota, 2).await.unwrap();
    assert_eq!(engine.sweep().await.unwrap(), Swept::default());
    clock.advance(Duration::from_secs(1));
    assert_eq!(engine.sweep().await.unwrap(), Swept { limits: 600, ..Swept::default() });
    assert_eq!(rows(directory.path()), 1);
    assert_eq!(limits.take("l", "busy", quota, 0).await.unwrap().remaining, 1);
    engine.close().await;
}

/// Whoever is refused all the time, or only asks, costs the file nothing.
#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let limits = engine.engines().limits;
    limits.take("l", "k", QUOTA, 100).await.unwrap();
    let log = || std::fs::metadata(directory.path().join("limits.db-wal")).unwrap().len();
    let before = log();
    for _ in 0..100 {
        assert!(!limits.take("l", "k", QUOTA, 1).await.unwrap().allowed);
        limits.take("l", "other", QUOTA, 0).await.unwrap();
        let takes =
            ["k", "other"].map(|key| Take { limit: "l".into(), key: key.into(), quota: QUOTA, cost: 1 });
        assert!(!limits.take_all(takes.into()).await.unwrap()[0].allowed);
    }
    assert_eq!(log(), before);
    limits.take("l", "other", QUOTA, 1).await.unwrap();
    assert!(log() > before);
    engine.close().await;
}

/// A write that waits for the disk, or for anything else, holds up no call of a limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_do_not_wait_for_writes() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let engines = engine.engines();
    // As another engine would while it commits.
    let other = rusqlite::Connection::open(directory.path().join(DATABASE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tables = engines.tables.clone();
    let writing = tokio::spawn(async move { tables.apply(vec![put("k", "v")]).await });
    for left in (0..100).rev() {
        assert_eq!(engines.limits.take("l", "k", QUOTA, 1).await.unwrap().remaining, left);
    }
    assert!(!writing.is_finished());
    other.execute_batch("ROLLBACK").unwrap();
    writing.await.unwrap().unwrap();
    engine.close().await;
}

/// The state does not depend on what limits have counted.
#[tokio::test]
async fn without_its_database_all_keys_are_at_rest() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    engine.engines().tables.apply(vec![put("k", "v")]).await.unwrap();
    engine.engines().limits.take("l", "k", QUOTA, 30).await.unwrap();
    engine.close().await;
    std::fs::remove_file(directory.path().join(LIMITS)).unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    assert!(engine.engines().tables.get("t", "k").await.unwrap().is_some());
    assert_eq!(engine.engines().limits.take("l", "k", QUOTA, 0).await.unwrap().remaining, 100);
    engine.close().await;
}
