//! Caches in the server: nothing for longer than it lives, what becomes of answers that are lost, and of a server that is full.

use std::{sync::Arc, time::Duration};

use lethe_state::{
    cache::{Begun, Cache, Claim, Fill, Room, USED_STEP, Usage},
    clock::ManualClock,
    error::Error,
    redis::Redis,
};

use crate::{
    harness::{self, Server},
    proxy::{Proxy, Weather},
};

const MINUTE: Duration = Duration::from_secs(60);

fn of(value: &str) -> Fill {
    Fill { value: Some(value.to_owned().into()), fresh: MINUTE, stale: Duration::ZERO, room: Room::default() }
}

async fn claim(cache: &Arc<dyn Cache>, key: &str) -> Claim {
    match cache.begin("c", key, MINUTE).await.unwrap() {
        Begun::Missing(claim) => claim,
        other => panic!("{key}: {other:?}"),
    }
}

/// The server forgets a whole cache by itself, and each new entry takes some away that have ended.
#[tokio::test]
async fn nothing_stays_for_ever() {
    let server = Server::start();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Redis::open_with(harness::url(server.port, ""), Arc::new(clock.clone())).unwrap();
    let cache = engine.engines().cache;
    let first = claim(&cache, "first").await;
    let left = |most: i64| {
        let keys = server.command(&["KEYS", "*"]);
        for key in keys.lines() {
            let left: i64 = server.command(&["PTTL", key]).trim().parse().unwrap();
            assert!(left > most / 2 && left <= most, "{key}: {left}");
        }
        keys.lines().count()
    };
    assert_eq!(left(120_000), 3, "a claim is kept for twice its lease");
    assert!(cache.fill(&first, Fill { fresh: 60 * MINUTE, ..of("v") }).await.unwrap());
    for n in 0..30 {
        let claim = claim(&cache, &n.to_string()).await;
        assert!(cache.fill(&claim, of("v")).await.unwrap());
    }
    assert_eq!(left(3_600_000), 4, "shorter lives do not shorten it");
    assert_eq!(cache.usage("c").await.unwrap().entries, 31);
    clock.advance(MINUTE);
    for n in 0..10 {
        let claim = claim(&cache, &format!("new {n}")).await;
        assert!(cache.fill(&claim, of("v")).await.unwrap());
    }
    assert_eq!(cache.usage("c").await.unwrap(), Usage { entries: 11, bytes: 6 + 10 * 6 });
    for what in ["values", "used", "ends"] {
        let key = server.command(&["KEYS", &format!("*:{what}")]);
        let command = if what == "values" { "HLEN" } else { "ZCARD" };
        assert_eq!(server.command(&[command, key.trim()]).trim(), "11", "{what}");
    }
    cache.clear("c").await.unwrap();
    assert_eq!(server.command(&["KEYS", "*"]).trim(), "");
}

#[tokio::test]
async fn lost_answers_are_asked_for_again() {
    let proxy = Proxy::start(harness::shared().port).await;
    let engine = Redis::open(harness::url(proxy.port, "")).unwrap();
    let cache = engine.engines().cache;
    let lost = || assert_eq!(proxy.weather(), Weather::Fair, "no answer was lost");
    // So that the scripts are known, and the first answer is that to them.
    let warm = claim(&cache, "warm").await;
    assert!(cache.extend(&warm, MINUTE).await.unwrap() && cache.fill(&warm, of("v")).await.unwrap());
    cache.remove("c", "warm").await.unwrap();

    proxy.set(Weather::LosesAnAnswer);
    let held = claim(&cache, "k").await;
    lost();
    assert!(matches!(cache.begin("c", "k", MINUTE).await.unwrap(), Begun::Busy(_)));
    proxy.set(Weather::LosesAnAnswer);
    assert!(cache.extend(&held, MINUTE).await.unwrap());
    lost();
    proxy.set(Weather::LosesAnAnswer);
    assert!(cache.fill(&held, of("v")).await.unwrap(), "it is its own value that is there");
    lost();
    assert!(!cache.fill(&held, of("again")).await.unwrap());
    assert_eq!(cache.get("c", "k").await.unwrap().unwrap().value, Some("v".into()));
    proxy.set(Weather::LosesAnAnswer);
    cache.remove("c", "k").await.unwrap();
    lost();
    assert_eq!(cache.get("c", "k").await.unwrap(), None);
}

/// A server without memory still gives what it has, and removes it.
#[tokio::test]
async fn a_full_server_is_read_from() {
    let server = Server::start();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Redis::open_with(harness::url(server.port, ""), Arc::new(clock.clone())).unwrap();
    let cache = engine.engines().cache;
    for key in ["k", "l"] {
        let claim = claim(&cache, key).await;
        assert!(cache.fill(&claim, Fill { stale: 60 * MINUTE, ..of("v") }).await.unwrap());
    }
    let held = claim(&cache, "held").await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    // Also when that it was used is to be noted.
    clock.advance(USED_STEP);
    assert!(matches!(cache.begin("c", "k", MINUTE).await.unwrap(), Begun::Fresh(_)));
    assert!(matches!(cache.begin("c", "held", MINUTE).await.unwrap(), Begun::Busy(_)));
    let refused = |error: Error| matches!(error, Error::Engine(_));
    assert!(refused(cache.begin("c", "new", MINUTE).await.unwrap_err()));
    assert!(refused(cache.fill(&held, of("v")).await.unwrap_err()));
    clock.advance(MINUTE);
    assert!(refused(cache.begin("c", "k", MINUTE).await.unwrap_err()), "there is no room for a claim");
    assert!(cache.get("c", "k").await.unwrap().is_some(), "but the stale value is there");
    assert!(cache.abandon(&held, Duration::ZERO).await.unwrap());
    cache.remove("c", "k").await.unwrap();
    assert_eq!(cache.get("c", "k").await.unwrap(), None);
    cache.clear("c").await.unwrap();
    assert_eq!(server.command(&["KEYS", "*"]).trim(), "");
}
