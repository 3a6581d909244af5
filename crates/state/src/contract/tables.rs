//! The contract of [`Tables`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::Fixture;
use crate::{
    Revision,
    error::Error,
    tables::{
        Action, BATCH_WRITES_MAX, Condition, KEY_BYTES_MAX, Outcome, Page, Row, SCAN_ROWS_MAX, Scan,
        TABLE_NAME_BYTES_MAX, Tables, VALUE_BYTES_MAX, Write,
    },
};

mod concurrent;
mod expiry;
mod fences;
mod history;
mod model;
mod scans;

pub use concurrent::*;
pub use expiry::*;
pub use fences::*;
pub use history::*;
pub use model::*;
pub use scans::*;

/// Makes a test of each case of [`crate::contract::tables`].
#[macro_export]
macro_rules! contract_tables {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            tables,
            [
                a_row_is_what_was_put,
                a_row_is_deleted,
                keys_of_every_kind,
                names_and_keys_out_of_bounds_are_refused,
                values_of_every_size_up_to_the_limit,
                tables_are_apart,
                conditions_decide,
                a_refused_batch_changes_nothing,
                a_batch_sees_its_own_writes,
                a_batch_has_a_limit,
                increments_count,
                increments_need_an_integer,
                revisions_only_grow,
                a_scan_is_in_the_order_of_bytes,
                a_scan_has_pages,
                a_scan_stays_within_its_prefix,
                a_scan_of_large_rows_is_complete,
                rows_expire,
                an_expired_row_is_absent_to_writers,
                an_increment_keeps_the_expiry,
                compare_and_set_loses_nothing,
                concurrent_increments_add_up,
                a_batch_is_one_step_to_readers,
                a_fence_refuses_older_tokens,
                a_refused_batch_leaves_the_fence,
                a_fence_is_a_row,
                fenced_writes_never_go_back,
                it_agrees_with_a_map,
                conditional_writes_at_once_have_an_order,
            ]
        );
    };
}

/// A write to table `t`.
fn write(key: &str, condition: Condition, action: Action) -> Write {
    Write { table: "t".into(), key: key.into(), condition, action }
}

fn put(key: &str, value: impl Into<Bytes>) -> Write {
    write(key, Condition::Any, Action::Put { value: value.into(), ttl: None })
}

fn put_for(key: &str, value: impl Into<Bytes>, ttl: Duration) -> Write {
    write(key, Condition::Any, Action::Put { value: value.into(), ttl: Some(ttl) })
}

fn increment(key: &str, by: i64) -> Write {
    write(key, Condition::Any, Action::Increment { by, ttl: None })
}

fn revision_of(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Put { revision } | Outcome::Incremented { revision, .. } => revision,
        Outcome::Checked | Outcome::Deleted { .. } | Outcome::Fenced => panic!("{outcome:?} has no revision"),
    }
}

/// Does one write that must succeed.
async fn apply(tables: &Arc<dyn Tables>, write: Write) -> Outcome {
    tables.apply(vec![write]).await.unwrap()[0]
}

async fn value(tables: &Arc<dyn Tables>, key: &str) -> Option<Bytes> {
    tables.get("t", key).await.unwrap().map(|row| row.value)
}

/// All rows of table `t` with a prefix, page by page.
async fn all_rows(tables: &Arc<dyn Tables>, prefix: &str, limit: usize) -> Vec<Row> {
    let mut scan = Scan { prefix: prefix.into(), after: None, limit };
    let mut rows = Vec::new();
    loop {
        let Page { rows: more, next } = tables.scan("t", &scan).await.unwrap();
        assert!(more.len() <= if limit == 0 { SCAN_ROWS_MAX } else { limit }, "a page is over its limit");
        assert!(next.is_none() || !more.is_empty(), "an empty page says that there is more");
        rows.extend(more);
        if next.is_none() {
            return rows;
        }
        scan.after = next;
    }
}

/// A row is read as it was put, with the revision that the put returned.
pub async fn a_row_is_what_was_put(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    assert_eq!(tables.get("t", "k").await.unwrap(), None);
    let revision = revision_of(apply(tables, put("k", "one")).await);
    let row = Row { key: "k".into(), value: "one".into(), revision, expires_at: None };
    assert_eq!(tables.get("t", "k").await.unwrap(), Some(row));
    let revision = revision_of(apply(tables, put("k", "two")).await);
    let row = Row { key: "k".into(), value: "two".into(), revision, expires_at: None };
    assert_eq!(tables.get("t", "k").await.unwrap(), Some(row));
}

