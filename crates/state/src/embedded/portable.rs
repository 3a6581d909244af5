//! What the embedded engine keeps, as records, and back.

use async_trait::async_trait;
use rusqlite::{Connection, Params, Row as SqlRow, ToSql, types::Type};

use super::{Store, command::Txn, failure::Stop, sessions::stale, tables::text_key};
use crate::{
    Millis,
    error::Error,
    feed::followers::Topic,
    idempotency::{Fingerprint, lines},
    portable::{
        Answer, Blob, Counter, Data, Ended, Hash, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Page, Part, Portable,
        Record, Row, Session, hash_after, mixed, pair,
    },
};

#[async_trait]
impl Portable for Store {
    async fn dump(&self, part: Part, after: Option<&str>) -> Result<Page, Error> {
        let (names, hash) = match part {
            Part::Ended | Part::Sessions => (None, hash_after(after)?),
            _ => {
                let (first, second) = pair(after)?;
                (Some((first.to_owned(), second.as_bytes().to_vec())), Vec::new())
            }
        };
        let (is_first, now) = (after.is_none(), self.clock.now());
        self.readers
            .read(move |connection| {
                // What belongs to one record is read at one moment.
                let connection = connection.unchecked_transaction()?;
                let (first, second) = names.unwrap_or_default();
                let names: [&dyn ToSql; 3] = [&first, &second, &now];
                let by_hash: [&dyn ToSql; 2] = [&hash, &now];
                match part {
                    Part::Counters => counter(&connection),
                    Part::Rows => page(&connection, ROWS, is_first, &names, row),
                    Part::Answers => page(&connection, ANSWERS, is_first, &names, answer),
                    Part::Blobs => page(&connection, BLOBS, is_first, &names, blob),
                    Part::Ended => page(&connection, ENDED, is_first, &by_hash, ended),
                    Part::Sessions => page(&connection, SESSIONS, is_first, &by_hash, |connection, sql| {
                        session(connection, sql)
                    }),
                }
            })
            .await
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), Error> {
        self.writer.submit(move |txn| records.into_iter().try_for_each(|record| put(txn, record))).await
    }
}

/// How a part is read: all that there is of it, and how much.
struct Select {
    /// With what it begins behind as its first parameters, and the time as its last.
    page: &'static str,
    /// With the same parameters.
    count: &'static str,
}

const ROWS: Select = Select {
    page: "SELECT table_name, key, value, revision, expires_at FROM rows
           WHERE (table_name, key) > (?1, ?2) AND (expires_at IS NULL OR expires_at > ?3)
           ORDER BY table_name, key",
    count: "SELECT count(*) FROM rows
            WHERE (table_name, key) > (?1, ?2) AND (expires_at IS NULL OR expires_at > ?3)",
};
const ANSWERS: Select = Select {
    page: "SELECT scope, key, fingerprint, status, fields, body, expires_at FROM idempotency
           WHERE (scope, key) > (?1, ?2) AND expires_at > ?3 ORDER BY scope, key",
    count: "SELECT count(*) FROM idempotency
            WHERE (scope, key) > (?1, ?2) AND expires_at > ?3",
};
const BLOBS: Select = Select {
    page: "SELECT bucket, key, size, content_type,
                  (SELECT token FROM blob_fences f WHERE f.bucket = b.bucket AND f.key = b.key)
           FROM blobs b WHERE (bucket, key) > (?1, ?2)
           UNION ALL
           SELECT bucket, key, NULL, NULL, token FROM blob_fences f
           WHERE (bucket, key) > (?1, ?2) AND forget_at > ?3
           AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.bucket = f.bucket AND b.key = f.key)
           ORDER BY 1, 2",
    count: "SELECT (SELECT count(*) FROM blobs WHERE (bucket, key) > (?1, ?2))
            + (SELECT count(*) FROM blob_fences f WHERE (bucket, key) > (?1, ?2) AND forget_at > ?3
               AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.bucket = f.bucket AND b.key = f.key))",
};
const ENDED: Select = Select {
    page: "SELECT hash, successor, user, ended_at, forget_at FROM tombstones
           WHERE hash > ?1 AND forget_at > ?2 ORDER BY hash",
    count: "SELECT count(*) FROM tombstones WHERE hash > ?1 AND forget_at > ?2",
};
const SESSIONS: Select = Select {
    page: "SELECT hash, handle, user, created_at, idle_ms, idle_expires_at, absolute_expires_at, serial,
                  (SELECT last_revision FROM counter)
           FROM sessions WHERE hash > ?1 AND idle_expires_at > ?2 ORDER BY hash",
    count: "SELECT count(*) FROM sessions WHERE hash > ?1 AND idle_expires_at > ?2",
};

/// A record, the cursor behind it, and how many bytes it counts as.
type Read = (Record, String, usize);

