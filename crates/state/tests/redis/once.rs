//! Locks and idempotency keys, when answers are lost: the same call comes again and finds what it did.

use std::time::Duration;

use lethe_state::{
    error::Error,
    idempotency::{Answer, Beginning, Begun, Fingerprint},
    redis::Redis,
};

use crate::{
    harness::{self, Server},
    proxy::{Proxy, Weather},
};

const MINUTE: Duration = Duration::from_secs(60);

fn beginning(key: &str, owner: &str) -> Beginning {
    Beginning {
        scope: "s".into(),
        key: key.into(),
        fingerprint: Fingerprint([7; 32]),
        owner: owner.into(),
        displaces: Vec::new(),
        at_most_once: false,
        lease: MINUTE,
        kept: MINUTE,
    }
}

/// A network that has lost the answer that it was told to lose.
fn lost(proxy: &Proxy) {
    assert_eq!(proxy.weather(), Weather::Fair, "no answer was lost");
}

#[tokio::test]
async fn a_lock_is_taken_once() {
    let proxy = Proxy::start(harness::shared().port).await;
    let engine = Redis::open(harness::url(proxy.port, "")).unwrap();
    let locks = engine.engines().locks;
    // So that the scripts are known, and the first answer is that to them.
    let warm = locks.acquire("warm", "w", MINUTE).await.unwrap().unwrap();
    locks.renew("warm", warm.token, MINUTE).await.unwrap().unwrap();
    assert!(locks.release("warm", warm.token).await.unwrap());

    proxy.set(Weather::LosesAnAnswer);
    let lease = locks.acquire("l", "w", MINUTE).await.unwrap().expect("it is the holder itself");
    lost(&proxy);
    assert!(lease.token > warm.token);
    assert_eq!(locks.look("l").await.unwrap().as_ref(), Some(&lease));
    assert_eq!(locks.acquire("l", "w", MINUTE).await.unwrap(), None, "another call is somebody else");
    proxy.set(Weather::LosesAnAnswer);
    assert!(locks.renew("l", lease.token, MINUTE).await.unwrap().is_some());
    lost(&proxy);
    proxy.set(Weather::LosesAnAnswer);
    let released = locks.release("l", lease.token).await;
    assert!(matches!(released, Err(Error::Unavailable(_))), "{released:?}");
    assert_eq!(locks.look("l").await.unwrap(), None);
}

#[tokio::test]
async fn a_key_is_claimed_and_answered_once() {
    let proxy = Proxy::start(harness::shared().port).await;
    let engine = Redis::open(harness::url(proxy.port, "")).unwrap();
    let keys = engine.engines().idempotency;
    let answer = |text: &str| Answer { status: 200, fields: Vec::new(), body: text.to_owned().into() };
    let Begun::Claimed(warm) = keys.begin(beginning("warm", "w")).await.unwrap() else { panic!() };
    assert!(keys.finish(&warm, answer("warm")).await.unwrap());

    proxy.set(Weather::LosesAnAnswer);
    let Begun::Claimed(claim) = keys.begin(beginning("k", "w")).await.unwrap() else { panic!() };
    lost(&proxy);
    assert!(matches!(keys.begin(beginning("k", "w")).await.unwrap(), Begun::Running(_)));
    proxy.set(Weather::LosesAnAnswer);
    assert!(keys.finish(&claim, answer("done")).await.unwrap(), "it is its own answer that is there");
    lost(&proxy);
    assert!(!keys.finish(&claim, answer("again")).await.unwrap());
    assert_eq!(keys.begin(beginning("k", "v")).await.unwrap(), Begun::Answered(answer("done")));
}

/// The server forgets keys by itself, and leases that are over go with those that come.
#[tokio::test]
async fn nothing_stays_for_ever() {
    let server = Server::start();
    let engine = server.engine("");
    let engines = engine.engines();
    let Begun::Claimed(claim) = engines.idempotency.begin(beginning("k", "w")).await.unwrap() else {
        panic!()
    };
    let left = |key: &str| server.command(&["PTTL", key]).trim().parse::<u64>().unwrap();
    let key = server.command(&["KEYS", "*:i:s:k"]);
    assert!((60_000..=120_000).contains(&left(key.trim())));
    assert!(engines.idempotency.finish(&claim, Answer { status: 204, ..Answer::default() }).await.unwrap());
    assert!((1..=60_000).contains(&left(key.trim())));

    for n in 0..20 {
        engines.locks.acquire(&format!("brief-{n}"), "w", Duration::from_millis(1)).await.unwrap();
    }
    while !engines.locks.list(None, 0).await.unwrap().leases.is_empty() {}
    for n in 0..20 {
        engines.locks.acquire(&format!("held-{n}"), "w", MINUTE).await.unwrap();
    }
    for key in server.command(&["KEYS", "*{*:k}:[oe]*"]).lines() {
        assert_eq!(server.command(&["ZCARD", key]).trim(), "20", "{key}");
    }
}
