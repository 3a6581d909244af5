//! The engine's life: opening, sweeping, closing, and what its files hold.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{Embedded, ManualClock, blob_files, body, doubts, put};
use crate::{
    blobs::{Condition as BlobCondition, FENCE_KEPT, Put},
    embedded::{DATABASE, sweeper::Swept},
    error::Error,
    idempotency::{Answer, Beginning, Begun, Fingerprint},
    sessions::{Lifetime, NewSession, Patch},
    tables::{Action, BATCH_WRITES_MAX, Outcome, Write},
};

const MINUTE: Duration = Duration::from_secs(60);

fn count(directory: &Path, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(directory.join(DATABASE)).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Whoever reads the files, or a copy of them, finds the hash of an id, and nothing of the id.
#[tokio::test]
async fn the_secret_id_is_never_written() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let sessions = engine.engines().sessions;
    let first =
        sessions.create(NewSession { user: Some("ada".into()), ..NewSession::default() }).await.unwrap();
    sessions.load(&first.id).await.unwrap();
    let second = sessions.renew(&first.id, Some("ada"), Patch::default()).await.unwrap().session;
    let third = sessions.renew(&second.id, Some("ada"), Patch::default()).await.unwrap().session;
    sessions.destroy(&third.id).await.unwrap();
    let fourth =
        sessions.create(NewSession { user: Some("ada".into()), ..NewSession::default() }).await.unwrap();
    let written: Vec<u8> = super::files(directory.path())
        .iter()
        .filter(|file| file.is_file())
        .flat_map(|file| fs::read(file).unwrap())
        .collect();
    let has = |part: &[u8]| written.windows(part.len()).any(|window| window == part);
    assert!(
        has(b"ada") && has(&Sha256::digest(fourth.id.as_bytes())),
        "the files are not where they were looked for"
    );
    for session in [&first, &second, &third, &fourth] {
        assert!(!has(session.id.to_text().as_bytes()) && !has(session.id.as_bytes()));
    }
}

#[tokio::test]
async fn only_the_owner_reads_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("deeper/state");
    let engine = Embedded::open(&state).unwrap();
    engine.engines().blobs.put("b", "k", body("x"), Put::default()).await.unwrap();
    engine.engines().tables.apply(vec![put("k", "v")]).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for file in [DATABASE, "state.db-wal", "state.db-shm"] {
        assert_eq!(mode(&state.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&blob_files(&state)[0]), 0o600);
    engine.close().await;
}

#[tokio::test]
async fn state_and_revisions_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    let mut session = None;
    for run in 0..4 {
        let engine = Embedded::open(directory.path()).unwrap();
        let engines = engine.engines();
        if let Some(id) = &session {
            assert_eq!(engines.sessions.load(id).await.unwrap().user.as_deref(), Some("alice"));
            let stored = engines.tables.get("t", "k").await.unwrap().unwrap();
            assert_eq!((stored.value, stored.revision), ((run - 1).to_string().into(), last));
        } else {
            let new = NewSession { user: Some("alice".into()), ..NewSession::default() };
            session = Some(engines.sessions.create(new).await.unwrap().id);
        }
        // More than are taken from the database at a time.
        for _ in 0..10 {
            let others = (1..BATCH_WRITES_MAX).map(|n| put(format!("other {n}"), "v"));
            let batch = others.chain([put("k", run.to_string())]).collect();
            for outcome in engines.tables.apply(batch).await.unwrap() {
                let Outcome::Put { revision } = outcome else { panic!("{outcome:?}") };
                assert!(revision > last, "{revision} after {last}");
                last = revision;
            }
        }
        engine.close().await;
    }
}