/// A delete says whether there was something to delete.
pub async fn a_row_is_deleted(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let delete = || write("k", Condition::Any, Action::Delete);
    assert_eq!(apply(tables, delete()).await, Outcome::Deleted { existed: false });
    apply(tables, put("k", "v")).await;
    assert_eq!(apply(tables, delete()).await, Outcome::Deleted { existed: true });
    assert_eq!(value(tables, "k").await, None);
    assert_eq!(apply(tables, delete()).await, Outcome::Deleted { existed: false });
}

/// Keys with every kind of character are told apart, read, scanned and deleted.
pub async fn keys_of_every_kind(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let mut keys = super::odd_keys();
    for key in &keys {
        apply(tables, put(key, key.clone().into_bytes())).await;
    }
    for key in &keys {
        assert_eq!(value(tables, key).await.as_deref(), Some(key.as_bytes()), "{key:?}");
        let page = tables.scan("t", &Scan { prefix: key.clone(), after: None, limit: 1 }).await.unwrap();
        assert_eq!(page.rows[0].key, *key, "the first key with the prefix {key:?}");
    }
    keys.sort();
    for limit in [0, 1, 3] {
        let found: Vec<_> = all_rows(tables, "", limit).await.into_iter().map(|row| row.key).collect();
        assert_eq!(found, keys, "in pages of {limit}");
    }
    for key in &keys {
        let deleted = apply(tables, write(key, Condition::Present, Action::Delete)).await;
        assert_eq!(deleted, Outcome::Deleted { existed: true }, "{key:?}");
    }
    assert_eq!(all_rows(tables, "", 0).await, []);
}

/// Names and keys that break the rules are refused in reads and writes, and say which rule.
pub async fn names_and_keys_out_of_bounds_are_refused(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let long_name = "n".repeat(TABLE_NAME_BYTES_MAX + 1);
    for table in ["", "T", "a/b", "a.b", "a b", "é", "..", &long_name] {
        let write = Write { table: table.into(), ..put("k", "v") };
        assert!(matches!(tables.apply(vec![write]).await, Err(Error::Invalid(_))), "put in {table:?}");
        assert!(matches!(tables.get(table, "k").await, Err(Error::Invalid(_))), "get from {table:?}");
        let scan = tables.scan(table, &Scan::default()).await;
        assert!(matches!(scan, Err(Error::Invalid(_))), "scan of {table:?}");
    }
    for key in ["", "a\0b", "\0"] {
        assert!(matches!(tables.apply(vec![put(key, "v")]).await, Err(Error::Invalid(_))), "put {key:?}");
        assert!(matches!(tables.get("t", key).await, Err(Error::Invalid(_))), "get {key:?}");
    }
    for key in ["k".repeat(KEY_BYTES_MAX + 1), "é".repeat(KEY_BYTES_MAX / 2 + 1)] {
        assert!(matches!(tables.apply(vec![put(&key, "v")]).await, Err(Error::TooLarge { .. })));
        assert!(matches!(tables.get("t", &key).await, Err(Error::TooLarge { .. })));
    }
    let longest = Write { table: "n".repeat(TABLE_NAME_BYTES_MAX), ..put(&"k".repeat(KEY_BYTES_MAX), "v") };
    tables.apply(vec![longest]).await.unwrap();
}

/// Any bytes are a value, from none to the limit.
pub async fn values_of_every_size_up_to_the_limit(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    for size in [0, 1, 255, 4096, 100_000, VALUE_BYTES_MAX] {
        let bytes: Bytes = (0..size).map(|at| (at % 251) as u8).rev().collect();
        apply(tables, put("k", bytes.clone())).await;
        assert!(value(tables, "k").await == Some(bytes), "a value of {size} bytes");
    }
    let over = tables.apply(vec![put("k", vec![0; VALUE_BYTES_MAX + 1])]).await;
    assert!(
        matches!(over, Err(Error::TooLarge { size, max, .. })
            if size > VALUE_BYTES_MAX as u64 && max == VALUE_BYTES_MAX as u64),
        "{over:?}"
    );
    assert_eq!(value(tables, "k").await.map(|value| value.len()), Some(VALUE_BYTES_MAX));
}

