//! Tables in Redis: a hash of rows and a sorted set of their keys for each table, all in one slot of a cluster, so that any
//! batch is one step.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Value;

use super::{
    Store,
    reply::{Reply, unexpected},
    request::Request,
    script,
};
use crate::{
    Millis, Revision,
    error::Error,
    feed::{Feed, followers::Topic},
    rules::{check_batch, check_key, check_name, key_range},
    tables::{
        Action, Condition, KEY_BYTES_MAX, Outcome, Page, Row, SCAN_ROWS_MAX, Scan, TABLE_NAME_BYTES_MAX,
        Tables, Write,
    },
};

/// A page of a scan ends when its keys and values have reached this many bytes.
const SCAN_BYTES_MAX: usize = 2 << 20;

#[async_trait]
impl Tables for Store {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        check_key(key, KEY_BYTES_MAX)?;
        let request = self.request(&script::GET, [self.keys.rows(table)]).arg(key.to_owned());
        match self.router.run(&request).await? {
            Value::Nil => Ok(None),
            Value::BulkString(stored) => Ok(Some(row(key.to_owned(), stored.into())?)),
            _ => Err(unexpected("a row")),
        }
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        let limit = if scan.limit == 0 { SCAN_ROWS_MAX } else { scan.limit.min(SCAN_ROWS_MAX) };
        let (first, end) = key_range(&scan.prefix, scan.after.as_deref());
        let request = self
            .request(&script::SCAN, [self.keys.rows(table), self.keys.order(table)])
            .arg(first)
            .arg(end)
            .number(limit)
            .number(SCAN_BYTES_MAX);
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        let has_more = reply.number()? == 1;
        let mut stored = reply.next_list()?;
        let mut page = Page::default();
        while stored.len() > 0 {
            page.rows.push(row(stored.text()?, stored.bytes()?)?);
        }
        page.next = page.rows.last().filter(|_| has_more).map(|last| last.key.clone());
        Ok(page)
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        check_batch(&batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut reply = Reply::list(self.router.run(&self.apply_request(&batch)).await?)?;
        match reply.text()?.as_str() {
            "done" => batch.iter().map(|write| outcome(write, &mut reply)).collect(),
            "conflict" => {
                let (index, key) = refused(&batch, &mut reply)?;
                Err(Error::Conflict { index, key, found: reply.revision()? })
            }
            "fenced" => {
                let (index, key) = refused(&batch, &mut reply)?;
                let newest = reply.revision()?.ok_or_else(|| unexpected("a token"))?;
                let Action::Fence { token } = batch[index].action else { return Err(unexpected("a fence")) };
                Err(Error::Fenced { index, key, token, newest })
            }
            "integer" => Err(Error::NotAnInteger { key: refused(&batch, &mut reply)?.1 }),
            _ => Err(unexpected("what became of a batch")),
        }
    }