#[tokio::test]
async fn closing_does_what_was_asked_before_and_refuses_what_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let engines = engine.engines();
    let puts = (0..200).map(|n| {
        let tables = engines.tables.clone();
        tokio::spawn(async move { tables.apply(vec![put(n.to_string(), "v")]).await.map(|_| n) })
    });
    let puts: Vec<_> = puts.collect();
    tokio::task::yield_now().await;
    engine.close().await;
    let mut done = Vec::new();
    for put in puts {
        match put.await.unwrap() {
            Ok(n) => done.push(n),
            Err(Error::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!done.is_empty(), "what was queued before the end is done");
    let late = engines.tables.apply(vec![put("late", "v")]).await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    let late = engines.tables.get("t", "0").await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    let late = engines.blobs.put("b", "k", body("x"), Put::default()).await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    assert_eq!(blob_files(directory.path()).len(), 0, "the refused blob left no file");

    let engine = Embedded::open(directory.path()).unwrap();
    for n in done {
        assert!(engine.engines().tables.get("t", &n.to_string()).await.unwrap().is_some(), "{n}");
    }
    engine.close().await;
}

#[tokio::test]
async fn what_has_expired_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let engines = engine.engines();
    let day = 24 * 60 * MINUTE;
    for n in 0..600 {
        let action = Action::Put { value: "v".into(), ttl: Some(MINUTE) };
        engines.tables.apply(vec![Write { action, ..put(n.to_string(), "") }]).await.unwrap();
    }
    engines.tables.apply(vec![put("kept", "v")]).await.unwrap();
    let lifetime = Lifetime { idle: MINUTE, absolute: day };
    let fields = [("f".to_owned(), 1.into())];
    let new = NewSession { fields: fields.into(), lifetime, ..NewSession::default() };
    let idle = engines.sessions.create(new.clone()).await.unwrap();
    let renewed = engines.sessions.create(new.clone()).await.unwrap();
    engines.sessions.renew(&renewed.id, Some("alice"), Patch::default()).await.unwrap();
    let long = Lifetime { idle: 100 * day, absolute: 100 * day };
    let kept = engines.sessions.create(NewSession { lifetime: long, ..new }).await.unwrap();
    assert_eq!(engine.sweep().await.unwrap(), Swept::default(), "nothing has expired yet");

    clock.advance(MINUTE);
    let swept = engine.sweep().await.unwrap();
    assert_eq!(swept, Swept { rows: 600, sessions: 2, ..Swept::default() });
    assert_eq!((count(directory.path(), "rows"), count(directory.path(), "sessions")), (1, 1));
    assert_eq!(count(directory.path(), "session_fields"), 1, "the fields go with their sessions");
    for id in [&idle.id, &renewed.id] {
        assert!(
            matches!(engines.sessions.load(id).await, Err(Error::Gone)),
            "a swept id is gone, not unknown"
        );
    }
    clock.advance(day);
    assert_eq!(engine.sweep().await.unwrap(), Swept::default(), "tombstones outlive their session by a day");
    clock.advance(day);
    assert_eq!(engine.sweep().await.unwrap().tombstones, 3);
    assert!(matches!(engines.sessions.load(&idle.id).await, Err(Error::NotFound)));
    assert_eq!(engines.sessions.load(&kept.id).await.unwrap(), kept);
    engine.close().await;
}

