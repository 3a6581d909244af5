//! The task that follows the engine for one kind's copies: it drops what the feed says has changed, gives everything up when the feed
//! fails, and follows anew, after a pause that grows.
//!
//! Away => Followed when the engine can be followed; Followed => Away when the feed fails; Away => Vain when the engine says that it tells no
//! changes, which it will not say otherwise later.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Copied, shelf::Shelf};
use crate::{
    clock::jittered,
    error::Error,
    feed::{Feed, Notice},
};

/// Longest time that following may take to begin.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause before the engine is followed anew. Each try that fails doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A feed that has lived for so long was a good one: it is told that it failed, and the next pause is the shortest.
const STEADY: Duration = Duration::from_secs(5);

type Source = dyn Fn() -> BoxFuture<'static, Result<Feed, Error>> + Send + Sync;

/// Holds the task, and ends it.
pub(super) struct Follower {
    source: Arc<Source>,
    state: watch::Sender<State>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    Followed,
    /// With what the engine said.
    Vain(&'static str, &'static str),
}

impl Follower {
    pub(super) fn new(
        follow: impl Fn() -> BoxFuture<'static, Result<Feed, Error>> + Send + Sync + 'static,
    ) -> Self {
        Self { source: Arc::new(follow), state: watch::Sender::new(State::Away), task: Mutex::default() }
    }

    /// Starts the task if there is none, or if the runtime that it ran in is over.
    pub(super) fn ensure<V: Copied>(&self, shelf: &Arc<Shelf<V>>) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished)
            && let Ok(runtime) = Handle::try_current()
        {
            let run = run(Arc::clone(shelf), Arc::clone(&self.source), self.state.clone());
            *task = Some(runtime.spawn(run));
        }
    }

    /// Waits until the engine is followed.
    pub(super) async fn followed(&self) -> Result<(), Error> {
        let mut state = self.state.subscribe();
        // The sender is here, so waiting cannot fail.
        let found = state.wait_for(|state| *state != State::Away).await.map(|state| *state);
        match found {
            Ok(State::Vain(engine, what)) => Err(Error::Unsupported { engine, what }),
            _ => Ok(()),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

async fn run<V: Copied>(shelf: Arc<Shelf<V>>, source: Arc<Source>, state: watch::Sender<State>) {
    let mut pause = PAUSE_MIN;
    loop {
        match timeout(FOLLOW_TIMEOUT, source()).await {
            Ok(Ok(feed)) => {
                let began = Instant::now();
                let error = hear(&shelf, feed, &state).await;
                if began.elapsed() < STEADY {
                    tracing::debug!("{error} soon");
                } else {
                    tracing::warn!("{error}; nothing is read from memory until the engine is followed anew");
                    pause = PAUSE_MIN;
                }
            }
            Ok(Err(Error::Unsupported { engine, what })) => {
                tracing::warn!(
                    "the {engine} engine does not offer {what}, so nothing that is read there is kept in memory"
                );
                state.send_replace(State::Vain(engine, what));
                return pending().await;
            }
            Ok(Err(error)) => tracing::debug!("the engine cannot be followed: {error}"),
            Err(_) => tracing::debug!("the engine cannot be followed: it does not answer"),
        }
        if shelf.trust.is_over(shelf.bounds.outage_max) {
            shelf.purge().await;
        }
        sleep(jittered(pause)).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Does what the feed says until it fails; returns why.
async fn hear<V: Copied>(shelf: &Arc<Shelf<V>>, mut feed: Feed, state: &watch::Sender<State>) -> Error {
    let _followed = Followed::begin(shelf, state);
    shelf.purge().await;
    loop {
        match feed.next().await {
            Ok(Notice::Changed(name)) => shelf.change(&name),
            Ok(Notice::Beat) => {}
            Err(error) => return error,
        }
        if !shelf.trust.hear() {
            return Error::Unavailable("the feed of changes was read too late".into());
        }
    }
}

/// Ends what can be believed when the feed is not read any more, for whatever reason: also when the task is dropped.
struct Followed<'a, V: Copied> {
    shelf: &'a Shelf<V>,
    state: &'a watch::Sender<State>,
}

impl<'a, V: Copied> Followed<'a, V> {
    fn begin(shelf: &'a Shelf<V>, state: &'a watch::Sender<State>) -> Self {
        shelf.trust.follow();
        state.send_replace(State::Followed);
        Self { shelf, state }
    }
}

impl<V: Copied> Drop for Followed<'_, V> {
    fn drop(&mut self) {
        self.shelf.counters.flushes.add_one();
        self.shelf.trust.lose();
        self.state.send_replace(State::Away);
    }
}
