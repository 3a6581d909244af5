//! What a scan of a table promises.

use super::{Fixture, all_rows, put};
use crate::tables::{BATCH_WRITES_MAX, SCAN_ROWS_MAX, Scan, Tables, VALUE_BYTES_MAX};

async fn fill(tables: &dyn Tables, keys: &[String]) {
    for keys in keys.chunks(BATCH_WRITES_MAX) {
        let batch = keys.iter().map(|key| put(key, key.clone().into_bytes())).collect();
        tables.apply(batch).await.unwrap();
    }
}

/// Keys come in the order of their bytes, whatever the order they were written in.
pub async fn a_scan_is_in_the_order_of_bytes(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let mut keys: Vec<String> =
        ["b", "a", "B", "ab", "a/", "aa", "é", "z", "Z", "10", "9", "日", "\u{10ffff}", "~"]
            .map(String::from)
            .to_vec();
    fill(&**tables, &keys).await;
    keys.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let rows = all_rows(tables, "", 0).await;
    assert_eq!(rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), keys);
    for row in rows {
        assert_eq!(row.value, row.key, "a scan has the values too");
        assert_eq!(tables.get("t", &row.key).await.unwrap(), Some(row));
    }
}

/// Pages of any size give every row once; no page says that there is more when there is not.
pub async fn a_scan_has_pages(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let count = SCAN_ROWS_MAX + 337;
    let keys: Vec<String> = (0..count).map(|n| format!("{n:05}")).collect();
    fill(&**tables, &keys).await;
    for limit in [0, 7 * 191, SCAN_ROWS_MAX, 191] {
        let rows = all_rows(tables, "", limit.min(SCAN_ROWS_MAX)).await;
        assert_eq!(rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), keys, "in pages of {limit}");
    }
    let page = |after: Option<&str>, limit| {
        let scan = Scan { prefix: String::new(), after: after.map(String::from), limit };
        async move { tables.scan("t", &scan).await.unwrap() }
    };
    let over = page(None, usize::MAX).await;
    assert!(over.rows.len() <= SCAN_ROWS_MAX && over.next.is_some());
    let last = page(Some(&keys[count - 4]), 3).await;
    assert_eq!((last.rows.len(), last.next), (3, None), "a full page that is the last");
    let before = page(Some(&keys[count - 5]), 3).await;
    assert_eq!(before.next.as_deref(), Some(keys[count - 2].as_str()));
    let end = page(Some(&keys[count - 1]), 3).await;
    assert_eq!((end.rows.len(), end.next), (0, None));
    let between = page(Some("00003x"), 1).await;
    assert_eq!(between.rows[0].key, "00004", "`after` need not be a key that exists");
}

/// Only keys with the prefix come, also when `after` is before or behind them.
pub async fn a_scan_stays_within_its_prefix(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let keys =
        ["a", "a/", "a/1", "a/2", "a/\u{10ffff}", "a0", "b", "%", "_", "a%", "\u{10ffff}", "\u{10ffff}x"];
    fill(&**tables, &keys.map(String::from)).await;
    let cases: [(&str, Option<&str>, &[&str]); 10] = [
        ("a/", None, &["a/", "a/1", "a/2", "a/\u{10ffff}"]),
        ("a/", Some("a/"), &["a/1", "a/2", "a/\u{10ffff}"]),
        ("a/", Some("a/1"), &["a/2", "a/\u{10ffff}"]),
        ("a/", Some("a"), &["a/", "a/1", "a/2", "a/\u{10ffff}"]),
        ("a/", Some("b"), &[]),
        ("a/1", None, &["a/1"]),
        ("%", None, &["%"]),
        ("_", None, &["_"]),
        ("\u{10ffff}", None, &["\u{10ffff}", "\u{10ffff}x"]),
        ("nothing", None, &[]),
    ];
    for (prefix, after, expected) in cases {
        let scan = Scan { prefix: prefix.into(), after: after.map(String::from), limit: 0 };
        let page = tables.scan("t", &scan).await.unwrap();
        let found: Vec<_> = page.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!((found.as_slice(), page.next), (expected, None), "{prefix:?} after {after:?}");
    }
}

/// Rows that are too large for one page together are all found by following `next`.
pub async fn a_scan_of_large_rows_is_complete(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    for n in 0..9_u8 {
        tables.apply(vec![put(&format!("{n}"), vec![n; VALUE_BYTES_MAX])]).await.unwrap();
    }
    let rows = all_rows(tables, "", 0).await;
    assert_eq!(rows.len(), 9);
    for (n, row) in (0..).zip(rows) {
        assert!(row.value.len() == VALUE_BYTES_MAX && row.value.iter().all(|byte| *byte == n));
    }
}
