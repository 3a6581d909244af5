//! What near copies promise of an engine that tells its changes: two workers with copies of it see each other's changes as soon as they
//! are told, and never what was before again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;

use super::Fixture;
use crate::{
    clock::{Clock, ManualClock},
    error::Error,
    near::{Bounds, NearSessions, NearTables},
    sessions::{Change, NewSession, Patch, SessionId, Sessions},
    tables::{Action, Condition, Tables, Write},
};

/// Makes a test of each case of [`crate::contract::near`].
#[macro_export]
macro_rules! contract_near {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            near,
            [
                reads_are_answered_from_memory_until_another_worker_changes_something,
                what_was_seen_on_a_worker_is_never_unseen,
            ]
        );
    };
}

/// Longest wait for what must come.
const NEVER: Duration = Duration::from_secs(60);
/// Changes that are watched one by one.
const CHANGES: u64 = 100;

struct Worker {
    sessions: Arc<NearSessions>,
    tables: NearTables,
}

impl Worker {
    /// A worker whose clock stands still at a time that the engine has shown.
    async fn of(fixture: &Fixture) -> Self {
        let engines = &fixture.engines;
        let now = engines.sessions.create(NewSession::default()).await.unwrap().created_at;
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now));
        let sessions =
            NearSessions::with_clock(Arc::clone(&engines.sessions), Bounds::default(), Arc::clone(&clock));
        let tables = [("t".to_owned(), Bounds::default())];
        let tables = NearTables::with_clock(Arc::clone(&engines.tables), tables, &clock);
        let followed = async { tokio::try_join!(sessions.followed(), tables.followed()) };
        tokio::time::timeout(NEVER, followed).await.expect("it is followed").unwrap();
        Self { sessions: Arc::new(sessions), tables }
    }

    async fn n(&self, id: &SessionId) -> u64 {
        n(&self.sessions, id).await
    }

    async fn row(&self) -> Option<Bytes> {
        self.tables.get("t", "k").await.unwrap().map(|row| row.value)
    }
}

async fn n(sessions: &NearSessions, id: &SessionId) -> u64 {
    sessions.load(id).await.unwrap().fields["n"].value.as_u64().unwrap()
}

fn set(value: u64) -> Patch {
    Patch { changes: [("n".to_owned(), Change { value: Some(json!(value)), expect: None })].into() }
}

async fn session(sessions: &NearSessions) -> SessionId {
    let fields = [("n".to_owned(), json!(0))].into();
    sessions
        .create(NewSession { fields, user: Some("ada".into()), ..NewSession::default() })
        .await
        .unwrap()
        .id
}

/// Waits until something holds, asking again and again; fails when it does not come to that.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(NEVER, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Copies answer until another worker changes, renews or ends what they are of, and what this worker does is seen by it at once.
pub async fn reads_are_answered_from_memory_until_another_worker_changes_something(fixture: Fixture) {
    let (here, there) = (Worker::of(&fixture).await, Worker::of(&fixture).await);
    let id = session(&here.sessions).await;
    let reads = async || {
        for _ in 0..50 {
            assert_eq!((here.n(&id).await, here.row().await), (0, None));
        }
    };
    reads().await;
    // A feed may have failed meanwhile, or have told what began before it.
    until("nothing is read from the engine", async || {
        let misses = || here.sessions.counts().misses + here.tables.counts()["t"].misses;
        let before = misses();
        reads().await;
        misses() == before
    })
    .await;

    there.sessions.patch(&id, set(1)).await.unwrap();
    let action = Action::Put { value: Bytes::from_static(b"1"), ttl: None };
    let put = Write { table: "t".into(), key: "k".into(), condition: Condition::Any, action };
    there.tables.apply(vec![put]).await.unwrap();
    assert_eq!((there.n(&id).await, there.row().await.as_deref()), (1, Some(&b"1"[..])), "its own");
    assert_eq!(here.sessions.load_through(&id).await.unwrap().fields["n"].value, json!(1));
    until("the row is told", async || here.row().await.as_deref() == Some(b"1")).await;
    until("the session is told", async || here.n(&id).await == 1).await;

    for end in ["destroyed", "renewed", "revoked"] {
        let id = session(&here.sessions).await;
        assert_eq!((here.n(&id).await, there.n(&id).await), (0, 0));
        match end {
            "destroyed" => there.sessions.destroy(&id).await.unwrap(),
            "renewed" => drop(there.sessions.renew(&id, Some("ada"), Patch::default()).await.unwrap()),
            _ => assert!(there.sessions.revoke("ada", None).await.unwrap() > 0),
        }
        assert!(matches!(there.sessions.load(&id).await, Err(Error::Gone)), "{end} here");
        until(end, async || matches!(here.sessions.load(&id).await, Err(Error::Gone))).await;
    }
}

/// A writer counts up on one worker, each time until the other one knows. Once any read there has seen a change, none that begins later
/// sees what was before, however many readings and notices cross on their way.
pub async fn what_was_seen_on_a_worker_is_never_unseen(fixture: Fixture) {
    let (here, there) = (Worker::of(&fixture).await, Worker::of(&fixture).await);
    let id = session(&there.sessions).await;
    let seen = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (here, id, seen) = (Arc::clone(&here.sessions), id.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut last = 0;
                while last < CHANGES {
                    let least = seen.load(Ordering::SeqCst).max(last);
                    last = n(&here, &id).await;
                    assert!(last >= least, "{last} was read, and {least} had been before");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for value in 1..=CHANGES {
        there.sessions.patch(&id, set(value)).await.unwrap();
        until("it is told", async || here.n(&id).await == value).await;
        seen.store(value, Ordering::SeqCst);
    }
    for reader in readers {
        tokio::time::timeout(NEVER, reader).await.expect("it ends").unwrap();
    }
    let counts = here.sessions.counts();
    assert!(counts.hits > 0 && counts.changes > 0, "{counts:?}");
}