fn page(
    connection: &Connection,
    select: Select,
    is_first: bool,
    parameters: &[&dyn ToSql],
    mut read: impl FnMut(&Connection, &SqlRow<'_>) -> rusqlite::Result<Read>,
) -> Result<Page, Stop> {
    let mut found = Page::default();
    if is_first {
        let total: i64 = connection.query_row(select.count, parameters, |sql| sql.get(0))?;
        found.total = u64::try_from(total).ok();
    }
    let mut statement = connection.prepare_cached(select.page)?;
    let mut rows = statement.query(parameters)?;
    let (mut bytes, mut last) = (0, None);
    while let Some(sql) = rows.next()? {
        if found.records.len() == PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX {
            found.next = last;
            break;
        }
        let (record, cursor, size) = read(connection, sql)?;
        found.records.push(record);
        (bytes, last) = (bytes.saturating_add(size), Some(cursor));
    }
    Ok(found)
}

fn counter(connection: &Connection) -> Result<Page, Stop> {
    let last: i64 = connection.query_row("SELECT last_revision FROM counter", [], |sql| sql.get(0))?;
    let records = vec![Record::Counter(Counter { last: last.cast_unsigned() })];
    Ok(Page { records, total: Some(1), ..Page::default() })
}

fn row(_: &Connection, sql: &SqlRow<'_>) -> rusqlite::Result<Read> {
    let (table, key): (String, String) = (sql.get(0)?, text_key(sql, 1)?);
    let value: Vec<u8> = sql.get(2)?;
    let (cursor, size) = (format!("{table}/{key}"), value.len());
    let (revision, value) = (sql.get::<_, i64>(3)?.cast_unsigned(), Data(value.into()));
    Ok((Record::Row(Row { table, key, value, revision, expires_at: sql.get(4)? }), cursor, size))
}

fn answer(_: &Connection, sql: &SqlRow<'_>) -> rusqlite::Result<Read> {
    let (scope, key): (String, String) = (sql.get(0)?, text_key(sql, 1)?);
    let (fields, body): (Option<Vec<u8>>, Option<Vec<u8>>) = (sql.get(4)?, sql.get(5)?);
    let (fields, body) = (fields.unwrap_or_default(), body.unwrap_or_default());
    let (cursor, size) = (format!("{scope}/{key}"), fields.len() + body.len());
    let fields = lines::read(&fields.into()).into_iter().map(|(name, value)| (name, Data(value))).collect();
    let answer = Answer {
        scope,
        key,
        fingerprint: Fingerprint(sql.get(2)?).to_string(),
        status: sql.get(3)?,
        fields,
        body: Data(body.into()),
        expires_at: sql.get(6)?,
    };
    Ok((Record::Answer(answer), cursor, size))
}

fn blob(_: &Connection, sql: &SqlRow<'_>) -> rusqlite::Result<Read> {
    let (bucket, key): (String, String) = (sql.get(0)?, text_key(sql, 1)?);
    let cursor = format!("{bucket}/{key}");
    let (size, fence): (Option<i64>, Option<i64>) = (sql.get(2)?, sql.get(4)?);
    let (size, fence) = (size.map(i64::cast_unsigned), fence.map(i64::cast_unsigned));
    let blob = Blob { bucket, key, size, content_type: sql.get(3)?, fence, sha256: None };
    let weight = usize::try_from(size.unwrap_or(0)).unwrap_or(usize::MAX);
    Ok((Record::Blob(blob), cursor, weight))
}

fn ended(_: &Connection, sql: &SqlRow<'_>) -> rusqlite::Result<Read> {
    let hash = Hash(sql.get(0)?);
    let successor = sql.get::<_, Option<[u8; 32]>>(1)?.map(Hash);
    let ended = Ended { hash, successor, user: sql.get(2)?, ended_at: sql.get(3)?, forget_at: sql.get(4)? };
    Ok((Record::Ended(ended), hash.to_text(), 0))
}

fn session(connection: &Connection, sql: &SqlRow<'_>) -> rusqlite::Result<Read> {
    let hash = Hash(sql.get(0)?);
    let mut session = Session {
        hash,
        handle: sql.get(1)?,
        user: sql.get(2)?,
        fields: Default::default(),
        version: sql.get::<_, i64>(8)?.cast_unsigned(),
        created_at: sql.get(3)?,
        idle_ms: sql.get(4)?,
        idle_expires_at: sql.get(5)?,
        absolute_expires_at: sql.get(6)?,
    };
    let mut statement =
        connection.prepare_cached("SELECT name, value, revision FROM session_fields WHERE session = ?1")?;
    let (mut rows, mut size) = (statement.query([sql.get::<_, i64>(7)?])?, 0);
    while let Some(field) = rows.next()? {
        let json = field.get_ref(1)?.as_str()?;
        size += json.len();
        let value = serde_json::from_str(json)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, error.into()))?;
        session.fields.insert(field.get(0)?, (value, field.get::<_, i64>(2)?.cast_unsigned()));
    }
    Ok((Record::Session(session), hash.to_text(), size))
}