/// The same key in two tables is two rows.
pub async fn tables_are_apart(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let names = ["a", "a-b", "a_b", "b", "0"];
    let batch = names.map(|name| Write { table: name.into(), ..put("k", name) });
    tables.apply(batch.to_vec()).await.unwrap();
    for name in names {
        assert_eq!(tables.get(name, "k").await.unwrap().unwrap().value, name);
        assert_eq!(tables.scan(name, &Scan::default()).await.unwrap().rows.len(), 1);
    }
    assert_eq!(tables.get("c", "k").await.unwrap(), None);
}

/// Each condition holds exactly when it says, and a conflict tells what was found.
pub async fn conditions_decide(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let present = revision_of(apply(tables, put("present", "v")).await);
    let cases = [
        ("absent", Condition::Any, None),
        ("absent", Condition::Absent, None),
        ("absent", Condition::Present, Some(None)),
        ("absent", Condition::Revision(present), Some(None)),
        ("present", Condition::Any, None),
        ("present", Condition::Absent, Some(Some(present))),
        ("present", Condition::Present, None),
        ("present", Condition::Revision(present), None),
        ("present", Condition::Revision(present + 1), Some(Some(present))),
        ("present", Condition::Revision(u64::MAX), Some(Some(present))),
    ];
    for (key, condition, conflict) in cases {
        let result = tables.apply(vec![write(key, condition, Action::Check)]).await;
        match conflict {
            None => assert_eq!(result.unwrap(), [Outcome::Checked], "{key}, {condition:?}"),
            Some(expected) => assert!(
                matches!(&result, Err(Error::Conflict { index: 0, key: named, found })
                    if named == key && *found == expected),
                "{key}, {condition:?}: {result:?}"
            ),
        }
    }
    // The other actions ask the same question.
    let refused = [
        write("present", Condition::Absent, Action::Put { value: "w".into(), ttl: None }),
        write("present", Condition::Revision(present + 1), Action::Delete),
        write("absent", Condition::Present, Action::Increment { by: 1, ttl: None }),
        write("absent", Condition::Present, Action::Delete),
    ];
    for write in refused {
        let result = tables.apply(vec![write.clone()]).await;
        assert!(matches!(result, Err(Error::Conflict { .. })), "{write:?}: {result:?}");
    }
    let swap = write("present", Condition::Revision(present), Action::Put { value: "w".into(), ttl: None });
    assert!(revision_of(apply(tables, swap).await) > present);
    assert_eq!(value(tables, "absent").await, None);
}

/// When one write of a batch is refused, none of the others is done, and the error says which it was.
pub async fn a_refused_batch_changes_nothing(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    apply(tables, put("old", "v")).await;
    let before = all_rows(tables, "", 0).await;
    let start = || {
        let count = Write { table: "other".into(), ..increment("n", 1) };
        vec![put("new", "v"), write("old", Condition::Any, Action::Delete), count]
    };
    let mut conflict = start();
    conflict.push(write("gone", Condition::Present, Action::Check));
    conflict.push(put("never", "v"));
    let result = tables.apply(conflict).await;
    assert!(
        matches!(&result, Err(Error::Conflict { index: 3, key, found: None }) if key == "gone"),
        "{result:?}"
    );
    let mut no_integer = start();
    no_integer.push(increment("new", 1));
    let result = tables.apply(no_integer).await;
    assert!(matches!(&result, Err(Error::NotAnInteger { key }) if key == "new"), "{result:?}");
    let mut too_large = start();
    too_large.push(put(&"k".repeat(KEY_BYTES_MAX + 1), "v"));
    assert!(matches!(tables.apply(too_large).await, Err(Error::TooLarge { .. })));

    assert_eq!(all_rows(tables, "", 0).await, before);
    assert_eq!(tables.get("other", "n").await.unwrap(), None);
}

