//! Feeds of what changes in PostgreSQL: triggers keep the names of what each transaction has changed, and each process that
//! has followers asks a few times a second which transactions have been committed since it last did.
//!
//! Why not NOTIFY: a transaction that notifies holds a lock of the whole server while its commit is being written to the disk
//! (`PreCommit_Notify` in PostgreSQL's `async.c`), so that no two of them share a write, in any database. And LISTEN needs a
//! session, which a pooler does not give. What is asked here needs no more than statements.
//!
//! Commits are not in the order of transactions' numbers. So it is not a number that is remembered but a snapshot
//! (PostgreSQL's manual, table 9.83): new is what the one at hand sees and the last one did not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sqlx::{Connection as _, PgConnection, Row as _, SqlStr};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::{
    Store,
    attempt::attempt,
    failure::{Meaning, Stop},
    pool::NoConnection,
    sql::statements,
};
use crate::{
    error::Error,
    feed::{BEAT, Feed, SILENCE_MAX, followers::Topic, source::Source},
};

/// How often it is asked what has changed.
const ASK_EVERY: Duration = Duration::from_millis(125);
/// Most names that one answer may have; if more has changed meanwhile, all feeds fail.
const NAMES_MAX: i64 = 16_384;
/// How long names are kept after the commit: several times as long as a feed may be silent.
const KEPT: Duration = Duration::from_secs(5);
/// Most names that are forgotten in one statement, and most such statements in a row.
const FORGOTTEN_MAX: i64 = 4096;
const STATEMENTS_MAX: usize = 256;
/// Longest wait for the connection to say farewell.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

statements! {
    /// What is said to PostgreSQL for feeds.
    Sql {
        begin: "INSERT INTO {s}.feed_epoch (id, epoch) VALUES (1, $1) ON CONFLICT DO NOTHING",
        // Below the snapshot's first running transaction, all have ended that it does not see as new.
        read: "SELECT pg_current_snapshot()::text, (SELECT epoch FROM {s}.feed_epoch),
                   array_agg(table_name), array_agg(name)
               FROM (SELECT DISTINCT table_name, name FROM {s}.changes
                     WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot)
                     AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot) LIMIT $2) AS new",
        snapshot: "SELECT pg_current_snapshot()::text",
        horizon: "SELECT pg_snapshot_xmin(pg_current_snapshot())::text",
        forget: "DELETE FROM {s}.changes WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM {s}.changes WHERE xid < $1::text::xid8
                     ORDER BY xid LIMIT $2 FOR UPDATE SKIP LOCKED))",
    }
}

/// The number before which all transactions had ended at some moment, and when that was.
#[derive(Default)]
pub(super) struct Horizon(Mutex<Option<(Instant, String)>>);

impl Store {
    /// Follows what changes there.
    pub(super) async fn follow_topic(&self, topic: Topic) -> Result<Feed, Error> {
        let source = self.feeds.clone();
        let open = async {
            // The tables are made, and a server that is away is left alone, as for any call.
            attempt!(self, Repeatable, |_connection| std::future::ready(Ok(())))?;
            let connection = self.pool.connect_apart().await.map_err(|reason| self.no_feed(reason))?;
            let sql = &self.sql.feeds;
            let mut reader = Reader { connection, read: sql.read.clone(), last: Last::default() };
            let began = timeout(SILENCE_MAX, reader.begin(sql)).await.unwrap_or(Err(Stop::Late));
            began.map_err(|stop| self.feed_failed(stop))?;
            let schema = self.schema.clone();
            Ok(reader.run(source.clone(), schema))
        };
        self.feeds.follow(topic, open).await
    }

    fn no_feed(&self, reason: NoConnection) -> Error {
        match reason {
            NoConnection::Sql(error) => self.feed_failed(Stop::Sql(error)),
            NoConnection::Closed => Error::Unavailable("this engine is closing".into()),
            NoConnection::Busy | NoConnection::Late => self.feed_failed(Stop::Late),
        }
    }

    fn feed_failed(&self, stop: Stop) -> Error {
        match stop {
            Stop::Refused(error) => error,
            Stop::Sql(error) => match Meaning::of(&error, &self.schema) {
                Meaning::Failed(failure) => failure.into(),
                _ => Error::Unavailable(format!("PostgreSQL at {}: {error}", self.server)),
            },
            Stop::Raced | Stop::Late => {
                Error::Unavailable(format!("PostgreSQL at {}: it does not answer in time", self.server))
            }
        }
    }
}

/// Asks what has changed, on a connection of its own.
struct Reader {
    connection: PgConnection,
    read: SqlStr,
    last: Last,
}

/// What is known from the last answer.
#[derive(Default)]
struct Last {
    snapshot: String,
    epoch: i64,
}

