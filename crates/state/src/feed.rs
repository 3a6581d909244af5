//! Feeds: what changes in a kind of state, told while it changes, so that whoever holds a copy of something knows when it is
//! stale. A feed tells names, never values, and it never just falls silent: it fails, and then every copy is to be dropped.

#[cfg(any(feature = "embedded", feature = "postgres", feature = "redis"))]
pub(crate) mod followers;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod source;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use tokio::time::timeout;

use crate::error::Error;

/// How often a feed that has no change to tell gives a sign of life.
pub const BEAT: Duration = Duration::from_millis(250);
/// How long a feed may be silent; then it fails. So this is how long after a change was acknowledged a copy may be used at most.
pub const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Most notices that wait for one follower. For who reads slower than that, the feed fails.
pub const NOTICES_MAX: usize = 4096;

/// What a feed tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// What has this name was changed, or may have been: a copy of it is stale. For tables it is the row's key, for
    /// sessions [`crate::sessions::SessionId::public_name`].
    Changed(Arc<str>),
    /// Nothing new, but the feed lives: all that was acknowledged more than [`SILENCE_MAX`] ago has been told.
    Beat,
}

/// The changes of one thing that is followed, from the moment on that `follow` returned: each change that is acknowledged later
/// is told at least once. What merely expires need not be told, since a copy knows when it expires.
///
/// Dropped, it is followed no more.
pub struct Feed {
    /// `None` after it has failed.
    notices: Option<BoxStream<'static, Result<Notice, Error>>>,
}

impl Feed {
    /// A feed of these notices. An engine gives a [`Notice::Beat`] at least each [`BEAT`]; an end is a failure.
    pub fn new(notices: impl Stream<Item = Result<Notice, Error>> + Send + 'static) -> Self {
        Self { notices: Some(notices.boxed()) }
    }

    /// The next notice.
    ///
    /// Fails with [`Error::Unavailable`] when the engine was lost, has told nothing for [`SILENCE_MAX`], or has more to tell
    /// than was read; and then always again. What was read before is to be dropped, and the engine followed anew.
    ///
    /// Cancellation safe: no notice is lost.
    pub async fn next(&mut self) -> Result<Notice, Error> {
        let lost = |why: &str| Err(Error::Unavailable(format!("the feed of changes {why}")));
        let Some(notices) = &mut self.notices else { return lost("has ended") };
        let next = match timeout(SILENCE_MAX, notices.next()).await {
            Ok(Some(next)) => next,
            Ok(None) => lost("has ended"),
            Err(_) => lost("is silent"),
        };
        if next.is_err() {
            self.notices = None;
        }
        next
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed(…)")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_falls_silent_or_ends_fails_for_good() {
        let one = || stream::iter([Ok(Notice::Changed("a".into()))]);
        for (mut feed, why) in
            [(Feed::new(one().chain(stream::pending())), "is silent"), (Feed::new(one()), "has ended")]
        {
            assert_eq!(feed.next().await.unwrap(), Notice::Changed("a".into()));
            assert!(feed.next().await.unwrap_err().to_string().ends_with(why));
            assert!(feed.next().await.unwrap_err().to_string().ends_with("has ended"));
        }
    }
}
