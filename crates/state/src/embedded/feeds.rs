//! Feeds of what changes in this engine. The writer tells it after the commit and before anyone is answered, so that a beat
//! needs no more than a timer, as long as nobody else writes.
//!
//! While one `lethe` takes over from another, both write to one folder, and neither knows what the other one has changed. But
//! SQLite knows that something was (`writer`), and then all feeds fail. For the old one goes on for long after the new one
//! is in charge, and nothing says when it has ended, an engine that shares its folder, or ever has, looks before each beat. So
//! feeds are never refused: they just live no longer than the other one keeps still.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::{StreamExt as _, stream};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    Store,
    command::closing,
    writer::{WeakWriter, Writer},
};
use crate::{
    error::Error,
    feed::{
        BEAT, Feed, Notice,
        followers::{Followers, Notices, Topic},
    },
};

/// One feed.
struct Following {
    notices: Notices,
    tick: Interval,
    writer: WeakWriter,
    /// Whether another process may write to the folder too.
    is_shared: Arc<AtomicBool>,
}

impl Store {
    /// Follows what changes there. The writer itself enters who follows: what it has answered before is seen by whoever reads
    /// now, and what it does later it tells.
    pub(super) async fn follow_topic(&self, topic: Topic) -> Result<Feed, Error> {
        self.follow_of(&self.writer, &self.followers, topic).await
    }

    /// The same for what another database has.
    pub(super) async fn follow_of(
        &self,
        writer: &Writer,
        followers: &Arc<Followers>,
        topic: Topic,
    ) -> Result<Feed, Error> {
        let followers = followers.clone();
        let notices = writer.submit(move |_| Ok(followers.follow(topic)?)).await?;
        let mut tick = interval(BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (writer, is_shared) = (writer.downgrade(), self.is_shared.clone());
        let following = Following { notices, tick, writer, is_shared };
        Ok(Feed::new(stream::unfold(following, |mut following| async move {
            Some((following.next().await?, following))
        })))
    }
}

impl Following {
    async fn next(&mut self) -> Option<Result<Notice, Error>> {
        tokio::select! {
            biased;
            notice = self.notices.next() => notice,
            _ = self.tick.tick() => Some(self.beat().await),
        }
    }

    /// A sign of life. What the writer does for it is nothing, except that it finds out whether another process has written,
    /// as before all that it does.
    async fn beat(&self) -> Result<Notice, Error> {
        if self.is_shared.load(Ordering::Relaxed) {
            self.writer.upgrade().ok_or_else(closing)?.submit(|_| Ok(())).await?;
        }
        Ok(Notice::Beat)
    }
}
