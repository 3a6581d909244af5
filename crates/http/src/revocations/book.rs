//! The revocations that are known, and since when.
//!
//! `closed → begun` when there is a feed; `begun → open` when all rows have been read that were there; back to `closed` when the feed is
//! lost, or was not heard in time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use lethe_state::{
    Revision,
    feed::SILENCE_MAX,
    revocations::{KEPT, of_session, of_user},
};
use tokio::time::Instant;

/// Most revocations that a worker keeps, which is some 10 MB. When there are more it believes nothing that is signed, and asks
/// the engine each time: slower, and right.
pub const ROWS_MAX: usize = 65_536;
/// What of a worker's time a row is kept beyond its own, since it is known only when it was read, not when it was written.
const GRACE: Duration = Duration::from_secs(60);

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// When the feed was last heard; `None` while there is none.
    heard_at: Option<Instant>,
    /// Whether all rows have been read that were there when the feed began.
    is_open: bool,
    rows: HashMap<Arc<str>, Row>,
    /// The rows, each once, in the order in which they came, so that those that are over can be let go.
    ages: VecDeque<(Instant, Arc<str>)>,
    heard: u64,
    version: u64,
    /// The version from which on `rows` has all that has become known: as which it was opened, or of the newest that was let go.
    whole_from: u64,
}

#[derive(Debug)]
struct Row {
    /// Whether it came again since it stands in the order of ages.
    is_renewed: bool,
    /// `None` while it is known only that there is another one than before.
    epoch: Option<Revision>,
    /// How much had been heard when it was told of last.
    told: u64,
    /// The version of the book that it came with, or was changed with last.
    changed: u64,
}

/// Why the book cannot be relied on any more, and is to be closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("there are more than {ROWS_MAX} revocations")]
    Full,
    /// The feed may have told things long ago that nobody has read, behind the one that is read now.
    #[error("the feed of revocations was not read for {SILENCE_MAX:?}")]
    Late,
}

impl Book {
    /// Whether it can be relied on.
    pub(super) fn follows(&self) -> bool {
        self.is_open && self.is_timely()
    }

    /// Whether the feed was heard a moment ago. A worker that stood still for a while has heard nothing meanwhile, whatever it
    /// thinks it follows.
    fn is_timely(&self) -> bool {
        self.heard_at.is_some_and(|at| at.elapsed() <= SILENCE_MAX)
    }

    /// How many revocations are known.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// How many were told of, ever.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// A number that changes with all that becomes known or doubtful. What merely gets old does not change it.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Whether nothing has become known of a row since it was of this version: it was neither told of nor read, and no feed was lost.
    pub(super) fn is_since(&self, version: u64, key: &str) -> bool {
        version >= self.whole_from && self.rows.get(key).is_none_or(|row| row.changed <= version)
    }

    /// The epoch in a row; `None` while it is not known.
    pub(super) fn epoch(&self, key: &str) -> Option<Revision> {
        self.rows.get(key).map_or(Some(super::NO_ROW), |row| row.epoch)
    }

    /// Whether the epoch in a row is this one still, for certain.
    pub(super) fn believes(&self, key: &str, epoch: Revision) -> bool {
        self.follows() && self.rows.get(key).is_none_or(|row| row.epoch == Some(epoch))
    }

    /// Whether nothing was revoked since the epoch, for certain.
    pub(super) fn trusts(&self, user: Option<&str>, session: &str, epoch: Revision) -> bool {
        self.follows()
            && !self.rows.contains_key(of_session(session).as_str())
            && user.is_none_or(|user| self.believes(&of_user(user), epoch))
    }

    /// Forgets everything, for the feed was lost.
    pub(super) fn close(&mut self) {
        *self = Self { heard: self.heard, version: self.version + 1, ..Self::default() };
    }

    /// There is a feed; what was there before it is still to be read.
    pub(super) fn begin(&mut self) {
        self.heard_at = Some(Instant::now());
    }

    /// All that was there before has been read: from now on it can be relied on.
    pub(super) fn open(&mut self) -> Result<(), Fault> {
        self.version += 1;
        self.whole_from = self.version;
        self.is_open = true;
        if self.is_timely() { Ok(()) } else { Err(Fault::Late) }
    }

    /// Notes that the feed lives, and lets go what is over.
    pub(super) fn beat(&mut self) -> Result<(), Fault> {
        // The sign of life is as old as the silence before it, perhaps.
        if !self.is_timely() {
            return Err(Fault::Late);
        }
        let now = Instant::now();
        self.heard_at = Some(now);
        while let Some((since, _)) = self.ages.front()
            && now.duration_since(*since) > KEPT + GRACE
            && let Some((_, key)) = self.ages.pop_front()
        {
            match self.rows.get_mut(&key) {
                Some(row) if row.is_renewed => {
                    row.is_renewed = false;
                    self.ages.push_back((now, key));
                }
                _ => {
                    let changed = self.rows.remove(&key).map_or(0, |row| row.changed);
                    self.whole_from = self.whole_from.max(changed);
                }
            }
        }
        Ok(())
    }

