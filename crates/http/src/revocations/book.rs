//! The revocations that are known, and since when.

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
    /// When the feed was last heard; `None` while there is none, or not all rows have been read.
    heard_at: Option<Instant>,
    rows: HashMap<Arc<str>, Row>,
    /// The rows, each once, in the order in which they came, so that those that are over can be let go.
    ages: VecDeque<(Instant, Arc<str>)>,
    heard: u64,
}

#[derive(Debug)]
struct Row {
    /// Whether it came again since it stands in the order of ages.
    is_renewed: bool,
    /// `None` while it is known only that there is another one than before.
    epoch: Option<Revision>,
    /// How much had been heard when it was told of last.
    told: u64,
}

/// There are more revocations than [`ROWS_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Book {
    /// Whether it can be relied on.
    pub(super) fn follows(&self) -> bool {
        // A worker that stood still for a while has heard nothing meanwhile, whatever it thinks it follows.
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
        *self = Self { heard: self.heard, ..Self::default() };
    }

    /// From now on it can be relied on.
    pub(super) fn open(&mut self) {
        self.heard_at = Some(Instant::now());
    }

    /// Notes that the feed lives, and lets go what is over.
    pub(super) fn beat(&mut self) {
        let now = Instant::now();
        if self.heard_at.is_some() {
            self.heard_at = Some(now);
        }
        while let Some((since, _)) = self.ages.front()
            && now.duration_since(*since) > KEPT + GRACE
            && let Some((_, key)) = self.ages.pop_front()
        {
            match self.rows.get_mut(&key) {
                Some(row) if row.is_renewed => {
                    row.is_renewed = false;
                    self.ages.push_back((now, key));
                }
                _ => drop(self.rows.remove(&key)),
            }
        }
    }

    /// Notes that a row was written, and returns how much has been heard with that.
    pub(super) fn tell(&mut self, key: &Arc<str>) -> Result<u64, Full> {
        self.heard += 1;
        self.beat();
        match self.rows.get_mut(key) {
            Some(row) => *row = Row { is_renewed: true, epoch: None, told: self.heard },
            None => self.insert(Arc::clone(key), Row { is_renewed: false, epoch: None, told: self.heard })?,
        }
        Ok(self.heard)
    }

    /// Notes a row without having been told of it.
    pub(super) fn doubt(&mut self, key: Arc<str>) -> Result<(), Full> {
        match self.rows.contains_key(&key) {
            true => Ok(()),
            false => self.insert(key, Row { is_renewed: false, epoch: None, told: 0 }),
        }
    }

    /// Notes a row that was there before anything was told.
    pub(super) fn find(&mut self, key: &str, revision: Revision) -> Result<(), Full> {
        if self.rows.contains_key(key) {
            return Ok(());
        }
        self.insert(key.into(), Row { is_renewed: false, epoch: Some(revision), told: 0 })
    }

    /// Notes what was read of a row after it was `told`, unless it was told of again; `None` when it is not there any more.
    pub(super) fn learn(&mut self, key: &str, told: u64, revision: Option<Revision>) {
        match (self.rows.get_mut(key), revision) {
            // Somebody has taken it away: then it is as if it had never been.
            (Some(row), revision) if row.told == told => row.epoch = revision.or(Some(super::NO_ROW)),
            _ => {}
        }
    }

    fn insert(&mut self, key: Arc<str>, row: Row) -> Result<(), Full> {
        if self.rows.len() >= ROWS_MAX {
            return Err(Full);
        }
        self.ages.push_back((Instant::now(), Arc::clone(&key)));
        self.rows.insert(key, row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Book {
        let mut book = Book::default();
        book.open();
        book
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_hears_believes() {
        let mut book = Book::default();
        assert!(!book.trusts(None, "s", 0) && !book.believes(&of_user("ada"), 0));
        book.beat();
        assert!(!book.follows(), "a beat before all rows are read is not enough");
        book.open();
        assert!(
            book.trusts(None, "s", 0)
                && book.trusts(Some("ada"), "s", 0)
                && book.believes(&of_user("ada"), 7)
        );
        tokio::time::advance(SILENCE_MAX + Duration::from_millis(1)).await;
        assert!(!book.trusts(None, "s", 0) && !book.believes(&of_user("ada"), 0), "silence is no consent");
        book.beat();
        assert!(book.trusts(None, "s", 0));
        book.close();
        assert!(!book.trusts(None, "s", 0));
    }

    #[test]
    fn a_user_is_believed_in_the_one_epoch_and_a_session_that_ended_in_none() {
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

    #[test]
    fn what_was_read_too_early_is_not_learnt() {
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
        tokio::time::advance(KEPT).await;
        book.beat();
        assert_eq!(book.rows(), 2);
        book.tell(&ada).unwrap();
        tokio::time::advance(GRACE + Duration::from_millis(1)).await;
        book.beat();
        assert_eq!(
            (book.rows(), book.epoch(&of_user("ada")), book.epoch(&of_user("bob"))),
            (1, None, Some(0))
        );
        tokio::time::advance(KEPT + GRACE + Duration::from_millis(1)).await;
        book.beat();
        assert_eq!((book.rows(), book.ages.len(), book.epoch(&of_user("ada"))), (0, 0, Some(0)));
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut book = open();
        for number in 0..ROWS_MAX {
            book.find(&number.to_string(), 1).unwrap();
        }
        assert_eq!(book.tell(&"one more".into()), Err(Full));
    }
}
