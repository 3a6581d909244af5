//! Integers that many workers add to at once without losing anything.

use std::sync::Arc;

use lethe_state::{
    error::Error as StateError,
    tables::{Action, Condition, Outcome, Write},
};

use crate::{Error, State, table::unexpected};

/// The integer in one row of a table; an absent row counts as 0. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Counter {
    state: State,
    table: Arc<str>,
    key: Arc<str>,
}

impl Counter {
    pub(crate) fn new(state: State, table: &str, key: &str) -> Self {
        Self { state, table: table.into(), key: key.into() }
    }

    /// Adds `by`, which may be negative, and returns the sum. Fails when it would leave the range of an `i64`.
    pub async fn add(&self, by: i64) -> Result<i64, Error> {
        let outcomes = self.state.engines().tables.apply(vec![self.add_write(by)]).await?;
        match outcomes.first() {
            Some(Outcome::Incremented { value, .. }) => Ok(*value),
            other => Err(unexpected(other)),
        }
    }

    /// The value it has now.
    pub async fn get(&self) -> Result<i64, Error> {
        let Some(row) = self.state.engines().tables.get(&self.table, &self.key).await? else { return Ok(0) };
        let value = std::str::from_utf8(&row.value).ok().and_then(|text| text.parse().ok());
        value.ok_or_else(|| Error::State(StateError::NotAnInteger { key: row.key }))
    }

    pub(crate) fn add_write(&self, by: i64) -> Write {
        Write {
            table: self.table.to_string(),
            key: self.key.to_string(),
            condition: Condition::Any,
            action: Action::Increment { by, ttl: None },
        }
    }
}
