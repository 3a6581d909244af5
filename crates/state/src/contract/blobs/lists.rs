//! What a list of blobs promises.

use std::sync::Arc;

use super::{Fixture, put};
use crate::blobs::{Blobs, LIST_MAX};

async fn keys(blobs: &Arc<dyn Blobs>, prefix: &str, after: Option<&str>) -> Vec<String> {
    let page = blobs.list("b", prefix, after, 0).await.unwrap();
    assert_eq!(page.next, None);
    page.blobs.into_iter().map(|info| info.key).collect()
}

/// Keys come in the order of their bytes, with all that is known of the blobs.
pub async fn lists_are_in_the_order_of_bytes(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    assert_eq!(blobs.list("b", "", None, 0).await.unwrap().blobs, []);
    let mut infos = Vec::new();
    for key in ["b", "a", "B", "ab", "a/", "é", "z", "10", "9", "日", "~"] {
        infos.push(put(blobs, key, key.repeat(3)).await);
    }
    infos.sort_by(|a, b| a.key.as_bytes().cmp(b.key.as_bytes()));
    assert_eq!(blobs.list("b", "", None, usize::MAX).await.unwrap().blobs, infos);
}

/// Pages of any size give every blob once; no page says that there is more when there is not.
pub async fn lists_have_pages(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let count = 23;
    for n in 0..count {
        put(blobs, &format!("{n:03}"), "x").await;
    }
    for limit in [1, 5, 22, 23, 24, LIST_MAX, usize::MAX, 0] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = blobs.list("b", "", after.as_deref(), limit).await.unwrap();
            assert!(limit == 0 || page.blobs.len() <= limit);
            assert!(page.next.is_none() || !page.blobs.is_empty());
            found.extend(page.blobs.into_iter().map(|info| info.key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let all: Vec<_> = (0..count).map(|n| format!("{n:03}")).collect();
        assert_eq!(found, all, "in pages of {limit}");
    }
    assert_eq!(blobs.list("b", "", Some("021x"), 1).await.unwrap().blobs[0].key, "022");
}

/// Only keys with the prefix come, also when `after` is before or behind them.
pub async fn lists_stay_within_their_prefix(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    for key in ["a", "a/", "a/1", "a/2", "a/\u{10ffff}", "a0", "b", "%", "_", "a%"] {
        put(blobs, key, "x").await;
    }
    assert_eq!(keys(blobs, "a/", None).await, ["a/", "a/1", "a/2", "a/\u{10ffff}"]);
    assert_eq!(keys(blobs, "a/", Some("a/1")).await, ["a/2", "a/\u{10ffff}"]);
    assert_eq!(keys(blobs, "a/", Some("a")).await, ["a/", "a/1", "a/2", "a/\u{10ffff}"]);
    assert_eq!(keys(blobs, "a/", Some("b")).await, [""; 0]);
    assert_eq!(keys(blobs, "%", None).await, ["%"]);
    assert_eq!(keys(blobs, "_", None).await, ["_"]);
    assert_eq!(keys(blobs, "nothing", None).await, [""; 0]);
}
