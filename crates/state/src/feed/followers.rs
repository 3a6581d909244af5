//! Who follows, and what they are told. An engine tells a name once and goes on: nobody who follows can keep it waiting, since
//! one that does not read in time fails.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{NOTICES_MAX, Notice};
use crate::error::Error;

/// Most feeds at one time.
pub(crate) const FOLLOWERS_MAX: usize = 1024;

/// What can be followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// All sessions.
    Sessions,
    /// The rows of a table.
    Table(Box<str>),
    /// The keys of a cache.
    #[cfg_attr(
        not(any(feature = "embedded", feature = "redis")),
        allow(dead_code, reason = "no other engine has it")
    )]
    Cache(Box<str>),
}

/// All who follow something of an engine.
#[derive(Default)]
pub(crate) struct Followers {
    topics: Mutex<HashMap<Topic, Vec<Follower>>>,
    /// How many there are, or have been until a little while ago.
    count: AtomicUsize,
}

struct Follower {
    notices: mpsc::Sender<Notice>,
    /// Why nothing more comes.
    failure: Arc<OnceLock<Arc<str>>>,
}

/// What one follower is told.
pub(crate) struct Notices {
    notices: mpsc::Receiver<Notice>,
    failure: Arc<OnceLock<Arc<str>>>,
}

impl Followers {
    /// Whether nobody follows anything. It is cheap, and may be wrong for as long as somebody is just coming.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// One more follower, who is told all that is told from now on.
    ///
    /// Fails with [`Error::Unavailable`] when there are [`FOLLOWERS_MAX`].
    pub(crate) fn follow(&self, topic: Topic) -> Result<Notices, Error> {
        self.clear();
        let mut topics = self.topics();
        if self.count.load(Ordering::Relaxed) >= FOLLOWERS_MAX {
            return Err(Error::Unavailable(format!("there are {FOLLOWERS_MAX} feeds already")));
        }
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let failure = Arc::<OnceLock<_>>::default();
        topics.entry(topic).or_default().push(Follower { notices: sender, failure: failure.clone() });
        self.count.fetch_add(1, Ordering::Release);
        Ok(Notices { notices, failure })
    }

    /// Tells those who follow `topic` that what has this name was changed.
    pub(crate) fn tell(&self, topic: &Topic, name: &str) {
        if self.is_empty() {
            return;
        }
        if let Some(followers) = self.topics().get_mut(topic) {
            let name: Arc<str> = name.into();
            self.retain(followers, |follower| follower.tell(&name));
        }
    }

    /// Gives all a sign of life. Who has something to read needs none.
    #[cfg(any(test, feature = "postgres", feature = "redis"))]
    pub(crate) fn beat(&self) {
        for follower in self.topics().values().flatten() {
            // It fails when there is something to read, or nobody to read it.
            let _ = follower.notices.try_send(Notice::Beat);
        }
    }

    /// Fails the feeds of those who follow `topic`, since all of it has changed.
    #[cfg(any(test, feature = "embedded", feature = "redis"))]
    pub(crate) fn fail_topic(&self, topic: &Topic, why: &str) {
        if self.is_empty() {
            return;
        }
        let why: Arc<str> = why.into();
        let failed = self.topics().remove(topic).unwrap_or_default();
        self.count.fetch_sub(failed.len(), Ordering::Release);
        failed.into_iter().for_each(|follower| follower.fail(why.clone()));
    }

    /// Fails all feeds at once, whatever they have yet to read.
    pub(crate) fn fail(&self, why: &str) {
        if self.is_empty() {
            return;
        }
        let why: Arc<str> = why.into();
        let mut topics = self.topics();
        for follower in std::mem::take(&mut *topics).into_values().flatten() {
            follower.fail(why.clone());
        }
        self.count.store(0, Ordering::Release);
    }

    /// Forgets those who have left.
    pub(crate) fn clear(&self) {
        self.topics().retain(|_, followers| {
            self.retain(followers, Follower::is_there);
            !followers.is_empty()
        });
    }

    fn retain(&self, followers: &mut Vec<Follower>, keep: impl FnMut(&Follower) -> bool) {
        let before = followers.len();
        followers.retain(keep);
        self.count.fetch_sub(before - followers.len(), Ordering::Release);
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Topic, Vec<Follower>>> {
        // Nothing that could panic is done under the lock.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    fn is_there(&self) -> bool {
        !self.notices.is_closed()
    }

    /// Whether he goes on following.
    fn tell(&self, name: &Arc<str>) -> bool {
        match self.notices.try_send(Notice::Changed(name.clone())) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.fail(format!("has {NOTICES_MAX} notices that were not read").into());
                false
            }
        }
    }

    fn fail(&self, why: Arc<str>) {
        // The first reason is the one that counts. That his sender goes, which follows, wakes him up.
        let _ = self.failure.set(why);
    }
}

