//! The feeds of caches. As in [`crate::contract::feeds`], a feed may fail at any time, and then a case begins anew.

use super::{
    super::feeds::{kept, told},
    *,
};
use crate::feed::Notice;

/// What may have become another value: a key that was filled, or removed, whether anything was there or not.
pub async fn what_is_filled_or_removed_is_told(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    kept(async |name| {
        let mut feed = cache.follow(name).await?;
        for key in super::super::odd_keys() {
            let Begun::Missing(claim) = cache.begin(name, &key, MINUTE).await? else { panic!("{key}") };
            assert!(cache.fill(&claim, of("v")).await?);
            told(&mut feed, &[&key]).await?;
            for _ in 0..2 {
                cache.remove(name, &key).await?;
                told(&mut feed, &[&key]).await?;
            }
        }
        Ok(())
    })
    .await;
}

/// Who follows a cache hears of that one alone, and of no claims.
pub async fn caches_are_followed_apart(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    kept(async |name| {
        let mut feed = cache.follow(name).await?;
        let Begun::Missing(other) = cache.begin("other", "x", MINUTE).await? else { panic!() };
        cache.fill(&other, of("v")).await?;
        cache.clear("other").await?;
        let Begun::Missing(lost) = cache.begin(name, "lost", MINUTE).await? else { panic!() };
        cache.abandon(&lost, Duration::ZERO).await?;
        assert!(!cache.fill(&lost, of("v")).await?);
        cache.remove(name, "k").await?;
        assert_eq!(told(&mut feed, &["k"]).await?, ["k".to_owned()].into());
        Ok(())
    })
    .await;
}

/// Then copies of all of it are to be dropped.
pub async fn a_cleared_cache_ends_its_feeds(fixture: Fixture) {
    let cache = &fixture.engines.cache;
    kept(async |name| {
        let (mut feed, mut other) = (cache.follow(name).await?, cache.follow("other").await?);
        cache.clear(name).await?;
        let mut beats = 0;
        while let Ok(notice) = feed.next().await {
            assert_eq!(notice, Notice::Beat);
            beats += 1;
            assert!(beats < 20, "it goes on");
        }
        cache.remove("other", "k").await?;
        told(&mut other, &["k"]).await?;
        Ok(())
    })
    .await;
}

/// A copy that is dropped whenever the feed says so is, once all is told, what the cache holds.
pub async fn a_copy_of_an_entry_comes_up_to_date(fixture: Fixture) {
    const ROUNDS: usize = 50;
    let cache = &fixture.engines.cache;
    kept(async |name| {
        let mut feed = cache.follow(name).await?;
        let filling = tokio::spawn({
            let (cache, name) = (cache.clone(), name.to_owned());
            async move {
                for n in 1..=ROUNDS {
                    cache.remove(&name, "k").await?;
                    let Begun::Missing(claim) = cache.begin(&name, "k", MINUTE).await? else { panic!() };
                    assert!(cache.fill(&claim, of(n.to_string())).await?);
                }
                Ok::<_, Error>(())
            }
        });
        let (mut copy, mut beats) = (None, 0);
        while copy != Some(Bytes::from(ROUNDS.to_string())) {
            match feed.next().await? {
                Notice::Changed(_) => copy = cache.get(name, "k").await?.and_then(|entry| entry.value),
                Notice::Beat if filling.is_finished() => beats += 1,
                Notice::Beat => {}
            }
            assert!(beats < 20, "the copy is {copy:?}, for good");
        }
        filling.await.expect("it does not panic")
    })
    .await;
}
