//! Near copies of sessions in Redis, while the server is killed and started again.

use std::{sync::Arc, time::Duration};

use lethe_state::{
    error::Error,
    near::{Bounds, NearSessions},
    sessions::{Change, NewSession, Patch, Sessions},
};
use serde_json::json;

use crate::harness::{self, Server};

/// Waits until something holds; fails when it does not come to that.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_can_be_read_while_the_server_is_away_and_are_as_they_are_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_durable(folder.path(), harness::free_port());
    let (port, engine) = (server.port, server.engine(""));
    let sessions = engine.engines().sessions;
    let bounds = Bounds { outage_max: Duration::from_secs(3600), ..Bounds::default() };
    let near = NearSessions::new(Arc::clone(&sessions), bounds);
    until("it is followed", async || near.followed().await.is_ok()).await;
    let id = near.create(NewSession::default()).await.unwrap().id;
    until("it is near", async || {
        let hits = near.counts().hits;
        near.load(&id).await.unwrap();
        near.counts().hits > hits
    })
    .await;

    server.kill();
    until("the copy serves", async || near.load(&id).await.is_ok() && near.counts().outage_hits > 0).await;
    let patch =
        || Patch { changes: [("n".to_owned(), Change { value: Some(json!(1)), expect: None })].into() };
    assert!(matches!(near.load_through(&id).await, Err(Error::Unavailable(_))));
    assert!(matches!(sessions.patch(&id, patch()).await, Err(Error::Unavailable(_))));

    let _server = Server::start_durable(folder.path(), port);
    until("it answers again", async || sessions.patch(&id, patch()).await.is_ok()).await;
    until("it is followed again", async || near.counts().is_followed).await;
    assert_eq!(near.load(&id).await.unwrap().fields["n"].value, json!(1));
}
