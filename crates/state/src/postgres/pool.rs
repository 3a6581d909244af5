//! The pool of connections. It is the engine's own rather than sqlx's, which asks the server twice around each use whether
//! the connection still is one, has no limit of its own for making a connection, and does not tell who waits.
//!
//! A connection that is lent out is counted by a permit, and comes back only by [`Lent::give_back`]: one that is dropped
//! with its call, in the middle of whatever it was doing, is closed.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::config::PoolConfig;
use crate::clock::jittered;

mod keeper;

/// Longest wait for a connection to say farewell; then it is just closed.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// How much longer than for one statement a transaction may stay open while its owner does nothing, before the server
/// takes it back and lets go of its locks.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// The pool. Clones are the same.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    server: PgConnectOptions,
    config: PoolConfig,
    /// A permit for each connection that may be lent out.
    permits: Arc<Semaphore>,
    /// The last to come is the first to go, so that those that are not needed grow old.
    idle: Mutex<Vec<Entry>>,
    /// All connections there are, lent out, idle or being made.
    size: Arc<AtomicUsize>,
    closed: AtomicBool,
    /// Connections made before the last that was lost are asked before they are used again.
    lost_at: Mutex<Option<Instant>>,
    waiting: AtomicUsize,
    waits: AtomicU64,
    acquired: AtomicU64,
    created: AtomicU64,
    timeouts: AtomicU64,
    lost: AtomicU64,
}

/// A connection, and what is known of it.
struct Entry {
    connection: PgConnection,
    ends_at: Instant,
    rests_since: Instant,
    _counted: Counted,
}

/// Counts a connection for as long as there is one.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the pool is doing, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Connections there are, also those that are just being made.
    pub size: usize,
    /// Those of them that nobody uses.
    pub idle: usize,
    /// Those that are lent out.
    pub in_use: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// How many callers had to wait for one.
    pub waits_total: u64,
    /// How often one was lent out.
    pub acquired_total: u64,
    /// How many were made.
    pub created_total: u64,
    /// How many callers waited in vain.
    pub timeouts_total: u64,
    /// How many were lost in use.
    pub lost_total: u64,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// All are in use, and none came back in time.
    Busy,
    /// The server does not answer in time.
    Late,
    /// It cannot be reached, or does not let us in.
    Sql(sqlx::Error),
    /// The pool is closed.
    Closed,
}

/// A connection that is lent out.
pub(super) struct Lent {
    entry: Option<Entry>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool that has no connections yet; a task makes the first ones, and keeps them from then on. Needs a runtime.
    pub(super) fn new(server: PgConnectOptions, config: PoolConfig) -> Self {
        let shared = Arc::new(Shared {
            // Statements may hold what is nobody's business in a log.
            server: server.disable_statement_logging(),
            config,
            permits: Arc::new(Semaphore::new(config.max as usize)),
            idle: Mutex::default(),
            size: Arc::default(),
            closed: AtomicBool::new(false),
            lost_at: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            acquired: AtomicU64::new(0),
            created: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        keeper::start(&shared);
        Self { shared }
    }

    /// How it is kept.
    pub(super) fn config(&self) -> &PoolConfig {
        &self.shared.config
    }

    /// Lends a connection out. Dropped, nothing is lost.
    pub(super) async fn acquire(&self) -> Result<Lent, NoConnection> {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.config.acquire_timeout;
        let free = shared.permits.clone().try_acquire_owned();
        let permit = if let Ok(permit) = free {
            permit
        } else {
            let _waiting = Waiting::new(shared);
            match timeout_at(deadline, shared.permits.clone().acquire_owned()).await {
                Ok(permit) => permit.map_err(|_| NoConnection::Closed)?,
                Err(_) => {
                    shared.timeouts.fetch_add(1, Ordering::Relaxed);
                    return Err(NoConnection::Busy);
                }
            }
        };
        let found = timeout_at(deadline, async {
            loop {
                match shared.take_idle() {
                    Some(entry) => {
                        if let Some(entry) = shared.validate(entry).await {
                            return Ok(entry);
                        }
                    }
                    None => return shared.connect().await,
                }
            }
        });
        let entry = found.await.unwrap_or(Err(NoConnection::Late))?;
        shared.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(Lent { entry: Some(entry), shared: shared.clone(), _permit: permit })
    }

    /// A connection that is not one of the pool's, for somebody who keeps it.
    pub(super) async fn connect_apart(&self) -> Result<PgConnection, NoConnection> {
        self.shared.open().await
    }

    /// What it is doing.
    pub(super) fn figures(&self) -> Figures {
        let shared = &self.shared;
        let idle = lock(&shared.idle).len();
        let free = shared.permits.available_permits();
        Figures {
            size: shared.size.load(Ordering::Relaxed),
            idle,
            in_use: (shared.config.max as usize).saturating_sub(free),
            waiting: shared.waiting.load(Ordering::Relaxed),
            waits_total: shared.waits.load(Ordering::Relaxed),
            acquired_total: shared.acquired.load(Ordering::Relaxed),
            created_total: shared.created.load(Ordering::Relaxed),
            timeouts_total: shared.timeouts.load(Ordering::Relaxed),
            lost_total: shared.lost.load(Ordering::Relaxed),
        }
    }

    /// Lends nothing out any more, waits for what is lent out, at most `grace`, and closes all connections.
    pub(super) async fn close(&self, grace: Duration) {
        let shared = &self.shared;
        shared.closed.store(true, Ordering::SeqCst);
        let all = timeout(grace, shared.permits.acquire_many(shared.config.max)).await;
        // What still is out is closed as it comes back.
        drop(all);
        shared.permits.close();
        let idle = std::mem::take(&mut *lock(&shared.idle));
        futures_util::future::join_all(idle.into_iter().map(say_farewell)).await;
    }
}

impl Shared {
    fn take_idle(&self) -> Option<Entry> {
        lock(&self.idle).pop()
    }

    /// The connection, if it still is one and not too old.
    async fn validate(&self, mut entry: Entry) -> Option<Entry> {
        let now = Instant::now();
        if now >= entry.ends_at {
            say_farewell(entry).await;
            return None;
        }
        let rested = now.saturating_duration_since(entry.rests_since);
        let in_doubt = lock(&self.lost_at).is_some_and(|lost_at| entry.rests_since <= lost_at);
        if rested < self.config.validate_after && !in_doubt {
            return Some(entry);
        }
        match timeout(self.config.create_timeout, entry.connection.ping()).await {
            Ok(Ok(())) => Some(entry),
            _ => {
                self.note_loss();
                None
            }
        }
    }

    /// All connections that rest now are in doubt.
    fn note_loss(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        *lock(&self.lost_at) = Some(Instant::now());
    }

    /// Makes a connection.
    async fn open(&self) -> Result<PgConnection, NoConnection> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(NoConnection::Closed);
        }
        let made = timeout(self.config.create_timeout, async {
            let mut connection = self.server.connect().await?;
            connection.execute(AssertSqlSafe(set_up(&self.config))).await?;
            Ok(connection)
        });
        made.await.map_or(Err(NoConnection::Late), |made| made.map_err(NoConnection::Sql))
    }

