//! How a call becomes attempts on connections: which failures are tried again, for how long, and what the caller is told
//! in the end. Nothing is silently done again that may have been done.

use std::time::Duration;

use sqlx::Executor;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Store,
    failure::{Meaning, Stop},
    pool::{Lent, NoConnection},
    schema,
};
use crate::{breaker::Pass, clock::jittered, error::Error};

/// Most attempts of one call after failures of the server or of connections.
const ATTEMPTS_MAX: u32 = 6;
/// Most attempts of one call that others were quicker than. Each time somebody else has got on, so that this many are
/// only needed under a flood of writes to one key.
const RACES_MAX: u32 = 64;
/// Longest time that bringing the schema to a new version may take, with the wait for another worker that does so.
const MIGRATION_MAX: Duration = Duration::from_secs(600);
/// The pause before the second attempt; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What an attempt does, which decides when it may be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads, and writes that change nothing when they come twice: always.
    Repeatable,
    /// One statement that writes: only when it is certain that the server has not done it.
    Once,
    /// Several statements between BEGIN and COMMIT: until COMMIT is sent, nothing is done.
    Transaction,
}

/// The attempts of one call.
pub(super) struct Attempts<'a> {
    store: &'a Store,
    kind: Kind,
    began: Instant,
    failures: u32,
    races: u32,
}

/// Does `$work`, a future that gives `Result<_, Stop>`, on a connection, as often as is needed and allowed; gives
/// `Result<_, Error>`. (A closure could not say that its future is Send for any lifetime of the connection.)
macro_rules! attempt {
    ($store:expr, $kind:ident, |$connection:ident| $work:expr) => {{
        let mut attempts = $store.attempts($crate::postgres::attempt::Kind::$kind);
        loop {
            match attempts.begin().await {
                Ok(Some(mut lent)) => {
                    let $connection = &mut *lent.connection;
                    let done = $crate::postgres::attempt::in_time(lent.limit, $work).await;
                    if let Some(result) = attempts.end(lent, done).await {
                        break result;
                    }
                }
                Ok(None) => {}
                Err(error) => break Err(error),
            }
        }
    }};
}
pub(super) use attempt;

/// A connection for one attempt, and the right to use it.
pub(super) struct Ready<'a> {
    pub(super) connection: Lent,
    /// Longest time that the attempt may take.
    pub(super) limit: Duration,
    pass: Pass<'a>,
}

/// Bounds an attempt: the server has its own limit for a statement, but a network that swallows all has none.
pub(super) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Stop>>,
) -> Result<T, Stop> {
    timeout(limit, work).await.unwrap_or(Err(Stop::Late))
}

impl Store {
    /// The attempts of a call that begins now.
    pub(super) fn attempts(&self, kind: Kind) -> Attempts<'_> {
        Attempts { store: self, kind, began: Instant::now(), failures: 0, races: 0 }
    }

    fn unavailable(&self, why: impl std::fmt::Display) -> Error {
        Error::Unavailable(format!("PostgreSQL at {}: {why}", self.server))
    }
}