#[tokio::test]
async fn files_of_overwritten_and_deleted_blobs_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let blobs = engine.engines().blobs;
    for n in 0..5 {
        for key in ["kept", "deleted"] {
            blobs.put("b", key, body(format!("{key} {n}")), Put::default()).await.unwrap();
        }
        let refused = Put { condition: BlobCondition::Absent, ..Put::default() };
        assert!(blobs.put("b", "kept", body("refused"), refused).await.is_err());
    }
    blobs.delete("b", "deleted", BlobCondition::Any, None).await.unwrap();
    engine.close().await;
    let files = blob_files(directory.path());
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(fs::read_to_string(&files[0]).unwrap(), "kept 4");
    assert_eq!(doubts(directory.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_secret_of_a_session_is_in_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let sessions = engine.engines().sessions;
    let fields = [("marker".to_owned(), "needle-in-a-file".into())];
    let new = NewSession { user: Some("alice".into()), fields: fields.into(), ..NewSession::default() };
    let first = sessions.create(new).await.unwrap().id;
    let second = sessions.renew(&first, Some("alice"), Patch::default()).await.unwrap().session.id;
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let contains = |needle: &[u8]| {
        files
            .iter()
            .filter(|file| file.is_file())
            .any(|file| fs::read(file).unwrap().windows(needle.len()).any(|window| window == needle))
    };
    assert!(contains(b"needle-in-a-file"), "the search finds what is stored");
    for id in [&first, &second] {
        assert!(!contains(id.as_bytes()) && !contains(id.to_text().as_bytes()));
    }
    engine.close().await;
}

#[tokio::test]
async fn ended_leases_are_swept_and_their_tokens_never_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let mut last = 0;
    for run in 0..3 {
        let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
        let locks = engine.engines().locks;
        for n in 0..300 {
            let lease = locks.acquire(&format!("l{n}"), "worker", MINUTE).await.unwrap().expect("it is free");
            assert!(lease.token > last, "{} after {last} in run {run}", lease.token);
            last = lease.token;
        }
        let held = locks.acquire("held", "worker", 2 * MINUTE).await.unwrap().expect("it is free");
        last = held.token;
        clock.advance(MINUTE);
        assert_eq!(engine.sweep().await.unwrap(), Swept { locks: 300, ..Swept::default() });
        engine.close().await;

        // A lease outlives the engine that gave it.
        let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
        assert_eq!(engine.engines().locks.list(None, 0).await.unwrap().leases, [held]);
        clock.advance(MINUTE);
        assert_eq!(engine.sweep().await.unwrap().locks, 1);
        engine.close().await;
    }
}

#[tokio::test]
async fn fences_of_deleted_blobs_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let blobs = engine.engines().blobs;
    let fenced = Put { fence: Some(7), ..Put::default() };
    for key in ["kept", "deleted"] {
        blobs.put("b", key, body("x"), fenced.clone()).await.unwrap();
    }
    blobs.put("b", "free", body("x"), Put::default()).await.unwrap();
    blobs.delete("b", "deleted", BlobCondition::Any, None).await.unwrap();
    assert_eq!(count(directory.path(), "blob_fences"), 2);
    assert_eq!(engine.sweep().await.unwrap(), Swept::default());
    clock.advance(FENCE_KEPT);
    assert_eq!(engine.sweep().await.unwrap(), Swept { fences: 1, ..Swept::default() });
    assert_eq!(count(directory.path(), "blob_fences"), 1);
    engine.close().await;
}

#[tokio::test]
async fn old_idempotency_keys_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let keys = engine.engines().idempotency;
    for n in 0..300 {
        let beginning = Beginning {
            scope: "orders".into(),
            key: n.to_string(),
            fingerprint: Fingerprint([7; 32]),
            owner: "web-1".into(),
            displaces: Vec::new(),
            at_most_once: false,
            lease: MINUTE,
            kept: if n == 0 { 2 * MINUTE } else { MINUTE },
        };
        let Begun::Claimed(claim) = keys.begin(beginning).await.unwrap() else { panic!("{n} is claimed") };
        if n % 2 == 0 {
            let answer = Answer { status: 200, fields: Vec::new(), body: "done".into() };
            assert!(keys.finish(&claim, answer).await.unwrap());
        }
    }
    assert_eq!(engine.sweep().await.unwrap(), Swept::default());
    clock.advance(MINUTE);
    assert_eq!(engine.sweep().await.unwrap(), Swept { keys: 149, ..Swept::default() });
    clock.advance(MINUTE);
    assert_eq!(engine.sweep().await.unwrap(), Swept { keys: 151, ..Swept::default() });
    assert_eq!(count(directory.path(), "idempotency"), 0);
    engine.close().await;
}
