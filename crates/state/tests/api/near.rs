//! Near copies of what is behind the state API: the contract holds with them, a use is told, and a session can be read while nobody
//! answers.

use std::{sync::Arc, time::Duration};

use lethe_state::{
    clock::Clock,
    contract::Fixture,
    error::Error,
    near::{Bounds, NearSessions, NearTables},
    sessions::{Change, Lifetime, NewSession, Patch, SessionId, Sessions},
};
use serde_json::json;

use crate::harness::{Server, bounded};

/// A worker with near copies, on a connection of its own.
struct Worker {
    sessions: Arc<NearSessions>,
    tables: Arc<NearTables>,
}

impl Worker {
    fn of(server: &Server) -> Self {
        let (engines, clock) = (server.remote().engines(), Arc::new(server.clock.clone()) as Arc<dyn Clock>);
        let sessions = NearSessions::with_clock(engines.sessions, Bounds::default(), Arc::clone(&clock));
        let tables = ["t", "other"].map(|table| (table.to_owned(), Bounds::default()));
        let tables = NearTables::with_clock(engines.tables, tables, &clock);
        Self { sessions: Arc::new(sessions), tables: Arc::new(tables) }
    }

    async fn followed(server: &Server) -> Self {
        let worker = Self::of(server);
        bounded(worker.sessions.followed()).await.unwrap();
        bounded(worker.tables.followed()).await.unwrap();
        worker
    }
}

async fn near_the_api() -> Fixture {
    let server = Server::start().await;
    let worker = Worker::followed(&server).await;
    let (mut engines, clock) = (server.remote().engines(), server.clock.clone());
    engines.sessions = worker.sessions;
    engines.tables = worker.tables;
    Fixture::new(engines).with_clock(move |by| clock.advance(by)).keeping(server)
}

mod contract {
    use super::near_the_api;

    lethe_state::contract_sessions!(near_the_api);
    lethe_state::contract_tables!(near_the_api);
}

fn set(value: u64) -> Patch {
    Patch { changes: [("n".to_owned(), Change { value: Some(json!(value)), expect: None })].into() }
}

async fn session(sessions: &dyn Sessions) -> SessionId {
    let fields = [("n".to_owned(), json!(0))].into();
    sessions
        .create(NewSession { fields, user: Some("ada".into()), ..NewSession::default() })
        .await
        .unwrap()
        .id
}

async fn n(sessions: &dyn Sessions, id: &SessionId) -> u64 {
    sessions.load(id).await.unwrap().fields["n"].value.as_u64().unwrap()
}

/// Waits until something holds, asking again and again; fails when it does not come to that.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_is_told_to_the_engine_past_half_of_the_idle_time() {
    let server = Server::start().await;
    let here = Worker::followed(&server).await;
    let lifetime = Lifetime { idle: Duration::from_secs(100), absolute: Duration::from_secs(1000) };
    let id = here.sessions.create(NewSession { lifetime, ..NewSession::default() }).await.unwrap().id;
    let first = here.sessions.load(&id).await.unwrap().idle_expires_at;
    server.clock.advance(Duration::from_secs(49));
    assert_eq!(here.sessions.load(&id).await.unwrap().idle_expires_at, first);
    assert_eq!(here.sessions.counts().misses, 1);
    server.clock.advance(Duration::from_secs(2));
    for _ in 0..5 {
        assert_eq!(here.sessions.load(&id).await.unwrap().idle_expires_at, first + 51_000);
    }
    assert_eq!(here.sessions.counts().misses, 2, "it is moved on once, and near again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_engine_is_away_sessions_can_be_read_and_not_written() {
    let mut server = Server::start().await;
    let here = Worker::followed(&server).await;
    let id = session(&*here.sessions).await;
    assert_eq!(n(&*here.sessions, &id).await, 0);
    let unread = session(&*here.sessions).await;
    bounded(server.stop()).await.unwrap();

    until("the loss is noticed", async || !here.sessions.counts().is_followed).await;
    assert_eq!(n(&*here.sessions, &id).await, 0);
    assert!(here.sessions.counts().outage_hits > 0);
    assert!(matches!(here.sessions.load(&unread).await, Err(Error::Unavailable(_))));
    assert!(matches!(here.sessions.load_through(&id).await, Err(Error::Unavailable(_))));
    assert!(matches!(here.sessions.patch(&id, set(1)).await, Err(Error::Unavailable(_))));
    assert!(matches!(here.sessions.load(&id).await, Err(Error::Unavailable(_))), "it may have been changed");

    server.serve();
    until("it answers again", async || server.remote().patch(&id, set(1)).await.is_ok()).await;
    assert_eq!(n(&*here.sessions, &id).await, 1, "nothing of before is believed");
    bounded(here.sessions.followed()).await.unwrap();
    assert_eq!(n(&*here.sessions, &id).await, 1);
    let misses = here.sessions.counts().misses;
    assert_eq!(n(&*here.sessions, &id).await, 1);
    assert_eq!(here.sessions.counts().misses, misses, "it is near again");
}
