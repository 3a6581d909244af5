//! What the end of a lease promises. The cases need a clock that can be moved.

use std::time::Duration;

use super::{Fixture, MINUTE, acquire};
use crate::locks::Page;

const MOMENT: Duration = Duration::from_millis(1);

/// A lease lasts to its last millisecond and no longer; then nobody has the lock.
pub async fn a_lease_ends(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    let held = acquire(locks, "l").await;
    if !fixture.advance(MINUTE - MOMENT) {
        return;
    }
    assert_eq!(locks.acquire("l", "next", MINUTE).await.unwrap(), None);
    assert_eq!(locks.look("l").await.unwrap().as_ref(), Some(&held));
    fixture.advance(MOMENT);
    assert_eq!(locks.look("l").await.unwrap(), None);
    assert_eq!(locks.list(None, 0).await.unwrap(), Page::default());
    let next = locks.acquire("l", "next", MINUTE).await.unwrap().expect("the lease is over");
    assert!(next.token > held.token);
    assert_eq!(next.expires_at, held.expires_at + 60_000);
}

/// A holder whose lease is over cannot renew it, also when nobody took the lock since, and frees nobody's lock.
pub async fn a_lease_that_is_over_never_comes_back(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    let held = acquire(locks, "l").await;
    if !fixture.advance(MINUTE) {
        return;
    }
    assert_eq!(locks.renew("l", held.token, MINUTE).await.unwrap(), None);
    assert!(!locks.release("l", held.token).await.unwrap());
    assert_eq!(locks.look("l").await.unwrap(), None);
    let next = acquire(locks, "l").await;
    assert_eq!(locks.renew("l", held.token, MINUTE).await.unwrap(), None);
    assert!(!locks.release("l", held.token).await.unwrap());
    assert_eq!(locks.look("l").await.unwrap(), Some(next));
}

/// A holder that renews in time keeps the lock for as long as it does.
pub async fn a_renewed_lease_ends_later(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    let held = acquire(locks, "l").await;
    for _ in 0..5 {
        if !fixture.advance(MINUTE / 2) {
            return;
        }
        assert!(locks.renew("l", held.token, MINUTE).await.unwrap().is_some());
        assert_eq!(locks.acquire("l", "next", MINUTE).await.unwrap(), None);
    }
    fixture.advance(MINUTE);
    assert!(locks.acquire("l", "next", MINUTE).await.unwrap().is_some());
}
