//! Caches as services use them: one worker and several, on the embedded engine and over the socket, with an engine that goes away.

#![allow(clippy::unwrap_used)]

#[path = "caches/away.rs"]
mod away;
#[path = "caches/processes.rs"]
mod processes;
#[path = "caches/several.rs"]
mod several;
#[path = "caches/socket.rs"]
mod socket;
#[path = "caches/warm.rs"]
mod warm;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lethe::{Error, State, cache::Counts};
use lethe_state::{cache::Begun, error::Error as StateError};
use tokio::{sync::Semaphore, task::JoinSet};

const MINUTE: Duration = Duration::from_secs(60);

/// Something that is slow to ask, and counts how often it was.
#[derive(Clone)]
struct Source {
    value: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
    /// One permit lets one answer through.
    gate: Arc<Semaphore>,
}

impl Source {
    /// One that answers at once.
    fn open() -> Self {
        Self { gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), ..Self::shut() }
    }

    /// One that does not answer before it is let to.
    fn shut() -> Self {
        Self { value: Arc::default(), asked: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    /// Lets so many answers through.
    fn answer(&self, answers: usize) {
        self.gate.add_permits(answers);
    }

    fn set(&self, value: u32) {
        self.value.store(value, Ordering::SeqCst);
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until it was asked so often.
    async fn was_asked(&self, times: u32) {
        while self.asked() < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Asks it: the value as it is now, once it is let to answer.
    async fn ask(self) -> Result<u32, Failed> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let value = self.value.load(Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if value == u32::MAX { Err(Failed) } else { Ok(value) }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the source has failed")]
struct Failed;

fn ask(
    source: &Source,
) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = Result<u32, Failed>> + Send>> + use<> {
    let source = source.clone();
    || Box::pin(source.ask())
}

#[tokio::test]
async fn a_value_is_computed_once() {
    let (state, source) = (State::ephemeral().unwrap(), Source::open());
    source.set(7);
    let cache = state.cache::<u32>("numbers");
    for _ in 0..5 {
        assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 7);
    }
    assert_eq!(source.asked(), 1);
    assert_eq!(
        *state.cache::<u32>("numbers").get_or("k", ask(&source)).await.unwrap(),
        7,
        "it is the same cache"
    );
    assert_eq!(*state.cache::<u32>("others").get_or("k", ask(&source)).await.unwrap(), 7);
    assert_eq!(source.asked(), 2, "another cache is another one");
    assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&7));
    assert_eq!(cache.get("l").await.unwrap(), None);
}

/// However many requests need it at once.
#[tokio::test]
async fn requests_share_one_computation() {
    let (state, source) = (State::ephemeral().unwrap(), Source::shut());
    let cache = state.cache::<u32>("numbers");
    let mut requests = JoinSet::new();
    for _ in 0..50 {
        let (cache, source) = (cache.clone(), source.clone());
        requests.spawn(async move { *cache.get_or("k", ask(&source)).await.unwrap() });
    }
    source.was_asked(1).await;
    source.answer(1);
    assert_eq!(requests.join_all().await, [0; 50]);
    assert_eq!(source.asked(), 1);
    let counts = cache.counts();
    assert_eq!((counts.computed, counts.joined + counts.near + counts.found), (1, 49), "{counts:?}");
}

/// What a request has begun is finished and kept when it leaves.
#[tokio::test]
async fn a_request_that_leaves_takes_nothing_with_it() {
    let (state, source) = (State::ephemeral().unwrap(), Source::shut());
    let cache = state.cache::<u32>("numbers");
    let request = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { cache.get_or("k", ask(&source)).await }
    });
    source.was_asked(1).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    source.answer(1);
    assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 0);
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn that_there_is_none_is_remembered() {
    let state = State::ephemeral().unwrap();
    let (cache, asked) = (state.cache::<u32>("numbers"), Arc::new(AtomicU32::new(0)));
    let none = |asked: &Arc<AtomicU32>| {
        let asked = Arc::clone(asked);
        async move || {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok::<Option<u32>, Failed>(None)
        }
    };
    for _ in 0..3 {
        assert_eq!(cache.find_or("k", none(&asked)).await.unwrap(), None);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(cache.get("k").await.unwrap(), None);
    // Who knows better computes it.
    assert_eq!(*cache.get_or("k", async || Ok::<_, Failed>(5)).await.unwrap(), 5);
    assert_eq!(cache.find_or("k", none(&asked)).await.unwrap().as_deref(), Some(&5));
    let brief = cache.clone().absent(Duration::from_millis(1));
    brief.remove("l").await.unwrap();
    while asked.load(Ordering::SeqCst) < 4 {
        assert_eq!(brief.find_or("l", none(&asked)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_error_is_for_all_who_waited() {
    let (state, source) = (State::ephemeral().unwrap(), Source::shut());
    source.set(u32::MAX);
    let cache = state.cache::<u32>("numbers");
    let mut requests = JoinSet::new();
    for _ in 0..10 {
        let (cache, source) = (cache.clone(), source.clone());
        requests.spawn(async move { cache.get_or("k", ask(&source)).await });
    }
    source.was_asked(1).await;
    // All are there before the first is told: each was spawned before this one could go on.
    while cache.counts().joined < 9 {
        tokio::task::yield_now().await;
    }
    source.answer(1);
    for result in requests.join_all().await {
        let Err(Error::Compute { cache, key, cause }) = result else { panic!("{result:?}") };
        assert_eq!((cache.as_str(), key.as_str()), ("numbers", "k"));
        assert!(cause.downcast_ref::<Failed>().is_some(), "{cause:?}");
    }
    assert_eq!(source.asked(), 1);
    // The next request tries again.
    source.set(3);
    source.answer(1);
    assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 3);
}

/// Its status and text are those of the error within, and nothing of that is told to clients otherwise.
#[tokio::test]
async fn an_error_of_the_crate_within_is_answered_as_such() {
    use axum::response::IntoResponse as _;
    let state = State::ephemeral().unwrap();
    let cache = state.cache::<u32>("numbers");
    let conflict = async || Err::<u32, _>(Error::Conflict { index: 0, key: "k".into(), found: None });
    assert_eq!(cache.get_or("k", conflict).await.unwrap_err().into_response().status(), 409);
    let secret = async || Err::<u32, _>("the password is wrong");
    let error = cache.get_or("k", secret).await.unwrap_err();
    assert!(format!("{error:?}").contains("the password is wrong"), "{error:?}");
    assert_eq!(error.into_response().status(), 500);
}

#[tokio::test]
async fn a_panic_and_a_computation_without_end_are_errors() {
    let state = State::ephemeral().unwrap();
    let cache = state.cache::<u32>("numbers").compute_timeout(Duration::from_millis(20));
    let panics = async || -> Result<u32, Failed> { panic!("on purpose") };
    // Whoever comes next is not to wait for the end of a lease.
    let free = async || {
        let begun = state.engines().cache.begin("numbers", "k", MINUTE).await.unwrap();
        let Begun::Missing(claim) = begun else { panic!("the claim was not given back: {begun:?}") };
        state.engines().cache.abandon(&claim, Duration::ZERO).await.unwrap();
    };
    for _ in 0..2 {
        let Err(Error::Compute { cause, .. }) = cache.get_or("k", panics).await else {
            panic!("it is a value")
        };
        assert!(cause.to_string().contains("panicked"), "{cause}");
        free().await;
        let endless = async || std::future::pending::<Result<u32, Failed>>().await;
        let Err(Error::Compute { cause, .. }) = cache.get_or("k", endless).await else {
            panic!("it is a value")
        };
        assert!(cause.to_string().contains("longer than 20ms"), "{cause}");
        free().await;
    }
    let patient = cache.compute_timeout(MINUTE);
    assert_eq!(*patient.get_or("k", async || Ok::<_, Failed>(1)).await.unwrap(), 1);
}

#[tokio::test]
async fn mistakes_are_errors() {
    let state = State::ephemeral().unwrap();
    let one = async || Ok::<_, Failed>(1);
    for result in [
        state.cache::<u32>("No Cache").get_or("k", one).await,
        state.cache::<u32>("numbers").get_or("", one).await,
        state.cache::<u32>("numbers").fresh(MINUTE * 60 * 24 * 400).get_or("k", one).await,
        state.cache::<u32>("numbers").room(0, 64 << 20).get_or("k", one).await,
    ] {
        assert!(matches!(result, Err(Error::State(StateError::Invalid(_)))), "{result:?}");
    }
    let long = state.cache::<u32>("numbers").get_or(&"k".repeat(2000), one).await;
    assert!(matches!(long, Err(Error::State(StateError::TooLarge { size: 2000, .. }))), "{long:?}");
    let error = state.cache::<u32>("numbers").remove("").await.unwrap_err();
    assert!(matches!(error, Error::State(StateError::Invalid(_))), "{error:?}");
}

/// It is returned, but not kept.
#[tokio::test]
async fn a_value_that_is_too_large_is_computed_each_time() {
    let state = State::ephemeral().unwrap();
    let cache = state.cache::<String>("texts");
    for _ in 0..2 {
        let text = cache.get_or("k", async || Ok::<_, Failed>("x".repeat(1 << 20))).await.unwrap();
        assert_eq!(text.len(), 1 << 20);
    }
    assert_eq!(cache.counts().computed, 2);
}

/// What another version of the service has left under the name is no error.
#[tokio::test]
async fn a_value_of_another_type_is_computed_anew() {
    let state = State::ephemeral().unwrap();
    state.cache::<String>("c").get_or("k", async || Ok::<_, Failed>("text".to_owned())).await.unwrap();
    let numbers = state.cache::<u32>("c");
    assert_eq!(numbers.get("k").await.unwrap(), None);
    assert_eq!(*numbers.get_or("k", async || Ok::<_, Failed>(5)).await.unwrap(), 5);
    assert_eq!(*numbers.get_or("k", async || Ok::<_, Failed>(6)).await.unwrap(), 5);
    // What is there can be read as something else that it is too.
    assert_eq!(*state.cache::<f64>("c").get_or("k", async || Ok::<_, Failed>(0.5)).await.unwrap(), 5.0);
}

/// A stale value is returned while it is computed anew in the background, once; if that fails it stays, and nobody tries again at once.
#[tokio::test]
async fn a_stale_value_is_refreshed_behind_everybodys_back() {
    let (state, source) = (State::ephemeral().unwrap(), Source::shut());
    source.answer(1);
    let cache = state.cache::<u32>("numbers").fresh(Duration::ZERO).stale(MINUTE);
    assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 0);
    source.set(1);
    for _ in 0..10 {
        assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 0, "nobody waits for it");
    }
    source.was_asked(2).await;
    source.answer(1);
    while *cache.get_or("k", ask(&source)).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    // The value that is there now was asked for once; asking for it may have begun the next refresh.
    assert_eq!(cache.counts().refreshed, u64::from(source.asked()) - 1);
    source.set(u32::MAX);
    source.answer(10);
    while cache.counts().failed == 0 {
        assert!(*cache.get_or("k", ask(&source)).await.unwrap() <= 1);
        tokio::task::yield_now().await;
    }
    assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 1, "the stale value stays");
    // Each failure was told to the engine, which lets nobody try again at once.
    let claim = loop {
        match state.engines().cache.begin("numbers", "k", MINUTE).await.unwrap() {
            Begun::Stale(_, Some(claim)) => break claim,
            Begun::Stale(_, None) => tokio::time::sleep(Duration::from_millis(5)).await,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u64::from(claim.failures), cache.counts().failed);
}

/// In the worker that removes it at once: also for who asks while it is still being computed.
#[tokio::test]
async fn what_is_removed_is_not_brought_back_by_what_was_begun_before() {
    let (state, source) = (State::ephemeral().unwrap(), Source::shut());
    let cache = state.cache::<u32>("numbers");
    let first = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { *cache.get_or("k", ask(&source)).await.unwrap() }
    });
    source.was_asked(1).await;
    source.set(1);
    cache.remove("k").await.unwrap();
    let second = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { *cache.get_or("k", ask(&source)).await.unwrap() }
    });
    source.was_asked(2).await;
    source.answer(2);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (0, 1));
    assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&1));
    source.set(2);
    cache.clear().await.unwrap();
    source.answer(1);
    assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 2);
}

