//! Sessions that are given from memory: never as they were before what was acknowledged.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Embedded, ManualClock};
use crate::{
    Engines,
    error::Error,
    portable::{Part, Record},
    sessions::{Change, Lifetime, NewSession, Patch, SessionId},
};

const PATCHES: u64 = 300;
const READERS: usize = 3;

fn set(value: u64) -> Patch {
    let change = Change { value: Some(json!(value)), expect: None };
    Patch { changes: [("n".to_owned(), change)].into() }
}

async fn create(engines: &Engines, idle: Duration) -> SessionId {
    let lifetime = Lifetime { idle, ..Lifetime::default() };
    let fields = [("n".to_owned(), json!(0))].into();
    let new = NewSession { user: Some("ada".into()), fields, lifetime, ..NewSession::default() };
    engines.sessions.create(new).await.unwrap().id
}

/// As the server reads it.
async fn read(engines: &Engines, id: &SessionId) -> Result<Bytes, Error> {
    match engines.sessions.recall_json(id) {
        Some(json) => Ok(json),
        None => engines.sessions.load_json(id).await,
    }
}

fn n(json: &Bytes) -> u64 {
    serde_json::from_slice::<Value>(json).unwrap()["fields"]["n"]["value"].as_u64().unwrap()
}

async fn records(engines: &Engines, part: Part) -> Vec<Record> {
    engines.sessions.portable().unwrap().dump(part, None).await.unwrap().records
}

/// What changes a session in any way, and what reads of it say then.
#[tokio::test]
async fn whatever_changes_a_session_takes_it_out_of_memory() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let engines = engine.engines();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Embedded::open_with(elsewhere.path(), Arc::new(clock.clone())).unwrap();
    let hour = Duration::from_secs(3600);
    let ways = [
        "patch",
        "renew",
        "destroy",
        "revoke one",
        "revoke all",
        "use",
        "expiry",
        "sweep",
        "ended elsewhere",
        "moved under another id",
        "close",
    ];
    for way in ways {
        let id = create(&engines, hour).await;
        let before = read(&engines, &id).await.unwrap();
        assert_eq!(engines.sessions.recall_json(&id), Some(before.clone()), "{way}: it is in memory");
        let sessions = &engines.sessions;
        let gone = match way {
            "patch" => {
                sessions.patch(&id, set(1)).await.unwrap();
                assert_eq!(n(&read(&engines, &id).await.unwrap()), 1);
                false
            }
            "use" => {
                clock.advance(hour / 2 + Duration::from_secs(1));
                sessions.load(&id).await.unwrap();
                assert_ne!(read(&engines, &id).await.unwrap(), before);
                false
            }
            "renew" => sessions.renew(&id, Some("ada"), Patch::default()).await.is_ok(),
            "destroy" => sessions.destroy(&id).await.is_ok(),
            "revoke one" => {
                let handle = &sessions.list("ada").await.unwrap()[0].handle;
                sessions.revoke("ada", Some(handle)).await.unwrap() == 1
            }
            "revoke all" => sessions.revoke("ada", None).await.unwrap() > 0,
            "expiry" | "sweep" => {
                clock.advance(hour);
                if way == "sweep" {
                    engine.sweep().await.unwrap();
                }
                true
            }
            "ended elsewhere" => {
                let there = other.engines();
                there
                    .sessions
                    .portable()
                    .unwrap()
                    .restore(records(&engines, Part::Sessions).await)
                    .await
                    .unwrap();
                there.sessions.destroy(&id).await.unwrap();
                let ended = records(&there, Part::Ended).await;
                sessions.portable().unwrap().restore(ended).await.unwrap();
                true
            }
            "moved under another id" => {
                let mut moved = records(&engines, Part::Sessions).await;
                let own = crate::portable::Hash(id.hash());
                moved.retain(|record| matches!(record, Record::Session(session) if session.hash == own));
                let [Record::Session(session)] = &mut moved[..] else { panic!("{moved:?}") };
                session.hash = crate::portable::Hash([3; 32]);
                sessions.portable().unwrap().restore(moved).await.unwrap();
                // The row has gone without a tombstone: this id is not known here any more.
                assert!(matches!(read(&engines, &id).await, Err(Error::NotFound)));
                continue;
            }
            "close" => break,
            other => panic!("{other}"),
        };
        if gone {
            assert!(matches!(read(&engines, &id).await, Err(Error::Gone)), "{way}");
        }
        assert!(gone || engines.sessions.recall_json(&id).is_some(), "{way}: it is in memory again");
    }
    let id = create(&engines, hour).await;
    read(&engines, &id).await.unwrap();
    engine.close().await;
    assert!(matches!(read(&engines, &id).await, Err(Error::Unavailable(_))));
}

/// Also in the moment of a commit: what one has seen, nobody sees undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_beside_patches_never_go_back() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let engines = engine.engines();
    let id = create(&engines, Duration::from_secs(3600)).await;
    let newest = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let readers = (0..READERS).map(|_| {
        let (engines, id, newest) = (engines.clone(), id.clone(), newest.clone());
        tokio::spawn(async move {
            let (mut seen, mut recalled) = (0, 0);
            while seen < PATCHES {
                // Of what anybody has seen before, which is what tells a value that comes back from one that is merely late.
                let known = newest.load(std::sync::atomic::Ordering::SeqCst);
                recalled += u64::from(engines.sessions.recall_json(&id).is_some());
                seen = n(&read(&engines, &id).await.unwrap());
                assert!(seen >= known, "{seen} after {known}");
                newest.fetch_max(seen, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
            recalled
        })
    });
    let readers: Vec<_> = readers.collect();
    for value in 1..=PATCHES {
        engines.sessions.patch(&id, set(value)).await.unwrap();
        newest.fetch_max(value, std::sync::atomic::Ordering::SeqCst);
    }
    let mut recalled = 0;
    for reader in readers {
        recalled += reader.await.unwrap();
    }
    assert!(recalled > 0, "none was given from memory");
}

/// What another process may have changed is not believed.
#[tokio::test]
async fn nothing_is_given_from_memory_beside_another_engine() {
    let directory = tempfile::tempdir().unwrap();
    let old = Embedded::open(directory.path()).unwrap();
    let id = create(&old.engines(), Duration::from_secs(3600)).await;
    read(&old.engines(), &id).await.unwrap();
    let new = Embedded::open_beside(directory.path(), old.claim().share().unwrap()).unwrap();
    for value in 1..5 {
        let (writes, reads) = if value % 2 == 0 { (&old, &new) } else { (&new, &old) };
        writes.engines().sessions.patch(&id, set(value)).await.unwrap();
        assert_eq!(n(&read(&reads.engines(), &id).await.unwrap()), value);
        assert_eq!(n(&read(&writes.engines(), &id).await.unwrap()), value);
    }
    old.close().await;
    new.close().await;
}
