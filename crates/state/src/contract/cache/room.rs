//! What a cache holds when there is more than it has room for.

use super::*;
use crate::cache::USED_STEP;

/// Neither more entries nor more bytes, and always what was filled last.
pub async fn a_cache_holds_what_it_has_room_for(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    assert_eq!(cache.usage("c").await.unwrap(), Usage::default());
    let few = Room { entries: 10, ..Room::default() };
    for n in 0..25 {
        let key = format!("{n:02}");
        put(cache, &key, Fill { room: few, ..of("1234") }).await;
        assert_eq!(fresh(cache, &key).await, Some("1234".into()));
        let entries = u64::min(n + 1, 10);
        assert_eq!(cache.usage("c").await.unwrap(), Usage { entries, bytes: 6 * entries });
    }
    let small = Room { bytes: Room::BYTES_MIN, ..Room::default() };
    for n in 0..25 {
        let key = format!("long {n:02}");
        put(cache, &key, Fill { room: small, ..of(vec![0; 300_000]) }).await;
        assert!(fresh(cache, &key).await.is_some());
        assert!(cache.usage("c").await.unwrap().bytes <= Room::BYTES_MIN);
    }
    assert_eq!(cache.usage("c").await.unwrap(), Usage { entries: 3, bytes: 3 * 300_007 });
    let key = "k".repeat(KEY_BYTES_MAX);
    put(cache, &key, Fill { room: small, ..of(vec![0; VALUE_BYTES_MAX]) }).await;
    assert_eq!(
        cache.usage("c").await.unwrap(),
        Usage { entries: 1, bytes: Room::BYTES_MIN },
        "it needs all there is"
    );

    // What takes the place of something else counts as what it is.
    cache.remove("c", &key).await.unwrap();
    assert_eq!(cache.usage("c").await.unwrap(), Usage::default());
    let claim = missing(cache, "k").await;
    assert_eq!(cache.usage("c").await.unwrap(), Usage { entries: 1, bytes: 1 });
    assert!(cache.fill(&claim, of("123456789")).await.unwrap());
    assert_eq!(cache.usage("c").await.unwrap(), Usage { entries: 1, bytes: 10 });
    if fixture.advance(MINUTE) {
        let Begun::Stale(_, Some(claim)) = begin(cache, "k").await else { panic!("no claim") };
        assert!(cache.fill(&claim, Fill { value: None, ..of("") }).await.unwrap());
        assert_eq!(cache.usage("c").await.unwrap(), Usage { entries: 1, bytes: 1 });
    }
}

/// Whether it was read or filled, fresh or stale.
pub async fn what_was_not_used_for_longest_goes_first(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let fill = || Fill { fresh: 10 * MINUTE, room: Room { entries: 6, ..Room::default() }, ..of("v") };
    for key in ["read", "idle 1", "idle 2", "refreshed", "removed", "idle 3"] {
        put(cache, key, fill()).await;
        if !fixture.advance(USED_STEP) {
            return;
        }
    }
    assert_eq!(fresh(cache, "read").await, Some("v".into()));
    cache.remove("c", "refreshed").await.unwrap();
    put(cache, "refreshed", fill()).await;
    cache.remove("c", "removed").await.unwrap();
    fixture.advance(USED_STEP);
    for key in ["new 1", "new 2", "new 3"] {
        put(cache, key, fill()).await;
        fixture.advance(USED_STEP);
    }
    for (key, is_there) in [
        ("idle 1", false),
        ("idle 2", false),
        ("removed", false),
        ("idle 3", true),
        ("read", true),
        ("refreshed", true),
        ("new 1", true),
        ("new 2", true),
        ("new 3", true),
    ] {
        assert_eq!(cache.get("c", key).await.unwrap().is_some(), is_there, "{key}");
    }
}
