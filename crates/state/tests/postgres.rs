//! The engine on PostgreSQL, with a real server: the contract of each kind, how the schema is made by many at once, and
//! what happens when the server or the way to it is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "postgres/away.rs"]
mod away;
#[path = "postgres/contract.rs"]
mod contract;
#[path = "postgres/feeds.rs"]
mod feeds;
#[path = "postgres/moving.rs"]
mod moving;
#[path = "postgres/pool.rs"]
mod pool;
#[path = "postgres/proxy.rs"]
mod proxy;
#[path = "postgres/schema.rs"]
mod schema;
#[path = "postgres/server.rs"]
mod server;
#[path = "postgres/service.rs"]
mod service;
#[path = "postgres/sessions.rs"]
mod sessions;
#[path = "postgres/sweeper.rs"]
mod sweeper;
#[path = "postgres/tls.rs"]
mod tls;

use std::time::Duration;

use lethe_state::{
    Engines,
    error::Error,
    postgres::{Postgres, failure::Failure},
    tables::{Action, Condition, Outcome, Write},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

/// An engine in a schema of its own, and the schema's name.
async fn engine(more: &str) -> (Postgres, String) {
    let schema = server::fresh_schema();
    let engine = Postgres::new(&server::shared().url(&schema, more)).unwrap();
    engine.ready().await.unwrap();
    (engine, schema)
}

/// A connection past the engine.
async fn connection() -> PgConnection {
    let url = server::shared().bare_url();
    PgConnection::connect(url.split('?').next().unwrap()).await.unwrap()
}

async fn execute(connection: &mut PgConnection, sql: impl Into<String>) {
    connection.execute(AssertSqlSafe(sql.into())).await.unwrap();
}

async fn number(connection: &mut PgConnection, sql: impl Into<String>) -> i64 {
    sqlx::query(AssertSqlSafe(sql.into())).fetch_one(connection).await.unwrap().get(0)
}

fn put(key: impl Into<String>, value: impl Into<String>) -> Write {
    let action = Action::Put { value: value.into().into(), ttl: None };
    Write { table: "t".into(), key: key.into(), condition: Condition::Any, action }
}

fn increment(key: &str) -> Write {
    let action = Action::Increment { by: 1, ttl: None };
    Write { table: "t".into(), key: key.into(), condition: Condition::Any, action }
}

/// Counts up, and says to what.
async fn count(engines: &Engines, key: &str) -> Result<i64, Error> {
    match engines.tables.apply(vec![increment(key)]).await?[..] {
        [Outcome::Incremented { value, .. }] => Ok(value),
        ref other => panic!("{other:?}"),
    }
}

/// What the engine says is wrong with the database.
#[track_caller]
fn failure<T>(result: Result<T, Error>) -> Failure {
    match result {
        Err(Error::Engine(source)) => {
            source.downcast_ref::<Failure>().expect("a failure of this engine").clone()
        }
        Err(other) => panic!("not the engine's own failure: {other:?}"),
        Ok(_) => panic!("it did not fail"),
    }
}

/// Why the engine is not available.
#[track_caller]
fn unavailable<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Unavailable(why)) => why,
        Err(other) => panic!("not unavailable: {other:?}"),
        Ok(_) => panic!("it did not fail"),
    }
}

/// Waits until something is so; a test that would wait for ever fails.
async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    bounded(look).await;
}

/// Ends a test that would wait for ever.
async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it to end at all")
}
