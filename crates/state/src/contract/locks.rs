//! The contract of [`Locks`].

use std::{sync::Arc, time::Duration};

use super::Fixture;
use crate::{
    error::Error,
    locks::{LEASE_MAX, Lease, Locks, NAME_BYTES_MAX, Page},
};

mod expiry;
mod history;

pub use expiry::*;
pub use history::*;

/// Makes a test of each case of [`crate::contract::locks`].
#[macro_export]
macro_rules! contract_locks {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            locks,
            [
                a_lock_has_one_holder,
                a_lease_is_renewed_by_its_token_alone,
                a_lock_is_let_go_by_its_token_alone,
                tokens_never_come_again,
                locks_have_names_of_every_kind,
                names_and_leases_out_of_bounds_are_refused,
                held_locks_are_listed_in_pages,
                a_lease_ends,
                a_lease_that_is_over_never_comes_back,
                a_renewed_lease_ends_later,
                calls_at_once_have_an_order,
                calls_at_once_have_an_order_while_leases_end,
                one_of_many_gets_the_lock,
            ]
        );
    };
}

const MINUTE: Duration = Duration::from_secs(60);

/// Takes a lock that must be free.
async fn acquire(locks: &Arc<dyn Locks>, name: &str) -> Lease {
    locks.acquire(name, "worker", MINUTE).await.unwrap().expect("the lock is free")
}

/// Who has a lock keeps others out, those of the same name too; other locks are other locks.
pub async fn a_lock_has_one_holder(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    assert_eq!(locks.look("l").await.unwrap(), None);
    let held = locks.acquire("l", "ada", MINUTE).await.unwrap().expect("the lock is free");
    assert_eq!((held.name.as_str(), held.holder.as_str()), ("l", "ada"));
    assert!(held.token > 0);
    assert_eq!(locks.look("l").await.unwrap().as_ref(), Some(&held));
    for holder in ["bob", "ada"] {
        assert_eq!(locks.acquire("l", holder, MINUTE).await.unwrap(), None, "{holder}");
    }
    assert_eq!(locks.look("l").await.unwrap().as_ref(), Some(&held), "a refused call changes nothing");
    let other = locks.acquire("m", "ada", MINUTE).await.unwrap().expect("another lock");
    assert_eq!(other.name, "m");
}

/// Renewing needs the token, keeps it and the holder, and counts from now on.
pub async fn a_lease_is_renewed_by_its_token_alone(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    let held = acquire(locks, "l").await;
    let longer = locks.renew("l", held.token, 2 * MINUTE).await.unwrap().expect("it is held");
    assert!(longer.expires_at > held.expires_at);
    assert_eq!((&longer.holder, longer.token), (&held.holder, held.token));
    assert_eq!(locks.look("l").await.unwrap(), Some(longer));
    let shorter = locks.renew("l", held.token, MINUTE / 2).await.unwrap().expect("it is held");
    assert!(shorter.expires_at < held.expires_at, "a lease may be cut short");
    for (name, token) in [("l", held.token + 1), ("l", held.token - 1), ("m", held.token), ("l", 0)] {
        assert_eq!(locks.renew(name, token, MINUTE).await.unwrap(), None, "{name} {token}");
    }
    assert_eq!(locks.look("l").await.unwrap(), Some(shorter));
}

/// A lock is let go once, by whoever has its token; then it is free for the next.
pub async fn a_lock_is_let_go_by_its_token_alone(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    let held = acquire(locks, "l").await;
    for (name, token) in [("l", held.token + 1), ("l", 0), ("m", held.token)] {
        assert!(!locks.release(name, token).await.unwrap(), "{name} {token}");
    }
    assert!(locks.release("l", held.token).await.unwrap());
    assert_eq!(locks.look("l").await.unwrap(), None);
    assert!(!locks.release("l", held.token).await.unwrap());
    assert_eq!(locks.renew("l", held.token, MINUTE).await.unwrap(), None, "what was let go is not renewed");
    let next = acquire(locks, "l").await;
    assert!(
        !locks.release("l", held.token).await.unwrap(),
        "an old token does not free the next holder's lock"
    );
    assert_eq!(locks.look("l").await.unwrap(), Some(next));
}

