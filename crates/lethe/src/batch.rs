//! Several writes that are done all or none, as when an order is placed and the stock goes down with it.

use std::time::Duration;

use lethe_state::tables::{Condition, Outcome, Write};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, State,
    counter::Counter,
    lock::Held,
    table::{Stored, Table},
};

/// Writes to be done in one step, in their order; at most 128.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lethe::Error> {
/// # let state = lethe::State::ephemeral()?;
/// let (orders, stock) = (state.table::<String>("orders"), state.table::<u32>("stock"));
/// stock.put("mug", &3).await?;
/// let mugs = stock.get("mug").await?.expect("it was just written");
/// state.batch().insert(&orders, "1", &"a mug".into())?.put_if(&stock, &mugs, &2)?.commit().await?;
///
/// // Once more with what was read before: the order exists, so the stock stays as it is.
/// let again = state.batch().insert(&orders, "1", &"a mug".into())?.put_if(&stock, &mugs, &2)?.commit().await;
/// assert!(matches!(again, Err(lethe::Error::Conflict { index: 0, .. })));
/// # Ok(())
/// # }
/// ```
#[must_use = "a batch does nothing before it is committed"]
#[derive(Debug)]
pub struct Batch {
    state: State,
    writes: Vec<Write>,
}

impl Batch {
    pub(crate) fn new(state: State) -> Self {
        Self { state, writes: Vec::new() }
    }

    /// Writes a row that must not exist yet.
    pub fn insert<T>(self, table: &Table<T>, key: &str, value: &T) -> Result<Self, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        let write = table.put_write(key, value, Condition::Absent, None)?;
        Ok(self.with(write))
    }

    /// Writes a row that must not exist yet, for so long.
    pub fn insert_for<T>(self, table: &Table<T>, key: &str, value: &T, ttl: Duration) -> Result<Self, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        let write = table.put_write(key, value, Condition::Absent, Some(ttl))?;
        Ok(self.with(write))
    }

    /// Writes a row, whatever is there, for always.
    pub fn put<T>(self, table: &Table<T>, key: &str, value: &T) -> Result<Self, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        let write = table.put_write(key, value, Condition::Any, None)?;
        Ok(self.with(write))
    }

    /// Writes a row, whatever is there, for so long.
    pub fn put_for<T>(self, table: &Table<T>, key: &str, value: &T, ttl: Duration) -> Result<Self, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        let write = table.put_write(key, value, Condition::Any, Some(ttl))?;
        Ok(self.with(write))
    }

    /// Writes a row that must still be the one that was read. It keeps its expiry.
    pub fn put_if<T>(self, table: &Table<T>, read: &Stored<T>, value: &T) -> Result<Self, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        let write = table.put_if_write(read, value)?;
        Ok(self.with(write))
    }

    /// Removes a row, if it is there.
    pub fn delete<T: Serialize + DeserializeOwned>(self, table: &Table<T>, key: &str) -> Self {
        self.with(table.delete_write(key))
    }

    /// Removes a row that must still be the one that was read.
    pub fn delete_if<T: Serialize + DeserializeOwned>(self, table: &Table<T>, read: &Stored<T>) -> Self {
        self.with(table.delete_if_write(read))
    }

    /// Changes nothing, but the row must still be the one that was read.
    pub fn check<T: Serialize + DeserializeOwned>(self, table: &Table<T>, read: &Stored<T>) -> Self {
        self.with(table.check_write(read))
    }

    /// Adds to a counter.
    pub fn add(self, counter: &Counter, by: i64) -> Self {
        self.with(counter.add_write(by))
    }

    /// Does nothing of the batch once a later holder of the lock has written with its own fence: fails with
    /// [`Error::Fenced`] then. The tokens that were seen are kept in the table [`FENCES_TABLE`](crate::lock::FENCES_TABLE).
    pub fn fence(self, held: &Held) -> Self {
        self.with(held.fence_write())
    }

    /// Does it all, or nothing, and returns what each write did, in their order. Fails with [`Error::Conflict`],
    /// which names the first write whose row was not as expected. Dropped while it waits, the batch is done
    /// whole or not at all.
    pub async fn commit(self) -> Result<Vec<Outcome>, Error> {
        if self.writes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.state.engines().tables.apply(self.writes).await?)
    }

    fn with(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }
}
