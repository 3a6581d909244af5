//! The engine on PostgreSQL: sessions, tables, locks and idempotency keys in a schema of its own, which it makes and brings
//! to each new version itself. It is for services that run on several machines, or that have a PostgreSQL anyway.
//!
//! A call goes `attempt` → `pool` → a statement of its kind's file. What fails is judged in `failure`: only what was
//! certainly not done is done again. Time is the server's, so that all workers have the same.

mod attempt;
pub mod config;
pub mod failure;
mod feeds;
mod idempotency;
mod locks;
mod pool;
mod portable;
mod schema;
pub mod service;
mod session_row;
mod sessions;
mod sql;
pub mod sweeper;
mod tables;

use std::{str::FromStr, sync::Arc, time::Duration};

use tokio::sync::OnceCell;

pub use self::pool::Figures;
use self::{attempt::attempt, config::Config, pool::Pool, sweeper::Swept};
use crate::{Engines, Millis, breaker::Breaker, clock::Clock, error::Error, feed::source::Source};

/// The engine's name.
const NAME: &str = "postgres";

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
    /// Set once the schema is known to be of this version.
    is_ready: OnceCell<()>,
    sql: Sql,
    feeds: Arc<Source>,
    /// What of the changes that are kept for feeds may be forgotten soon.
    horizon: feeds::Horizon,
}

/// The statements of each kind.
struct Sql {
    feeds: feeds::Sql,
    idempotency: idempotency::Sql,
    locks: locks::Sql,
    portable: portable::Sql,
    sessions: sessions::Sql,
    tables: tables::Sql,
    sweeper: sweeper::Sql,
}

impl Postgres {
    /// An engine on the server that a URL names (see [`Config`]), which is not asked for anything yet: the engine's tables
    /// are made, or brought to this version, before its first use. Many workers may come to that at once: one does it, the
    /// others wait.
    ///
    /// Fails with [`Error::Invalid`] when the URL says something wrong. Needs a tokio runtime, to which the engine's tasks
    /// belong.
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::with(Config::from_str(url)?, None)
    }

    /// The same with a configuration, and with a clock that tells the time in the server's place, for tests.
    pub fn with(config: Config, clock: Option<Arc<dyn Clock>>) -> Result<Self, Error> {
        let Config { server, schema, pool } = config;
        pool.check()?;
        let address = match server.get_socket() {
            Some(socket) => format!("{}:{}", socket.display(), server.get_port()),
            None => format!("{}:{}", server.get_host(), server.get_port()),
        };
        let sql = Sql {
            feeds: feeds::Sql::new(&schema),
            idempotency: idempotency::Sql::new(&schema),
            locks: locks::Sql::new(&schema),
            portable: portable::Sql::new(&schema),
            sessions: sessions::Sql::new(&schema),
            tables: tables::Sql::new(&schema),
            sweeper: sweeper::Sql::new(&schema),
        };
        let store = Arc::new(Store {
            pool: Pool::new(server, pool),
            breaker: Breaker::new(format!("PostgreSQL at {address}")),
            clock,
            server: address,
            schema,
            is_ready: OnceCell::new(),
            sql,
            feeds: Arc::default(),
            horizon: feeds::Horizon::default(),
        });
        tokio::spawn(sweeper::run(Arc::downgrade(&store)));
        Ok(Self { store })
    }

    /// Finds out whether the engine can be used, and makes its tables now.
    ///
    /// Fails, as the first use would, with [`Error::Unavailable`] when the server cannot be reached, and with
    /// [`Error::Engine`], whose source is a [`failure::Failure`], when it does not let us in or the schema is foreign or
    /// newer; nothing is changed then.
    pub async fn ready(&self) -> Result<(), Error> {
        attempt!(self.store, Repeatable, |_connection| std::future::ready(Ok(())))
    }

    /// The engine, by kind of state.
    pub fn engines(&self) -> Engines {
        Engines {
            sessions: self.store.clone(),
            tables: self.store.clone(),
            locks: self.store.clone(),
            idempotency: self.store.clone(),
            ..Engines::absent(NAME)
        }
    }

    /// What its pool of connections is doing.
    pub fn figures(&self) -> Figures {
        self.store.pool.figures()
    }

    /// What it is doing, for who watches.
    pub fn watch(&self, figures: &mut crate::figures::Figures) {
        let (pool, server) = (self.figures(), &self.store.server);
        figures.pools.push(crate::figures::Pool {
            engine: NAME,
            server: server.clone(),
            max: self.store.pool.config().max.into(),
            size: pool.size as u64,
            idle: Some(pool.idle as u64),
            in_use: Some(pool.in_use as u64),
            calls: None,
            waiting: Some(pool.waiting as u64),
            waits_total: pool.waits_total,
            created_total: pool.created_total,
            timeouts_total: pool.timeouts_total,
            lost_total: pool.lost_total,
        });
        figures.breakers.push(self.store.breaker.figures(NAME, server));
    }

    /// Removes what has expired by now, and says how much it was; nothing when another worker is just doing so. The
    /// engine does so by itself every few seconds; nobody sees an expired thing in between.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        sweeper::sweep(&self.store).await
    }

    /// Waits for calls that are under way, `grace` long at most, and closes all connections. Calls that come later fail
    /// with [`Error::Unavailable`].
    pub async fn close(&self, grace: Duration) {
        self.store.feeds.close();
        self.store.pool.close(grace).await;
    }
}

impl Store {
    /// The time that a clock of ours tells; `None` for the server's own.
    fn now(&self) -> Option<Millis> {
        self.clock.as_ref().map(|clock| clock.now())
    }
}
