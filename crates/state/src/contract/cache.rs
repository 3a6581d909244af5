//! The contract of [`Cache`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::Fixture;
use crate::{
    cache::{
        BYTES_MAX, Begun, CACHE_NAME_BYTES_MAX, Cache, Claim, ENTRIES_MAX, Entry, Fill, KEY_BYTES_MAX,
        LEASE_MAX, LIFE_MAX, READ_KEYS_MAX, Room, Usage, VALUE_BYTES_MAX,
    },
    error::Error,
};

mod concurrent;
mod expiry;
mod feeds;
mod room;

pub use concurrent::*;
pub use expiry::*;
pub use feeds::*;
pub use room::*;

/// Makes a test of each case of [`crate::contract::cache`].
#[macro_export]
macro_rules! contract_cache {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            cache,
            [
                a_missing_value_is_computed_by_one,
                that_there_is_none_is_remembered_too,
                a_claim_that_is_given_back_goes_to_the_next,
                a_pause_is_for_all,
                what_was_removed_is_not_filled,
                what_was_cleared_is_not_filled,
                only_the_claim_itself_fills,
                caches_and_keys_are_told_apart,
                values_come_back_byte_by_byte,
                values_of_every_size_up_to_the_limit,
                cache_bounds_are_kept,
                many_keys_are_read_at_once,
                long_values_are_read_in_parts,
                a_stale_value_is_refreshed_by_one,
                an_entry_ends,
                the_dead_hold_a_key_for_a_lease,
                a_late_value_counts_if_nobody_took_the_claim,
                a_claim_on_a_key_is_extended,
                failures_are_counted_until_it_is_filled,
                a_cache_holds_what_it_has_room_for,
                what_was_not_used_for_longest_goes_first,
                one_of_many_workers_computes,
                one_of_many_workers_refreshes,
                no_value_from_before_a_removal_comes_back,
            ]
        );
    };
}

