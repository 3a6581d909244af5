//! What is kept in the server: no secret, nothing for longer than promised, and an index that may lag behind.

use std::{sync::Arc, time::Duration};

use lethe_state::{
    clock::ManualClock,
    error::Error,
    redis::Redis,
    sessions::{Lifetime, NewSession, Patch, Session, Sessions},
    tables::{Action, Condition, Write},
};

use crate::harness::{self, Server};

fn of(user: &str) -> NewSession {
    NewSession { user: Some(user.into()), ..NewSession::default() }
}

async fn create(sessions: &Arc<dyn Sessions>, user: &str) -> Session {
    sessions.create(of(user)).await.unwrap()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The log of all that was ever written has the hash of an id, and nothing of the id.
#[tokio::test]
async fn the_secret_id_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_durable(folder.path(), harness::free_port());
    let engine = server.engine("");
    let sessions = engine.engines().sessions;
    let first = create(&sessions, "ada").await;
    sessions.load(&first.id).await.unwrap();
    let second = sessions.renew(&first.id, Some("ada"), Patch::default()).await.unwrap().session;
    sessions.destroy(&second.id).await.unwrap();
    let mut log = Vec::new();
    for file in std::fs::read_dir(folder.path().join("appendonlydir")).unwrap() {
        log.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let has = |part: &[u8]| log.windows(part.len()).any(|window| window == part);
    assert!(has(b"ada"), "the log is not where it was looked for");
    for session in [&first, &second] {
        assert!(!has(session.id.to_text().as_bytes()) && !has(session.id.as_bytes()));
    }
}

/// The server forgets a session's data at its idle end, and its mark a day after the absolute one.
#[tokio::test]
async fn the_server_forgets_sessions_by_itself() {
    let server = Server::start();
    let engine = server.engine("");
    let sessions = engine.engines().sessions;
    let (idle, absolute) = (Duration::from_secs(1000), Duration::from_secs(100_000));
    let lifetime = Lifetime { idle, absolute };
    let session = sessions.create(NewSession { lifetime, ..NewSession::default() }).await.unwrap();
    let keys = lines(&server.command(&["KEYS", "*"]));
    assert_eq!(keys.len(), 2, "{keys:?}");
    let left = |key: &str| server.command(&["PTTL", key]).trim().parse::<u64>().unwrap();
    let (mark, data): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.ends_with(":m"));
    assert!((1..=1_000_000).contains(&left(data[0])), "{}", left(data[0]));
    assert!((150_000_000..=186_400_000).contains(&left(mark[0])), "{}", left(mark[0]));
    sessions.destroy(&session.id).await.unwrap();
    assert_eq!(lines(&server.command(&["KEYS", "*"])), [mark[0].clone()]);
    assert!(left(mark[0]) > 150_000_000);

    let brief = Lifetime { idle: Duration::from_millis(1), absolute };
    let brief = sessions.create(NewSession { lifetime: brief, ..of("ada") }).await.unwrap();
    while sessions.load(&brief.id).await.is_ok() {}
    assert!(matches!(sessions.load(&brief.id).await, Err(Error::Gone)), "gone, not unknown");
    assert_eq!(sessions.revoke("ada", None).await.unwrap(), 0);
}

/// Rows that have expired leave nothing behind.
#[tokio::test]
async fn expired_rows_are_swept() {
    let server = Server::start();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Redis::open_with(harness::url(server.port, ""), Arc::new(clock.clone())).unwrap();
    let tables = engine.engines().tables;
    let count = 700;
    for n in 0..count {
        let ttl = (n % 7 != 0).then_some(Duration::from_secs(1 + n % 2));
        let action = Action::Put { value: "v".into(), ttl };
        let table = format!("t{}", n % 3);
        let write = Write { table, key: format!("a/{n}"), condition: Condition::Any, action };
        tables.apply(vec![write]).await.unwrap();
    }
    let kept = (0..count).filter(|n| n % 7 == 0).count();
    assert_eq!(engine.sweep().await.unwrap(), 0);
    clock.advance(Duration::from_secs(1));
    engine.sweep().await.unwrap();
    clock.advance(Duration::from_secs(1));
    engine.sweep().await.unwrap();
    let mut left = 0;
    for key in lines(&server.command(&["KEYS", "*rows*"])) {
        left += server.command(&["HLEN", &key]).trim().parse::<usize>().unwrap();
        let order = key.replace("rows", "order");
        assert_eq!(server.command(&["ZCARD", &order]), server.command(&["HLEN", &key]));
    }
    assert_eq!(left, kept);
    assert_eq!(lines(&server.command(&["KEYS", "*expiries*"])), Vec::<String>::new());
}

