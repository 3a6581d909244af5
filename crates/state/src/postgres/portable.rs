//! What PostgreSQL keeps, as records, and back.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{PgConnection, Row as SqlRow, postgres::PgRow};

use super::{Store, attempt::attempt, failure::Stop, sql::statements, tables::text_key};
use crate::{
    error::Error,
    idempotency::Fingerprint,
    portable::{
        Answer, Counter, Data, Ended, Hash, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Page, Part, Portable, Record,
        Row, Session, hash_after, mixed, pair,
    },
    sessions::Field,
};

/// A step of the sequence of revisions, of which each may be used.
const BLOCK: i64 = 128;

statements! {
    /// What is said to PostgreSQL when state is moved. Of what comes behind a cursor in two names, these are parameters 2 and 3;
    /// a hash is parameter 2. The last parameters are how many are read, and behind how many bytes no more.
    Sql {
        counter: "SELECT last_value FROM {s}.revisions",
        // Taken before it is looked at, so that nobody draws from it until the end of the transaction.
        hold_counter: "ALTER SEQUENCE {s}.revisions NO CYCLE",
        set_counter: "SELECT setval('{s}.revisions', $1)",
        rows: "SELECT table_name, key, value, revision, expires_at
               FROM (SELECT *, sum(octet_length(value)) OVER (ORDER BY table_name, key) - octet_length(value) AS before
                     FROM {s}.rows
                     WHERE (table_name, key) > ($2, $3) AND (expires_at IS NULL OR expires_at > {now})
                     ORDER BY table_name, key LIMIT $4) AS page
               WHERE before < $5 ORDER BY table_name, key",
        count_rows: "SELECT count(*) FROM {s}.rows WHERE expires_at IS NULL OR expires_at > {now}",
        answers: "SELECT scope, key, fingerprint, status, names, contents, body, expires_at
                  FROM (SELECT *, sum(coalesce(octet_length(body), 0)) OVER (ORDER BY scope, key)
                                   - coalesce(octet_length(body), 0) AS before
                        FROM {s}.idempotency
                        WHERE (scope, key) > ($2, $3) AND expires_at > {now}
                        ORDER BY scope, key LIMIT $4) AS page
                  WHERE before < $5 ORDER BY scope, key",
        count_answers: "SELECT count(*) FROM {s}.idempotency WHERE expires_at > {now}",
        ended: "SELECT hash, successor, user_name, ended_at, forget_at FROM {s}.tombstones
                WHERE hash > $2 AND forget_at > {now} ORDER BY hash LIMIT $3",
        count_ended: "SELECT count(*) FROM {s}.tombstones WHERE forget_at > {now}",
        sessions: "SELECT hash, handle, user_name, fields, version, created_at, idle_ms, idle_expires_at,
                       absolute_expires_at
                   FROM (SELECT *, sum(octet_length(fields)) OVER (ORDER BY hash) - octet_length(fields) AS before
                         FROM {s}.sessions WHERE hash > $2 AND idle_expires_at > {now} ORDER BY hash LIMIT $3) AS page
                   WHERE before < $4 ORDER BY hash",
        count_sessions: "SELECT count(*) FROM {s}.sessions WHERE idle_expires_at > {now}",
        put_row: "INSERT INTO {s}.rows AS old (table_name, key, value, revision, expires_at)
                  VALUES ($2, $3, $4, $5, $6)
                  ON CONFLICT (table_name, key) DO UPDATE
                  SET value = excluded.value, revision = excluded.revision, expires_at = excluded.expires_at
                  WHERE old.revision <= excluded.revision OR old.expires_at <= {now}",
        put_answer: "INSERT INTO {s}.idempotency AS old (scope, key, fingerprint, token, owner, claimed_until, kept_ms,
                         expires_at, status, names, contents, body)
                     VALUES ($2, $3, $4, nextval('{s}.revisions'), '', 0, 1, $5, $6, $7, $8, $9)
                     ON CONFLICT (scope, key) DO UPDATE
                     SET fingerprint = excluded.fingerprint, token = excluded.token, owner = excluded.owner,
                         claimed_until = excluded.claimed_until, kept_ms = excluded.kept_ms,
                         expires_at = excluded.expires_at, status = excluded.status, names = excluded.names,
                         contents = excluded.contents, body = excluded.body
                     WHERE old.expires_at <= {now} OR (old.claimed_until = 0 AND old.status IS NULL)",
        end: "DELETE FROM {s}.sessions WHERE hash = $1",
        put_ended: "INSERT INTO {s}.tombstones (hash, successor, user_name, ended_at, forget_at)
                    VALUES ($1, $2, $3, $4, $5)
                    ON CONFLICT (hash) DO UPDATE
                    SET successor = excluded.successor, user_name = excluded.user_name,
                        ended_at = excluded.ended_at, forget_at = excluded.forget_at",
        // One that lives is what was brought before, or was used since.
        put_session: "INSERT INTO {s}.sessions AS old (hash, handle, user_name, fields, version, created_at, idle_ms,
                          idle_expires_at, absolute_expires_at)
                      SELECT $2, $3, $4, $5, $6, $7, $8, $9, $10
                      WHERE NOT EXISTS (SELECT FROM {s}.tombstones WHERE hash = $2)
                      ON CONFLICT (hash) DO UPDATE
                      SET handle = excluded.handle, user_name = excluded.user_name, fields = excluded.fields,
                          version = excluded.version, created_at = excluded.created_at, idle_ms = excluded.idle_ms,
                          idle_expires_at = excluded.idle_expires_at,
                          absolute_expires_at = excluded.absolute_expires_at
                      WHERE old.idle_expires_at <= {now}",
    }
}