/// Makes a test of each case that needs feeds.
#[macro_export]
macro_rules! contract_cache_feeds {
    ($engine:ident) => {
        mod cache_feeds {
            use super::$engine;

            $crate::contract_cases!(
                $engine,
                cache,
                [
                    what_is_filled_or_removed_is_told,
                    caches_are_followed_apart,
                    a_cleared_cache_ends_its_feeds,
                    a_copy_of_an_entry_comes_up_to_date,
                ]
            );
        }
    };
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Fresh for a minute, and then stale for nine.
fn of(value: impl Into<Bytes>) -> Fill {
    Fill { value: Some(value.into()), fresh: MINUTE, stale: 9 * MINUTE, room: Room::default() }
}

async fn begin(cache: &Arc<dyn Cache>, key: &str) -> Begun {
    cache.begin("c", key, MINUTE).await.unwrap()
}

/// The claim on a key of which nothing is known.
async fn missing(cache: &Arc<dyn Cache>, key: &str) -> Claim {
    match begin(cache, key).await {
        Begun::Missing(claim) => claim,
        other => panic!("{key}: {other:?}"),
    }
}

/// What is fresh under a key.
async fn fresh(cache: &Arc<dyn Cache>, key: &str) -> Option<Bytes> {
    match begin(cache, key).await {
        Begun::Fresh(entry) => entry.value,
        other => panic!("{key}: {other:?}"),
    }
}

async fn put(cache: &Arc<dyn Cache>, key: &str, fill: Fill) {
    let claim = missing(cache, key).await;
    assert!(cache.fill(&claim, fill).await.unwrap());
}

/// The first gets the claim, others are told to wait, and then all get the value.
pub async fn a_missing_value_is_computed_by_one(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    assert_eq!(cache.get("c", "k").await.unwrap(), None);
    let claim = missing(cache, "k").await;
    assert_eq!((claim.cache.as_str(), claim.key.as_str(), claim.failures), ("c", "k", 0));
    for _ in 0..3 {
        match begin(cache, "k").await {
            Begun::Busy(left) => assert!(left > Duration::ZERO && left <= MINUTE, "{left:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(cache.get("c", "k").await.unwrap(), None);
    assert!(cache.fill(&claim, of("v")).await.unwrap());
    for _ in 0..3 {
        let Begun::Fresh(Entry { value, fresh, left }) = begin(cache, "k").await else { panic!("not fresh") };
        assert_eq!(value, Some("v".into()));
        assert!(
            fresh <= MINUTE && fresh > MINUTE / 2 && left <= 10 * MINUTE && left > 9 * MINUTE,
            "{fresh:?} {left:?}"
        );
    }
    let got = cache.get("c", "k").await.unwrap().unwrap();
    assert_eq!(got.value, Some("v".into()));
    assert!(!cache.fill(&claim, of("again")).await.unwrap(), "a claim fills once");
    assert!(!cache.abandon(&claim, Duration::ZERO).await.unwrap());
    assert!(!cache.extend(&claim, MINUTE).await.unwrap());
    assert_eq!(fresh_of(cache).await, "v");
}

async fn fresh_of(cache: &Arc<dyn Cache>) -> Bytes {
    fresh(cache, "k").await.unwrap()
}

/// What does not exist is not looked for again and again; that is another thing than an empty value.
pub async fn that_there_is_none_is_remembered_too(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    put(cache, "none", Fill { value: None, ..of("") }).await;
    put(cache, "empty", of("")).await;
    assert_eq!(fresh(cache, "none").await, None);
    assert_eq!(fresh(cache, "empty").await, Some(Bytes::new()));
    assert_eq!(cache.get("c", "none").await.unwrap().unwrap().value, None);
    assert_eq!(cache.get("c", "empty").await.unwrap().unwrap().value, Some(Bytes::new()));
    cache.remove("c", "none").await.unwrap();
    put(cache, "none", of("now there is one")).await;
    assert_eq!(fresh(cache, "none").await, Some("now there is one".into()));
}

/// The next gets a claim at once, and the first one's is worth nothing any more.
pub async fn a_claim_that_is_given_back_goes_to_the_next(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let first = missing(cache, "k").await;
    assert!(cache.abandon(&first, Duration::ZERO).await.unwrap());
    assert!(!cache.abandon(&first, Duration::ZERO).await.unwrap());
    let second = missing(cache, "k").await;
    assert_ne!(first.token, second.token);
    assert!(!cache.fill(&first, of("late")).await.unwrap());
    assert!(!cache.extend(&first, MINUTE).await.unwrap() && !cache.abandon(&first, MINUTE).await.unwrap());
    assert!(cache.fill(&second, of("v")).await.unwrap());
    assert_eq!(fresh_of(cache).await, "v");
}

/// After a failure nobody tries again for a while.
pub async fn a_pause_is_for_all(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let claim = missing(cache, "k").await;
    assert!(cache.abandon(&claim, MINUTE).await.unwrap());
    assert!(!cache.abandon(&claim, MINUTE).await.unwrap());
    assert!(!cache.fill(&claim, of("late")).await.unwrap());
    match begin(cache, "k").await {
        Begun::Busy(left) => assert!(left > Duration::ZERO && left <= MINUTE, "{left:?}"),
        other => panic!("{other:?}"),
    }
    let nobody = Claim { token: 0, ..claim };
    assert!(!cache.fill(&nobody, of("nobody's")).await.unwrap());
    cache.remove("c", "k").await.unwrap();
    put(cache, "k", of("v")).await;
}

/// A value that was begun before the removal is not kept, whether there was one before or not.
pub async fn what_was_removed_is_not_filled(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let before = missing(cache, "k").await;
    cache.remove("c", "k").await.unwrap();
    assert!(!cache.fill(&before, of("old")).await.unwrap());
    let after = missing(cache, "k").await;
    assert!(!cache.fill(&before, of("old")).await.unwrap(), "another claim does not help the first");
    assert!(!cache.extend(&before, MINUTE).await.unwrap() && !cache.abandon(&before, MINUTE).await.unwrap());
    assert!(cache.fill(&after, of("new")).await.unwrap());
    assert_eq!(fresh_of(cache).await, "new");
    cache.remove("c", "k").await.unwrap();
    assert_eq!(cache.get("c", "k").await.unwrap(), None);
    cache.remove("c", "k").await.unwrap();
    put(cache, "k", of("newer")).await;
}

/// The same for all keys of a cache, and of that alone.
pub async fn what_was_cleared_is_not_filled(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    for key in ["a", "b"] {
        put(cache, key, of("old")).await;
    }
    let before = missing(cache, "k").await;
    let Begun::Missing(other) = cache.begin("other", "k", MINUTE).await.unwrap() else {
        panic!("not missing")
    };
    cache.clear("c").await.unwrap();
    assert!(!cache.fill(&before, of("old")).await.unwrap());
    assert_eq!(cache.usage("c").await.unwrap(), Usage::default());
    for key in ["a", "b", "k"] {
        assert_eq!(cache.get("c", key).await.unwrap(), None);
        put(cache, key, of("new")).await;
        assert_eq!(fresh(cache, key).await, Some("new".into()));
    }
    assert!(!cache.fill(&before, of("old")).await.unwrap());
    assert!(cache.fill(&other, of("v")).await.unwrap(), "another cache knows nothing of it");
    cache.clear("never").await.unwrap();
}

/// A claim that was made up fills nothing.
pub async fn only_the_claim_itself_fills(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let held = missing(cache, "k").await;
    for made_up in [
        Claim { token: held.token + 1, ..held.clone() },
        Claim { token: 0, ..held.clone() },
        Claim { key: "l".into(), ..held.clone() },
        Claim { cache: "d".into(), ..held.clone() },
    ] {
        assert!(!cache.fill(&made_up, of("made up")).await.unwrap(), "{made_up:?}");
        assert!(!cache.extend(&made_up, MINUTE).await.unwrap(), "{made_up:?}");
        assert!(!cache.abandon(&made_up, MINUTE).await.unwrap(), "{made_up:?}");
        assert!(!cache.abandon(&made_up, Duration::ZERO).await.unwrap(), "{made_up:?}");
    }
    assert!(matches!(begin(cache, "k").await, Begun::Busy(_)));
    assert!(cache.fill(&held, of("v")).await.unwrap());
}

/// The same key is another thing in another cache; keys with every kind of character are told apart.
pub async fn caches_and_keys_are_told_apart(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    for name in ["c", "c-2"] {
        for key in super::odd_keys() {
            let Begun::Missing(claim) = cache.begin(name, &key, MINUTE).await.unwrap() else {
                panic!("{key}")
            };
            assert!(cache.fill(&claim, of(format!("{name} {key}"))).await.unwrap());
        }
    }
    cache.remove("c-2", "a").await.unwrap();
    for key in super::odd_keys() {
        assert_eq!(fresh(cache, &key).await, Some(format!("c {key}").into()));
    }
    let read = cache.get_many("c", &super::odd_keys()).await.unwrap();
    for (key, entry) in super::odd_keys().iter().zip(read) {
        assert_eq!(entry.unwrap().value, Some(format!("c {key}").into()));
    }
}

/// Values are any bytes.
pub async fn values_come_back_byte_by_byte(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let all: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 5] = [b"text", b"\x00\xff\r\n\r\n\x80", "gr\u{fc}\u{df}e".as_bytes(), b"\0", &all];
    for (n, value) in values.iter().enumerate() {
        put(cache, &n.to_string(), of(value.to_vec())).await;
    }
    let keys: Vec<String> = (0..values.len()).map(|n| n.to_string()).collect();
    let read = cache.get_many("c", &keys).await.unwrap();
    for ((key, value), entry) in keys.iter().zip(values).zip(read) {
        assert_eq!(fresh(cache, key).await.as_deref(), Some(value));
        assert_eq!(cache.get("c", key).await.unwrap().unwrap().value.as_deref(), Some(value));
        assert_eq!(entry.unwrap().value.as_deref(), Some(value));
    }
}

/// A value that is too large is refused, and leaves the claim as it was.
pub async fn values_of_every_size_up_to_the_limit(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    for byte in [b'x', 1, 0xff] {
        let key = byte.to_string();
        let claim = missing(cache, &key).await;
        let refused = cache.fill(&claim, of(vec![byte; VALUE_BYTES_MAX + 1])).await;
        let max = VALUE_BYTES_MAX as u64;
        assert!(
            matches!(refused, Err(Error::TooLarge { size, max: told, .. }) if size == max + 1 && told == max)
        );
        assert!(matches!(begin(cache, &key).await, Begun::Busy(_)));
        assert!(cache.fill(&claim, of(vec![byte; VALUE_BYTES_MAX])).await.unwrap());
        assert!(fresh(cache, &key).await.unwrap() == vec![byte; VALUE_BYTES_MAX]);
    }
}

/// What breaks a rule is refused, and claims nothing.
pub async fn cache_bounds_are_kept(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let refused = |error: Error| matches!(error, Error::Invalid(_) | Error::TooLarge { .. });
    let long_name = "c".repeat(CACHE_NAME_BYTES_MAX + 1);
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    for (name, key, lease) in [
        ("", "k", SECOND),
        ("C", "k", SECOND),
        ("a/b", "k", SECOND),
        (&long_name, "k", SECOND),
        ("c", "", SECOND),
        ("c", "a\0b", SECOND),
        ("c", &long_key, SECOND),
        ("c", "k", Duration::ZERO),
        ("c", "k", LEASE_MAX + SECOND),
    ] {
        assert!(refused(cache.begin(name, key, lease).await.unwrap_err()), "{name} {key} {lease:?}");
    }
    for (name, key) in [("C", "k"), ("c", ""), ("c", "a\0b"), ("c", &*long_key)] {
        assert!(refused(cache.remove(name, key).await.unwrap_err()), "{name} {key}");
        assert!(refused(cache.get(name, key).await.unwrap_err()), "{name} {key}");
    }
    assert!(refused(cache.clear("C").await.unwrap_err()) && refused(cache.usage("").await.unwrap_err()));
    assert!(refused(cache.get_many("c", &[]).await.unwrap_err()));
    assert!(refused(cache.get_many("c", &vec!["k".into(); READ_KEYS_MAX + 1]).await.unwrap_err()));

    let claim = missing(cache, "k").await;
    let room = Room::default();
    for fill in [
        Fill { fresh: Duration::ZERO, stale: Duration::ZERO, ..of("v") },
        Fill { fresh: LIFE_MAX, stale: SECOND, ..of("v") },
        Fill { fresh: Duration::MAX, stale: Duration::MAX, ..of("v") },
        Fill { room: Room { entries: 0, ..room }, ..of("v") },
        Fill { room: Room { entries: ENTRIES_MAX + 1, ..room }, ..of("v") },
        Fill { room: Room { bytes: Room::BYTES_MIN - 1, ..room }, ..of("v") },
        Fill { room: Room { bytes: BYTES_MAX + 1, ..room }, ..of("v") },
    ] {
        assert!(refused(cache.fill(&claim, fill.clone()).await.unwrap_err()), "{fill:?}");
    }
    assert!(refused(cache.extend(&claim, Duration::ZERO).await.unwrap_err()));
    assert!(refused(cache.extend(&claim, LEASE_MAX + SECOND).await.unwrap_err()));
    assert!(refused(cache.abandon(&claim, LEASE_MAX + SECOND).await.unwrap_err()));
    let largest = Fill {
        fresh: LIFE_MAX,
        stale: Duration::ZERO,
        room: Room { entries: ENTRIES_MAX, bytes: BYTES_MAX },
        ..of("v")
    };
    assert!(cache.fill(&claim, largest).await.unwrap(), "none of that has cost the claim");
}

/// Entries come in the order of the keys; what is missing, and what is just computed, has its place too.
pub async fn many_keys_are_read_at_once(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    for n in (0..100).step_by(2) {
        put(cache, &n.to_string(), of(format!("v{n}"))).await;
    }
    let claim = missing(cache, "1").await;
    let mut keys: Vec<String> = (0..100).rev().map(|n| n.to_string()).collect();
    keys.push("98".into());
    let read = cache.get_many("c", &keys).await.unwrap();
    assert_eq!(read.len(), keys.len());
    for (key, entry) in keys.iter().zip(read) {
        let is_there = key.parse::<u32>().unwrap() % 2 == 0;
        assert_eq!(
            entry.map(|entry| entry.value.unwrap()),
            is_there.then(|| format!("v{key}").into()),
            "{key}"
        );
    }
    assert!(cache.fill(&claim, of("v1")).await.unwrap(), "to read takes no claim away");
}

/// What is too long to be read at once is read in several turns, each of which gets on.
pub async fn long_values_are_read_in_parts(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    let keys: Vec<String> = (0..5).map(|n| n.to_string()).collect();
    for (key, byte) in keys.iter().zip(b"abcde") {
        put(cache, key, of(vec![*byte; VALUE_BYTES_MAX])).await;
    }
    let (mut read, mut turns) = (Vec::new(), 0);
    while read.len() < keys.len() {
        let more = cache.get_many("c", &keys[read.len()..]).await.unwrap();
        assert!(!more.is_empty());
        read.extend(more);
        turns += 1;
    }
    assert!(turns > 1);
    for (entry, byte) in read.into_iter().zip(b"abcde") {
        assert!(entry.unwrap().value.unwrap() == vec![*byte; VALUE_BYTES_MAX]);
    }
}