/// Later writes of a batch see earlier ones, and the outcomes stand in its order.
pub async fn a_batch_sees_its_own_writes(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let outcomes = tables
        .apply(vec![
            put("a", "5"),
            write("a", Condition::Present, Action::Increment { by: 2, ttl: None }),
            write("a", Condition::Any, Action::Delete),
            write("a", Condition::Absent, Action::Increment { by: 1, ttl: None }),
            write("b", Condition::Absent, Action::Check),
            put("b", "v"),
            write("b", Condition::Present, Action::Check),
        ])
        .await
        .unwrap();
    assert!(
        matches!(
            outcomes[..],
            [
                Outcome::Put { revision: first },
                Outcome::Incremented { value: 7, revision: second },
                Outcome::Deleted { existed: true },
                Outcome::Incremented { value: 1, revision: third },
                Outcome::Checked,
                Outcome::Put { .. },
                Outcome::Checked,
            ] if first < second && second < third
        ),
        "{outcomes:?}"
    );
    assert_eq!(value(tables, "a").await.as_deref(), Some(&b"1"[..]));
}

/// A batch of the most writes is done, one more is refused; an empty one does nothing.
pub async fn a_batch_has_a_limit(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    assert_eq!(tables.apply(Vec::new()).await.unwrap(), []);
    let batch = |count: usize| (0..count).map(|n| put(&format!("k{n}"), "v")).collect::<Vec<_>>();
    let over = tables.apply(batch(BATCH_WRITES_MAX + 1)).await;
    assert!(matches!(over, Err(Error::Invalid(_))), "{over:?}");
    assert_eq!(all_rows(tables, "", 0).await, []);
    assert_eq!(tables.apply(batch(BATCH_WRITES_MAX)).await.unwrap().len(), BATCH_WRITES_MAX);
    assert_eq!(all_rows(tables, "", 0).await.len(), BATCH_WRITES_MAX);
}

/// An absent row counts as 0, and the value is decimal text.
pub async fn increments_count(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    for (by, expected) in
        [(0, 0), (5, 5), (-7, -2), (i64::MAX, i64::MAX - 2), (2, i64::MAX), (-1, i64::MAX - 1)]
    {
        let outcome = apply(tables, increment("n", by)).await;
        assert!(matches!(outcome, Outcome::Incremented { value, .. } if value == expected), "{outcome:?}");
        let row = tables.get("t", "n").await.unwrap().unwrap();
        assert_eq!(row.value, expected.to_string());
        assert_eq!(row.revision, revision_of(outcome));
    }
    apply(tables, put("n", "41")).await;
    assert!(matches!(apply(tables, increment("n", 1)).await, Outcome::Incremented { value: 42, .. }));
    let lowest = apply(tables, increment("low", i64::MIN)).await;
    assert!(matches!(lowest, Outcome::Incremented { value: i64::MIN, .. }));
}

/// What is no integer, or would leave the range of one, is refused and kept.
pub async fn increments_need_an_integer(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let (highest, lowest) = (i64::MAX.to_string(), i64::MIN.to_string());
    let cases: [(&[u8], i64); 9] = [
        (b"x", 1),
        (b"", 1),
        (b"1.5", 1),
        (b"1e3", 1),
        (b" 1", 1),
        (b"\xff\xfe", 1),
        (b"9223372036854775808", 0),
        (highest.as_bytes(), 1),
        (lowest.as_bytes(), -1),
    ];
    for (held, by) in cases {
        apply(tables, put("n", held.to_vec())).await;
        let result = tables.apply(vec![increment("n", by)]).await;
        assert!(matches!(&result, Err(Error::NotAnInteger { key }) if key == "n"), "{held:?}: {result:?}");
        assert_eq!(value(tables, "n").await.as_deref(), Some(held));
    }
}

/// Each write of a row gives it a revision that is larger than any before, also after it was deleted.
pub async fn revisions_only_grow(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let mut last = 0;
    for round in 0..5 {
        for key in ["a", "b"] {
            let revision = revision_of(apply(tables, put(key, "same")).await);
            assert!(revision > last, "{revision} after {last}");
            last = revision;
        }
        let counted = revision_of(apply(tables, increment("n", 1)).await);
        assert!(counted > last, "{counted} after {last}");
        last = counted;
        if round % 2 == 0 {
            apply(tables, write("a", Condition::Any, Action::Delete)).await;
        }
    }
}