impl<'a> Attempts<'a> {
    /// A connection for the next attempt; `None` when there was none, and it is to be tried again.
    pub(super) async fn begin(&mut self) -> Result<Option<Ready<'a>>, Error> {
        let pass = match self.store.breaker.enter() {
            Ok(pass) => pass,
            Err(resting) => {
                // A caller that tries again and again leaves others their turn.
                tokio::task::yield_now().await;
                return Err(self.store.unavailable(resting));
            }
        };
        // Twice what one statement may take: the server is the first to lose its patience.
        let limit = self.store.pool.config().statement_timeout * 2;
        let mut connection = match self.store.pool.acquire().await {
            Ok(connection) => connection,
            Err(reason) => return self.not_connected(pass, reason).await.map(|()| None),
        };
        let prepared = self.prepare(&mut connection, limit).await;
        let ready = Ready { connection, limit, pass };
        match prepared {
            Ok(()) => Ok(Some(ready)),
            Err(stop) => self.fail(ready, stop, false).await.map_or(Ok(None), Err),
        }
    }

    /// What comes before the first statement of an attempt.
    async fn prepare(&self, connection: &mut Lent, limit: Duration) -> Result<(), Stop> {
        let store = self.store;
        if !store.is_ready.initialized() {
            in_time(MIGRATION_MAX, async {
                let made = store.is_ready.get_or_try_init(|| schema::migrate(connection, &store.schema));
                made.await.map(drop)
            })
            .await?;
        }
        if self.kind == Kind::Transaction {
            in_time(limit, async {
                connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Judges an attempt; `None` when it is to be done again.
    pub(super) async fn end<T>(
        &mut self,
        mut ready: Ready<'_>,
        done: Result<T, Stop>,
    ) -> Option<Result<T, Error>> {
        let value = match done {
            Ok(value) => value,
            Err(stop) => return self.fail(ready, stop, self.kind == Kind::Once).await.map(Err),
        };
        if self.kind == Kind::Transaction {
            let limit = ready.limit;
            let committed = in_time(limit, async {
                ready.connection.execute("COMMIT").await?;
                Ok(())
            });
            if let Err(stop) = committed.await {
                return self.fail(ready, stop, true).await.map(Err);
            }
        }
        ready.pass.succeeded();
        ready.connection.give_back().await;
        Some(Ok(value))
    }

    /// What follows when there is no connection.
    async fn not_connected(&mut self, pass: Pass<'_>, reason: NoConnection) -> Result<(), Error> {
        match reason {
            // The server may be well: nothing is known of it.
            NoConnection::Busy => {
                let config = self.store.pool.config();
                Err(self.store.unavailable(format_args!(
                    "no connection has become free for {:?}: all {} are in use; allow more with max=, or look for what \
                     keeps them",
                    config.acquire_timeout, config.max
                )))
            }
            NoConnection::Closed => Err(self.store.unavailable("this engine is closing")),
            NoConnection::Late => {
                let limit = self.store.pool.config().create_timeout;
                let why = format!("no connection could be made within {limit:?}");
                pass.failed(&why);
                self.again_or(why).await
            }
            NoConnection::Sql(error) => match Meaning::of(&error, &self.store.schema) {
                Meaning::Failed(failure) => {
                    pass.succeeded();
                    Err(failure.into())
                }
                Meaning::TakenBack => self.again_or(error.to_string()).await,
                Meaning::Stale(why) | Meaning::Overloaded(why) | Meaning::Lost(why) => {
                    pass.failed(&why);
                    self.again_or(why).await
                }
            },
        }
    }

    /// What follows when an attempt has failed; `None` when it is to be done again. `in_doubt` says whether it is unknown,
    /// should the connection be lost, what was done.
    async fn fail(&mut self, ready: Ready<'_>, stop: Stop, in_doubt: bool) -> Option<Error> {
        let Ready { connection, pass, .. } = ready;
        let meaning = match stop {
            Stop::Refused(error) => {
                pass.succeeded();
                self.take_back(connection).await;
                return Some(error);
            }
            Stop::Raced => Meaning::TakenBack,
            Stop::Late => Meaning::Lost("it does not answer in time".into()),
            Stop::Sql(error) => Meaning::of(&error, &self.store.schema),
        };
        match meaning {
            Meaning::TakenBack => {
                pass.succeeded();
                self.take_back(connection).await;
                self.race_again().await.err()
            }
            Meaning::Stale(why) => {
                pass.succeeded();
                connection.discard().await;
                self.again_or(why).await.err()
            }
            Meaning::Overloaded(why) => {
                pass.succeeded();
                self.take_back(connection).await;
                Some(self.store.unavailable(why))
            }
            Meaning::Failed(failure) => {
                pass.succeeded();
                // Whatever state it is in, another one is not.
                connection.discard().await;
                Some(failure.into())
            }
            Meaning::Lost(why) => {
                pass.failed(&why);
                connection.lose();
                if in_doubt {
                    return Some(
                        self.store.unavailable(format_args!("{why}; whether it was done is not known")),
                    );
                }
                self.again_or(why).await.err()
            }
        }
    }

    /// Ends a transaction that is not to be committed.
    async fn take_back(&self, mut connection: Lent) {
        if self.kind == Kind::Transaction {
            let limit = self.store.pool.config().statement_timeout;
            if !matches!(timeout(limit, connection.execute("ROLLBACK")).await, Ok(Ok(_))) {
                connection.lose();
                return;
            }
        }
        connection.give_back().await;
    }

    /// Waits for the next attempt, or says why there is none.
    async fn again_or(&mut self, why: String) -> Result<(), Error> {
        self.failures += 1;
        if self.failures >= ATTEMPTS_MAX || self.began.elapsed() >= self.store.pool.config().acquire_timeout {
            return Err(self.store.unavailable(format_args!("{why} ({} attempts)", self.failures)));
        }
        sleep(jittered(PAUSE_MIN.saturating_mul(1 << (self.failures - 1)).min(PAUSE_MAX))).await;
        Ok(())
    }

    /// The same after others were quicker.
    async fn race_again(&mut self) -> Result<(), Error> {
        self.races += 1;
        if self.races >= RACES_MAX || self.began.elapsed() >= self.store.pool.config().acquire_timeout {
            return Err(self.store.unavailable(format_args!(
                "others were quicker {} times: too many write to the same",
                self.races
            )));
        }
        sleep(jittered(Duration::from_millis(1).saturating_mul(self.races).min(PAUSE_MAX))).await;
        Ok(())
    }
}
