//! The engine on PostgreSQL: sessions, tables, locks and idempotency keys in a schema of its own, which it makes and brings
//! to each new version itself. It is for services that run on several machines, or that have a PostgreSQL anyway.
//!
//! A call goes `attempt` → `pool` → a statement of its kind's file. What fails is judged in `failure`: only what was
//! certainly not done is done again. Time is the server's, so that all workers have the same.

mod attempt;
pub mod config;
pub mod failure;
mod pool;
mod schema;
mod session_row;
mod sessions;
mod sql;
pub mod sweeper;
mod tables;

use std::{str::FromStr, sync::Arc, time::Duration};

pub use self::pool::Figures;
use self::{
    attempt::{Attempts, Kind, in_time},
    config::Config,
    pool::Pool,
    sweeper::Swept,
};
use crate::{Engines, Millis, breaker::Breaker, clock::Clock, error::Error};

/// Longest time that bringing the schema to a new version may take, with the wait for another worker that does so.
const MIGRATION_MAX: Duration = Duration::from_secs(600);

/// An engine that keeps its state in PostgreSQL. Clones are the same; their connections are closed by
/// [`Postgres::close`], or cut when the last one is dropped.
#[derive(Clone)]
pub struct Postgres {
    store: Arc<Store>,
}

/// What the kinds of state work with.
struct Store {
    pool: Pool,
    breaker: Breaker,
    /// Tells the time in the server's place.
    clock: Option<Arc<dyn Clock>>,
    /// The server's address, for errors.
    server: String,
    schema: String,
    sql: Sql,
}

/// The statements of each kind.
struct Sql {
    sessions: sessions::Sql,
    tables: tables::Sql,
    sweeper: sweeper::Sql,
}

impl Postgres {
    /// Connects to the server that a URL names (see [`Config`]), and makes the engine's tables or brings them to this
    /// version. Many may do so at once: one does it, the others wait.
    ///
    /// Fails with [`Error::Invalid`] when the URL says something wrong, with [`Error::Unavailable`] when the server cannot
    /// be reached, and with [`Error::Engine`], whose source is a [`failure::Failure`], when it does not let us in or the
    /// schema is foreign or newer; nothing is changed then. Needs a tokio runtime, to which the engine's tasks belong.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::open_with(Config::from_str(url)?, None).await
    }

    /// The same with a configuration, and with a clock that tells the time in the server's place, for tests.
    pub async fn open_with(config: Config, clock: Option<Arc<dyn Clock>>) -> Result<Self, Error> {
        let Config { server, schema, pool } = config;
        pool.check()?;
        let address = match server.get_socket() {
            Some(socket) => format!("{}:{}", socket.display(), server.get_port()),
            None => format!("{}:{}", server.get_host(), server.get_port()),
        };
        let sql = Sql {
            sessions: sessions::Sql::new(&schema),
            tables: tables::Sql::new(&schema),
            sweeper: sweeper::Sql::new(&schema),
        };
        let (pool, breaker) = (Pool::new(server, pool), Breaker::new());
        let store = Arc::new(Store { pool, breaker, clock, server: address, schema, sql });
        store.migrate().await?;
        tokio::spawn(sweeper::run(Arc::downgrade(&store)));
        Ok(Self { store })
    }

    /// The engine, by kind of state.
    pub fn engines(&self) -> Engines {
        Engines { sessions: self.store.clone(), tables: self.store.clone(), ..Engines::absent("postgres") }
    }

    /// What its pool of connections is doing.
    pub fn figures(&self) -> Figures {
        self.store.pool.figures()
    }

    /// Removes what has expired by now, and says how much it was; nothing when another worker is just doing so. The
    /// engine does so by itself every few seconds; nobody sees an expired thing in between.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        sweeper::sweep(&self.store).await
    }

    /// Waits for calls that are under way, `grace` long at most, and closes all connections. Calls that come later fail
    /// with [`Error::Unavailable`].
    pub async fn close(&self, grace: Duration) {
        self.store.pool.close(grace).await;
    }
}

impl Store {
    /// The time that a clock of ours tells; `None` for the server's own.
    fn now(&self) -> Option<Millis> {
        self.clock.as_ref().map(|clock| clock.now())
    }

    async fn migrate(&self) -> Result<(), Error> {
        let mut attempts: Attempts<'_> = self.attempts(Kind::Repeatable);
        loop {
            let Some(mut ready) = attempts.begin().await? else { continue };
            let done = in_time(MIGRATION_MAX, schema::migrate(&mut ready.connection, &self.schema)).await;
            if let Some(result) = attempts.end(ready, done).await {
                return result;
            }
        }
    }
}