    /// Notes that a row was written, and returns how much has been heard with that.
    pub(super) fn tell(&mut self, key: &Arc<str>) -> Result<u64, Fault> {
        self.heard += 1;
        self.version += 1;
        self.beat()?;
        match self.rows.get_mut(key) {
            Some(row) => {
                *row = Row { is_renewed: true, epoch: None, told: self.heard, changed: self.version };
            }
            None => self.insert(Arc::clone(key), None, self.heard)?,
        }
        Ok(self.heard)
    }

    /// Notes a row without having been told of it.
    pub(super) fn doubt(&mut self, key: Arc<str>) -> Result<(), Fault> {
        match self.rows.contains_key(&key) {
            true => Ok(()),
            false => self.insert(key, None, 0),
        }
    }

    /// Notes a row that was there before anything was told.
    pub(super) fn find(&mut self, key: &str, revision: Revision) -> Result<(), Fault> {
        if self.rows.contains_key(key) {
            return Ok(());
        }
        self.insert(key.into(), Some(revision), 0)
    }

    /// Notes what was read of a row after it was `told`, unless it was told of again; `None` when it is not there any more.
    pub(super) fn learn(&mut self, key: &str, told: u64, revision: Option<Revision>) {
        match (self.rows.get_mut(key), revision) {
            // Somebody has taken it away: then it is as if it had never been.
            (Some(row), revision) if row.told == told => {
                self.version += 1;
                row.epoch = revision.or(Some(super::NO_ROW));
                row.changed = self.version;
            }
            _ => {}
        }
    }