    async fn follow(&self, table: &str) -> Result<Feed, Error> {
        check_name("table", table, TABLE_NAME_BYTES_MAX)?;
        self.follow_topic(Topic::Table(table.into())).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

impl Store {
    fn apply_request(&self, batch: &[Write]) -> Request {
        let mut tables: Vec<&str> = batch.iter().map(|write| write.table.as_str()).collect();
        tables.sort_unstable();
        tables.dedup();
        let mut keys = vec![self.keys.revision(), self.keys.expiries()];
        keys.extend(tables.iter().flat_map(|table| [self.keys.rows(table), self.keys.order(table)]));
        let mut request = self.request(&script::APPLY, keys).number(tables.len());
        for table in &tables {
            request = request.arg((*table).to_owned());
        }
        for write in batch {
            // Every table of the batch is in the list.
            let number = tables.partition_point(|table| *table < write.table.as_str()) + 1;
            request = request.number(number).arg(write.key.clone()).arg(condition(write.condition));
            request = match &write.action {
                Action::Check => request.arg("check").arg("").arg(""),
                Action::Put { value, ttl } => request.arg("put").arg(value.clone()).arg(time(*ttl)),
                Action::Delete => request.arg("delete").arg("").arg(""),
                Action::Increment { by, ttl } => request.arg("increment").number(by).arg(time(*ttl)),
                Action::Fence { token } => request.arg("fence").number(token).arg(""),
            };
        }
        request
    }

    /// Removes at most `most` rows that have expired; how many it did.
    pub(super) async fn sweep_rows(&self, most: usize) -> Result<usize, Error> {
        let request = self.request(&script::DUE, [self.keys.expiries()]).number(most);
        let mut due = Reply::list(self.router.run(&request).await?)?;
        let mut members = Vec::with_capacity(due.len());
        while due.len() > 0 {
            let member = due.text()?;
            let (table, key) = member.split_once('/').ok_or_else(|| unexpected("a table and key"))?;
            members.push((table.to_owned(), key.to_owned()));
        }
        members.sort_unstable();
        let mut removed = 0;
        for rows in members.chunk_by(|(a, _), (b, _)| a == b) {
            let table = &rows[0].0;
            let keys = [self.keys.expiries(), self.keys.rows(table), self.keys.order(table)];
            let mut request = self.request(&script::SWEEP, keys).arg(table.clone());
            for (_, key) in rows {
                request = request.arg(key.clone());
            }
            let swept = super::reply::number(&self.router.run(&request).await?)?;
            removed += usize::try_from(swept).unwrap_or(0);
        }
        Ok(removed)
    }
}

fn condition(condition: Condition) -> Bytes {
    match condition {
        Condition::Any => "any".into(),
        Condition::Absent => "absent".into(),
        Condition::Present => "present".into(),
        Condition::Revision(revision) => revision.to_string().into(),
    }
}

/// A time to live in milliseconds; empty for ever.
fn time(ttl: Option<Duration>) -> Bytes {
    ttl.map(|ttl| super::span_ms(ttl).to_string().into()).unwrap_or_default()
}

/// Reads a row as it is stored: `<revision> <expires_at, 0 for never> <value>`.
fn row(key: String, stored: Bytes) -> Result<Row, Error> {
    let damaged = || unexpected("a row");
    let mut numbers = [0; 2];
    let mut at = 0;
    for number in &mut numbers {
        let end = stored[at..].iter().position(|byte| *byte == b' ').ok_or_else(damaged)? + at;
        let text = std::str::from_utf8(&stored[at..end]).map_err(|_| damaged())?;
        *number = text.parse::<u64>().map_err(|_| damaged())?;
        at = end + 1;
    }
    let [revision, expires_at]: [Revision; 2] = numbers;
    let expires_at = (expires_at != 0).then(|| Millis::try_from(expires_at).unwrap_or(Millis::MAX));
    Ok(Row { key, value: stored.slice(at..), revision, expires_at })
}

fn outcome(write: &Write, reply: &mut Reply) -> Result<Outcome, Error> {
    let said = reply.text()?;
    let number = |text: &str| text.parse::<Revision>().map_err(|_| unexpected("a revision"));
    Ok(match write.action {
        Action::Check => Outcome::Checked,
        Action::Put { .. } => Outcome::Put { revision: number(&said)? },
        Action::Delete => Outcome::Deleted { existed: said == "1" },
        Action::Fence { .. } => Outcome::Fenced,
        Action::Increment { .. } => {
            let (revision, value) = said.split_once(' ').ok_or_else(|| unexpected("a sum"))?;
            let value = value.parse().map_err(|_| unexpected("a sum"))?;
            Outcome::Incremented { value, revision: number(revision)? }
        }
    })
}

/// Which write of a batch was refused.
fn refused(batch: &[Write], reply: &mut Reply) -> Result<(usize, String), Error> {
    let index = usize::try_from(reply.number()?).unwrap_or(usize::MAX);
    let write = batch.get(index).ok_or_else(|| unexpected("the number of a write"))?;
    Ok((index, write.key.clone()))
}