/// Each lease of a lock has a larger token than those before it.
pub async fn tokens_never_come_again(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    let mut last = 0;
    for _ in 0..20 {
        let held = acquire(locks, "l").await;
        assert!(held.token > last, "{} after {last}", held.token);
        last = held.token;
        locks.release("l", held.token).await.unwrap();
    }
}

/// Names with every kind of character are told apart.
pub async fn locks_have_names_of_every_kind(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    let mut names = super::odd_keys();
    names.retain(|name| name.len() <= NAME_BYTES_MAX);
    names.extend(["n".repeat(NAME_BYTES_MAX), "acquire".into(), "renew".into()]);
    for name in &names {
        let held = locks.acquire(name, name, MINUTE).await.unwrap().expect("the lock is free");
        assert_eq!((&held.name, &held.holder), (name, name));
    }
    names.sort();
    let page = locks.list(None, 0).await.unwrap();
    assert_eq!(
        page.leases.iter().map(|lease| &lease.name).collect::<Vec<_>>(),
        names.iter().collect::<Vec<_>>()
    );
    for lease in page.leases {
        assert_eq!(locks.look(&lease.name).await.unwrap().as_ref(), Some(&lease));
        assert!(locks.release(&lease.name, lease.token).await.unwrap(), "{:?}", lease.name);
    }
    assert_eq!(locks.list(None, 0).await.unwrap(), Page::default());
}

/// Names and leases that break a rule are refused by every call that takes them.
pub async fn names_and_leases_out_of_bounds_are_refused(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let huge = "n".repeat(64 << 10);
    for name in ["", "a\0b", &long, &huge] {
        let refused = |error: Error| matches!(error, Error::Invalid(_) | Error::TooLarge { .. });
        let shown = name.get(..8).unwrap_or(name);
        assert!(locks.acquire(name, "h", MINUTE).await.is_err_and(refused), "{shown:?}");
        assert!(locks.acquire("l", name, MINUTE).await.is_err_and(refused), "holder {shown:?}");
        assert!(locks.renew(name, 1, MINUTE).await.is_err_and(refused), "{shown:?}");
        assert!(locks.release(name, 1).await.is_err_and(refused), "{shown:?}");
        assert!(locks.look(name).await.is_err_and(refused), "{shown:?}");
    }
    let held = acquire(locks, "held").await;
    for lease in [Duration::ZERO, LEASE_MAX + Duration::from_millis(1), Duration::MAX] {
        let invalid = |error| matches!(error, Error::Invalid(_));
        assert!(locks.acquire("l", "h", lease).await.is_err_and(invalid), "{lease:?}");
        assert!(locks.renew("held", held.token, lease).await.is_err_and(invalid), "{lease:?}");
    }
    assert_eq!(locks.look("l").await.unwrap(), None);
    assert_eq!(locks.look("held").await.unwrap(), Some(held));
    assert!(locks.acquire("l", "h", LEASE_MAX).await.unwrap().is_some());
    assert!(locks.acquire("m", "h", Duration::from_millis(1)).await.unwrap().is_some());
}

/// A list has all that is held, in the order of bytes, page by page.
pub async fn held_locks_are_listed_in_pages(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    for name in ["b", "a", "é", "c", "B"] {
        acquire(locks, name).await;
    }
    let free = acquire(locks, "bb").await;
    locks.release("bb", free.token).await.unwrap();
    let (mut names, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = locks.list(after.as_deref(), 2).await.unwrap();
        assert!(page.leases.len() <= 2 && (page.next.is_none() || !page.leases.is_empty()));
        names.extend(page.leases.into_iter().map(|lease| lease.name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["B", "a", "b", "c", "é"]);
    let rest = locks.list(Some("b"), 0).await.unwrap();
    assert_eq!((rest.leases.len(), rest.next), (2, None));
}
