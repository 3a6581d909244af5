//! What Redis keeps, as records, and back. Rows are read in their order; sessions and answers in that of a [walk](super::walk) through
//! all keys, which may come to one of them twice.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{
    SPAN_MS_MAX, Store, keys,
    reply::{Reply, number, unexpected},
    request::Request,
    script,
    walk::Take,
};
use crate::{
    error::Error,
    idempotency::{Fingerprint, lines},
    portable::{
        Answer, Counter, Data, Ended, Hash, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Page, Part, Portable, Record,
        Row, Session, mixed, pair,
    },
    tables::{Scan, Tables as _},
};

/// Sessions or answers that are read at once: what a page may have beyond [`PAGE_BYTES_MAX`], since an answer has up to a MiB.
const READ_AT_ONCE: usize = 8;

#[async_trait]
impl Portable for Store {
    async fn dump(&self, part: Part, after: Option<&str>) -> Result<Page, Error> {
        match part {
            Part::Counters => self.dump_counters().await,
            Part::Rows => self.dump_rows(after).await,
            Part::Sessions => self.dump_keys(part, after, "{s??}:*").await,
            Part::Ended => self.dump_keys(part, after, "{s??}:*:m").await,
            Part::Answers => self.dump_keys(part, after, "i:*").await,
            Part::Blobs => Err(Error::Unsupported { engine: "redis", what: "blobs" }),
        }
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), Error> {
        try_join_all(records.iter().map(|record| self.put(record))).await.map(drop)
    }
}

/// The first table behind another one, as far as a walk has come.
struct NextTable {
    /// What the keys begin with that name tables.
    start: String,
    behind: String,
    found: Option<String>,
}

impl Take for NextTable {
    // What was found is there, whichever servers say so.
    fn clear(&mut self) {}

    async fn take(&mut self, keys: Vec<String>) -> Result<Option<String>, Error> {
        let names = keys.iter().filter_map(|key| key.strip_prefix(&self.start));
        let behind = names.filter(|name| *name > self.behind.as_str()).map(str::to_owned);
        self.found = behind.chain(self.found.take()).min();
        Ok(None)
    }

    fn is_full(&self) -> bool {
        false
    }
}

/// Records of one page, as they are read on a walk.
struct Records<'a> {
    store: &'a Store,
    part: Part,
    records: Vec<Record>,
    bytes: usize,
}

impl Take for Records<'_> {
    fn clear(&mut self) {
        (self.records, self.bytes) = (Vec::new(), 0);
    }

    async fn take(&mut self, keys: Vec<String>) -> Result<Option<String>, Error> {
        let mut rest = keys.chunks(READ_AT_ONCE);
        while let Some(keys) = rest.next() {
            let read = keys.iter().map(|key| self.store.dump_key(self.part, key));
            for record in try_join_all(read).await?.into_iter().flatten() {
                self.bytes += record.value_bytes();
                self.records.push(record);
            }
            if self.is_full() && rest.len() > 0 {
                return Ok(keys.last().cloned());
            }
        }
        Ok(None)
    }

    fn is_full(&self) -> bool {
        self.records.len() + READ_AT_ONCE > PAGE_RECORDS_MAX || self.bytes >= PAGE_BYTES_MAX
    }
}

impl Store {
    async fn dump_counters(&self) -> Result<Page, Error> {
        let mut last = 0;
        for key in self.counters() {
            let value = self.router.run(&self.request(&script::COUNTER_READ, [key])).await?;
            last = last.max(number(&value)?.cast_unsigned());
        }
        let counter = Record::Counter(Counter { last });
        Ok(Page { records: vec![counter], total: Some(1), ..Page::default() })
    }

    /// That of tables and that of locks.
    fn counters(&self) -> [String; 2] {
        let [_, _, _, token] = self.keys.locks();
        [self.keys.revision(), token]
    }

    /// Rows of one table. The page ends with it: to find the next one is a walk through all keys, of which no page may take more than
    /// a piece.
    async fn dump_rows(&self, after: Option<&str>) -> Result<Page, Error> {
        let (table, mut key) = match pair(after)? {
            ("", search) => match self.next_table(search).await? {
                (Some(table), None) => (table, None),
                (_, next) => return Ok(Page { next, ..Page::default() }),
            },
            (table, key) => (table.to_owned(), present(key)),
        };
        let mut page = Page::default();
        let mut bytes = 0;
        loop {
            let limit = PAGE_RECORDS_MAX - page.records.len();
            let found = self.scan(&table, &Scan { prefix: String::new(), after: key.take(), limit }).await?;
            for row in found.rows {
                bytes += row.value.len();
                page.records.push(Record::Row(Row {
                    table: table.clone(),
                    key: row.key,
                    value: Data(row.value),
                    revision: row.revision,
                    expires_at: row.expires_at,
                }));
            }
            let Some(next) = found.next else {
                page.next = Some(format!("/{table}//"));
                return Ok(page);
            };
            if page.records.len() >= PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX {
                page.next = Some(format!("{table}/{next}"));
                return Ok(page);
            }
            key = Some(next);
        }
    }

