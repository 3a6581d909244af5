//! Where an engine on a server hears of changes: something of its own, such as a connection, that is opened when somebody
//! begins to follow, serves all who do, and ends when the last one has left.
//!
//! Rests => Runs when somebody follows; Runs => Rests when nobody does any more, or when it fails, and all feeds with it;
//! either => Closed with the engine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Feed,
    followers::{Followers, Notices, Topic},
};
use crate::error::Error;

/// The source of an engine's feeds.
#[derive(Default)]
pub(crate) struct Source {
    followers: Followers,
    state: Mutex<State>,
    /// Held by who opens it; others wait for that.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// How often it has run.
    runs: u64,
    now: Now,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Now {
    #[default]
    Rests,
    Runs,
    Closed,
}

/// That it runs. Dropped, it fails all feeds, as when its task has panicked.
struct Run {
    source: Arc<Source>,
    number: u64,
}

impl Source {
    /// Those who follow.
    pub(crate) fn followers(&self) -> &Followers {
        &self.followers
    }

    /// Follows something. If nobody has followed anything so far, `open` is awaited; what it gives is then run in a task of its
    /// own until it says why it has ended. From the end of `open` on, all that is acknowledged is to be told.
    pub(crate) async fn follow<R>(
        self: &Arc<Self>,
        topic: Topic,
        open: impl Future<Output = Result<R, Error>>,
    ) -> Result<Feed, Error>
    where
        R: Future<Output = String> + Send + 'static,
    {
        let _opening = self.opening.lock().await;
        if let Some(notices) = self.join(&topic)? {
            return Ok(Feed::new(notices));
        }
        let running = open.await?;
        let (run, notices) = self.begin(topic)?;
        tokio::spawn(async move {
            let why = running.await;
            run.end(&why);
        });
        Ok(Feed::new(notices))
    }

    /// For what runs: whether nobody follows any more; then it is to end, and the next who comes opens another one.
    pub(crate) fn is_over(&self) -> bool {
        let mut state = self.state();
        self.followers.clear();
        if self.followers.is_empty() && state.now == Now::Runs {
            state.now = Now::Rests;
        }
        state.now != Now::Runs
    }

    /// Ends all feeds for good.
    pub(crate) fn close(&self) {
        self.state().now = Now::Closed;
        self.followers.fail("ends: this engine is closing");
    }

    /// One more follower, if it runs.
    fn join(&self, topic: &Topic) -> Result<Option<Notices>, Error> {
        match self.state().now {
            Now::Rests => Ok(None),
            Now::Runs => self.followers.follow(topic.clone()).map(Some),
            Now::Closed => Err(Error::Unavailable("this engine is closing".into())),
        }
    }

    fn begin(self: &Arc<Self>, topic: Topic) -> Result<(Run, Notices), Error> {
        let mut state = self.state();
        if state.now == Now::Closed {
            return Err(Error::Unavailable("this engine is closing".into()));
        }
        let notices = self.followers.follow(topic)?;
        (state.now, state.runs) = (Now::Runs, state.runs + 1);
        Ok((Run { source: self.clone(), number: state.runs }, notices))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn end(&self, why: &str) {
        let mut state = self.source.state();
        // It may have ended before, and another one run by now.
        if state.now == Now::Runs && state.runs == self.number {
            state.now = Now::Rests;
            self.source.followers.fail(why);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end("has ended");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::oneshot;

    use super::*;
    use crate::feed::Notice;

    fn sessions() -> Topic {
        Topic::Sessions
    }

    async fn failure(feed: &mut Feed) -> String {
        feed.next().await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn all_share_one_for_as_long_as_somebody_follows() {
        let (source, opened) = (Arc::new(Source::default()), AtomicUsize::new(0));
        let open = async || {
            opened.fetch_add(1, Ordering::Relaxed);
            Ok(pending())
        };
        let (first, second) =
            tokio::join!(source.follow(sessions(), open()), source.follow(sessions(), open()));
        let (first, mut second) = (first.unwrap(), second.unwrap());
        source.followers().tell(&sessions(), "a");
        assert_eq!(second.next().await.unwrap(), Notice::Changed("a".into()));
        drop(first);
        assert!(!source.is_over());
        drop(second);
        assert!(source.is_over());
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        source.follow(sessions(), open()).await.unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn its_end_is_that_of_all_feeds_and_no_other() {
        let source = Arc::new(Source::default());
        let (end, ended) = oneshot::channel::<String>();
        let open = ready(Ok(async { ended.await.unwrap() }));
        let mut feed = source.follow(sessions(), open).await.unwrap();
        end.send("was cut".into()).unwrap();
        assert!(failure(&mut feed).await.ends_with("was cut"));
        // One that panics is one that has ended.
        let (end, ended) = oneshot::channel::<String>();
        let open = ready(Ok(async { ended.await.unwrap() }));
        let mut feed = source.follow(sessions(), open).await.unwrap();
        drop(end);
        assert!(failure(&mut feed).await.ends_with("has ended"));
        // The end of one that nobody follows does nothing to the next.
        let (end, ended) = oneshot::channel::<String>();
        let (told, tells) = oneshot::channel::<()>();
        let open = ready(Ok(async {
            let _told = told;
            ended.await.unwrap()
        }));
        drop(source.follow(sessions(), open).await.unwrap());
        assert!(source.is_over());
        let mut feed = source.follow(sessions(), ready(Ok(pending()))).await.unwrap();
        end.send("is over".into()).unwrap();
        assert!(tells.await.is_err());
        tokio::task::yield_now().await;
        source.followers().tell(&sessions(), "a");
        assert_eq!(feed.next().await.unwrap(), Notice::Changed("a".into()));
    }

    #[tokio::test]
    async fn one_that_cannot_be_opened_is_tried_again_and_a_closed_one_is_not() {
        let source = Arc::new(Source::default());
        let away = || ready(Err::<std::future::Pending<String>, _>(Error::Unavailable("away".into())));
        assert!(source.follow(sessions(), away()).await.is_err());
        let mut feed = source.follow(sessions(), ready(Ok(pending()))).await.unwrap();
        source.close();
        assert!(failure(&mut feed).await.ends_with("closing"));
        assert!(source.is_over());
        assert!(source.follow(sessions(), ready(Ok(pending()))).await.is_err());
    }
}