/// The only index of a server, and its entries.
fn index(server: &Server) -> (String, Vec<String>) {
    let key = lines(&server.command(&["KEYS", "*{u:*"])).pop().expect("an index");
    let entries = lines(&server.command(&["ZRANGE", &key, "0", "-1"]));
    (key, entries)
}

/// An entry whose session has ended is cleared away by who meets it; one whose session is yet to come is let be.
#[tokio::test]
async fn a_list_repairs_the_index() {
    let server = Server::start();
    let engine = server.engine("");
    let sessions = engine.engines().sessions;
    let (ended, live) = (create(&sessions, "ada").await, create(&sessions, "ada").await);
    let (key, entries) = index(&server);
    assert_eq!(entries.len(), 2);
    sessions.destroy(&ended.id).await.unwrap();
    assert_eq!(index(&server).1.len(), 1, "an end is noted at once");
    // As when the server with the index was away then.
    server.command(&["ZADD", &key, "1", &entries[0]]);
    let unborn = format!("handle {} 99999999999999", "A".repeat(43));
    server.command(&["ZADD", &key, "2", &unborn]);
    let listed = sessions.list("ada").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].created_at, live.created_at);
    let left = index(&server).1;
    assert!(left.len() == 2 && left.contains(&unborn), "{left:?}");
    assert_eq!(sessions.revoke("ada", None).await.unwrap(), 1);
    assert_eq!(index(&server).1, [unborn]);
}

/// A session that is renewed while its user's sessions are revoked does not get away under its new id.
#[tokio::test]
async fn a_revocation_follows_renewals() {
    let server = Server::start();
    let engine = server.engine("");
    let sessions = engine.engines().sessions;
    let first = create(&sessions, "ada").await;
    let (key, before) = index(&server);
    let second = sessions.renew(&first.id, Some("ada"), Patch::default()).await.unwrap().session;
    let third = sessions.renew(&second.id, Some("ada"), Patch::default()).await.unwrap().session;
    // The index as the revocation has read it before the renewals.
    server.command(&["DEL", &key]);
    server.command(&["ZADD", &key, "1", &before[0]]);
    assert_eq!(sessions.revoke("ada", None).await.unwrap(), 1);
    assert!(matches!(sessions.load(&third.id).await, Err(Error::Gone)));

    let first = create(&sessions, "bob").await;
    let (key, before) = index(&server);
    let carol = sessions.renew(&first.id, Some("carol"), Patch::default()).await.unwrap().session;
    server.command(&["ZADD", &key, "1", &before[0]]);
    assert_eq!(sessions.revoke("bob", None).await.unwrap(), 0);
    assert_eq!(sessions.load(&carol.id).await.unwrap(), carol, "it is another user's by now");
}

/// A user's many sessions are listed in pages and revoked all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_have_many_sessions() {
    let engine = harness::shared().engine("");
    let sessions = engine.engines().sessions;
    let count = 1203;
    let created: Vec<_> = futures_util::future::join_all((0..count).map(|_| create(&sessions, "ada"))).await;
    let listed = sessions.list("ada").await.unwrap();
    assert_eq!(listed.len(), lethe_state::sessions::LIST_MAX);
    assert!(listed.is_sorted_by_key(|info| std::cmp::Reverse(info.created_at)));
    let one = &listed[999].handle;
    assert_eq!(sessions.revoke("ada", Some(one)).await.unwrap(), 1);
    assert_eq!(sessions.revoke("ada", None).await.unwrap(), count - 1);
    assert_eq!(sessions.list("ada").await.unwrap(), []);
    for session in created {
        assert!(matches!(sessions.load(&session.id).await, Err(Error::Gone)));
    }
}
