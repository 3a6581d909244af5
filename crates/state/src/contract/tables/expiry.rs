//! What the expiry of rows promises. The cases need a clock that can be moved.

use std::time::Duration;

use super::{Fixture, all_rows, apply, increment, put, put_for, revision_of, value, write};
use crate::{
    error::Error,
    tables::{Action, Condition, Outcome},
};

const MINUTE: Duration = Duration::from_secs(60);

/// A row exists until its time has passed, for reads and scans alike; a put without expiry makes it stay.
pub async fn rows_expire(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    for key in ["a", "b", "c"] {
        apply(tables, put_for(key, "v", MINUTE)).await;
    }
    apply(tables, put("d", "v")).await;
    apply(tables, put("b", "kept")).await;
    let expires_at = tables.get("t", "a").await.unwrap().unwrap().expires_at;
    assert!(expires_at.is_some());
    assert_eq!(tables.get("t", "b").await.unwrap().unwrap().expires_at, None);
    if !fixture.advance(MINUTE - Duration::from_millis(1)) {
        return;
    }
    assert_eq!(all_rows(tables, "", 0).await.len(), 4, "just before");
    apply(tables, put_for("c", "again", MINUTE)).await;
    assert!(tables.get("t", "c").await.unwrap().unwrap().expires_at > expires_at);
    fixture.advance(Duration::from_millis(1));
    assert_eq!(tables.get("t", "a").await.unwrap(), None);
    let keys: Vec<_> = all_rows(tables, "", 1).await.into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["b", "c", "d"]);
    fixture.advance(MINUTE);
    let keys: Vec<_> = all_rows(tables, "", 0).await.into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["b", "d"]);
}

/// To conditions, deletes and increments an expired row is one that is not there.
pub async fn an_expired_row_is_absent_to_writers(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let revision = revision_of(apply(tables, put_for("a", "5", MINUTE)).await);
    for key in ["b", "c", "d"] {
        apply(tables, put_for(key, "5", MINUTE)).await;
    }
    if !fixture.advance(MINUTE) {
        return;
    }
    for condition in [Condition::Present, Condition::Revision(revision)] {
        let result = tables.apply(vec![write("a", condition, Action::Check)]).await;
        assert!(matches!(result, Err(Error::Conflict { found: None, .. })), "{condition:?}: {result:?}");
    }
    let deleted = apply(tables, write("b", Condition::Any, Action::Delete)).await;
    assert_eq!(deleted, Outcome::Deleted { existed: false });
    assert!(matches!(apply(tables, increment("c", 1)).await, Outcome::Incremented { value: 1, .. }));
    assert_eq!(tables.get("t", "c").await.unwrap().unwrap().expires_at, None, "the old expiry is not kept");
    let insert = write("d", Condition::Absent, Action::Put { value: "new".into(), ttl: None });
    assert!(revision_of(apply(tables, insert).await) > revision);
    assert_eq!(value(tables, "d").await.as_deref(), Some(&b"new"[..]));
}

/// An increment of a row that exists keeps its expiry; one that makes the row sets it.
pub async fn an_increment_keeps_the_expiry(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let count = |ttl| write("n", Condition::Any, Action::Increment { by: 1, ttl });
    apply(tables, count(Some(MINUTE))).await;
    let expires_at = tables.get("t", "n").await.unwrap().unwrap().expires_at;
    assert!(expires_at.is_some());
    if !fixture.advance(MINUTE / 2) {
        return;
    }
    for ttl in [Some(10 * MINUTE), None] {
        apply(tables, count(ttl)).await;
        assert_eq!(tables.get("t", "n").await.unwrap().unwrap().expires_at, expires_at);
    }
    fixture.advance(MINUTE / 2);
    assert_eq!(value(tables, "n").await, None);
    assert!(matches!(apply(tables, count(None)).await, Outcome::Incremented { value: 1, .. }));
    assert_eq!(tables.get("t", "n").await.unwrap().unwrap().expires_at, None);
}