impl Stream for Notices {
    type Item = Result<Notice, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let failed = |failure: &OnceLock<Arc<str>>| {
            failure.get().map(|why| Err(Error::Unavailable(format!("the feed of changes {why}"))))
        };
        if let Some(failed) = failed(&self.failure) {
            return Poll::Ready(Some(failed));
        }
        match ready!(self.notices.poll_recv(cx)) {
            Some(notice) => Poll::Ready(Some(Ok(notice))),
            None => Poll::Ready(failed(&self.failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn table(name: &str) -> Topic {
        Topic::Table(name.into())
    }

    fn changed(name: &str) -> Notice {
        Notice::Changed(name.into())
    }

    #[tokio::test]
    async fn each_is_told_what_he_follows() {
        let followers = Followers::default();
        followers.tell(&table("t"), "before");
        let (mut rows, mut others) =
            (followers.follow(table("t")).unwrap(), followers.follow(table("u")).unwrap());
        let mut sessions = followers.follow(Topic::Sessions).unwrap();
        followers.tell(&table("t"), "a");
        followers.tell(&Topic::Sessions, "b");
        followers.beat();
        assert_eq!(rows.next().await.unwrap().unwrap(), changed("a"));
        assert_eq!(rows.next().await.unwrap().unwrap(), Notice::Beat);
        assert_eq!(sessions.next().await.unwrap().unwrap(), changed("b"));
        assert_eq!(others.next().await.unwrap().unwrap(), Notice::Beat);
    }

    #[tokio::test]
    async fn who_does_not_read_fails_alone() {
        let followers = Followers::default();
        let (mut slow, mut quick) =
            (followers.follow(table("t")).unwrap(), followers.follow(table("t")).unwrap());
        for n in 0..NOTICES_MAX {
            followers.tell(&table("t"), &n.to_string());
            assert_eq!(quick.next().await.unwrap().unwrap(), changed(&n.to_string()));
        }
        followers.beat();
        assert_eq!(quick.next().await.unwrap().unwrap(), Notice::Beat);
        followers.tell(&table("t"), "one more");
        assert_eq!(quick.next().await.unwrap().unwrap(), changed("one more"));
        // At once: what he has yet to read is worth nothing.
        let error = slow.next().await.unwrap().unwrap_err();
        assert!(error.to_string().ends_with("has 4096 notices that were not read"), "{error}");
    }

    #[tokio::test]
    async fn a_failure_comes_before_what_was_not_read() {
        let followers = Followers::default();
        let mut feed = followers.follow(Topic::Sessions).unwrap();
        followers.tell(&Topic::Sessions, "a");
        followers.fail("was cut");
        assert!(feed.next().await.unwrap().unwrap_err().to_string().ends_with("the feed of changes was cut"));
        assert!(followers.is_empty());
        let mut next = followers.follow(Topic::Sessions).unwrap();
        followers.tell(&Topic::Sessions, "b");
        assert_eq!(next.next().await.unwrap().unwrap(), changed("b"));
        let waiting = tokio::spawn(async move { next.next().await });
        tokio::task::yield_now().await;
        followers.fail("was cut again");
        assert!(waiting.await.unwrap().unwrap().is_err(), "who waits is woken up");
    }

    #[tokio::test]
    async fn one_topic_fails_alone() {
        let followers = Followers::default();
        let (mut rows, mut others) =
            (followers.follow(table("t")).unwrap(), followers.follow(table("u")).unwrap());
        followers.fail_topic(&table("t"), "was cut");
        followers.fail_topic(&table("v"), "was cut");
        followers.tell(&table("u"), "a");
        assert!(rows.next().await.unwrap().unwrap_err().to_string().ends_with("the feed of changes was cut"));
        assert_eq!(others.next().await.unwrap().unwrap(), changed("a"));
        drop(others);
        followers.clear();
        assert!(followers.is_empty());
    }

    #[tokio::test]
    async fn there_are_so_many_and_those_who_have_left_do_not_count() {
        let followers = Followers::default();
        let mut all: Vec<_> = (0..FOLLOWERS_MAX).map(|_| followers.follow(table("t")).unwrap()).collect();
        assert!(matches!(followers.follow(table("u")), Err(Error::Unavailable(_))));
        all.pop();
        drop(followers.follow(table("u")).unwrap());
        all.clear();
        followers.clear();
        assert!(followers.is_empty());
    }
}