/// Also by another worker: who asks after that is not given what was begun for somebody before.
#[tokio::test]
async fn what_is_removed_elsewhere_is_not_given_to_who_comes_later() {
    let (state, source) = (State::ephemeral().unwrap(), Source::shut());
    let cache = state.cache::<u32>("numbers");
    let request = || {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { *cache.get_or("k", ask(&source)).await.unwrap() })
    };
    let first = request();
    source.was_asked(1).await;
    source.set(1);
    state.engines().cache.remove("numbers", "k").await.unwrap();
    let second = request();
    while cache.counts().joined == 0 {
        tokio::task::yield_now().await;
    }
    source.answer(1);
    assert_eq!(first.await.unwrap(), 0);
    source.was_asked(2).await;
    source.answer(1);
    assert_eq!(second.await.unwrap(), 1);
}

/// What is asked for often is a look into memory.
#[tokio::test]
async fn memory_answers_once_the_engine_is_followed() {
    let (state, source) = (State::ephemeral().unwrap(), Source::open());
    let cache = state.cache::<u32>("numbers");
    // Nothing is near where the feed was silent for too long, as it is on a machine that stops for a while.
    loop {
        let before = cache.counts();
        for _ in 0..1000 {
            assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 0);
        }
        if cache.counts() == (Counts { near: before.near + 1000, ..before }) {
            break;
        }
        tokio::task::yield_now().await;
    }
    source.set(1);
    cache.remove("k").await.unwrap();
    assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 1);
}