    /// Looks for the table behind another one, for as long as a page may take: what was found by then, and where the search goes on,
    /// if it does. A search is written as the other table, the first one found behind it, and where the walk is.
    async fn next_table(&self, search: &str) -> Result<(Option<String>, Option<String>), Error> {
        let mut words = search.splitn(3, '/');
        let mut word = || words.next().unwrap_or_default();
        let (behind, found, at) = (word(), word(), word());
        let start = self.keys.order("");
        let mut next = NextTable { start, behind: behind.to_owned(), found: present(found) };
        let at = self.walk(present(at).as_deref(), &self.keys.order("*"), &mut next).await?;
        let found = next.found.as_deref().unwrap_or_default();
        let search = at.map(|at| format!("/{behind}/{found}/{at}"));
        Ok((next.found, search))
    }

    /// Records of the keys that match.
    async fn dump_keys(&self, part: Part, after: Option<&str>, matching: &str) -> Result<Page, Error> {
        let mut records = Records { store: self, part, records: Vec::new(), bytes: 0 };
        let matching = format!("{}:{matching}", self.keys.namespace());
        let next = self.walk(after, &matching, &mut records).await?;
        Ok(Page { records: records.records, next, total: None, repeats: true })
    }

    async fn dump_key(&self, part: Part, key: &str) -> Result<Option<Record>, Error> {
        match part {
            Part::Sessions if key.ends_with(":m") => Ok(None),
            Part::Sessions => self.dump_session(key).await,
            Part::Ended => self.dump_ended(key).await,
            _ => self.dump_answer(key).await,
        }
    }

    async fn session_reply(&self, key: &str) -> Result<Option<(Hash, Reply)>, Error> {
        let text = key.trim_end_matches(":m").rsplit(':').next().unwrap_or_default();
        let Some((hash, shard)) = Hash::parse(text).zip(keys::Hash::parse(text)) else { return Ok(None) };
        let request = self.session_request(&script::SESSION_DUMP, self.keys.session(&shard));
        Ok(Some((hash, Reply::list(self.router.run(&request).await?)?)))
    }

    async fn dump_session(&self, key: &str) -> Result<Option<Record>, Error> {
        let Some((hash, mut reply)) = self.session_reply(key).await? else { return Ok(None) };
        if reply.text()? != "live" {
            return Ok(None);
        }
        let mut flat = reply.next_list()?;
        let mut session = Session {
            hash,
            handle: String::new(),
            user: None,
            fields: BTreeMap::new(),
            version: 0,
            created_at: 0,
            idle_ms: 0,
            idle_expires_at: 0,
            absolute_expires_at: 0,
        };
        while flat.len() > 0 {
            let (name, value) = (flat.text()?, flat.text()?);
            let number = || value.parse::<i64>().map_err(|_| unexpected("a number"));
            match name.as_str() {
                "u" => session.user = Some(value),
                "h" => session.handle = value,
                "c" => session.created_at = number()? / 1000,
                "i" => session.idle_ms = number()?,
                "e" => session.idle_expires_at = number()?,
                "a" => session.absolute_expires_at = number()?,
                "r" => session.version = number()?.cast_unsigned(),
                _ => {
                    let name = name.strip_prefix(':').ok_or_else(|| unexpected("a field"))?;
                    let (revision, json) = value.split_once(' ').ok_or_else(|| unexpected("a field"))?;
                    let revision = revision.parse().map_err(|_| unexpected("a revision"))?;
                    let value = serde_json::from_str(json).map_err(|_| unexpected("JSON"))?;
                    session.fields.insert(name.to_owned(), (value, revision));
                }
            }
        }
        Ok(Some(Record::Session(session)))
    }

