//! Locks and fences on the embedded engine, and on one that goes away.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lethe::{Error, State};
use lethe_state::{
    Engines,
    clock::ManualClock,
    embedded::Embedded,
    error::Error as StateError,
    locks::{Lease, Locks, Page, Token},
};
use tokio::sync::Notify;

/// State whose clock the test holds.
fn state_at() -> (State, ManualClock, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(folder.path(), Arc::new(clock.clone())).unwrap();
    (State::new(engine.engines()), clock, folder)
}

#[tokio::test]
async fn a_lock_is_held_by_one_and_let_go() {
    let state = State::ephemeral().unwrap();
    let lock = state.lock("l");
    assert!(lock.look().await.unwrap().is_none());
    let held = lock.try_acquire().await.unwrap().unwrap();
    assert!(held.is_held() && held.name() == "l");
    assert_eq!(lock.look().await.unwrap().unwrap().token, held.token());
    assert!(lock.try_acquire().await.unwrap().is_none());
    assert!(lock.acquire(Duration::from_millis(30)).await.unwrap().is_none());
    let token = held.token();
    assert!(held.release().await.unwrap());
    assert!(lock.try_acquire().await.unwrap().unwrap().token() > token);
}

#[tokio::test]
async fn a_dropped_lock_is_let_go_for_who_waits() {
    let state = State::ephemeral().unwrap();
    let held = state.lock("l").try_acquire().await.unwrap().unwrap();
    let waiting = tokio::spawn({
        let lock = state.lock("l");
        async move { lock.acquire(Duration::from_secs(60)).await }
    });
    tokio::task::yield_now().await;
    drop(held);
    let next = waiting.await.unwrap().unwrap().expect("it was let go");
    assert!(next.is_held());
}

#[tokio::test]
async fn work_ends_when_the_lock_is_lost() {
    let (state, clock, _folder) = state_at();
    let lock = state.lock("l").lease(Duration::from_secs(3));
    let held = lock.try_acquire().await.unwrap().unwrap();
    assert_eq!(held.run(async { 7 }).await.unwrap(), 7);
    // The engine finds the lease over before this process does, as after a long sleep.
    clock.advance(Duration::from_secs(60));
    let next = state.lock("l").try_acquire().await.unwrap().unwrap();
    match held.run(std::future::pending::<()>()).await {
        Err(Error::LockLost { name }) => assert_eq!(name, "l"),
        other => panic!("{other:?}"),
    }
    assert!(!held.is_held());
    held.lost().await;
    assert!(!held.release().await.unwrap(), "it is the next one's");
    assert!(next.is_held());
    assert_eq!(state.lock("l").look().await.unwrap().unwrap().token, next.token());
}

#[tokio::test]
async fn an_earlier_holder_writes_nothing() {
    let (state, clock, _folder) = state_at();
    let (rows, photos) = (state.table::<String>("rows"), state.bucket("photos"));
    let first = state.lock("l").try_acquire().await.unwrap().unwrap();
    state.batch().fence(&first).put(&rows, "k", &"first".into()).unwrap().commit().await.unwrap();
    photos.fenced(&first).put("p", "text/plain", "first", 100).await.unwrap();
    clock.advance(Duration::from_secs(60));
    let second = state.lock("l").try_acquire().await.unwrap().unwrap();
    state.batch().fence(&second).put(&rows, "k", &"second".into()).unwrap().commit().await.unwrap();
    photos.fenced(&second).put("p", "text/plain", "second", 100).await.unwrap();

    let late = state.batch().fence(&first).put(&rows, "k", &"late".into()).unwrap().commit().await;
    match late {
        Err(Error::Fenced { index: 0, key, token, newest }) => {
            assert_eq!((key.as_str(), token, newest), ("l", first.token(), second.token()));
        }
        other => panic!("{other:?}"),
    }
    let fenced = |error: Error| matches!(error, Error::Fenced { .. });
    assert!(photos.fenced(&first).put("p", "text/plain", "late", 100).await.is_err_and(fenced));
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>("late".into())]);
    assert!(photos.fenced(&first).put_stream("p", "text/plain", stream, 100).await.is_err_and(fenced));
    assert!(photos.fenced(&first).delete("p").await.is_err_and(fenced));
    assert_eq!(rows.get("k").await.unwrap().unwrap().value, "second");
    assert_eq!(photos.head("p").await.unwrap().unwrap().size, 6);
    assert!(photos.fenced(&second).delete("p").await.unwrap());
}

/// A lock whose engine can go away.
#[derive(Default)]
struct Flaky {
    away: AtomicBool,
    renewals: AtomicU32,
    renewed: Notify,
}

#[async_trait]
impl Locks for Flaky {
    async fn acquire(&self, name: &str, holder: &str, _: Duration) -> Result<Option<Lease>, StateError> {
        Ok(Some(Lease { name: name.into(), holder: holder.into(), token: 1, expires_at: 0 }))
    }

    async fn renew(&self, name: &str, token: Token, _: Duration) -> Result<Option<Lease>, StateError> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        self.renewed.notify_one();
        match self.away.load(Ordering::SeqCst) {
            true => Err(StateError::Unavailable("away".into())),
            false => Ok(Some(Lease { name: name.into(), holder: String::new(), token, expires_at: 0 })),
        }
    }

    async fn release(&self, _: &str, _: Token) -> Result<bool, StateError> {
        Ok(true)
    }

    async fn look(&self, _: &str) -> Result<Option<Lease>, StateError> {
        Ok(None)
    }

    async fn list(&self, _: Option<&str>, _: usize) -> Result<Page, StateError> {
        Ok(Page::default())
    }
}

/// In time that moves only when everyone waits.
#[tokio::test(start_paused = true)]
async fn a_lock_is_renewed_and_survives_an_engine_that_is_away_for_less_than_the_lease() {
    let flaky = Arc::new(Flaky::default());
    let state = State::new(Engines { locks: flaky.clone(), ..Engines::absent("test") });
    let lease = Duration::from_secs(12);
    let begun = tokio::time::Instant::now();
    let held = state.lock("l").lease(lease).try_acquire().await.unwrap().unwrap();
    for _ in 0..3 {
        flaky.renewed.notified().await;
    }
    assert_eq!(begun.elapsed(), lease, "it is renewed three times in the time of a lease");

    flaky.away.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        flaky.renewed.notified().await;
    }
    flaky.away.store(false, Ordering::SeqCst);
    flaky.renewed.notified().await;
    assert!(held.is_held(), "a renewal came through in time");

    flaky.away.store(true, Ordering::SeqCst);
    let last_renewal = tokio::time::Instant::now();
    held.lost().await;
    assert_eq!(last_renewal.elapsed(), lease, "it counts as lost when its lease is over, and not later");
    assert!(!held.is_held());
    assert!(!held.release().await.unwrap());
}
