//! What compare-and-set of rows promises when many call at once, by the checker of histories.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Fixture, write};
use crate::{
    Revision,
    contract::register::{self, Register, Seen, Wrote},
    error::Error,
    tables::{Action, Condition, Outcome, Tables},
};

struct Row(Arc<dyn Tables>);

#[async_trait]
impl Register for Row {
    async fn read(&self) -> Seen {
        let row = self.0.get("t", "k").await.unwrap()?;
        Some((row.revision, std::str::from_utf8(&row.value).unwrap().parse().unwrap()))
    }

    async fn write(&self, expect: Option<Revision>, value: Option<u64>) -> Wrote {
        let condition = expect.map_or(Condition::Absent, Condition::Revision);
        let action = match value {
            Some(value) => Action::Put { value: value.to_string().into(), ttl: None },
            None => Action::Delete,
        };
        match self.0.apply(vec![write("k", condition, action)]).await.as_deref() {
            Ok([Outcome::Put { revision }]) => Wrote::Done(Some(*revision)),
            Ok([Outcome::Deleted { existed: true }]) => Wrote::Done(None),
            Err(Error::Conflict { found, .. }) => Wrote::Refused(*found),
            other => panic!("{other:?}"),
        }
    }
}

/// Reads, and writes and deletes under a condition, come to what they could have come to one after the other.
pub async fn conditional_writes_at_once_have_an_order(fixture: Fixture) {
    register::check(Row(fixture.engines.tables.clone())).await;
}
