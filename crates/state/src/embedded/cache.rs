//! Caches in SQLite: one row for each key. What needs no write, a fresh entry and one that somebody else computes, is read
//! and never waits for the writer. Who is to get a claim goes through the writer, which looks again.
//!
//! They have a database and a writer of their own, whose commits wait for no disk: after a power cut, what was cached last may
//! be missing. Nothing is kept in memory, so that two engines on one folder, as while one `lethe` takes over from another,
//! have the same entries and claims.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};

use super::{
    Store,
    command::Txn,
    failure::{Failure, Stop},
    schema,
};
use crate::{
    Millis,
    cache::{Begun, Cache, Claim, Entry, Fill, READ_BYTES_MAX, Room, USED_STEP, Usage, rule},
    clock::{after, millis},
    error::Error,
    feed::{Feed, followers::Topic},
};

/// Most entries that one fill removes to make room, so that no command waits long behind it. What is over it goes with the
/// next ones.
const EVICTED_MAX: usize = 256;
/// The token of a claim that nobody has, which is a pause.
const NOBODY: u64 = 0;

#[async_trait]
impl Cache for Store {
    async fn begin(&self, cache: &str, key: &str, lease: Duration) -> Result<Begun, Error> {
        rule::check_place(cache, key)?;
        rule::check_lease(lease)?;
        let now = self.clock.now();
        let seen = self.cache.readers.look_up(|connection| Ok(find(connection, cache, key)?)).await?;
        if let Some(begun) = seen.and_then(|known| known.seen(now)) {
            return Ok(begun);
        }
        let (place, token) = (Place { cache: cache.to_owned(), key: key.to_owned() }, rule::new_token()?);
        self.cache.writer.submit(move |txn| Ok(begin(txn, place, token, lease)?)).await
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_lease(lease)?;
        let claim = claim.clone();
        self.cache.writer.submit(move |txn| Ok(extend(txn, &claim, lease)?)).await
    }

    async fn fill(&self, claim: &Claim, fill: Fill) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_fill(&fill)?;
        let claim = claim.clone();
        self.cache.writer.submit(move |txn| Ok(keep(txn, &claim, &fill)?)).await
    }

    async fn abandon(&self, claim: &Claim, pause: Duration) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_pause(pause)?;
        let claim = claim.clone();
        self.cache.writer.submit(move |txn| Ok(abandon(txn, &claim, pause)?)).await
    }

    async fn get_many(&self, cache: &str, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
        rule::check_keys(cache, keys)?;
        let now = self.clock.now();
        if let [key] = keys {
            let known = self.cache.readers.look_up(|connection| Ok(find(connection, cache, key)?)).await?;
            return Ok(vec![known.and_then(|known| known.entry(now))]);
        }
        let (cache, keys) = (cache.to_owned(), keys.to_vec());
        self.cache.readers.read(move |connection| Ok(read(connection, &cache, &keys, now)?)).await
    }

    async fn remove(&self, cache: &str, key: &str) -> Result<(), Error> {
        rule::check_place(cache, key)?;
        let (cache, key) = (cache.to_owned(), key.to_owned());
        self.cache
            .writer
            .submit(move |txn| {
                // Also when it is not there any more: copies of it may be.
                txn.tell(|| (Topic::Cache(cache.as_str().into()), key.clone()));
                let mut delete = txn.prepared(
                    "DELETE FROM entries WHERE cache = (SELECT id FROM caches WHERE name = ?1) AND key = ?2",
                )?;
                delete.execute((&cache, key.as_bytes()))?;
                Ok(())
            })
            .await
    }

    async fn clear(&self, cache: &str) -> Result<(), Error> {
        rule::check_cache(cache)?;
        let cache = cache.to_owned();
        self.cache
            .writer
            .submit(move |txn| {
                txn.tell(|| (Topic::Cache(cache.as_str().into()), String::new()));
                txn.prepared("UPDATE caches SET name = NULL WHERE name = ?1")?.execute([&cache])?;
                Ok(())
            })
            .await
    }

    async fn usage(&self, cache: &str) -> Result<Usage, Error> {
        rule::check_cache(cache)?;
        let usage = self.cache.readers.look_up(|connection| {
            let mut select =
                connection.prepare_cached("SELECT entries, bytes FROM caches WHERE name = ?1")?;
            Ok(select.query_row([cache], read_usage).optional()?)
        });
        Ok(usage.await?.unwrap_or_default())
    }

    async fn follow(&self, cache: &str) -> Result<Feed, Error> {
        rule::check_cache(cache)?;
        self.follow_of(&self.cache.writer, &self.cache_followers, Topic::Cache(cache.into())).await
    }
}

