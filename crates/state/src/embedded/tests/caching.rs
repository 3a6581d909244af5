//! What caches promise on this engine alone: over restarts, beside another engine, under a clock that is set back, with a file
//! that is damaged, and what is left of them in it.

use std::{path::Path, sync::Arc, time::Duration};

use super::{Embedded, ManualClock, put};
use crate::{
    cache::{Begun, Cache, Claim, Entry, Fill, Room},
    embedded::{CACHE, DATABASE, LIMITS, sweeper::Swept},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn of(value: &str) -> Fill {
    Fill { value: Some(value.to_owned().into()), fresh: MINUTE, stale: MINUTE, room: Room::default() }
}

async fn claim(cache: &Arc<dyn Cache>, key: &str) -> Claim {
    match cache.begin("c", key, MINUTE).await.unwrap() {
        Begun::Missing(claim) => claim,
        other => panic!("{key}: {other:?}"),
    }
}

async fn fill(cache: &Arc<dyn Cache>, key: &str, fill: Fill) {
    let claim = claim(cache, key).await;
    assert!(cache.fill(&claim, fill).await.unwrap());
}

fn count(directory: &Path, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(directory.join(CACHE)).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn what_is_cached_survives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    fill(&engine.engines().cache, "k", of("v")).await;
    let running = claim(&engine.engines().cache, "l").await;
    // What a process that is killed leaves behind: files, but nothing that it would do at its end.
    let copy = tempfile::tempdir().unwrap();
    for file in [DATABASE, LIMITS, CACHE, "cache.db-wal"] {
        std::fs::copy(directory.path().join(file), copy.path().join(file)).unwrap();
    }
    let after = Embedded::open(copy.path()).unwrap();
    let cache = after.engines().cache;
    assert_eq!(cache.get("c", "k").await.unwrap().unwrap().value, Some("v".into()));
    assert!(cache.fill(&running, of("w")).await.unwrap(), "a worker has outlived it");
    after.close().await;
    engine.close().await;
}

/// While one `lethe` takes over from another, each has what the other one fills, and not what it removes.
#[tokio::test]
async fn two_engines_on_one_folder_have_one_cache() {
    let directory = tempfile::tempdir().unwrap();
    let old = Embedded::open(directory.path()).unwrap();
    let new = Embedded::open_beside(directory.path(), old.claim().share().unwrap()).unwrap();
    let (at_old, at_new) = (old.engines().cache, new.engines().cache);
    let first = claim(&at_old, "k").await;
    assert!(matches!(at_new.begin("c", "k", MINUTE).await.unwrap(), Begun::Busy(_)));
    at_new.remove("c", "k").await.unwrap();
    assert!(!at_old.fill(&first, of("before")).await.unwrap());
    fill(&at_new, "k", of("after")).await;
    assert_eq!(at_old.get("c", "k").await.unwrap().unwrap().value, Some("after".into()));
    at_old.clear("c").await.unwrap();
    assert_eq!(at_new.get("c", "k").await.unwrap(), None);
    old.close().await;
    fill(&at_new, "k", of("alone")).await;
    new.close().await;
}

/// Neither an entry nor a claim of the dead lasts for as long as the clock was set back by.
#[tokio::test]
async fn a_clock_that_is_set_back_keeps_nothing_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let cache = engine.engines().cache;
    for key in ["k", "l"] {
        fill(&cache, key, of("v")).await;
    }
    clock.set_back(MINUTE);
    let Begun::Fresh(Entry { fresh, left, .. }) = cache.begin("c", "k", MINUTE).await.unwrap() else {
        panic!()
    };
    assert!(fresh <= 2 * MINUTE && left <= 4 * MINUTE);
    clock.set_back(1000 * HOUR);
    let dead = claim(&cache, "k").await;
    clock.set_back(1000 * HOUR);
    let next = claim(&cache, "k").await;
    assert!(!cache.fill(&dead, of("late")).await.unwrap());
    assert!(cache.fill(&next, of("new")).await.unwrap());
    assert_eq!(cache.get("c", "l").await.unwrap(), None);
    engine.close().await;
}

