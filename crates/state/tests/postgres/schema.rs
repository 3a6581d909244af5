//! The engine's tables: who makes them, who may not, and what is in them.

use std::{collections::BTreeMap, sync::Arc};

use lethe_state::{
    blobs,
    postgres::{Postgres, failure::Failure},
    sessions::NewSession,
};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::Barrier;

use crate::{bounded, connection, count, engine, eventually, execute, failure, number, server};

const WORKERS: usize = 16;

/// Workers that boot at once make the tables once, and all can use them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_begin_at_once_make_the_tables_once() {
    let schema = server::fresh_schema();
    let start = Arc::new(Barrier::new(WORKERS));
    let workers = (0..WORKERS).map(|_| {
        let (url, start) = (server::shared().url(&schema, "&min=0&max=2"), start.clone());
        tokio::spawn(async move {
            let engine = Postgres::new(&url).unwrap();
            start.wait().await;
            count(&engine.engines(), "workers").await
        })
    });
    let mut values = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        values.push(worker.await.unwrap().unwrap());
    }
    values.sort_unstable();
    assert_eq!(values, (1..=WORKERS as i64).collect::<Vec<_>>());
    let mut connection = connection().await;
    assert_eq!(number(&mut connection, format!("SELECT version::bigint FROM {schema}.lethe")).await, 2);
}

/// A worker that dies in the middle of making the tables leaves nothing behind, and the next one makes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_migration_is_taken_up_again() {
    let schema = server::fresh_schema();
    let (mut blocker, mut observer) = (connection().await, connection().await);
    execute(&mut blocker, format!("CREATE SCHEMA {schema}")).await;
    // Another session is about to make a table of the same name: the migration waits for it in the middle of its step.
    execute(&mut blocker, format!("BEGIN; CREATE TABLE {schema}.tombstones ()")).await;
    let engine = Postgres::new(&server::shared().url(&schema, "&min=0")).unwrap();
    let migration = tokio::spawn({
        let engine = engine.clone();
        async move { engine.ready().await }
    });
    let blocker_pid = number(&mut blocker, "SELECT pg_backend_pid()::bigint").await;
    let waiting = format!(
        "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity WHERE {blocker_pid} = ANY (pg_blocking_pids(pid))"
    );
    let mut pid = 0;
    eventually(async || {
        pid = number(&mut observer, waiting.clone()).await;
        pid > 0
    })
    .await;
    execute(&mut observer, format!("SELECT pg_terminate_backend({pid})")).await;
    execute(&mut blocker, "ROLLBACK").await;
    bounded(migration).await.unwrap().expect("the engine tries again by itself");
    assert_eq!(count(&engine.engines(), "n").await.unwrap(), 1);
}

/// Tables that a newer version has made are refused, and stay as they are.
#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (engine, schema) = engine("").await;
    count(&engine.engines(), "n").await.unwrap();
    let mut connection = connection().await;
    execute(&mut connection, format!("UPDATE {schema}.lethe SET version = 99")).await;
    let older = Postgres::new(&server::shared().url(&schema, "")).unwrap();
    let found = failure(older.ready().await);
    assert!(matches!(found, Failure::Newer { found: 99, known: 2, .. }), "{found:?}");
    assert!(found.to_string().contains("run the newer lethe"), "{found}");
    assert!(matches!(failure(count(&older.engines(), "n").await), Failure::Newer { .. }), "for each use");
    assert_eq!(count(&engine.engines(), "n").await.unwrap(), 2, "who has begun already goes on");
}

