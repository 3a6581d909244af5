//! Sessions that others change at the same moment, step by step.

use lethe_state::{
    error::Error,
    sessions::{NewSession, Patch},
};

use crate::{bounded, connection, engine, eventually, execute, number};

/// A revocation that has to wait for a renewal ends what the session has become.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_ends_what_is_just_renewed() {
    let (engine, schema) = engine("").await;
    let sessions = engine.engines().sessions;
    let (mut renewer, mut observer) = (connection().await, connection().await);
    let pid = number(&mut renewer, "SELECT pg_backend_pid()::bigint").await;
    for by_handle in [false, true] {
        let new = NewSession { user: Some("ada".into()), ..NewSession::default() };
        let id = sessions.create(new).await.unwrap().id;
        let handle = by_handle.then_some(sessions.list("ada").await.unwrap()[0].handle.clone());
        // What a renewal does, but slowly.
        execute(
            &mut renewer,
            format!(
                "BEGIN;
                 SELECT hash FROM {schema}.sessions FOR UPDATE;
                 INSERT INTO {schema}.tombstones (hash, successor, user_name, ended_at, forget_at)
                 SELECT hash, sha256(hash), 'ada', 0, absolute_expires_at FROM {schema}.sessions;
                 UPDATE {schema}.sessions SET hash = sha256(hash)"
            ),
        )
        .await;
        let revocation = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.revoke("ada", handle.as_deref()).await }
        });
        let waiting =
            format!("SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))");
        eventually(async || number(&mut observer, waiting.clone()).await == 1).await;
        execute(&mut renewer, "COMMIT").await;
        assert_eq!(bounded(revocation).await.unwrap().unwrap(), 1, "by its handle: {by_handle}");
        assert_eq!(number(&mut observer, format!("SELECT count(*) FROM {schema}.sessions")).await, 0);
        let tombstones = format!("SELECT count(*) FROM {schema}.tombstones");
        assert_eq!(number(&mut observer, tombstones).await, if by_handle { 4 } else { 2 });
        assert!(matches!(sessions.load(&id).await, Err(Error::Gone)));
        assert!(matches!(sessions.renew(&id, Some("ada"), Patch::default()).await, Err(Error::Gone)));
    }
}
