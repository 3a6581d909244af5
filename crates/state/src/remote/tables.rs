//! Tables over the state API. A single write goes as raw bytes to its row; several go as one JSON batch.

use std::borrow::Cow;

use async_trait::async_trait;
use http::{HeaderValue, Method, StatusCode, header};

use super::{
    Remote,
    call::{Answer, Call, Target},
    problem::misunderstood,
};
use crate::{
    error::Error,
    feed::Feed,
    tables::{
        Action, Condition, KEY_BYTES_MAX, Outcome, Page, Row, Scan, TABLE_NAME_BYTES_MAX, Tables, Write,
    },
    wire,
};

#[async_trait]
impl Tables for Remote {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error> {
        let answer = self.pool.call(&Call::new(Method::GET, row(table, key)?)?).await?;
        match answer.done() {
            Ok(answer) => Ok(Some(Row {
                key: key.into(),
                revision: answer.revision()?,
                expires_at: answer.text(wire::EXPIRES_AT).and_then(|text| text.parse().ok()),
                value: answer.into_value(),
            })),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, Error> {
        let mut target = Target::new("/v1/tables").segment("a table name", table, TABLE_NAME_BYTES_MAX)?;
        if !scan.prefix.is_empty() {
            target = target.parameter("prefix", &scan.prefix);
        }
        if let Some(after) = &scan.after {
            target = target.parameter("after", after);
        }
        if scan.limit > 0 {
            target = target.parameter("limit", &scan.limit.to_string());
        }
        let answer = self.pool.call(&Call::new(Method::GET, target)?).await?.done()?;
        let page: wire::Page<'static> = answer.json()?;
        let rows = page.rows.into_iter().map(read_row).collect::<Result<_, _>>()?;
        Ok(Page { rows, next: page.next.map(Cow::into_owned) })
    }

    async fn apply(&self, mut batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        if batch.len() == 1
            && let Some(write) =
                batch.pop_if(|write| !matches!(write.action, Action::Check | Action::Fence { .. }))
        {
            return Ok(vec![self.apply_one(write).await?]);
        }
        let writes = batch.iter().map(write_json).collect();
        let call = Call::new(Method::POST, Target::new("/v1/batch"))?.json(&wire::Batch { writes })?;
        let (size, max) = (call.body_bytes() as u64, wire::BATCH_BODY_BYTES_MAX);
        if size > max {
            return Err(Error::TooLarge { what: "the body of a batch", size, max });
        }
        let answer: wire::Outcomes = self.pool.call(&call).await?.done()?.json()?;
        if answer.outcomes.len() != batch.len() {
            return Err(misunderstood(format!(
                "{} outcomes for {} writes",
                answer.outcomes.len(),
                batch.len()
            )));
        }
        Ok(answer.outcomes.into_iter().map(Into::into).collect())
    }

    async fn follow(&self, table: &str) -> Result<Feed, Error> {
        let target = Target::new("/v1/feeds/tables").segment("a table name", table, TABLE_NAME_BYTES_MAX)?;
        self.follow_at(target).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

impl Remote {
    async fn apply_one(&self, write: Write) -> Result<Outcome, Error> {
        let mut target = row(&write.table, &write.key)?;
        let call = match write.action {
            Action::Put { value, ttl } => {
                if let Some(ttl) = ttl {
                    target = target.parameter("ttl_ms", &wire::millis(ttl).to_string());
                }
                Call::new(Method::PUT, target)?.bytes(value)
            }
            Action::Increment { by, ttl } => Call::new(Method::POST, target.then("/increment"))?
                .json(&wire::Increment { by, ttl_ms: ttl.map(wire::millis) })?,
            // Those that have no call of their own go as a batch.
            Action::Delete | Action::Check | Action::Fence { .. } => Call::new(Method::DELETE, target)?,
        };
        let any = HeaderValue::from_static("*");
        let call = match write.condition {
            Condition::Any => call,
            Condition::Absent => call.header(header::IF_NONE_MATCH, any),
            Condition::Present => call.header(header::IF_MATCH, any),
            Condition::Revision(revision) => call.tagged(header::IF_MATCH, &revision.to_string())?,
        };
        outcome(&self.pool.call(&call).await?.done()?)
    }
}

/// Tells what a single write did by its answer: an increment has a body, a put has an entity tag, a delete neither.
fn outcome(answer: &Answer) -> Result<Outcome, Error> {
    if answer.status == StatusCode::OK {
        let wire::Incremented { value, revision } = answer.json()?;
        Ok(Outcome::Incremented { value, revision })
    } else if answer.text(wire::EXISTED).is_some() {
        Ok(Outcome::Deleted { existed: answer.existed() })
    } else {
        Ok(Outcome::Put { revision: answer.revision()? })
    }
}

fn row(table: &str, key: &str) -> Result<Target, Error> {
    Target::new("/v1/tables").segment("a table name", table, TABLE_NAME_BYTES_MAX)?.segment(
        "a key",
        key,
        KEY_BYTES_MAX,
    )
}

fn read_row(row: wire::Row<'static>) -> Result<Row, Error> {
    let value = row.encoding.decode(row.value.into_owned());
    Ok(Row {
        key: row.key.into_owned(),
        value: value.map_err(|error| misunderstood(format!("a value that is not base64: {error}")))?,
        revision: row.revision,
        expires_at: row.expires_at,
    })
}

fn write_json(write: &Write) -> wire::Write<'_> {
    let mut json = wire::Write {
        table: Cow::Borrowed(&write.table),
        key: Cow::Borrowed(&write.key),
        action: wire::Action::Check,
        value: None,
        encoding: None,
        by: None,
        token: None,
        ttl_ms: None,
        condition: write.condition.into(),
    };
    match &write.action {
        Action::Check => {}
        Action::Delete => json.action = wire::Action::Delete,
        Action::Fence { token } => {
            json.action = wire::Action::Fence;
            json.token = Some(*token);
        }
        Action::Put { value, ttl } => {
            let (value, encoding) = wire::Encoding::of(value);
            json.action = wire::Action::Put;
            (json.value, json.encoding) = (Some(value), Some(encoding));
            json.ttl_ms = ttl.map(wire::millis);
        }
        Action::Increment { by, ttl } => {
            json.action = wire::Action::Increment;
            json.by = Some(*by);
            json.ttl_ms = ttl.map(wire::millis);
        }
    }
    json
}