/// Tables of something else are not taken for the engine's own, and nothing is put beside them.
#[tokio::test]
async fn a_foreign_schema_is_refused() {
    let (schema, mut connection) = (server::fresh_schema(), connection().await);
    execute(&mut connection, format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.mine ()")).await;
    let engine = Postgres::new(&server::shared().url(&schema, "")).unwrap();
    let found = failure(engine.ready().await);
    assert!(matches!(found, Failure::Foreign { .. }), "{found:?}");
    let tables = format!("SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace");
    assert_eq!(number(&mut connection, tables).await, 1);
}

/// A role that may not make a schema is told what to do, and can work with one that it was given.
#[tokio::test]
async fn a_role_needs_no_more_than_a_schema_of_its_own() {
    let (schema, mut connection) = (server::fresh_schema(), connection().await);
    let role = format!("role_of_{schema}");
    execute(&mut connection, format!("CREATE ROLE {role} LOGIN")).await;
    let url = server::shared().url(&schema, &format!("&user={role}"));
    let engine = Postgres::new(&url).unwrap();
    let found = failure(engine.ready().await);
    assert!(matches!(found, Failure::Denied { .. }), "{found:?}");
    assert!(found.to_string().contains(&format!("CREATE SCHEMA {schema}")), "{found}");
    execute(&mut connection, format!("CREATE SCHEMA {schema} AUTHORIZATION {role}")).await;
    engine.ready().await.expect("it needs no restart");
    assert_eq!(count(&engine.engines(), "n").await.unwrap(), 1);

    let unknown = server::shared().url(&schema, "&user=nobody_knows");
    let found = failure(Postgres::new(&unknown).unwrap().ready().await);
    assert!(matches!(found, Failure::Refused { .. }), "{found:?}");
}

/// A database that cannot hold all text is refused before anything is made in it.
#[tokio::test]
async fn a_database_that_is_not_unicode_is_refused() {
    let (schema, mut connection) = (server::fresh_schema(), connection().await);
    let database = format!("latin_{schema}");
    execute(
        &mut connection,
        format!("CREATE DATABASE {database} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"),
    )
    .await;
    let engine = Postgres::new(&server::shared().url(&schema, &format!("&dbname={database}"))).unwrap();
    let found = failure(engine.ready().await);
    assert!(matches!(&found, Failure::Encoding { encoding } if encoding == "LATIN1"), "{found:?}");
}

/// Who reads the database finds no session's secret id.
#[tokio::test]
async fn secret_ids_are_nowhere() {
    let (engine, schema) = engine("").await;
    let sessions = &engine.engines().sessions;
    let fields: BTreeMap<_, _> = [("cart".to_owned(), serde_json::json!(["apple"]))].into();
    let new = NewSession { user: Some("ada".into()), fields, ..NewSession::default() };
    let first = sessions.create(new).await.unwrap().id;
    let second = sessions.renew(&first, Some("ada"), Default::default()).await.unwrap().session.id;
    let mut connection = connection().await;
    let sql = format!(
        "SELECT (SELECT string_agg(s::text, ' ') FROM {schema}.sessions s),
                (SELECT string_agg(t::text, ' ') FROM {schema}.tombstones t)"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
    let (stored, buried): (String, String) = (row.get(0), row.get(1));
    assert!(stored.contains("apple") && stored.contains("ada") && buried.contains("ada"));
    for id in [first, second] {
        let hex: String = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [&stored, &buried] {
            assert!(!text.contains(&hex) && !text.contains(&id.to_text()), "{text}");
        }
    }
}

/// Time is the server's own when nobody says otherwise.
#[tokio::test]
async fn the_time_is_the_servers() {
    let (engine, _) = engine("").await;
    let mut connection = connection().await;
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let before = number(&mut connection, now).await;
    let session = engine.engines().sessions.create(NewSession::default()).await.unwrap();
    let after = number(&mut connection, now).await;
    assert!((before..=after).contains(&session.created_at), "{before} {} {after}", session.created_at);
}

/// What PostgreSQL is no good place for is refused by name.
#[tokio::test]
async fn other_kinds_are_refused() {
    let (engine, _) = engine("").await;
    let error = engine.engines().blobs.delete("b", "k", blobs::Condition::Any, None).await.unwrap_err();
    assert_eq!(error.to_string(), "the postgres engine does not offer blobs");
    let error = engine.engines().limits.reset("login", "ada").await.unwrap_err();
    assert_eq!(error.to_string(), "the postgres engine does not offer limits");
}
