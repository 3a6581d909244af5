//! A session as a request begins with it: from the near copy, from Redis by a bare GET, and by tower-sessions from its
//! Redis store. One call at a time: what a request waits for.

use std::{sync::Arc, time::Duration};

use lethe_state::{
    near::{Bounds, NearSessions},
    remote::Remote,
    sessions::{NewSession, Sessions},
};
use redis::AsyncCommands as _;
use serde_json::{Value, json};
use tower_sessions::{
    SessionStore as _,
    session::{Id, Record},
};
use tower_sessions_redis_store::{RedisStore, fred::prelude::*};

use crate::{Options, timing::Times};

/// What is in the session: some 300 bytes, as a shop has.
pub fn fields() -> Vec<(String, Value)> {
    let cart: Vec<_> =
        (0..6).map(|item| json!({ "product": format!("product-{item}"), "count": item })).collect();
    [("user", json!("alice")), ("locale", json!("en-GB")), ("cart", json!(cart))]
        .map(|(name, value)| (name.into(), value))
        .into()
}

pub async fn measured(options: &Options) -> Value {
    let length = Duration::from_millis(options.number("milliseconds") as u64);
    let url = options.text("url");
    let times = match options.text("system") {
        "lethe" => lethe(url, length).await,
        "redis" => redis(url, length).await,
        "tower-sessions" => tower_sessions(url, length).await,
        other => panic!("--system {other}"),
    };
    times.figures(length)
}

async fn lethe(url: &str, length: Duration) -> Times {
    let engine = Remote::connect(url).expect("the URL of a state API").engines().sessions;
    let near: Arc<dyn Sessions> = Arc::new(NearSessions::new(engine, Bounds::default()));
    let new = NewSession {
        user: Some("alice".into()),
        fields: fields().into_iter().collect(),
        ..NewSession::default()
    };
    let id = near.create(new).await.expect("a session").id;
    near.load(&id).await.expect("the session");
    Times::of(length, async || drop(near.load(&id).await.expect("the session"))).await
}

async fn redis(url: &str, length: Duration) -> Times {
    let client = redis::Client::open(url).expect("a URL of Redis");
    let connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let json = serde_json::to_vec(&Value::Object(fields().into_iter().collect())).expect("JSON");
    let _: () = connection.clone().set("session", json).await.expect("SET");
    Times::of(length, || {
        let mut connection = connection.clone();
        async move { drop::<Vec<u8>>(connection.get("session").await.expect("GET")) }
    })
    .await
}

async fn tower_sessions(url: &str, length: Duration) -> Times {
    let config = Config::from_url(url).expect("a URL of Redis");
    let pool = Pool::new(config, None, None, None, 6).expect("a pool");
    pool.connect();
    pool.wait_for_connect().await.expect("connections");
    let store = RedisStore::new(pool);
    let expiry_date = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let mut record = Record { id: Id::default(), data: fields().into_iter().collect(), expiry_date };
    store.create(&mut record).await.expect("a session");
    Times::of(length, async || drop(store.load(&record.id).await.expect("the session").expect("a session")))
        .await
}