    async fn connect(self: &Arc<Self>) -> Result<Entry, NoConnection> {
        self.size.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(self.size.clone());
        let connection = self.open().await?;
        self.created.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        // Up to a tenth earlier, so that connections made together do not end together.
        let lifetime = self.config.max_lifetime;
        let ends_at = now + lifetime - lifetime / 5 + jittered(lifetime / 5);
        Ok(Entry { connection, ends_at, rests_since: now, _counted: counted })
    }

    fn keep(&self, mut entry: Entry) {
        entry.rests_since = Instant::now();
        lock(&self.idle).push(entry);
    }
}

/// What each connection begins with. No session is to wait for ever, and what it confirms is to be on the disk, whatever
/// the server's defaults are; a setting that asks for more than that (`remote_apply`) stays.
fn set_up(config: &PoolConfig) -> String {
    let statement_ms = config.statement_timeout.as_millis();
    let forgotten_ms = (config.statement_timeout + FORGOTTEN_AFTER).as_millis();
    format!(
        "SELECT set_config('statement_timeout', '{statement_ms}ms', false), \
         set_config('idle_in_transaction_session_timeout', '{forgotten_ms}ms', false), \
         CASE WHEN current_setting('synchronous_commit') = 'off' \
         THEN set_config('synchronous_commit', 'on', false) END"
    )
}

impl Lent {
    /// Brings it back; it must not be in the middle of anything.
    pub(super) async fn give_back(mut self) {
        let Some(entry) = self.entry.take() else { return };
        if self.shared.closed.load(Ordering::SeqCst) || Instant::now() >= entry.ends_at {
            say_farewell(entry).await;
        } else {
            self.shared.keep(entry);
        }
    }

    /// It is of no use any more, and others may not be either.
    pub(super) fn lose(self) {
        self.shared.note_loss();
    }

    /// It is of no use for what comes next, but says farewell properly.
    pub(super) async fn discard(mut self) {
        if let Some(entry) = self.entry.take() {
            say_farewell(entry).await;
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    #[allow(clippy::expect_used, reason = "it is taken out only by methods that consume the lent connection")]
    fn deref(&self) -> &PgConnection {
        &self.entry.as_ref().expect("a connection").connection
    }
}

impl DerefMut for Lent {
    #[allow(clippy::expect_used, reason = "it is taken out only by methods that consume the lent connection")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.entry.as_mut().expect("a connection").connection
    }
}

/// Counts a caller who waits.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        shared.waits.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells the server that the connection ends; one that is just closed is a line in its log.
async fn say_farewell(entry: Entry) {
    // Whatever it answers, the connection is closed.
    let _ = timeout(FAREWELL_MAX, entry.connection.close()).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
