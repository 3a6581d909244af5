//! Many workers at the same keys.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use super::*;

/// Callers at the same time.
const CALLERS: usize = 16;
/// Keys that they are at.
const KEYS: usize = 20;
/// Values that the source has had when the last removal is done.
const VERSIONS: u64 = 150;

/// Waits until what somebody else computes is there; the number of values that this caller has computed.
async fn obtain(cache: &Arc<dyn Cache>, key: &str, own: String) -> (String, u64) {
    let mut computed = 0;
    loop {
        match begin(cache, key).await {
            Begun::Fresh(entry) => {
                return (String::from_utf8(entry.value.unwrap().to_vec()).unwrap(), computed);
            }
            Begun::Missing(claim) => {
                tokio::task::yield_now().await;
                computed += 1;
                assert!(cache.fill(&claim, of(own.clone())).await.unwrap());
            }
            Begun::Busy(_) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

/// However many need it, it is computed once, and all get that.
pub async fn one_of_many_workers_computes(fixture: Fixture) {
    for key in 0..KEYS {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let cache = fixture.engines.cache.clone();
            callers.spawn(async move { obtain(&cache, &key.to_string(), format!("by {caller}")).await });
        }
        let told = callers.join_all().await;
        assert_eq!(told.iter().map(|(_, computed)| computed).sum::<u64>(), 1, "{told:?}");
        assert!(told.iter().all(|(value, _)| *value == told[0].0), "{told:?}");
    }
}

/// Nobody waits for a refresh, and only one does it.
pub async fn one_of_many_workers_refreshes(fixture: Fixture) {
    for key in (0..KEYS).map(|key| key.to_string()) {
        let cache = &fixture.engines.cache;
        put(cache, &key, Fill { fresh: Duration::ZERO, ..of("old") }).await;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (cache, key) = (cache.clone(), key.clone());
            callers.spawn(async move { begin(&cache, &key).await });
        }
        let mut claims = Vec::new();
        for begun in callers.join_all().await {
            let Begun::Stale(entry, claim) = begun else { panic!("{begun:?}") };
            assert_eq!(entry.value, Some("old".into()));
            claims.extend(claim);
        }
        assert_eq!(claims.len(), 1, "{claims:?}");
        assert!(cache.fill(&claims[0], of("new")).await.unwrap());
        assert_eq!(fresh(cache, &key).await, Some("new".into()));
    }
}

/// While the source changes and each change removes what is cached of it, nobody who asks after a removal gets what was there
/// before it.
pub async fn no_value_from_before_a_removal_comes_back(fixture: Fixture) {
    let source = Arc::new(AtomicU64::new(0));
    // The version up to which removals are done.
    let removed = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..CALLERS / 2 {
        let (cache, source, removed) = (fixture.engines.cache.clone(), source.clone(), removed.clone());
        readers.spawn(async move {
            let (mut seen, mut kept, mut refused) = (0, 0, 0_u64);
            while seen < VERSIONS {
                let least = removed.load(Ordering::SeqCst);
                match begin(&cache, "k").await {
                    Begun::Fresh(entry) => {
                        seen = String::from_utf8(entry.value.unwrap().to_vec()).unwrap().parse().unwrap();
                        assert!(seen >= least, "{seen} came back after {least}");
                    }
                    Begun::Missing(claim) => {
                        let read = source.load(Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        match cache.fill(&claim, of(read.to_string())).await.unwrap() {
                            true => kept += 1,
                            false => refused += 1,
                        }
                    }
                    Begun::Busy(_) => tokio::task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
            (kept, refused)
        });
    }
    for version in 1..=VERSIONS {
        source.store(version, Ordering::SeqCst);
        match version % 10 {
            0 => fixture.engines.cache.clear("c").await.unwrap(),
            _ => fixture.engines.cache.remove("c", "k").await.unwrap(),
        }
        removed.store(version, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    let told = readers.join_all().await;
    assert!(told.iter().any(|(kept, _)| *kept > 0), "{told:?}");
}
