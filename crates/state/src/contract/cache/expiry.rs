//! Entries and claims whose time is over, by a clock that can be moved.

use super::*;

/// A stale value is given to everybody at once, and one of them has the right to compute it anew.
pub async fn a_stale_value_is_refreshed_by_one(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    put(cache, "k", of("old")).await;
    if !fixture.advance(MINUTE) {
        return;
    }
    let claim = match begin(cache, "k").await {
        Begun::Stale(entry, Some(claim)) => {
            assert_eq!(
                (entry.value, entry.fresh, entry.left),
                (Some("old".into()), Duration::ZERO, 9 * MINUTE)
            );
            claim
        }
        other => panic!("{other:?}"),
    };
    for _ in 0..3 {
        match begin(cache, "k").await {
            Begun::Stale(entry, None) => assert_eq!(entry.value, Some("old".into())),
            other => panic!("{other:?}"),
        }
    }
    let read = cache.get("c", "k").await.unwrap().unwrap();
    assert_eq!((read.value, read.fresh), (Some("old".into()), Duration::ZERO));
    assert!(cache.fill(&claim, of("new")).await.unwrap());
    assert_eq!(fresh(cache, "k").await, Some("new".into()));

    // A refresh that is given back leaves what is there.
    fixture.advance(MINUTE);
    let Begun::Stale(_, Some(claim)) = begin(cache, "k").await else { panic!("no claim") };
    assert!(cache.abandon(&claim, Duration::ZERO).await.unwrap());
    let Begun::Stale(entry, Some(second)) = begin(cache, "k").await else { panic!("no claim") };
    assert_eq!((entry.value, second.failures), (Some("new".into()), 0));
    // A removal ends it, and the value too.
    cache.remove("c", "k").await.unwrap();
    assert!(!cache.fill(&second, of("late")).await.unwrap());
    missing(cache, "k").await;
}

/// An entry is fresh up to the last millisecond, and lives up to its last.
pub async fn an_entry_ends(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let ms = Duration::from_millis(1);
    put(cache, "k", of("v")).await;
    put(cache, "brief", Fill { stale: Duration::ZERO, value: None, ..of("") }).await;
    put(cache, "at once stale", Fill { fresh: Duration::ZERO, ..of("v") }).await;
    if !fixture.advance(MINUTE - ms) {
        return;
    }
    for key in ["k", "brief"] {
        match begin(cache, key).await {
            Begun::Fresh(entry) => assert_eq!(entry.fresh, ms),
            other => panic!("{key}: {other:?}"),
        }
    }
    assert!(matches!(begin(cache, "at once stale").await, Begun::Stale(_, Some(_))));
    fixture.advance(ms);
    missing(cache, "brief").await;
    fixture.advance(9 * MINUTE - ms);
    let Begun::Stale(entry, Some(claim)) = begin(cache, "k").await else { panic!("not stale") };
    assert_eq!(entry.left, ms);
    fixture.advance(ms);
    assert_eq!(cache.get("c", "k").await.unwrap(), None);
    assert!(matches!(begin(cache, "k").await, Begun::Busy(_)), "somebody is at it");
    assert!(cache.fill(&claim, of("new")).await.unwrap());
    assert_eq!(fresh(cache, "k").await, Some("new".into()));
    fixture.advance(10 * MINUTE);
    assert_eq!(cache.get_many("c", &["k".into(), "brief".into()]).await.unwrap(), [None, None]);
    missing(cache, "k").await;
}

/// A worker that dies while it computes lets the next one in when its lease is over.
pub async fn the_dead_hold_a_key_for_a_lease(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let dead = missing(cache, "k").await;
    if !fixture.advance(MINUTE - Duration::from_millis(1)) {
        return;
    }
    assert_eq!(begin(cache, "k").await, Begun::Busy(Duration::from_millis(1)));
    fixture.advance(Duration::from_millis(1));
    let next = missing(cache, "k").await;
    assert_ne!(next.token, dead.token);
    assert!(!cache.fill(&dead, of("late")).await.unwrap(), "another one has it now");
    assert!(cache.fill(&next, of("v")).await.unwrap());
    // The same while it refreshes.
    fixture.advance(MINUTE);
    let Begun::Stale(_, Some(dead)) = begin(cache, "k").await else { panic!("no claim") };
    assert!(matches!(begin(cache, "k").await, Begun::Stale(_, None)));
    fixture.advance(MINUTE);
    let Begun::Stale(_, Some(next)) = begin(cache, "k").await else { panic!("no claim") };
    assert!(!cache.fill(&dead, of("late")).await.unwrap());
    assert!(cache.fill(&next, of("new")).await.unwrap());
    assert_eq!(fresh(cache, "k").await, Some("new".into()));
}

/// Work that took a little longer than its lease is not lost without need.
pub async fn a_late_value_counts_if_nobody_took_the_claim(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let late = missing(cache, "k").await;
    let too_late = missing(cache, "l").await;
    if !fixture.advance(2 * MINUTE - SECOND) {
        return;
    }
    assert!(cache.fill(&late, of("v")).await.unwrap());
    assert_eq!(fresh(cache, "k").await, Some("v".into()));
    fixture.advance(SECOND);
    assert!(!cache.fill(&too_late, of("v")).await.unwrap());
}

/// Who is at work longer says so.
pub async fn a_claim_on_a_key_is_extended(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let claim = missing(cache, "k").await;
    for _ in 0..5 {
        if !fixture.advance(MINUTE - SECOND) {
            return;
        }
        assert!(cache.extend(&claim, MINUTE).await.unwrap());
        assert_eq!(begin(cache, "k").await, Begun::Busy(MINUTE));
    }
    assert!(cache.fill(&claim, of("v")).await.unwrap());
    let lost = missing(cache, "l").await;
    fixture.advance(MINUTE);
    missing(cache, "l").await;
    assert!(!cache.extend(&lost, MINUTE).await.unwrap());
}

/// So that each pause can be longer than the last, whoever fails.
pub async fn failures_are_counted_until_it_is_filled(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    put(cache, "k", of("v")).await;
    if !fixture.advance(MINUTE) {
        return;
    }
    for failures in 0..3 {
        let Begun::Stale(entry, Some(claim)) = begin(cache, "k").await else { panic!("no claim") };
        assert_eq!((entry.value, claim.failures), (Some("v".into()), failures));
        assert!(cache.abandon(&claim, 2 * SECOND).await.unwrap());
        fixture.advance(SECOND);
        assert!(matches!(begin(cache, "k").await, Begun::Stale(_, None)), "the stale value stays");
        fixture.advance(SECOND);
    }
    let Begun::Stale(_, Some(claim)) = begin(cache, "k").await else { panic!("no claim") };
    assert!(cache.fill(&claim, of("new")).await.unwrap());
    fixture.advance(MINUTE);
    let Begun::Stale(_, Some(claim)) = begin(cache, "k").await else { panic!("no claim") };
    assert_eq!(claim.failures, 0);
}
