//! Where a test's state is kept: real servers of its own, which end with it, and the `[state]` that names them.

use crate::{moto, postgres, redis};

/// The engines of one `lethe`, or of several in a row.
pub struct Engines {
    pub redis: Option<redis::Server>,
    pub postgres: Option<postgres::Server>,
    /// The folder of the bucket that blobs are in.
    pub folder: Option<String>,
    toml: String,
}

impl Engines {
    /// What `lethe` has of its own.
    pub fn embedded() -> Self {
        Self { redis: None, postgres: None, folder: None, toml: String::new() }
    }

    /// All in Redis, but blobs.
    pub fn redis() -> Self {
        let redis = redis::Server::start_synced();
        let toml = format!("[state]\nurl = \"{}\"\nblobs = \"embedded\"\n", redis_url(&redis));
        Self { redis: Some(redis), toml, ..Self::embedded() }
    }

    /// Three servers: tables and idempotency keys in PostgreSQL, blobs on S3, and all else in Redis.
    pub fn apart() -> Self {
        let (redis, postgres) = (redis::Server::start_synced(), postgres::Server::start());
        let bucket = moto::shared().url("");
        let toml = format!(
            "[state]\nurl = \"{}\"\ntables = \"{rows}\"\nidempotency = \"{rows}\"\nblobs = \"{bucket}\"\n",
            redis_url(&redis),
            rows = postgres.url("shop", ""),
        );
        let folder = bucket.split('?').next().and_then(|place| place.rsplit('/').next()).map(str::to_owned);
        Self { redis: Some(redis), postgres: Some(postgres), folder, toml }
    }

    /// The same two the other way around: sessions in PostgreSQL, tables in Redis.
    pub fn crossed() -> Self {
        let (redis, postgres) = (redis::Server::start_synced(), postgres::Server::start());
        let toml = format!(
            "[state]\nurl = \"{}\"\nsessions = \"{}\"\nblobs = \"embedded\"\n",
            redis_url(&redis),
            postgres.url("shop", ""),
        );
        Self { redis: Some(redis), postgres: Some(postgres), folder: None, toml }
    }

    /// The section of a `lethe.toml`; nothing where nothing needs to be said.
    pub fn toml(&self) -> &str {
        &self.toml
    }
}

fn redis_url(server: &redis::Server) -> String {
    // The disk on which each write is synced may be busy with much else.
    let patience = "response_timeout_ms=60000&connect_timeout_ms=60000";
    format!("redis://127.0.0.1:{}/?namespace=shop&{patience}", server.port)
}
