//! Session reads and small writes of tables through a server, from several clients at once: Lethe's embedded engine over its
//! socket, Redis and PostgreSQL over theirs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lethe_state::{
    Engines,
    remote::Remote,
    sessions::{NewSession, SessionId},
    tables::{Action, Condition, Write},
};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::Mutex;

use crate::{Options, near::fields, timing::Times};

/// Rows and sessions that are read and written.
const KEYS: usize = 1000;
/// Bytes of a row that is written.
const ROW: usize = 100;

/// One client of a server.
#[async_trait]
trait Client: Send + Sync {
    async fn read_session(&self, number: usize);
    async fn write_row(&self, number: usize);
}

pub async fn measured(options: &Options) -> Value {
    let length = Duration::from_millis(options.number("milliseconds") as u64);
    let (url, clients, writes) =
        (options.text("url"), options.number("clients"), options.text("op") == "write");
    let clients: Vec<Arc<dyn Client>> = match options.text("system") {
        "lethe" => lethe(url, clients).await,
        "redis" => redis(url, clients, false).await,
        "redis-shared" => redis(url, clients, true).await,
        "postgres" => postgres(url, clients).await,
        other => panic!("--system {other}"),
    };
    let loops = clients.into_iter().enumerate().map(|(first, client)| {
        tokio::spawn(async move {
            let mut number = first * 31;
            Times::of(length, || {
                number = (number + 7) % KEYS;
                let (client, number) = (client.clone(), number);
                async move {
                    if writes { client.write_row(number).await } else { client.read_session(number).await }
                }
            })
            .await
        })
    });
    let mut all = Vec::new();
    for running in loops.collect::<Vec<_>>() {
        all.push(running.await.expect("a client"));
    }
    Times::joined(all).figures(length)
}

struct Lethe {
    engines: Engines,
    ids: Arc<Vec<SessionId>>,
}

async fn lethe(url: &str, clients: usize) -> Vec<Arc<dyn Client>> {
    let engines = Remote::connect(url).expect("the URL of a state API").engines();
    let mut ids = Vec::new();
    for _ in 0..KEYS {
        let new = NewSession { fields: fields().into_iter().collect(), ..NewSession::default() };
        ids.push(engines.sessions.create(new).await.expect("a session").id);
    }
    let ids = Arc::new(ids);
    (0..clients).map(|_| Arc::new(Lethe { engines: engines.clone(), ids: ids.clone() }) as _).collect()
}

#[async_trait]
impl Client for Lethe {
    async fn read_session(&self, number: usize) {
        self.engines.sessions.load(&self.ids[number]).await.expect("the session");
    }

    async fn write_row(&self, number: usize) {
        let action = Action::Put { value: vec![b'x'; ROW].into(), ttl: None };
        let write =
            Write { table: "bench".into(), key: number.to_string(), condition: Condition::Any, action };
        self.engines.tables.apply(vec![write]).await.expect("a write");
    }
}

struct Redis(MultiplexedConnection);

/// With a connection for each client, or one for all, as the crate recommends.
async fn redis(url: &str, clients: usize, is_shared: bool) -> Vec<Arc<dyn Client>> {
    let client = redis::Client::open(url).expect("a URL of Redis");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let json = serde_json::to_vec(&Value::Object(fields().into_iter().collect())).expect("JSON");
    for number in 0..KEYS {
        let _: () = connection.set(format!("session:{number}"), &json).await.expect("SET");
    }
    let mut all: Vec<Arc<dyn Client>> = Vec::new();
    for _ in 0..clients {
        if !is_shared {
            connection = client.get_multiplexed_async_connection().await.expect("a connection");
        }
        all.push(Arc::new(Redis(connection.clone())));
    }
    all
}

#[async_trait]
impl Client for Redis {
    async fn read_session(&self, number: usize) {
        // As a session is: with its JSON read.
        let json: Vec<u8> = self.0.clone().get(format!("session:{number}")).await.expect("GET");
        serde_json::from_slice::<Value>(&json).expect("JSON");
    }

    async fn write_row(&self, number: usize) {
        let _: () = self.0.clone().set(format!("row:{number}"), &[b'x'; ROW][..]).await.expect("SET");
    }
}

struct Postgres(Mutex<PgConnection>);

async fn postgres(url: &str, clients: usize) -> Vec<Arc<dyn Client>> {
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    for sql in [
        "CREATE TABLE IF NOT EXISTS bench_sessions (id int PRIMARY KEY, fields jsonb NOT NULL)",
        "CREATE TABLE IF NOT EXISTS bench_rows (id int PRIMARY KEY, value bytea NOT NULL)",
    ] {
        connection.execute(sql).await.expect("a table");
    }
    let json = Value::Object(fields().into_iter().collect()).to_string();
    sqlx::query(
        "INSERT INTO bench_sessions SELECT n, $1::jsonb FROM generate_series(0, $2) n ON CONFLICT DO NOTHING",
    )
    .bind(json)
    .bind(KEYS as i32)
    .execute(&mut connection)
    .await
    .expect("rows");
    let mut all: Vec<Arc<dyn Client>> = Vec::new();
    for _ in 0..clients {
        all.push(Arc::new(Postgres(Mutex::new(PgConnection::connect(url).await.expect("a connection")))));
    }
    all
}

#[async_trait]
impl Client for Postgres {
    async fn read_session(&self, number: usize) {
        let json: String = sqlx::query_scalar("SELECT fields::text FROM bench_sessions WHERE id = $1")
            .bind(number as i32)
            .fetch_one(&mut *self.0.lock().await)
            .await
            .expect("a row");
        serde_json::from_str::<Value>(&json).expect("JSON");
    }

    async fn write_row(&self, number: usize) {
        sqlx::query(
            "INSERT INTO bench_rows VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET value = excluded.value",
        )
        .bind(number as i32)
        .bind(&[b'x'; ROW][..])
        .execute(&mut *self.0.lock().await)
        .await
        .expect("a write");
    }
}