/// Where an entry is.
struct Place {
    cache: String,
    key: String,
}

/// A time that something lasts.
#[derive(Clone, Copy)]
struct Span {
    since: Millis,
    ms: Millis,
}

impl Span {
    /// How much is left of it; `None` when it is over, or the clock was set back by more than all of it.
    fn left(self, now: Millis) -> Option<Duration> {
        let left = self.since.saturating_add(self.ms).saturating_sub(now);
        let most = self.ms.saturating_mul(2);
        u64::try_from(left).ok().filter(|ms| *ms > 0 && left <= most).map(Duration::from_millis)
    }
}

/// A row.
struct Known {
    id: i64,
    /// For how long what was filled is fresh, and for how long it lives.
    filled: Option<(Span, Span)>,
    value: Option<Bytes>,
    claimed: Option<Span>,
    failures: u32,
    used_at: Millis,
}

impl Known {
    fn entry(&self, now: Millis) -> Option<Entry> {
        let (fresh, life) = self.filled?;
        let left = life.left(now)?;
        let fresh = fresh.left(now).unwrap_or_default().min(left);
        Some(Entry { value: self.value.clone(), fresh, left })
    }

    fn busy(&self, now: Millis) -> Option<Duration> {
        self.claimed?.left(now)
    }

    fn was_just_used(&self, now: Millis) -> bool {
        (0..millis(USED_STEP)).contains(&now.saturating_sub(self.used_at))
    }

    /// How the key stands, if nothing is to be written for that.
    fn seen(&self, now: Millis) -> Option<Begun> {
        match (self.entry(now), self.busy(now)) {
            (Some(entry), _) if !entry.fresh.is_zero() => {
                self.was_just_used(now).then_some(Begun::Fresh(entry))
            }
            (Some(entry), Some(_)) => self.was_just_used(now).then_some(Begun::Stale(entry, None)),
            (None, Some(left)) => Some(Begun::Busy(left)),
            (_, None) => None,
        }
    }
}

fn find(connection: &Connection, cache: &str, key: &str) -> rusqlite::Result<Option<Known>> {
    let mut select = connection.prepare_cached(
        "SELECT entries.id, filled_at, fresh_ms, life_ms, claimed_at, lease_ms, failures, used_at, value
         FROM caches JOIN entries ON entries.cache = caches.id LEFT JOIN contents ON contents.entry = entries.id
         WHERE caches.name = ?1 AND entries.key = ?2",
    )?;
    let known = select.query_row((cache, key.as_bytes()), |row| {
        let span = |since: usize, ms: usize| -> rusqlite::Result<Option<Span>> {
            let since: Option<Millis> = row.get(since)?;
            since.map(|since| Ok(Span { since, ms: row.get(ms)? })).transpose()
        };
        Ok(Known {
            id: row.get(0)?,
            filled: span(1, 2)?.zip(span(1, 3)?),
            value: row.get::<_, Option<Vec<u8>>>(8)?.map(Bytes::from),
            claimed: span(4, 5)?,
            failures: row.get(6)?,
            used_at: row.get(7)?,
        })
    });
    known.optional()
}