    fn insert(&mut self, key: Arc<str>, epoch: Option<Revision>, told: u64) -> Result<(), Fault> {
        if self.rows.len() >= ROWS_MAX {
            return Err(Fault::Full);
        }
        self.version += 1;
        self.ages.push_back((Instant::now(), Arc::clone(&key)));
        self.rows.insert(key, Row { is_renewed: false, epoch, told, changed: self.version });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Book {
        let mut book = Book::default();
        book.begin();
        book.open().unwrap();
        book
    }

    /// One that hears its feed for so long.
    async fn hear(book: &mut Book, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            tokio::time::advance(SILENCE_MAX.min(until - Instant::now())).await;
            book.beat().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_hears_believes() {
        let mut book = Book::default();
        assert!(!book.trusts(None, "s", 0) && !book.believes(&of_user("ada"), 0));
        book.begin();
        book.beat().unwrap();
        assert!(!book.follows(), "a beat before all rows are read is not enough");
        book.open().unwrap();
        assert!(
            book.trusts(None, "s", 0)
                && book.trusts(Some("ada"), "s", 0)
                && book.believes(&of_user("ada"), 7)
        );
        tokio::time::advance(SILENCE_MAX + Duration::from_millis(1)).await;
        assert!(!book.trusts(None, "s", 0) && !book.believes(&of_user("ada"), 0), "silence is no consent");
        book.close();
        assert!(!book.trusts(None, "s", 0));
    }

    /// A worker that stood still finds old signs of life first, and behind them what was revoked meanwhile.
    #[tokio::test(start_paused = true)]
    async fn a_late_sign_of_life_is_none() {
        let late = SILENCE_MAX + Duration::from_millis(1);
        let mut book = open();
        hear(&mut book, 5 * SILENCE_MAX).await;
        assert!(book.follows());
        tokio::time::advance(late).await;
        assert_eq!(book.beat(), Err(Fault::Late));
        assert!(!book.follows());
        assert_eq!(book.tell(&of_user("ada").into()), Err(Fault::Late));
        assert!(!book.follows() && !book.trusts(Some("bob"), "s", 0));
        // The same while the rows are read.
        book.close();
        book.begin();
        tokio::time::advance(late).await;
        assert_eq!(book.open(), Err(Fault::Late));
        assert!(!book.follows());
    }

    /// What becomes known of a row, and the loss of a feed, is seen by whoever knows the version of before; what becomes known of others is
    /// not their business.
    #[tokio::test(start_paused = true)]
    async fn a_row_is_as_it_was_until_something_becomes_known_of_it() {
        type Change = fn(&mut Book);
        let (ada, bob) = (of_user("ada"), of_user("bob"));
        let mut book = open();
        let changes: [(&str, Change); 5] = [
            ("told", |book| _ = book.tell(&of_user("ada").into()).unwrap()),
            ("learnt", |book| book.learn(&of_user("ada"), 1, Some(7))),
            ("told again", |book| _ = book.tell(&of_user("ada").into()).unwrap()),
            ("lost", |book| {
                book.close();
                book.begin();
                book.open().unwrap();
            }),
            ("found", |book| book.find(&of_user("ada"), 8).unwrap()),
        ];
        for (what, change) in changes {
            let before = book.version();
            assert!(book.is_since(before, &ada) && book.is_since(before, &bob));
            change(&mut book);
            assert!(!book.is_since(before, &ada), "{what}");
            assert_eq!(book.is_since(before, &bob), what != "lost", "{what}");
        }
        let before = book.version();
        book.doubt(ada.clone().into()).unwrap();
        book.doubt(bob.clone().into()).unwrap();
        assert!(book.is_since(before, &ada) && !book.is_since(before, &bob), "the one was known already");
    }

    /// Whoever finds the version as it was has missed nothing: no revocation, and no epoch that came of one.
    #[tokio::test(start_paused = true)]
    async fn the_version_is_another_one_after_all_that_becomes_known() {
        type Change = fn(&mut Book);
        let key: Arc<str> = of_user("ada").into();
        let mut book = open();
        let first = book.tell(&key).unwrap();
        let changes: [(&str, Change); 6] = [
            ("told", |book| _ = book.tell(&of_user("bob").into()).unwrap()),
            ("learnt", |book| book.learn(&of_user("ada"), 1, Some(7))),
            ("doubted", |book| book.doubt(of_session("s").into()).unwrap()),
            ("lost", Book::close),
            ("found", |book| book.find(&of_user("ada"), 8).unwrap()),
            ("opened", |book| {
                book.begin();
                book.open().unwrap();
            }),
        ];
        assert_eq!(first, 1);
        for (what, change) in changes {
            let before = book.version();
            change(&mut book);
            assert_ne!(book.version(), before, "{what}");
        }
        let before = book.version();
        hear(&mut book, 2 * SILENCE_MAX).await;
        assert_eq!(book.version(), before, "time alone changes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_is_believed_in_the_one_epoch_and_a_session_that_ended_in_none() {
        let mut book = open();
        let key: Arc<str> = of_user("ada").into();
        let told = book.tell(&key).unwrap();
        assert!(
            !book.trusts(Some("ada"), "s", 0) && book.epoch(&of_user("ada")).is_none(),
            "it is not known yet which"
        );
        assert!(book.trusts(Some("bob"), "s", 0));
        book.learn(&key, told, Some(7));
        assert_eq!(book.epoch(&of_user("ada")), Some(7));
        assert!(book.trusts(Some("ada"), "s", 7));
        assert!(!book.trusts(Some("ada"), "s", 6) && !book.trusts(Some("ada"), "s", 8));
        book.tell(&of_session("s").into()).unwrap();
        assert!(!book.trusts(Some("ada"), "s", 7) && !book.trusts(None, "s", 0) && book.trusts(None, "t", 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_too_early_is_not_learnt() {
        let mut book = open();
        let key: Arc<str> = of_user("ada").into();
        let first = book.tell(&key).unwrap();
        let second = book.tell(&key).unwrap();
        book.learn(&key, first, Some(7));
        assert_eq!(book.epoch(&of_user("ada")), None);
        book.find(&key, 7).unwrap();
        assert_eq!(
            book.epoch(&of_user("ada")),
            None,
            "a page that was read before the change does not undo it"
        );
        book.learn(&key, first, None);
        assert_eq!(book.epoch(&of_user("ada")), None);
        book.learn(&key, second, Some(8));
        assert_eq!(book.epoch(&of_user("ada")), Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn rows_go_when_all_that_they_are_about_is_over() {
        let mut book = open();
        let (ada, bob): (Arc<str>, Arc<str>) = (of_user("ada").into(), of_user("bob").into());
        book.tell(&ada).unwrap();
        book.find(&bob, 3).unwrap();
        hear(&mut book, KEPT).await;
        assert_eq!(book.rows(), 2);
        book.tell(&ada).unwrap();
        hear(&mut book, GRACE + Duration::from_millis(1)).await;
        assert_eq!(
            (book.rows(), book.epoch(&of_user("ada")), book.epoch(&of_user("bob"))),
            (1, None, Some(0))
        );
        hear(&mut book, KEPT + GRACE + Duration::from_millis(1)).await;
        assert_eq!((book.rows(), book.ages.len(), book.epoch(&of_user("ada"))), (0, 0, Some(0)));
    }

    /// Who has waited for an answer since before a row came is not told that nothing came, though the row is over.
    #[tokio::test(start_paused = true)]
    async fn a_row_that_went_is_not_forgotten_by_who_knows_the_version_of_before() {
        let mut book = open();
        let before = book.version();
        book.tell(&of_user("ada").into()).unwrap();
        let after = book.version();
        hear(&mut book, KEPT + GRACE + Duration::from_millis(1)).await;
        assert_eq!(book.rows(), 0);
        assert!(!book.is_since(before, &of_user("ada")));
        assert!(book.is_since(after, &of_user("ada")));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_and_no_more() {
        let mut book = open();
        for number in 0..ROWS_MAX {
            book.find(&number.to_string(), 1).unwrap();
        }
        assert_eq!(book.tell(&"one more".into()), Err(Fault::Full));
    }
}
