//! Typed rows: values under a key, stored as JSON, with compare-and-set by revision.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
pub use lethe_state::tables::Outcome;
use lethe_state::{
    Millis, Revision,
    clock::jittered,
    error::Error as StateError,
    tables::{self, Action, Condition, Write},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::sleep;

use crate::{Error, State};

/// How often [`Table::update`] tries before it gives up. Each failed try means that another request's write to the
/// same row succeeded.
pub const UPDATE_TRIES_MAX: u32 = 32;
/// How much longer each pause is than the one before, from the third try on.
const UPDATE_PAUSE: Duration = Duration::from_millis(1);

/// A table of `T`. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lethe::Error> {
/// # let state = lethe::State::ephemeral()?;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Product { name: String, stock: u32 }
///
/// let products = state.table::<Product>("products");
/// products.put("mug", &Product { name: "Mug".into(), stock: 3 }).await?;
/// products.update("mug", |mug| mug.stock -= 1).await?;
/// assert_eq!(products.get("mug").await?.map(|mug| mug.stock), Some(2));
/// # Ok(())
/// # }
/// ```
pub struct Table<T> {
    state: State,
    name: Arc<str>,
    row: PhantomData<fn() -> T>,
}

/// A row as it was read. It can be used like its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stored<T> {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: T,
    /// Which version of the row this is; changes with each write.
    pub revision: Revision,
    /// From when on the row does not exist any more; `None` for never.
    pub expires_at: Option<Millis>,
}

impl<T> std::ops::Deref for Stored<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Some rows of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, in the order of their keys' bytes.
    pub rows: Vec<Stored<T>>,
    /// Where the next page begins: what to give to [`Scan::after`]. `None` when there are no more rows.
    pub next: Option<String>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), name: Arc::clone(&self.name), row: PhantomData }
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.name)
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    pub(crate) fn new(state: State, name: &str) -> Self {
        Self { state, name: name.into(), row: PhantomData }
    }

    /// The row with this key, or `None`.
    pub async fn get(&self, key: &str) -> Result<Option<Stored<T>>, Error> {
        let row = self.state.engines().tables.get(&self.name, key).await?;
        row.map(|row| self.decode(row)).transpose()
    }

    /// Writes a row, whatever is there, for always.
    pub async fn put(&self, key: &str, value: &T) -> Result<Revision, Error> {
        self.write(self.put_write(key, value, Condition::Any, None)?).await
    }

    /// Writes a row, whatever is there, for so long; then it is gone.
    pub async fn put_for(&self, key: &str, value: &T, ttl: Duration) -> Result<Revision, Error> {
        self.write(self.put_write(key, value, Condition::Any, Some(ttl))?).await
    }

    /// Writes a row if there is none with this key; returns whether it did.
    pub async fn insert(&self, key: &str, value: &T) -> Result<bool, Error> {
        unless_conflict(self.write(self.put_write(key, value, Condition::Absent, None)?).await)
    }

    /// Writes a row for so long, if there is none with this key; returns whether it did.
    pub async fn insert_for(&self, key: &str, value: &T, ttl: Duration) -> Result<bool, Error> {
        unless_conflict(self.write(self.put_write(key, value, Condition::Absent, Some(ttl))?).await)
    }

    /// Writes a row if it is still the one that was read; returns whether it did. It keeps its expiry.
    pub async fn put_if(&self, read: &Stored<T>, value: &T) -> Result<bool, Error> {
        unless_conflict(self.write(self.put_if_write(read, value)?).await)
    }

    /// Changes the row from the value it has, and returns the new value; `None` when there is no such row. When
    /// another request was faster, `change` runs again on what that one wrote, so it must depend on nothing
    /// but its argument. The row keeps its expiry.
    ///
    /// Fails with [`Error::Contended`] after [`UPDATE_TRIES_MAX`] tries.
    pub async fn update(&self, key: &str, mut change: impl FnMut(&mut T)) -> Result<Option<T>, Error> {
        for tries in 0..UPDATE_TRIES_MAX {
            if tries > 1 {
                // Those who go on in step would have the same one win each time.
                sleep(jittered(UPDATE_PAUSE * (tries - 1))).await;
            }
            let Some(row) = self.state.engines().tables.get(&self.name, key).await? else { return Ok(None) };
            let before = row.value.clone();
            let Stored { mut value, revision, expires_at, .. } = self.decode(row)?;
            change(&mut value);
            let write = self.put_write(key, &value, Condition::Revision(revision), remaining(expires_at))?;
            if matches!(&write.action, Action::Put { value, .. } if *value == before) {
                return Ok(Some(value));
            }
            if unless_conflict(self.write(write).await)? {
                return Ok(Some(value));
            }
        }
        Err(Error::Contended { table: self.name.to_string(), key: key.to_owned() })
    }

    /// Removes a row; returns whether it was there.
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        let outcomes = self.state.engines().tables.apply(vec![self.delete_write(key)]).await?;
        Ok(matches!(outcomes.first(), Some(Outcome::Deleted { existed: true })))
    }

    /// Rows whose key begins with `prefix`; all rows for `""`.
    pub fn scan(&self, prefix: &str) -> Scan<T> {
        let scan = tables::Scan { prefix: prefix.to_owned(), after: None, limit: 0 };
        Scan { table: self.clone(), scan }
    }

    async fn write(&self, write: Write) -> Result<Revision, Error> {
        let outcomes = self.state.engines().tables.apply(vec![write]).await?;
        match outcomes.first() {
            Some(Outcome::Put { revision }) => Ok(*revision),
            other => Err(unexpected(other)),
        }
    }

    pub(crate) fn put_write(
        &self,
        key: &str,
        value: &T,
        condition: Condition,
        ttl: Option<Duration>,
    ) -> Result<Write, Error> {
        let value = serde_json::to_vec(value).map_err(|source| Error::Encode {
            table: self.name.to_string(),
            key: key.to_owned(),
            source,
        })?;
        Ok(self.make(key, condition, Action::Put { value: Bytes::from(value), ttl }))
    }

    pub(crate) fn put_if_write(&self, read: &Stored<T>, value: &T) -> Result<Write, Error> {
        self.put_write(&read.key, value, Condition::Revision(read.revision), remaining(read.expires_at))
    }

    pub(crate) fn delete_write(&self, key: &str) -> Write {
        self.make(key, Condition::Any, Action::Delete)
    }

    pub(crate) fn delete_if_write(&self, read: &Stored<T>) -> Write {
        self.make(&read.key, Condition::Revision(read.revision), Action::Delete)
    }

    pub(crate) fn check_write(&self, read: &Stored<T>) -> Write {
        self.make(&read.key, Condition::Revision(read.revision), Action::Check)
    }

    fn make(&self, key: &str, condition: Condition, action: Action) -> Write {
        Write { table: self.name.to_string(), key: key.to_owned(), condition, action }
    }

    fn decode(&self, row: tables::Row) -> Result<Stored<T>, Error> {
        match serde_json::from_slice(&row.value) {
            Ok(value) => {
                Ok(Stored { key: row.key, value, revision: row.revision, expires_at: row.expires_at })
            }
            Err(source) => Err(Error::Decode { table: self.name.to_string(), key: row.key, source }),
        }
    }
}