/// A record, the cursor behind it, and how many bytes it counts as.
type Read = (Record, String, usize);
/// Reads one.
type Reader = fn(&PgRow) -> Result<Read, Stop>;

#[async_trait]
impl Portable for Store {
    async fn dump(&self, part: Part, after: Option<&str>) -> Result<Page, Error> {
        attempt!(self, Repeatable, |connection| dump(self, connection, part, after))
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), Error> {
        attempt!(self, Transaction, |connection| restore(self, connection, &records))
    }
}

async fn dump(
    store: &Store,
    connection: &mut PgConnection,
    part: Part,
    after: Option<&str>,
) -> Result<Page, Stop> {
    let sql = &store.sql.portable;
    let (select, count, read): (_, _, Reader) = match part {
        Part::Counters => return counter(store, connection).await,
        Part::Rows => (&sql.rows, &sql.count_rows, row),
        Part::Answers => (&sql.answers, &sql.count_answers, answer),
        Part::Ended => (&sql.ended, &sql.count_ended, ended),
        Part::Sessions => (&sql.sessions, &sql.count_sessions, session),
        Part::Blobs => return Err(Error::Unsupported { engine: "postgres", what: "blobs" }.into()),
    };
    let mut page = Page::default();
    if after.is_none() {
        let total = sqlx::query(count.clone()).bind(store.now()).fetch_one(&mut *connection).await?;
        page.total = u64::try_from(total.try_get::<i64, _>(0)?).ok();
    }
    let query = sqlx::query(select.clone()).bind(store.now());
    let query = match part {
        Part::Ended | Part::Sessions => query.bind(hash_after(after)?),
        _ => {
            let (first, second) = pair(after)?;
            query.bind(first.to_owned()).bind(second.as_bytes().to_vec())
        }
    };
    let query = query.bind(PAGE_RECORDS_MAX as i64);
    let query = if part == Part::Ended { query } else { query.bind(PAGE_BYTES_MAX as i64) };
    let found = query.fetch_all(connection).await?;
    let (mut bytes, mut last) = (0, None);
    for row in &found {
        let (record, cursor, size) = read(row)?;
        page.records.push(record);
        (bytes, last) = (bytes + size, Some(cursor));
    }
    // A page that is full may be the last: then the next one is empty.
    page.next = last.filter(|_| found.len() == PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX);
    Ok(page)
}

async fn counter(store: &Store, connection: &mut PgConnection) -> Result<Page, Stop> {
    let row = sqlx::query(store.sql.portable.counter.clone()).fetch_one(connection).await?;
    let last = row.try_get::<i64, _>(0)?.saturating_add(BLOCK).cast_unsigned();
    let records = vec![Record::Counter(Counter { last })];
    Ok(Page { records, total: Some(1), ..Page::default() })
}

fn bytes_32(row: &PgRow, column: usize) -> Result<[u8; 32], Stop> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes.try_into().map_err(|_| sqlx::Error::Decode("a hash is not of 32 bytes".into()).into())
}

fn row(sql: &PgRow) -> Result<Read, Stop> {
    let (table, key): (String, String) = (sql.try_get(0)?, text_key(sql, 1)?);
    let value: Vec<u8> = sql.try_get(2)?;
    let (cursor, size) = (format!("{table}/{key}"), value.len());
    let (revision, value) = (sql.try_get::<i64, _>(3)?.cast_unsigned(), Data(value.into()));
    Ok((Record::Row(Row { table, key, value, revision, expires_at: sql.try_get(4)? }), cursor, size))
}

fn answer(sql: &PgRow) -> Result<Read, Stop> {
    let (scope, key): (String, String) = (sql.try_get(0)?, text_key(sql, 1)?);
    let (names, contents): (Option<Vec<String>>, Option<Vec<Vec<u8>>>) = (sql.try_get(4)?, sql.try_get(5)?);
    let (names, contents) = (names.unwrap_or_default(), contents.unwrap_or_default());
    let body = sql.try_get::<Option<Vec<u8>>, _>(6)?.unwrap_or_default();
    let status = sql.try_get::<Option<i32>, _>(3)?.map(u16::try_from).transpose();
    let (cursor, size) = (format!("{scope}/{key}"), body.len());
    let answer = Answer {
        scope,
        key,
        fingerprint: Fingerprint(bytes_32(sql, 2)?).to_string(),
        status: status.map_err(|error| sqlx::Error::Decode(error.into()))?,
        fields: names.into_iter().zip(contents.into_iter().map(|value| Data(value.into()))).collect(),
        body: Data(body.into()),
        expires_at: sql.try_get(7)?,
    };
    Ok((Record::Answer(answer), cursor, size))
}

