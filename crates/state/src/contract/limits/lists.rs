//! What limits promise to those who look after them.

use super::{Fixture, LIST_MAX, Limits, MINUTE, MS, Page, Quota, SECOND, SLOW, Usage, look, take};

/// After a reset all of the burst is there, of this key alone.
pub async fn a_key_is_reset(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    assert!(!limits.reset("l", "k").await.unwrap(), "nothing was missing");
    for key in ["k", "other"] {
        limits.take("l", key, SLOW, 5).await.unwrap();
    }
    limits.take("m", "k", SLOW, 5).await.unwrap();
    assert!(limits.reset("l", "k").await.unwrap());
    assert!(!limits.reset("l", "k").await.unwrap());
    assert_eq!(look(limits, "k", SLOW).await.remaining, 5);
    assert_eq!(look(limits, "other", SLOW).await.remaining, 0);
    assert_eq!(limits.take("m", "k", SLOW, 0).await.unwrap().remaining, 0);
    assert!(take(limits, "k", SLOW).await.allowed);
}

/// A key is listed until its burst is whole again, with the time of that.
pub async fn keys_at_rest_are_not_listed(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let quota = Quota::per(60, MINUTE);
    assert_eq!(limits.list("l", None, 0).await.unwrap(), Page::default());
    for (key, cost) in [("b", 10), ("a", 30)] {
        limits.take("l", key, quota, cost).await.unwrap();
    }
    let listed = limits.list("l", None, 0).await.unwrap();
    let keys: Vec<&str> = listed.keys.iter().map(|usage| usage.key.as_str()).collect();
    assert_eq!((keys, listed.next), (vec!["a", "b"], None));
    let apart = listed.keys[0].full_at - listed.keys[1].full_at;
    assert!((20_000..60_000).contains(&apart), "20 s, and the time between the two calls: {apart} ms");
    if !fixture.advance(10 * SECOND - MS) {
        return;
    }
    assert_eq!(limits.list("l", None, 0).await.unwrap().keys.len(), 2);
    fixture.advance(MS);
    let left = limits.list("l", None, 0).await.unwrap();
    assert_eq!(left.keys, [listed.keys[0].clone()]);
    assert!(!limits.reset("l", "b").await.unwrap(), "a key at rest has nothing missing");
    fixture.advance(20 * SECOND);
    assert_eq!(limits.list("l", None, 0).await.unwrap(), Page::default());
}

/// Pages follow each other without gap or repetition, in the order of the keys' bytes.
pub async fn a_list_has_pages(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let mut keys: Vec<String> = (0..25).map(|n| format!("k{n}")).chain(["".into()]).collect();
    keys.extend(["é".to_owned(), "Z".to_owned(), "a\u{10ffff}".to_owned()]);
    keys.retain(|key| !key.is_empty());
    for key in &keys {
        take(limits, key, SLOW).await;
    }
    keys.sort_unstable();
    for most in [1, 7, keys.len() - 1, keys.len(), keys.len() + 1, 0, LIST_MAX + 1] {
        let all = all_keys(&**limits, most).await;
        assert_eq!(all.iter().map(|usage| &usage.key).collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
    }
    let behind = limits.list("l", Some("k24"), 0).await.unwrap();
    assert!(behind.keys.iter().all(|usage| usage.key.as_str() > "k24"));
}

async fn all_keys(limits: &dyn Limits, most: usize) -> Vec<Usage> {
    let (mut all, mut after): (Vec<Usage>, Option<String>) = (Vec::new(), None);
    loop {
        let Page { keys, next } = limits.list("l", after.as_deref(), most).await.unwrap();
        assert!(most == 0 || keys.len() <= most, "a page is over its limit");
        assert!(next.is_none() || !keys.is_empty(), "an empty page says that there is more");
        all.extend(keys);
        match next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}