    async fn dump_ended(&self, key: &str) -> Result<Option<Record>, Error> {
        let Some((hash, mut reply)) = self.session_reply(key).await? else { return Ok(None) };
        if reply.text()? != "ended" {
            return Ok(None);
        }
        let (mark, forget_at) = (reply.text()?, reply.number()?);
        let mut words = mark.splitn(3, ' ');
        let ended_at = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| unexpected("a time"))?;
        let successor = words.next().and_then(Hash::parse);
        let user = words.next().filter(|user| !user.is_empty()).map(str::to_owned);
        Ok(Some(Record::Ended(Ended { hash, successor, user, ended_at, forget_at })))
    }

    async fn dump_answer(&self, key: &str) -> Result<Option<Record>, Error> {
        let start = format!("{}:i:", self.keys.namespace());
        let names = key.strip_prefix(&start).and_then(|names| names.split_once(':'));
        let Some((scope, name)) = names.map(|(scope, name)| (scope.to_owned(), name.to_owned())) else {
            return Ok(None);
        };
        let mut reply =
            Reply::list(self.router.run(&self.request(&script::ANSWER_DUMP, [key.to_owned()])).await?)?;
        let how = reply.text()?;
        if how == "missing" {
            return Ok(None);
        }
        let (fingerprint, expires_at) = (reply.text()?, reply.number()?);
        let (status, fields, body) = match how.as_str() {
            "begun" => (None, Bytes::new(), Bytes::new()),
            _ => {
                let status = u16::try_from(reply.number()?).map_err(|_| unexpected("a status"))?;
                (Some(status), reply.bytes()?, reply.bytes()?)
            }
        };
        let fields = lines::read(&fields).into_iter().map(|(name, value)| (name, Data(value))).collect();
        let body = Data(body);
        Ok(Some(Record::Answer(Answer { scope, key: name, fingerprint, status, fields, body, expires_at })))
    }

    async fn put(&self, record: &Record) -> Result<(), Error> {
        match record {
            Record::Counter(counter) => {
                for key in self.counters() {
                    self.run(self.request(&script::COUNTER_RAISE, [key]).number(counter.last)).await?;
                }
                Ok(())
            }
            Record::Row(row) => {
                let Row { table, key, value, revision, expires_at } = row;
                let keys = [self.keys.expiries(), self.keys.rows(table), self.keys.order(table)];
                let request = self.request(&script::ROW_RESTORE, keys).arg(table.clone()).arg(key.clone());
                let request = request.number(revision).number(expires_at.unwrap_or(0)).arg(value.0.clone());
                self.run(request).await
            }
            Record::Session(session) => self.put_session(session).await,
            Record::Ended(ended) => {
                let mark = match (&ended.successor, &ended.user) {
                    (None, _) => ended.ended_at.to_string(),
                    (Some(successor), user) => {
                        let user = user.as_deref().unwrap_or_default();
                        format!("{} {} {user}", ended.ended_at, successor.to_text())
                    }
                };
                let forget_at = ended.forget_at.min(SPAN_MS_MAX);
                let request = self.session_request(&script::SESSION_BURY, self.session_keys(ended.hash)?);
                self.run(request.arg(mark).number(forget_at)).await
            }
            Record::Answer(answer) => {
                let fingerprint: Fingerprint = answer.fingerprint.parse()?;
                let fields: Vec<(String, Bytes)> =
                    answer.fields.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                let key = self.keys.idempotency(&answer.scope, &answer.key);
                let request = self.request(&script::ANSWER_RESTORE, [key]).number(fingerprint);
                let request = request.number(answer.expires_at.min(SPAN_MS_MAX));
                let request = request.text(answer.status.map(|status| status.to_string()).as_deref());
                self.run(request.arg(lines::write(&fields)).arg(answer.body.0.clone())).await
            }
            Record::Blob(_) => Err(mixed(record)),
        }
    }

    async fn put_session(&self, session: &Session) -> Result<(), Error> {
        let Session { hash, handle, user, fields, version, .. } = session;
        let (created_us, absolute_end) =
            (session.created_at.saturating_mul(1000), session.absolute_expires_at.min(SPAN_MS_MAX));
        let mut keys = self.session_keys(*hash)?.to_vec();
        if let Some(user) = user {
            if self.router.has_slots() {
                let own = keys::Hash::parse(&hash.to_text()).ok_or_else(|| unexpected("a hash"))?;
                let times = (created_us.to_string().into(), absolute_end.to_string().into());
                self.enlist(user, handle, &own, Some(times), 0).await?;
            } else {
                keys.push(self.keys.user(user));
            }
        }
        let request = self.session_request(&script::SESSION_RESTORE, keys).arg(hash.to_text());
        let request = request.arg(handle.clone()).text(user.as_deref()).number(created_us);
        let request = request.number(session.idle_ms.min(SPAN_MS_MAX));
        let mut request =
            request.number(session.idle_expires_at.min(SPAN_MS_MAX)).number(absolute_end).number(version);
        for (name, (value, revision)) in fields {
            request = request.arg(name.clone()).number(revision).arg(value.to_string());
        }
        self.run(request).await
    }

    fn session_keys(&self, hash: Hash) -> Result<[String; 2], Error> {
        let hash = keys::Hash::parse(&hash.to_text()).ok_or_else(|| unexpected("a hash"))?;
        Ok(self.keys.session(&hash))
    }

    async fn run(&self, request: Request) -> Result<(), Error> {
        self.router.run(&request).await.map(drop)
    }
}

/// A word of a cursor, unless it is empty.
fn present(word: &str) -> Option<String> {
    (!word.is_empty()).then(|| word.to_owned())
}