fn ended(sql: &PgRow) -> Result<Read, Stop> {
    let hash = Hash(bytes_32(sql, 0)?);
    let successor = match sql.try_get::<Option<Vec<u8>>, _>(1)? {
        Some(_) => Some(Hash(bytes_32(sql, 1)?)),
        None => None,
    };
    let (user, ended_at, forget_at) = (sql.try_get(2)?, sql.try_get(3)?, sql.try_get(4)?);
    Ok((Record::Ended(Ended { hash, successor, user, ended_at, forget_at }), hash.to_text(), 0))
}

fn session(sql: &PgRow) -> Result<Read, Stop> {
    let hash = Hash(bytes_32(sql, 0)?);
    let json: String = sql.try_get(3)?;
    let fields: BTreeMap<String, Field> =
        serde_json::from_str(&json).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let session = Session {
        hash,
        handle: sql.try_get(1)?,
        user: sql.try_get(2)?,
        fields: fields.into_iter().map(|(name, field)| (name, (field.value, field.revision))).collect(),
        version: sql.try_get::<i64, _>(4)?.cast_unsigned(),
        created_at: sql.try_get(5)?,
        idle_ms: sql.try_get(6)?,
        idle_expires_at: sql.try_get(7)?,
        absolute_expires_at: sql.try_get(8)?,
    };
    Ok((Record::Session(session), hash.to_text(), json.len()))
}

async fn restore(store: &Store, connection: &mut PgConnection, records: &[Record]) -> Result<(), Stop> {
    for record in records {
        match record {
            Record::Counter(counter) => raise(store, connection, counter.last).await?,
            Record::Row(row) => put_row(store, connection, row).await?,
            Record::Ended(ended) => put_ended(store, connection, ended).await?,
            Record::Session(session) => put_session(store, connection, session).await?,
            Record::Answer(answer) => put_answer(store, connection, answer).await?,
            Record::Blob(_) => return Err(mixed(record).into()),
        }
    }
    Ok(())
}

async fn raise(store: &Store, connection: &mut PgConnection, last: u64) -> Result<(), Stop> {
    let sql = &store.sql.portable;
    sqlx::query(sql.hold_counter.clone()).execute(&mut *connection).await?;
    let row = sqlx::query(sql.counter.clone()).fetch_one(&mut *connection).await?;
    let last = last.cast_signed();
    if row.try_get::<i64, _>(0)? < last {
        sqlx::query(sql.set_counter.clone()).bind(last).execute(connection).await?;
    }
    Ok(())
}

async fn put_row(store: &Store, connection: &mut PgConnection, row: &Row) -> Result<(), Stop> {
    let query = sqlx::query(store.sql.portable.put_row.clone()).bind(store.now());
    let query = query.bind(&row.table).bind(row.key.as_bytes()).bind(&row.value.0[..]);
    let query = query.bind(row.revision.cast_signed()).bind(row.expires_at);
    query.execute(connection).await?;
    Ok(())
}

async fn put_ended(store: &Store, connection: &mut PgConnection, ended: &Ended) -> Result<(), Stop> {
    sqlx::query(store.sql.portable.end.clone()).bind(ended.hash.0).execute(&mut *connection).await?;
    let query = sqlx::query(store.sql.portable.put_ended.clone()).bind(ended.hash.0);
    let query = query.bind(ended.successor.map(|hash| hash.0)).bind(&ended.user);
    query.bind(ended.ended_at).bind(ended.forget_at).execute(connection).await?;
    Ok(())
}

async fn put_session(store: &Store, connection: &mut PgConnection, session: &Session) -> Result<(), Stop> {
    let field =
        |(value, revision): &(serde_json::Value, u64)| Field { value: value.clone(), revision: *revision };
    let fields: BTreeMap<&String, Field> =
        session.fields.iter().map(|(name, kept)| (name, field(kept))).collect();
    let fields = serde_json::to_string(&fields).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let query = sqlx::query(store.sql.portable.put_session.clone()).bind(store.now()).bind(session.hash.0);
    let query = query.bind(&session.handle).bind(&session.user).bind(fields);
    let query = query.bind(session.version.cast_signed()).bind(session.created_at).bind(session.idle_ms);
    query.bind(session.idle_expires_at).bind(session.absolute_expires_at).execute(connection).await?;
    Ok(())
}

async fn put_answer(store: &Store, connection: &mut PgConnection, answer: &Answer) -> Result<(), Stop> {
    let fingerprint: Fingerprint = answer.fingerprint.parse()?;
    let (names, contents): (Vec<&str>, Vec<&[u8]>) =
        answer.fields.iter().map(|(name, value)| (name.as_str(), &value.0[..])).unzip();
    let query = sqlx::query(store.sql.portable.put_answer.clone()).bind(store.now()).bind(&answer.scope);
    let query = query.bind(answer.key.as_bytes()).bind(fingerprint.0).bind(answer.expires_at);
    let query = query.bind(answer.status.map(i32::from)).bind(&names).bind(&contents);
    query.bind(&answer.body.0[..]).execute(connection).await?;
    Ok(())
}