/// What has changed: the table, or none for sessions, and the name in bytes.
type Change = (Option<String>, Vec<u8>);

impl Reader {
    /// Takes the first snapshot: what is committed later is told.
    async fn begin(&mut self, sql: &Sql) -> Result<(), Stop> {
        let epoch = getrandom::u64().map_err(|error| {
            Stop::Refused(Error::Unavailable(format!("the system gives no random numbers: {error}")))
        })?;
        let query = sqlx::query(sql.begin.clone()).bind(epoch.cast_signed());
        query.execute(&mut self.connection).await?;
        let row = sqlx::query(sql.snapshot.clone()).fetch_one(&mut self.connection).await?;
        self.last.snapshot = row.try_get(0)?;
        let (epoch, _) = self.read().await?;
        self.last.epoch = epoch.ok_or(sqlx::Error::RowNotFound)?;
        Ok(())
    }

    /// What was committed since the last answer; and the epoch, if there is one.
    async fn read(&mut self) -> Result<(Option<i64>, Vec<Change>), Stop> {
        let query = sqlx::query(self.read.clone()).bind(&self.last.snapshot).bind(NAMES_MAX);
        let row = query.fetch_one(&mut self.connection).await?;
        let tables: Option<Vec<Option<String>>> = row.try_get(2)?;
        let names: Option<Vec<Vec<u8>>> = row.try_get(3)?;
        self.last.snapshot = row.try_get(0)?;
        Ok((row.try_get(1)?, tables.into_iter().flatten().zip(names.into_iter().flatten()).collect()))
    }

    /// Tells what it hears, until nobody follows any more; why it ends.
    async fn run(mut self, source: Arc<Source>, schema: String) -> String {
        let mut tick = interval(ASK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When it was asked what is known now, and when there was the last sign of life.
        let (mut asked_at, mut beat_at) = (Instant::now(), Instant::now());
        loop {
            tick.tick().await;
            if source.is_over() {
                // Whatever it answers, the connection is closed.
                let _ = timeout(FAREWELL_MAX, self.connection.close()).await;
                return "is not followed any more".into();
            }
            let now = Instant::now();
            let (epoch, changes) = match timeout_at(asked_at + SILENCE_MAX, self.read()).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(Stop::Sql(error))) => return format!("is lost: {}", meaning(&error, &schema)),
                Ok(Err(_)) | Err(_) => return "is lost: PostgreSQL does not answer in time".into(),
            };
            if epoch != Some(self.last.epoch) {
                return "has a gap: PostgreSQL has crashed, or a table was emptied".into();
            }
            if changes.len() as i64 >= NAMES_MAX {
                return format!("has a gap: more than {NAMES_MAX} names at once");
            }
            tell(&source, &changes);
            asked_at = now;
            if now.duration_since(beat_at) >= BEAT {
                source.followers().beat();
                beat_at = now;
            }
        }
    }
}

fn meaning(error: &sqlx::Error, schema: &str) -> String {
    match Meaning::of(error, schema) {
        Meaning::Stale(why) | Meaning::Overloaded(why) | Meaning::Lost(why) => why,
        Meaning::Failed(failure) => failure.to_string(),
        Meaning::TakenBack => error.to_string(),
    }
}

fn tell(source: &Source, changes: &[Change]) {
    for (table, name) in changes {
        match table {
            None => source.followers().tell(&Topic::Sessions, &BASE64_URL_SAFE_NO_PAD.encode(name)),
            Some(table) => {
                // Keys are text.
                source.followers().tell(&Topic::Table(table.as_str().into()), &String::from_utf8_lossy(name));
            }
        }
    }
}

/// Forgets names that all who follow have been told long ago: those of transactions that had ended when it was last called.
pub(super) async fn forget(store: &Store) -> Result<(), Error> {
    let before = {
        let horizon = store.horizon.0.lock().unwrap_or_else(PoisonError::into_inner);
        horizon.clone()
    };
    match before {
        Some((at, _)) if at.elapsed() < KEPT => return Ok(()),
        Some((_, horizon)) => {
            for _ in 0..STATEMENTS_MAX {
                let forgotten = attempt!(store, Repeatable, |connection| async {
                    let query =
                        sqlx::query(store.sql.feeds.forget.clone()).bind(&horizon).bind(FORGOTTEN_MAX);
                    Ok::<_, Stop>(query.execute(connection).await?.rows_affected())
                })?;
                if forgotten < FORGOTTEN_MAX.cast_unsigned() {
                    break;
                }
            }
        }
        None => {}
    }
    let horizon: String = attempt!(store, Repeatable, |connection| async {
        let row = sqlx::query(store.sql.feeds.horizon.clone()).fetch_one(connection).await?;
        Ok::<_, Stop>(row.try_get(0)?)
    })?;
    *store.horizon.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), horizon));
    Ok(())
}
