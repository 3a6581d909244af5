//! Limits in the server: what is counted is not counted twice, and nothing stays of what is at rest.

use std::{sync::Arc, time::Duration};

use lethe_state::{clock::ManualClock, error::Error, limits::Quota, redis::Redis};

use crate::{
    harness::{self, Server},
    proxy::{Proxy, Weather},
};

/// A call whose answer is lost is counted once, and its caller told.
#[tokio::test]
async fn a_call_is_never_counted_twice() {
    let proxy = Proxy::start(harness::shared().port).await;
    let engine = Redis::open(harness::url(proxy.port, "")).unwrap();
    let limits = engine.engines().limits;
    let quota = Quota::per(10, Duration::from_secs(24 * 3600));
    limits.take("l", "k", quota, 1).await.unwrap();
    for left in (5..9).rev() {
        proxy.set(Weather::LosesAnAnswer);
        let lost = limits.take("l", "k", quota, 1).await.unwrap_err();
        assert!(matches!(lost, Error::Unavailable(_)), "{lost:?}");
        assert_eq!(limits.take("l", "k", quota, 0).await.unwrap().remaining, left);
    }
}

/// Keys at rest are taken away by the calls of new ones, and all of a limit goes when nobody calls it.
#[tokio::test]
async fn keys_at_rest_go() {
    let server = Server::start();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Redis::open_with(harness::url(server.port, ""), Arc::new(clock.clone())).unwrap();
    let limits = engine.engines().limits;
    let quota = Quota::per(1, Duration::from_secs(1000));
    for n in 0..100 {
        limits.take("l", &format!("old-{n}"), quota, 1).await.unwrap();
    }
    clock.advance(Duration::from_secs(1000));
    for n in 0..60 {
        limits.take("l", &format!("new-{n}"), quota, 1).await.unwrap();
    }
    for key in server.command(&["KEYS", "*"]).lines() {
        assert_eq!(server.command(&["ZCARD", key]).trim(), "60", "{key}");
        let left: u64 = server.command(&["PTTL", key]).trim().parse().unwrap();
        assert!((1..=1_000_001).contains(&left), "{key} stays {left} ms");
    }
}
