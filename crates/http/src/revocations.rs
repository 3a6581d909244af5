//! What a worker knows of revocations: all of them, in memory, told as they happen. By it the worker decides whether what was
//! signed a while ago may be believed without asking anybody. Whenever it does not know for sure, it says so, and then the
//! engine must be asked: a worker that hears nothing believes nothing.
//!
//! `Blind → Following` when a feed of the table was opened and all rows that were there have been read; `Following → Blind` when
//! the feed fails, falls silent, or tells of more than is kept.

mod book;
mod follower;

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use lethe_state::{
    Revision,
    error::Error as StateError,
    revocations::{TABLE, of_session, of_tokens, of_user},
    tables::Tables,
};
use tokio::sync::watch;

use self::book::Book;
pub use self::book::ROWS_MAX;
use crate::metrics::{Page, Source};

/// The epoch of which no revocation is known.
const NO_ROW: Revision = 0;

/// How a worker stands with revocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it hears of them. If not, nothing signed is believed without asking the engine.
    pub follows: bool,
    /// How many it knows.
    pub rows: usize,
    /// How many it was told of since it began.
    pub heard: u64,
}

/// The revocations of a service's state, as this worker knows them. Cheap to clone; all clones know the same.
#[derive(Clone)]
pub struct Revocations {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Arc<dyn Tables>,
    book: RwLock<Book>,
    status: watch::Sender<Status>,
    has_begun: AtomicBool,
}

/// What had been heard at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({:?})", *self.inner.status.borrow())
    }
}

impl Revocations {
    /// Those in these tables. They are followed from the first use on, in a task of the runtime that it is in, for as long as
    /// there is a clone of this.
    pub fn new(tables: Arc<dyn Tables>) -> Self {
        Self {
            inner: Arc::new(Inner {
                tables,
                book: RwLock::default(),
                status: watch::Sender::default(),
                has_begun: AtomicBool::new(false),
            }),
        }
    }

    /// How this worker stands, now and whenever that changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.begin();
        self.inner.status.subscribe()
    }

    /// Waits until revocations are followed: for a worker that wants to be as quick at its first request as later.
    pub async fn followed(&self) {
        // It fails only when there is no sender any more, and this is one.
        let _ = self.status().wait_for(|status| status.follows).await;
    }

    /// Whether what was signed about this session and user in this epoch may be believed: nothing was revoked since, for
    /// certain.
    pub(crate) fn trusts(&self, user: Option<&str>, session: &str, epoch: Revision) -> bool {
        self.begin();
        self.inner.read().trusts(user, session, epoch)
    }

    /// Notes that a session of this public name has ended.
    pub(crate) fn doubt(&self, session: &str) {
        // When there is no room, what is told next makes this worker believe nothing at all.
        _ = self.inner.write(|book| book.doubt(of_session(session).into()));
    }

    /// What has been heard by now; `None` when nothing can be.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.begin();
        let book = self.inner.read();
        book.follows().then(|| Mark(book.heard()))
    }

    /// The epoch of a user's sessions at the moment of the mark, if nothing was heard since. What is signed in it about a session that was
    /// found alive *after* the mark is doubted as soon as the revocation is told that ended the session later.
    pub(crate) fn epoch_at(&self, mark: Mark, user: Option<&str>) -> Option<Revision> {
        let book = self.inner.read();
        let epoch = user.map_or(Some(NO_ROW), |user| book.epoch(&of_user(user)));
        epoch.filter(|_| book.follows() && book.heard() == mark.0)
    }

    /// The epoch of a user's tokens, as the tables have it.
    pub(crate) async fn tokens_epoch(&self, user: &str) -> Result<Revision, StateError> {
        self.look_up(&of_tokens(user)).await
    }

    /// Whether tokens of a user that were signed in this epoch hold; the tables are asked if it is not known here.
    pub(crate) async fn tokens_hold(&self, user: &str, epoch: Revision) -> Result<bool, StateError> {
        self.begin();
        let key = of_tokens(user);
        if self.inner.read().believes(&key, epoch) {
            return Ok(true);
        }
        let now = self.look_up(&key).await?;
        // A row is kept for longer than anything that is older than it lives.
        Ok(now == NO_ROW || now == epoch)
    }

    async fn look_up(&self, key: &str) -> Result<Revision, StateError> {
        Ok(self.inner.tables.get(TABLE, key).await?.map_or(NO_ROW, |row| row.revision))
    }

    fn begin(&self) {
        if !self.inner.has_begun.load(Ordering::Relaxed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !self.inner.has_begun.swap(true, Ordering::Relaxed)
        {
            runtime.spawn(follower::follow(Arc::downgrade(&self.inner)));
        }
    }
}

impl Inner {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the book, and says how it stands now.
    fn write<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut book);
        let status = Status { follows: book.follows(), rows: book.rows(), heard: book.heard() };
        drop(book);
        self.status.send_if_modified(|known| std::mem::replace(known, status) != status);
        changed
    }
}

impl Source for Revocations {
    fn count_on(&self, page: &mut Page) {
        let Status { follows, rows, heard } = *self.status().borrow();
        let follows = u64::from(follows);
        page.gauge("lethe_revocations_followed", "1 while revocations are heard of, else 0.", &[], follows);
        page.gauge("lethe_revocations_known", "Revocations that are known.", &[], rows as u64);
        page.counter("lethe_revocations_heard_total", "Revocations that were told.", &[], heard);
    }
}
