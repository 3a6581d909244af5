//! What a server refuses, and servers that are not what the URL says: the error names it and says what to do.

use std::{error::Error as _, sync::Arc, time::Duration};

use lethe_state::{
    clock::ManualClock,
    error::Error,
    limits::Quota,
    redis::{Redis, Refusal},
    sessions::{Lifetime, NewSession, Patch},
    tables::{Action, Condition, Scan, Write},
};

use crate::{
    cluster,
    harness::{self, Server},
};

fn put(value: Vec<u8>) -> Vec<Write> {
    let action = Action::Put { value: value.into(), ttl: None };
    vec![Write { table: "t".into(), key: "k".into(), condition: Condition::Any, action }]
}

/// What the server said no to.
fn refusal(error: &Error) -> String {
    let source = error.source().unwrap_or_else(|| panic!("not refused: {error:?}"));
    assert!(source.is::<Refusal>(), "{source:?}");
    source.to_string()
}

async fn refused_at(url: &str) -> String {
    let engine = Redis::open(url.parse().unwrap()).unwrap();
    refusal(&engine.engines().tables.get("t", "k").await.unwrap_err())
}

#[tokio::test]
async fn a_wrong_password_is_named_but_not_shown() {
    let server = Server::start_with(&["--save", "", "--requirepass", "richtig"]);
    let text = refused_at(&format!("redis://:geheim@127.0.0.1:{}", server.port)).await;
    assert!(text.contains("WRONGPASS") && text.contains("password in the URL"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
    let text = refused_at(&format!("redis://127.0.0.1:{}", server.port)).await;
    assert!(text.contains("NOAUTH"), "{text}");
    let url = format!("redis://:richtig@127.0.0.1:{}/5", server.port);
    let engine = Redis::open(url.parse().unwrap()).unwrap();
    engine.engines().tables.apply(put(b"v".into())).await.unwrap();
    assert!(server.command(&["-a", "richtig", "-n", "5", "DBSIZE"]).trim().parse::<u32>().unwrap() > 0);
}

/// The rights that the documentation names are enough, and keys of others are out of reach.
#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    let server = Server::start();
    let rights = "+@read +@write +@scripting +@connection +time +cluster|slots";
    let mut user = vec!["ACL", "SETUSER", "app", "on", ">pw", "~shop:*", "-@all"];
    user.extend(rights.split(' '));
    assert_eq!(server.command(&user).trim(), "OK");
    let at = |namespace: &str| format!("redis://app:pw@127.0.0.1:{}/?namespace={namespace}", server.port);
    let engine = Redis::open(at("shop").parse().unwrap()).unwrap();
    let engines = engine.engines();
    engines.tables.apply(put(b"v".into())).await.unwrap();
    engines.tables.scan("t", &Scan::default()).await.unwrap();
    engine.sweep().await.unwrap();
    let new = NewSession { user: Some("ada".into()), ..NewSession::default() };
    let session = engines.sessions.create(new).await.unwrap();
    let session = engines.sessions.renew(&session.id, Some("bob"), Patch::default()).await.unwrap().session;
    engines.sessions.load(&session.id).await.unwrap();
    assert_eq!(engines.sessions.list("bob").await.unwrap().len(), 1);
    assert_eq!(engines.sessions.revoke("bob", None).await.unwrap(), 1);
    engines.limits.take("l", "k", Quota::per(1, Duration::from_secs(1)), 1).await.unwrap();
    let text = refused_at(&at("bank")).await;
    assert!(text.contains("NOPERM"), "{text}");
}

#[tokio::test]
async fn a_cluster_is_not_taken_for_one_server() {
    let url = cluster::shared().address();
    let text = refused_at(&format!("redis://{url}/")).await;
    assert!(text.contains("add `?cluster`"), "{text}");
    let text = refused_at(&format!("redis://127.0.0.1:{}/?cluster", harness::shared().port)).await;
    assert!(text.contains("take `cluster` out"), "{text}");
}

/// A server without memory refuses whole writes, and still reads and removes.
#[tokio::test]
async fn a_full_server_still_reads() {
    let server = Server::start();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Redis::open_with(harness::url(server.port, ""), Arc::new(clock.clone())).unwrap();
    let engines = engine.engines();
    engines.tables.apply(put(b"v".into())).await.unwrap();
    let lifetime = Lifetime { idle: Duration::from_secs(1000), absolute: Duration::from_secs(3600) };
    let new = |user: &str| NewSession { user: Some(user.into()), lifetime, ..NewSession::default() };
    let session = engines.sessions.create(new("ada")).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);

    let text = refusal(&engines.tables.apply(put(vec![0; 1000])).await.unwrap_err());
    assert!(text.contains("maxmemory"), "{text}");
    refusal(&engines.sessions.create(new("bob")).await.unwrap_err());
    refusal(&engines.sessions.renew(&session.id, Some("bob"), Patch::default()).await.unwrap_err());
    assert_eq!(engines.tables.get("t", "k").await.unwrap().unwrap().value, "v");
    // Also past half of its idle time, when use would move it on.
    clock.advance(Duration::from_secs(600));
    assert_eq!(engines.sessions.load(&session.id).await.unwrap(), session);
    clock.advance(Duration::from_secs(400));
    assert!(matches!(engines.sessions.load(&session.id).await, Err(Error::Gone)));
    assert_eq!(engines.sessions.list("ada").await.unwrap(), []);

    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let session = engines.sessions.create(new("ada")).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    engines.sessions.destroy(&session.id).await.unwrap();
    assert!(matches!(engines.sessions.load(&session.id).await, Err(Error::Gone)));
}

/// Scripts that the server has forgotten are sent again.
#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = Server::start();
    let engine = server.engine("");
    let tables = engine.engines().tables;
    for value in ["a", "b"] {
        tables.apply(put(value.into())).await.unwrap();
        assert_eq!(tables.get("t", "k").await.unwrap().unwrap().value, value);
        server.command(&["SCRIPT", "FLUSH"]);
    }
}

/// Keys that something else uses are not written over.
#[tokio::test]
async fn foreign_keys_are_refused() {
    let server = Server::start();
    server.command(&["SET", "shop:{shop:t}:rows:t", "something else"]);
    let engine = Redis::open(format!("redis://127.0.0.1:{}/?namespace=shop", server.port).parse().unwrap());
    let text = refusal(&engine.unwrap().engines().tables.apply(put(b"v".into())).await.unwrap_err());
    assert!(text.contains("WRONGTYPE") && text.contains("namespace"), "{text}");
}