fn put(txn: &mut Txn<'_>, record: Record) -> Result<(), Stop> {
    match record {
        Record::Counter(counter) => txn.raise(counter.last),
        Record::Row(row) => put_row(txn, row)?,
        Record::Ended(ended) => put_ended(txn, ended)?,
        Record::Session(session) => put_session(txn, session)?,
        Record::Answer(answer) => put_answer(txn, answer)?,
        Record::Blob(_) => return Err(mixed(&record).into()),
    }
    Ok(())
}

fn run(txn: &Txn<'_>, sql: &str, parameters: impl Params) -> rusqlite::Result<()> {
    txn.prepared(sql)?.execute(parameters).map(drop)
}

fn put_row(txn: &mut Txn<'_>, row: Row) -> rusqlite::Result<()> {
    let Row { table, key, value, revision, expires_at } = row;
    txn.raise(revision);
    run(
        txn,
        "INSERT INTO rows (table_name, key, value, revision, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (table_name, key) DO UPDATE
         SET value = excluded.value, revision = excluded.revision, expires_at = excluded.expires_at
         WHERE rows.revision <= excluded.revision OR rows.expires_at <= ?6",
        (&table, key.as_bytes(), &value.0[..], revision.cast_signed(), expires_at, txn.now),
    )?;
    txn.tell(|| (Topic::Table(table.into()), key));
    Ok(())
}

fn put_ended(txn: &mut Txn<'_>, ended: Ended) -> rusqlite::Result<()> {
    let Ended { hash, successor, user, ended_at, forget_at } = ended;
    txn.changes_session(&hash.0);
    run(txn, "DELETE FROM sessions WHERE hash = ?1", [hash.0])?;
    run(
        txn,
        "INSERT OR REPLACE INTO tombstones (hash, successor, user, ended_at, forget_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        (hash.0, successor.map(|hash| hash.0), user, ended_at, forget_at),
    )?;
    txn.tell(|| stale(&hash.0));
    Ok(())
}

fn put_session(txn: &mut Txn<'_>, session: Session) -> Result<(), Stop> {
    let Session { hash, handle, user, fields, version, .. } = &session;
    txn.raise(*version);
    // One that lives is what was brought before, or was used since.
    const IS_KNOWN: &str = "SELECT 1 FROM tombstones WHERE hash = ?1
                            UNION ALL SELECT 1 FROM sessions WHERE hash = ?1 AND idle_expires_at > ?2";
    if txn.prepared(IS_KNOWN)?.exists((hash.0, txn.now))? {
        return Ok(());
    }
    txn.tell(|| stale(&hash.0));
    // Also one that had the same handle under an id that was renewed since.
    let displaced = txn
        .prepared("DELETE FROM sessions WHERE hash = ?1 OR handle = ?2 RETURNING hash")?
        .query_map((hash.0, handle), |row| row.get(0))?
        .collect::<Result<Vec<_>, _>>()?;
    displaced.iter().for_each(|hash| txn.changes_session(hash));
    let times: [Millis; 4] =
        [session.created_at, session.idle_ms, session.idle_expires_at, session.absolute_expires_at];
    let serial = txn
        .prepared(
            "INSERT INTO sessions
             (hash, handle, user, created_at, idle_ms, idle_expires_at, absolute_expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .insert((hash.0, handle, user, times[0], times[1], times[2], times[3]))?;
    for (name, (value, revision)) in fields {
        run(
            txn,
            "INSERT INTO session_fields (session, name, value, revision) VALUES (?1, ?2, ?3, ?4)",
            (serial, name, value.to_string(), revision.cast_signed()),
        )?;
    }
    Ok(())
}

fn put_answer(txn: &mut Txn<'_>, answer: Answer) -> Result<(), Stop> {
    let fingerprint: Fingerprint = answer.fingerprint.parse()?;
    let fields: Vec<_> = answer.fields.into_iter().map(|(name, value)| (name, value.0)).collect();
    // A token of its own: no claim of before can be ended with it.
    let token = txn.next_revision().cast_signed();
    let key = answer.key.as_bytes();
    Ok(run(
        txn,
        "INSERT INTO idempotency
         (scope, key, fingerprint, token, owner, claimed_until, kept_ms, expires_at, status, fields, body)
         VALUES (?1, ?2, ?3, ?4, '', 0, 1, ?5, ?6, ?7, ?8)
         ON CONFLICT (scope, key) DO UPDATE
         SET fingerprint = excluded.fingerprint, token = excluded.token, owner = excluded.owner,
             claimed_until = excluded.claimed_until, kept_ms = excluded.kept_ms, expires_at = excluded.expires_at,
             status = excluded.status, fields = excluded.fields, body = excluded.body
         -- What was brought as begun, and nobody has begun again, may have ended since.
         WHERE idempotency.expires_at <= ?9
             OR (idempotency.claimed_until = 0 AND idempotency.status IS NULL)",
        (
            &answer.scope,
            key,
            &fingerprint.0[..],
            token,
            answer.expires_at,
            answer.status,
            lines::write(&fields),
            &answer.body.0[..],
            txn.now,
        ),
    )?)
}