#[tokio::test]
async fn what_has_ended_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let cache = engine.engines().cache;
    for n in 0..100 {
        fill(&cache, &n.to_string(), of("v")).await;
    }
    fill(&cache, "kept", Fill { stale: HOUR, ..of("v") }).await;
    claim(&cache, "dead").await;
    assert_eq!(engine.sweep().await.unwrap(), Swept::default());
    clock.advance(2 * MINUTE);
    assert_eq!(engine.sweep().await.unwrap(), Swept { entries: 101, ..Swept::default() });
    assert_eq!((count(directory.path(), "entries"), count(directory.path(), "contents")), (1, 1));

    cache.clear("c").await.unwrap();
    fill(&cache, "new", of("v")).await;
    assert_eq!(engine.sweep().await.unwrap(), Swept { entries: 1, ..Swept::default() });
    assert_eq!((count(directory.path(), "caches"), count(directory.path(), "contents")), (1, 1));
    cache.remove("c", "new").await.unwrap();
    engine.sweep().await.unwrap();
    assert_eq!((count(directory.path(), "caches"), count(directory.path(), "contents")), (0, 0));
    engine.close().await;
}

/// Whoever reads what is there, or waits for it, costs the file nothing.
#[tokio::test]
async fn readers_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let cache = engine.engines().cache;
    fill(&cache, "fresh", Fill { fresh: HOUR, ..of("v") }).await;
    fill(&cache, "stale", Fill { fresh: Duration::ZERO, stale: HOUR, ..of("v") }).await;
    let Begun::Stale(_, Some(_)) = cache.begin("c", "stale", HOUR).await.unwrap() else { panic!() };
    claim(&cache, "busy").await;
    let log = || std::fs::metadata(directory.path().join("cache.db-wal")).unwrap().len();
    let before = log();
    for _ in 0..100 {
        assert!(matches!(cache.begin("c", "fresh", MINUTE).await.unwrap(), Begun::Fresh(_)));
        assert!(matches!(cache.begin("c", "stale", MINUTE).await.unwrap(), Begun::Stale(_, None)));
        assert!(matches!(cache.begin("c", "busy", MINUTE).await.unwrap(), Begun::Busy(_)));
    }
    assert_eq!(log(), before);
    // But for a note, now and then, that it is still in use.
    clock.advance(crate::cache::USED_STEP);
    assert!(matches!(cache.begin("c", "fresh", MINUTE).await.unwrap(), Begun::Fresh(_)));
    assert!(log() > before);
    engine.close().await;
}

/// It holds nothing that could not be computed again, so it is no reason not to start.
#[tokio::test]
async fn a_damaged_file_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    engine.engines().tables.apply(vec![put("k", "v")]).await.unwrap();
    fill(&engine.engines().cache, "k", of("v")).await;
    engine.close().await;
    let file = directory.path().join(CACHE);
    let whole = std::fs::read(&file).unwrap();
    for (what, bytes) in [
        ("its header", [&[0x5a; 100], &whole[100..]].concat()),
        ("its tables", [&whole[..4096], &vec![0x5a; whole.len() - 4096][..]].concat()),
        ("its everything", b"this is no database".repeat(1000)),
    ] {
        std::fs::write(&file, bytes).unwrap();
        std::fs::write(directory.path().join("cache.db-wal"), "left over").unwrap();
        let engine = Embedded::open(directory.path()).unwrap();
        assert_eq!(engine.engines().cache.get("c", "k").await.unwrap(), None, "{what}");
        fill(&engine.engines().cache, "k", of("v")).await;
        assert!(engine.engines().tables.get("t", "k").await.unwrap().is_some());
        engine.close().await;
    }
}
