//! What a worker knows of revocations: all of them, in memory, told as they happen. By it the worker decides whether what was
//! signed a while ago may be believed without asking anybody. Whenever it does not know for sure, it says so, and then the
//! engine must be asked: a worker that hears nothing believes nothing.
//!
//! `Blind → Following` when a feed of the table was opened and all rows that were there have been read; `Following → Blind` when
//! the feed fails, falls silent, is read too late, or tells of more than is kept.

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

/// What was known at a moment.
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

    /// What is known by now; `None` when that cannot be relied on.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.begin();
        let book = self.inner.read();
        book.follows().then(|| Mark(book.version()))
    }

    /// The epoch of a user's sessions at the moment of the mark, if nothing has become known of them since: neither was a revocation told,
    /// nor an epoch read, which may be that of a revocation that is still to be told. What is signed in it about a session that was
    /// found alive *after* the mark is doubted as soon as the revocation is told that ended the session later. Revocations of others say
    /// nothing of it: where somebody signs out in each moment, passes are signed all the same. A session that is known to have ended has none.
    pub(crate) fn epoch_at(&self, mark: Mark, user: Option<&str>, session: &str) -> Option<Revision> {
        let book = self.inner.read();
        let key = user.map(of_user).unwrap_or_default();
        let epoch = user.map_or(Some(NO_ROW), |_| book.epoch(&key));
        epoch.filter(|epoch| book.trusts(user, session, *epoch) && book.is_since(mark.0, &key))
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

#[cfg(test)]
mod tests {
    use lethe_state::Engines;

    use super::*;

    /// Who follows gets no turn in a test that waits for nothing: what is told, and when, is for that to say.
    fn followed() -> Revocations {
        let revocations = Revocations::new(Engines::absent("none").tables);
        revocations.inner.write(|book| {
            book.begin();
            book.open().unwrap();
        });
        revocations
    }

    /// The row of a revocation may be read before the feed has told of it: by somebody who was told of an earlier one.
    #[tokio::test(start_paused = true)]
    async fn an_epoch_that_was_read_after_the_mark_signs_nothing() {
        let revocations = followed();
        let ada: Arc<str> = of_user("ada").into();
        let change = |change: &dyn Fn(&mut Book)| revocations.inner.write(|book| change(book));
        change(&|book| assert_eq!(book.tell(&ada), Ok(1)));
        let mark = revocations.mark().unwrap();
        // The session is found alive here, and ended, in epoch 7.
        change(&|book| book.learn(&ada, 1, Some(7)));
        assert_eq!(revocations.epoch_at(mark, Some("ada"), "s"), None);
        let mark = revocations.mark().unwrap();
        assert_eq!(
            revocations.epoch_at(mark, Some("ada"), "s"),
            Some(7),
            "now it is known from the beginning"
        );
        assert_eq!(revocations.epoch_at(mark, None, "s"), Some(NO_ROW));
    }

    /// A feed that was lost and opened again in between brings all that has happened meanwhile, without telling of it.
    #[tokio::test(start_paused = true)]
    async fn an_epoch_of_another_feed_than_that_of_the_mark_signs_nothing() {
        let revocations = followed();
        let mark = revocations.mark().unwrap();
        revocations.inner.write(Book::close);
        assert_eq!(revocations.mark(), None);
        revocations.inner.write(|book| {
            book.begin();
            book.find(&of_user("ada"), 7).unwrap();
            book.open().unwrap();
        });
        assert_eq!(revocations.epoch_at(mark, Some("ada"), "s"), None);
        assert_eq!(revocations.epoch_at(revocations.mark().unwrap(), Some("ada"), "s"), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_after_the_mark_is_signed_by_nobody() {
        let revocations = followed();
        let mark = revocations.mark().unwrap();
        assert_eq!(revocations.epoch_at(mark, Some("bob"), "s"), Some(NO_ROW));
        revocations.inner.write(|book| book.tell(&of_user("bob").into())).unwrap();
        assert_eq!(revocations.epoch_at(mark, Some("bob"), "s"), None);
        assert_eq!(revocations.epoch_at(mark, Some("ada"), "s"), Some(NO_ROW), "it is not about her");
        revocations.doubt("s");
        let mark = revocations.mark().unwrap();
        assert_eq!(revocations.epoch_at(mark, Some("ada"), "s"), None, "her session has ended");
        assert_eq!(revocations.epoch_at(mark, Some("ada"), "t"), Some(NO_ROW));
    }
}