/// A scan that is still to be done.
#[must_use = "a scan reads nothing before `page` or `rows` is called"]
pub struct Scan<T> {
    table: Table<T>,
    scan: tables::Scan,
}

impl<T: Serialize + DeserializeOwned> Scan<T> {
    /// At most so many rows in a page; 1000 unless said.
    pub fn limit(mut self, rows: usize) -> Self {
        self.scan.limit = rows;
        self
    }

    /// Only rows after this key, such as [`Page::next`]; from the start for `""`.
    pub fn after(mut self, key: impl Into<String>) -> Self {
        self.scan.after = Some(key.into()).filter(|key| !key.is_empty());
        self
    }

    /// One page of rows.
    pub async fn page(&self) -> Result<Page<T>, Error> {
        let page = self.table.state.engines().tables.scan(&self.table.name, &self.scan).await?;
        let rows = page.rows.into_iter().map(|row| self.table.decode(row)).collect::<Result<_, _>>()?;
        Ok(Page { rows, next: page.next })
    }

    /// All rows, page after page. Rows that are written meanwhile may be missed or not.
    pub fn rows(self) -> impl Stream<Item = Result<Stored<T>, Error>> {
        let first = (self, Vec::new().into_iter(), true);
        stream::try_unfold(first, |(mut scan, mut rows, mut more)| async move {
            loop {
                if let Some(row) = rows.next() {
                    return Ok(Some((row, (scan, rows, more))));
                }
                if !more {
                    return Ok(None);
                }
                let page = scan.page().await?;
                rows = page.rows.into_iter();
                more = page.next.is_some();
                scan.scan.after = page.next;
            }
        })
    }
}

/// How long a row has still to live, so that a rewrite does not make it live longer.
fn remaining(expires_at: Option<Millis>) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = Duration::from_millis(u64::try_from(expires_at?).unwrap_or(0));
    Some(then.saturating_sub(now).max(Duration::from_millis(1)))
}

fn unless_conflict(written: Result<Revision, Error>) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn unexpected(outcome: Option<&Outcome>) -> Error {
    Error::State(StateError::Engine(format!("a write was answered with {outcome:?}").into()))
}
