//! Tables with near copies of the rows of some: a row that was read is a look into memory, and so is that there is none. Scans always ask
//! the engine.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Bounds, Copied, Copies, Counts};
use crate::{
    Millis,
    clock::{Clock, SystemClock},
    error::Error,
    feed::Feed,
    tables::{Action, Outcome, Page, Row, Scan, Tables, Write},
};

/// Keeps copies of rows of some of the tables that another engine keeps.
///
/// What is written under a condition is decided by the engine, so a copy that is old can at most make a batch fail with
/// [`Error::Conflict`]; and then the copies of all rows in it are dropped, so that the next try sees what is new.
pub struct NearTables {
    engine: Arc<dyn Tables>,
    copies: BTreeMap<String, Copies<Option<Row>>>,
}

impl NearTables {
    /// Copies of rows of these tables, each with its own bounds.
    pub fn new(engine: Arc<dyn Tables>, tables: impl IntoIterator<Item = (String, Bounds)>) -> Self {
        Self::with_clock(engine, tables, &(Arc::new(SystemClock) as Arc<dyn Clock>))
    }

    /// The same, with a clock by which rows end.
    pub fn with_clock(
        engine: Arc<dyn Tables>,
        tables: impl IntoIterator<Item = (String, Bounds)>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let copies = tables.into_iter().map(|(table, bounds)| {
            let (followed, name) = (Arc::clone(&engine), Arc::<str>::from(table.as_str()));
            let follow = move || {
                let (followed, name) = (Arc::clone(&followed), Arc::clone(&name));
                async move { followed.follow(&name).await }.boxed()
            };
            (table, Copies::with_clock(bounds, Arc::clone(clock), follow))
        });
        let copies = copies.collect();
        Self { engine, copies }
    }

    /// What the copies of each table have done so far.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        self.copies.iter().map(|(table, copies)| (table.clone(), copies.counts())).collect()
    }

    /// Waits until all tables are followed, from when on copies are kept; see [`Copies::followed`].
    pub async fn followed(&self) -> Result<(), Error> {
        for copies in self.copies.values() {
            copies.followed().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Tables for NearTables {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error> {
        let Some(copies) = self.copies.get(table) else { return self.engine.get(table, key).await };
        let read = || {
            let (engine, table, key) = (Arc::clone(&self.engine), table.to_owned(), key.to_owned());
            async move { engine.get(&table, &key).await }
        };
        copies.load(key, read).await
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, Error> {
        self.engine.scan(table, scan).await
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        let (mut writing, mut checked) = (Vec::new(), Vec::new());
        for write in &batch {
            let Some(copies) = self.copies.get(&write.table) else { continue };
            match write.action {
                // It stays as it is, and so does the copy, unless that has led here.
                Action::Check => checked.push((copies, write.key.clone())),
                _ => writing.push(copies.writing(write.key.as_str())),
            }
        }
        let applied = self.engine.apply(batch).await;
        if matches!(applied, Err(Error::Conflict { .. })) {
            checked.iter().for_each(|(copies, key)| copies.drop_one(key));
        }
        applied
    }

    async fn follow(&self, table: &str) -> Result<Feed, Error> {
        self.engine.follow(table).await
    }
}

impl Copied for Option<Row> {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.as_ref().map_or(0, |row| row.key.len() + row.value.len())
    }

    fn ends_at(&self) -> Option<Millis> {
        self.as_ref()?.expires_at
    }
}