fn read(
    connection: &Connection,
    cache: &str,
    keys: &[String],
    now: Millis,
) -> rusqlite::Result<Vec<Option<Entry>>> {
    let (mut entries, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let entry = find(connection, cache, key)?.and_then(|known| known.entry(now));
        bytes += entry.as_ref().and_then(|entry| entry.value.as_ref()).map_or(0, Bytes::len);
        if bytes > READ_BYTES_MAX && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn begin(txn: &Txn<'_>, place: Place, token: u64, lease: Duration) -> rusqlite::Result<Begun> {
    let known = find(txn.connection(), &place.cache, &place.key)?;
    let (entry, busy) = match &known {
        Some(known) => (known.entry(txn.now), known.busy(txn.now)),
        None => (None, None),
    };
    if let (None, Some(left)) = (&entry, busy) {
        return Ok(Begun::Busy(left));
    }
    if let (Some(entry), Some(known)) = (&entry, &known)
        && (busy.is_some() || !entry.fresh.is_zero())
    {
        txn.prepared("UPDATE entries SET used_at = ?1 WHERE id = ?2")?.execute((txn.now, known.id))?;
        let entry = entry.clone();
        return Ok(if entry.fresh.is_zero() { Begun::Stale(entry, None) } else { Begun::Fresh(entry) });
    }
    let claim = claim(txn, place, known, entry.is_some(), token, lease)?;
    Ok(match entry {
        Some(entry) => Begun::Stale(entry, Some(claim)),
        None => Begun::Missing(claim),
    })
}

/// Gives a claim on a key that nobody has; what is known of it is kept if it is still of use.
fn claim(
    txn: &Txn<'_>,
    place: Place,
    known: Option<Known>,
    is_of_use: bool,
    token: u64,
    lease: Duration,
) -> rusqlite::Result<Claim> {
    let Place { cache, key } = place;
    let failures = known.as_ref().map_or(0, |known| known.failures);
    if let Some(known) = known {
        if !is_of_use {
            txn.prepared("DELETE FROM contents WHERE entry = ?1")?.execute([known.id])?;
            txn.prepared("UPDATE entries SET filled_at = NULL, bytes = ?1, expires_at = 0 WHERE id = ?2")?
                .execute((key.len() as i64, known.id))?;
        }
        hold(txn, known.id, token, lease)?;
        return Ok(Claim { cache, key, token, failures });
    }
    txn.prepared("INSERT INTO caches (name) VALUES (?1) ON CONFLICT (name) DO NOTHING")?.execute([&cache])?;
    let mut insert = txn.prepared(
        "INSERT INTO entries (cache, key, bytes, used_at, expires_at)
         VALUES ((SELECT id FROM caches WHERE name = ?1), ?2, ?3, ?4, 0) RETURNING id",
    )?;
    let id: i64 = insert.query_row((&cache, key.as_bytes(), key.len() as i64, txn.now), |row| row.get(0))?;
    hold(txn, id, token, lease)?;
    Ok(Claim { cache, key, token, failures })
}

/// Writes a claim into its row, which is kept for twice as long as the lease, for a fill that is late.
fn hold(txn: &Txn<'_>, id: i64, token: u64, lease: Duration) -> rusqlite::Result<()> {
    let mut update = txn.prepared(
        "UPDATE entries SET token = ?2, claimed_at = ?3, lease_ms = ?4, used_at = ?3,
                            expires_at = max(expires_at, ?5)
         WHERE id = ?1",
    )?;
    let (lease_ms, kept_until) = (millis(lease), after(txn.now, lease.saturating_mul(2)));
    update.execute((id, token.cast_signed(), txn.now, lease_ms, kept_until)).map(drop)
}

/// The row that this claim is on, if it was not lost.
fn held(txn: &Txn<'_>, claim: &Claim) -> rusqlite::Result<Option<i64>> {
    if claim.token == NOBODY {
        return Ok(None);
    }
    let mut select = txn.prepared(
        "SELECT entries.id FROM caches JOIN entries ON entries.cache = caches.id
         WHERE caches.name = ?1 AND entries.key = ?2 AND entries.token = ?3 AND entries.expires_at > ?4",
    )?;
    let place = (&claim.cache, claim.key.as_bytes(), claim.token.cast_signed(), txn.now);
    select.query_row(place, |row| row.get(0)).optional()
}

fn extend(txn: &Txn<'_>, claim: &Claim, lease: Duration) -> rusqlite::Result<bool> {
    let Some(id) = held(txn, claim)? else { return Ok(false) };
    hold(txn, id, claim.token, lease)?;
    Ok(true)
}

fn abandon(txn: &Txn<'_>, claim: &Claim, pause: Duration) -> rusqlite::Result<bool> {
    let Some(id) = held(txn, claim)? else { return Ok(false) };
    if !pause.is_zero() {
        hold(txn, id, NOBODY, pause)?;
        txn.prepared("UPDATE entries SET failures = failures + 1 WHERE id = ?1")?.execute([id])?;
        return Ok(true);
    }
    // Without a value nothing is left of it.
    let unfilled = txn.prepared("DELETE FROM entries WHERE id = ?1 AND filled_at IS NULL")?.execute([id])?;
    if unfilled == 0 {
        let end = "UPDATE entries SET token = NULL, claimed_at = NULL, lease_ms = NULL WHERE id = ?1";
        txn.prepared(end)?.execute([id])?;
    }
    Ok(true)
}

fn keep(txn: &mut Txn<'_>, claim: &Claim, fill: &Fill) -> rusqlite::Result<bool> {
    let Some(id) = held(txn, claim)? else { return Ok(false) };
    let Fill { value, fresh, stale, room } = fill;
    let life = fresh.saturating_add(*stale);
    let bytes = claim.key.len() + value.as_ref().map_or(0, Bytes::len);
    let mut update = txn.prepared(
        "UPDATE entries SET filled_at = ?2, fresh_ms = ?3, life_ms = ?4, token = NULL, claimed_at = NULL, lease_ms = NULL,
                            failures = 0, bytes = ?5, used_at = ?2, expires_at = ?6
         WHERE id = ?1 RETURNING cache",
    )?;
    let row = (id, txn.now, millis(*fresh), millis(life), bytes as i64, after(txn.now, life));
    let cache: i64 = update.query_row(row, |row| row.get(0))?;
    match value {
        Some(value) => txn
            .prepared(
                "INSERT INTO contents (entry, value) VALUES (?1, ?2)
                 ON CONFLICT (entry) DO UPDATE SET value = excluded.value",
            )?
            .execute((id, &value[..]))?,
        None => txn.prepared("DELETE FROM contents WHERE entry = ?1")?.execute([id])?,
    };
    make_room(txn, cache, id, *room)?;
    txn.tell(|| (Topic::Cache(claim.cache.as_str().into()), claim.key.clone()));
    Ok(true)
}

/// Removes what was not used for longest, but for one entry, until the rest has room.
fn make_room(txn: &Txn<'_>, cache: i64, kept: i64, room: Room) -> rusqlite::Result<()> {
    let mut held = txn.prepared("SELECT entries, bytes FROM caches WHERE id = ?1")?;
    let mut evict = txn.prepared(
        "DELETE FROM entries
         WHERE id = (SELECT id FROM entries WHERE cache = ?1 AND id != ?2 ORDER BY used_at LIMIT 1)",
    )?;
    for _ in 0..EVICTED_MAX {
        let Usage { entries, bytes } = held.query_row([cache], read_usage)?;
        if entries <= u64::from(room.entries) && bytes <= room.bytes {
            break;
        }
        evict.execute([cache, kept])?;
    }
    Ok(())
}

fn read_usage(row: &rusqlite::Row<'_>) -> rusqlite::Result<Usage> {
    let (entries, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
    Ok(Usage { entries: entries.cast_unsigned(), bytes: bytes.cast_unsigned() })
}

/// Removes so many entries that nobody can see any more; how many there were.
pub(super) fn remove_ended(txn: &Txn<'_>, most: usize) -> Result<usize, Stop> {
    let most = most as i64;
    let expired = txn
        .prepared("DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE expires_at <= ?1 LIMIT ?2)")?
        .execute((txn.now, most))?;
    let cleared = txn
        .prepared(
            "DELETE FROM entries WHERE id IN (
                 SELECT entries.id FROM caches JOIN entries ON entries.cache = caches.id WHERE name IS NULL LIMIT ?1
             )",
        )?
        .execute([most])?;
    txn.prepared("DELETE FROM caches WHERE id IN (SELECT id FROM caches WHERE entries = 0 LIMIT ?1)")?
        .execute([most])?;
    Ok(expired + cleared)
}

/// Opens the database for a sole engine. One that is damaged is thrown away: all in it can be computed again.
pub(super) fn open(database: &Path) -> Result<Connection, Failure> {
    match schema::open_writer(&schema::CACHE, database) {
        Err(Failure::Damaged { file, detail }) => {
            tracing::warn!(
                file,
                detail,
                "the caches' file is damaged and begins anew: what it held is computed again"
            );
            for ending in ["", "-wal", "-shm"] {
                let mut file = database.as_os_str().to_owned();
                file.push(ending);
                match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Failure::io("remove", Path::new(&file), &error));
                    }
                    _ => {}
                }
            }
            schema::open_writer(&schema::CACHE, database)
        }
        opened => opened,
    }
}
