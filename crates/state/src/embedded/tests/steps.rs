//! A clock that steps, back as a time server does and forward again: what lives stays alive, what was decided stays decided, and
//! numbers that only grow go on growing.

use std::time::Duration;

use super::{Embedded, ManualClock, put};
use crate::{
    Engines,
    error::Error,
    idempotency::{Answer, Beginning, Begun, Fingerprint},
    sessions::{Lifetime, NewSession, Patch},
    tables::{Action, Write},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// An engine, and the clock that it goes by.
struct Lab {
    engines: Engines,
    clock: ManualClock,
    embedded: Embedded,
    _directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(1_700_000_000_000);
        let embedded = Embedded::open_with(directory.path(), std::sync::Arc::new(clock.clone())).unwrap();
        Self { engines: embedded.engines(), clock, embedded, _directory: directory }
    }
}

#[tokio::test]
async fn sessions_end_by_the_clock_and_not_before() {
    let lab = Lab::new();
    let sessions = &lab.engines.sessions;
    let lifetime = Lifetime { idle: 10 * MINUTE, absolute: HOUR };
    let new = || NewSession { user: Some("ada".into()), lifetime, ..NewSession::default() };
    let session = sessions.create(new()).await.unwrap();
    lab.clock.set_back(HOUR);
    for _ in 0..2 {
        let used = sessions.patch(&session.id, Patch::default()).await.unwrap();
        assert_eq!(used.idle_expires_at, session.idle_expires_at, "use never shortens it");
        assert_eq!(used.absolute_expires_at, session.absolute_expires_at);
    }
    let renewed = sessions.renew(&session.id, Some("ada"), Patch::default()).await.unwrap().session;
    assert_eq!(renewed.absolute_expires_at, session.absolute_expires_at);
    assert!(matches!(sessions.load(&session.id).await, Err(Error::Gone)));
    lab.clock.advance(HOUR + 10 * MINUTE);
    assert!(matches!(sessions.load(&renewed.id).await, Err(Error::Gone)));
    // Once it was found out, an end is one, whatever the clock says later.
    lab.embedded.sweep().await.unwrap();
    lab.clock.set_back(2 * HOUR);
    assert!(matches!(sessions.load(&renewed.id).await, Err(Error::Gone)));
    assert!(matches!(sessions.patch(&renewed.id, Patch::default()).await, Err(Error::Gone)));
    assert_eq!(sessions.list("ada").await.unwrap(), []);
    let other = sessions.create(new()).await.unwrap();
    sessions.destroy(&other.id).await.unwrap();
    lab.clock.set_back(2 * HOUR);
    assert!(matches!(sessions.load(&other.id).await, Err(Error::Gone)));
}

#[tokio::test]
async fn revisions_of_rows_grow_whatever_the_clock_says() {
    let lab = Lab::new();
    let tables = &lab.engines.tables;
    let short = |value: &str| {
        let action = Action::Put { value: value.to_owned().into(), ttl: Some(MINUTE) };
        Write { action, ..put("k", "") }
    };
    let mut last = 0;
    for (n, step_back) in [Duration::ZERO, HOUR, 1000 * HOUR].into_iter().enumerate() {
        lab.clock.set_back(step_back);
        tables.apply(vec![short(&n.to_string())]).await.unwrap();
        let row = tables.get("t", "k").await.unwrap().unwrap();
        assert!(row.value == n.to_string() && row.revision > last, "{row:?} after {last}");
        last = row.revision;
    }
    lab.clock.advance(MINUTE - Duration::from_millis(1));
    assert!(tables.get("t", "k").await.unwrap().is_some());
    lab.clock.advance(Duration::from_millis(1));
    assert_eq!(tables.get("t", "k").await.unwrap(), None);
    tables.apply(vec![put("k", "new")]).await.unwrap();
    assert!(tables.get("t", "k").await.unwrap().unwrap().revision > last);
}

#[tokio::test]
async fn a_lock_has_one_holder_whatever_the_clock_says() {
    let lab = Lab::new();
    let locks = &lab.engines.locks;
    let first = locks.acquire("l", "one", MINUTE).await.unwrap().unwrap();
    lab.clock.set_back(HOUR);
    assert_eq!(locks.acquire("l", "other", MINUTE).await.unwrap(), None, "the lease is not over");
    lab.clock.advance(HOUR + MINUTE);
    let second = locks.acquire("l", "other", MINUTE).await.unwrap().unwrap();
    assert!(second.token > first.token);
    // By the clock, the first lease has not ended now. It was given to somebody else all the same.
    lab.clock.set_back(HOUR);
    assert_eq!(locks.renew("l", first.token, MINUTE).await.unwrap(), None);
    assert!(!locks.release("l", first.token).await.unwrap());
    assert_eq!(locks.look("l").await.unwrap().unwrap().token, second.token);
    assert!(locks.release("l", second.token).await.unwrap());
    let third = locks.acquire("l", "one", MINUTE).await.unwrap().unwrap();
    assert!(third.token > second.token);
}

#[tokio::test]
async fn what_is_done_once_stays_done_whatever_the_clock_says() {
    let lab = Lab::new();
    let keys = &lab.engines.idempotency;
    let begin = async |key: &str, owner: &str| {
        let (scope, fingerprint) = ("orders".into(), Fingerprint([7; 32]));
        let (owner, displaces) = (owner.into(), Vec::new());
        let beginning = Beginning {
            scope,
            key: key.into(),
            fingerprint,
            owner,
            displaces,
            at_most_once: false,
            lease: MINUTE,
            kept: HOUR,
        };
        keys.begin(beginning).await.unwrap()
    };
    let answer = |text: &'static str| Answer { status: 201, fields: Vec::new(), body: text.into() };
    let Begun::Claimed(claim) = begin("k", "one").await else { panic!("it is the first") };
    let Begun::Claimed(dead) = begin("l", "one").await else { panic!("it is the first") };
    lab.clock.set_back(HOUR / 2);
    assert!(matches!(begin("k", "other").await, Begun::Running(_)));
    assert!(keys.finish(&claim, answer("done")).await.unwrap());
    assert_eq!(begin("k", "other").await, Begun::Answered(answer("done")));
    // What nobody ends is free again once its lease is over by the clock.
    assert!(matches!(begin("l", "other").await, Begun::Running(_)));
    lab.clock.advance(HOUR / 2 + MINUTE);
    let Begun::Claimed(taken) = begin("l", "other").await else { panic!("its lease is over") };
    lab.clock.set_back(MINUTE);
    assert!(!keys.finish(&dead, answer("late")).await.unwrap());
    assert!(keys.finish(&taken, answer("in time")).await.unwrap());
    assert_eq!(begin("l", "third").await, Begun::Answered(answer("in time")));
    assert_eq!(begin("k", "third").await, Begun::Answered(answer("done")));
}
