//! The core of near copies, for whatever is read by a name that a feed tells: reads that miss share one reading of the engine, what was
//! read is kept within bounds, and dropped when the feed says that it has changed, or fails.
//!
//! # How a kind uses it
//! ```ignore
//! // `Copied` says how large a value is and when it ends.
//! let follow = move || -> BoxFuture<'static, Result<Feed, Error>> { let engine = engine.clone(); async move { engine.follow().await }.boxed() };
//! let copies: Copies<Row> = Copies::new(Bounds::default(), follow);
//!
//! copies.load(name, || { let engine = engine.clone(); async move { engine.get(name).await } }).await?; // a read
//! let _writing = copies.writing(name); // a write: until the end of the scope, which drops the copy
//! engine.put(name, value).await?;
//! ```
//! A name is what the feed calls the thing. The task that follows the feed is started by the first `load` that misses, in the tokio
//! runtime that runs it, and ends when the `Copies` are dropped.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Bounds, Counts, follower::Follower, shelf::Shelf};
use crate::{
    Millis,
    clock::{Clock, SystemClock},
    error::Error,
    feed::Feed,
};

/// Of what there can be copies. It is cloned for each read, so what is large in it is behind an `Arc`.
pub trait Copied: Clone + Send + Sync + 'static {
    /// Bytes that it takes in memory. A good estimate will do.
    fn bytes(&self) -> usize;

    /// From when on it is not there any more; `None` for never.
    fn ends_at(&self) -> Option<Millis>;

    /// From when on a read must reach the engine, because there it does more than read. `None` for never.
    fn due_at(&self) -> Option<Millis> {
        None
    }
}

/// Copies of things of one kind, by name.
pub struct Copies<V: Copied> {
    shelf: Arc<Shelf<V>>,
    follower: Follower,
}

impl<V: Copied> Copies<V> {
    /// No copies yet. `follow` follows the engine; it is called again whenever the feed has failed.
    pub fn new(
        bounds: Bounds,
        follow: impl Fn() -> BoxFuture<'static, Result<Feed, Error>> + Send + Sync + 'static,
    ) -> Self {
        Self::with_clock(bounds, Arc::new(SystemClock), follow)
    }

    /// The same, with a clock by which things end.
    pub fn with_clock(
        bounds: Bounds,
        clock: Arc<dyn Clock>,
        follow: impl Fn() -> BoxFuture<'static, Result<Feed, Error>> + Send + Sync + 'static,
    ) -> Self {
        Self { shelf: Arc::new(Shelf::new(bounds, clock)), follower: Follower::new(follow) }
    }

    /// The copy, if there is one that may be believed. It is counted as a hit.
    pub fn get(&self, name: &str) -> Option<V> {
        self.shelf.get(name)
    }

    /// The copy, or what `read` finds, of which a copy is kept. Others who ask meanwhile get what one `read` finds, unless it has changed
    /// since that began. When `read` fails with [`Error::Unavailable`], a copy that was good when the feed was last heard may still do
    /// ([`Bounds::outage_max`]).
    ///
    /// `read` only makes the future; it runs under a lock. Dropped, the reading goes on for others who wait for it, and else ends.
    pub async fn load<F>(&self, name: &str, read: impl FnOnce() -> F + Send) -> Result<V, Error>
    where
        F: Future<Output = Result<V, Error>> + Send + 'static,
    {
        if let Some(value) = self.get(name) {
            return Ok(value);
        }
        self.follower.ensure(&self.shelf);
        match self.shelf.read(name, true, read).await {
            Err(error @ Error::Unavailable(_)) => self.shelf.last_resort(name).ok_or(error),
            result => result,
        }
    }

    /// What `read` finds, begun now, whatever copy there is; it takes that one's place.
    pub async fn load_through<F>(&self, name: &str, read: impl FnOnce() -> F + Send) -> Result<V, Error>
    where
        F: Future<Output = Result<V, Error>> + Send + 'static,
    {
        self.follower.ensure(&self.shelf);
        self.shelf.read(name, false, read).await
    }

    /// To be held while something is written, whatever comes of it: dropped, it drops the copy, so that the writer reads what it
    /// has written.
    pub fn writing(&self, name: impl Into<Arc<str>>) -> Writing<'_, V> {
        Writing { copies: self, name: Some(name.into()) }
    }

    /// The same for a write that may be to anything: all copies are dropped.
    pub fn writing_any(&self) -> Writing<'_, V> {
        Writing { copies: self, name: None }
    }

    /// Drops a copy, and keeps those from being kept that were begun to be read before.
    pub fn drop_one(&self, name: &str) {
        self.shelf.change(name);
    }

    /// Drops all copies, and keeps those from being kept that were begun to be read before.
    pub fn flush(&self) {
        self.shelf.flush();
    }

    /// Waits until the engine is followed, so that from then on what is read is kept: for who reads ahead. Fails with
    /// [`Error::Unsupported`] when the engine tells no changes.
    pub async fn followed(&self) -> Result<(), Error> {
        self.follower.ensure(&self.shelf);
        self.follower.followed().await
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.shelf.counts()
    }
}

/// See [`Copies::writing`].
#[must_use = "the copy is dropped when this is"]
pub struct Writing<'a, V: Copied> {
    copies: &'a Copies<V>,
    name: Option<Arc<str>>,
}

impl<V: Copied> Drop for Writing<'_, V> {
    fn drop(&mut self) {
        match &self.name {
            Some(name) => self.copies.drop_one(name),
            None => self.copies.flush(),
        }
    }
}
