//! What fences in tables promise: what is under one is written by the newest holder of a lock alone.

use std::time::Duration;

use super::{Fixture, apply, put, put_for, value, write};
use crate::{
    error::Error,
    locks::{TOKEN_MAX, Token},
    tables::{Action, Condition, Outcome, Write},
};

const MINUTE: Duration = Duration::from_secs(60);

fn fence(key: &str, token: Token) -> Write {
    write(key, Condition::Any, Action::Fence { token })
}

/// A fence takes the same token again and larger ones, and refuses smaller ones with all that came with them.
pub async fn a_fence_refuses_older_tokens(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let batch = |token, text: &'static str| vec![put("a", text), fence("f", token), put("b", text)];
    assert_eq!(tables.apply(batch(5, "five")).await.unwrap()[1], Outcome::Fenced);
    assert_eq!(value(tables, "f").await.as_deref(), Some(&b"5"[..]));
    tables.apply(batch(5, "five again")).await.unwrap();
    tables.apply(batch(7, "seven")).await.unwrap();
    match tables.apply(batch(6, "six")).await {
        Err(Error::Fenced { index: 1, key, token: 6, newest: 7 }) => assert_eq!(key, "f"),
        other => panic!("{other:?}"),
    }
    for key in ["a", "b"] {
        assert_eq!(value(tables, key).await.as_deref(), Some(&b"seven"[..]), "nothing of the batch is done");
    }
    assert_eq!(value(tables, "f").await.as_deref(), Some(&b"7"[..]));
    assert_eq!(apply(tables, fence("f", TOKEN_MAX)).await, Outcome::Fenced);
    assert!(matches!(tables.apply(vec![fence("f", 7)]).await, Err(Error::Fenced { newest: TOKEN_MAX, .. })));
    assert_eq!(apply(tables, fence("g", 1)).await, Outcome::Fenced, "another fence");
}

/// A batch that fails elsewhere does not move the fence.
pub async fn a_refused_batch_leaves_the_fence(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    apply(tables, fence("f", 5)).await;
    let failing = vec![fence("f", 9), write("absent", Condition::Present, Action::Check)];
    assert!(matches!(tables.apply(failing).await, Err(Error::Conflict { index: 1, .. })));
    assert_eq!(apply(tables, fence("f", 6)).await, Outcome::Fenced);
    // Within a batch, later fences see earlier ones.
    let twice = vec![fence("f", 8), fence("f", 7)];
    assert!(matches!(tables.apply(twice).await, Err(Error::Fenced { index: 1, token: 7, newest: 8, .. })));
    assert_eq!(value(tables, "f").await.as_deref(), Some(&b"6"[..]));
}

/// A fence is a row as any: it has a condition, and is refused where something else is. Once set, it stays for always.
pub async fn a_fence_is_a_row(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let first = write("f", Condition::Absent, Action::Fence { token: 3 });
    apply(tables, first.clone()).await;
    assert!(matches!(tables.apply(vec![first]).await, Err(Error::Conflict { index: 0, .. })));
    let row = tables.get("t", "f").await.unwrap().unwrap();
    apply(tables, fence("f", 3)).await;
    assert_eq!(tables.get("t", "f").await.unwrap(), Some(row), "the same token again changes nothing");
    for text in ["text", "-1", "", "1.5"] {
        apply(tables, put("other", text)).await;
        let refused = tables.apply(vec![fence("other", 3)]).await;
        assert!(
            matches!(&refused, Err(Error::NotAnInteger { key }) if key == "other"),
            "{text}: {refused:?}"
        );
    }
    for token in [0, TOKEN_MAX + 1, Token::MAX] {
        let refused = tables.apply(vec![fence("f", token)]).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{token}: {refused:?}");
    }
    apply(tables, put_for("passing", "3", MINUTE)).await;
    apply(tables, fence("passing", 3)).await;
    if fixture.advance(MINUTE) {
        assert_eq!(value(tables, "passing").await.as_deref(), Some(&b"3"[..]));
    }
}

/// Of holders that write at once, none ever overwrites a later one.
pub async fn fenced_writes_never_go_back(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let holders = (1..=12_u64).map(|token| {
        let tables = tables.clone();
        tokio::spawn(async move {
            let mut done = 0;
            for _ in 0..10 {
                match tables.apply(vec![fence("f", token), put("last", token.to_string())]).await {
                    Ok(_) => done += 1,
                    Err(Error::Fenced { newest, .. }) => assert!(newest > token),
                    Err(error) => panic!("{error}"),
                }
                let last = value(&tables, "last").await.unwrap();
                let last: u64 = std::str::from_utf8(&last).unwrap().parse().unwrap();
                assert!(last >= token || done == 0, "{token} was overwritten by {last}");
            }
        })
    });
    for holder in holders.collect::<Vec<_>>() {
        holder.await.unwrap();
    }
    assert_eq!(value(tables, "last").await.as_deref(), Some(&b"12"[..]));
}
