//! An engine that is away, or does not answer.

use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use lethe_state::{
    Engines,
    cache::{Cache, Claim, Entry, Fill, Usage},
    feed::Feed,
};

use super::*;

/// Passes on what it is asked, or fails, or never answers.
struct Unsteady {
    engine: Arc<dyn Cache>,
    is_away: AtomicBool,
    is_silent: AtomicBool,
    begun: AtomicU32,
}

impl Unsteady {
    async fn ask(&self) -> Result<&dyn Cache, StateError> {
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StateError::Unavailable("on purpose".into()));
        }
        Ok(&*self.engine)
    }
}

#[async_trait]
impl Cache for Unsteady {
    async fn begin(&self, cache: &str, key: &str, lease: Duration) -> Result<Begun, StateError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.ask().await?.begin(cache, key, lease).await
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, StateError> {
        self.ask().await?.extend(claim, lease).await
    }

    async fn fill(&self, claim: &Claim, fill: Fill) -> Result<bool, StateError> {
        self.ask().await?.fill(claim, fill).await
    }

    async fn abandon(&self, claim: &Claim, pause: Duration) -> Result<bool, StateError> {
        self.ask().await?.abandon(claim, pause).await
    }

    async fn get_many(&self, cache: &str, keys: &[String]) -> Result<Vec<Option<Entry>>, StateError> {
        self.ask().await?.get_many(cache, keys).await
    }

    async fn remove(&self, cache: &str, key: &str) -> Result<(), StateError> {
        self.ask().await?.remove(cache, key).await
    }

    async fn clear(&self, cache: &str) -> Result<(), StateError> {
        self.ask().await?.clear(cache).await
    }

    async fn usage(&self, cache: &str) -> Result<Usage, StateError> {
        self.ask().await?.usage(cache).await
    }

    async fn follow(&self, cache: &str) -> Result<Feed, StateError> {
        self.ask().await?.follow(cache).await
    }
}

/// A state whose cache can be disturbed, and the one that it rests on.
fn unsteady() -> (State, Arc<Unsteady>, State) {
    let sound = State::ephemeral().unwrap();
    let unsteady = Arc::new(Unsteady {
        engine: sound.engines().cache.clone(),
        is_away: AtomicBool::new(false),
        is_silent: AtomicBool::new(false),
        begun: AtomicU32::new(0),
    });
    let engines = Engines { cache: unsteady.clone(), ..Engines::absent("test") };
    (State::new(engines), unsteady, sound)
}

#[tokio::test]
async fn values_are_computed_without_an_engine_that_is_away() {
    let (state, engine, _sound) = unsteady();
    let (cache, source) = (state.cache::<u32>("numbers"), Source::open());
    engine.is_away.store(true, Ordering::SeqCst);
    for n in 0..20 {
        source.set(n);
        assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), n);
    }
    assert_eq!(cache.counts().alone, 20);
    let begun = engine.begun.load(Ordering::SeqCst);
    assert!(begun < 10, "{begun}: it is left alone after some failures");
    engine.is_away.store(false, Ordering::SeqCst);
    // It is asked again after a while, and then at once.
    while cache.counts().computed == 0 {
        assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 19);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked = source.asked();
    for _ in 0..5 {
        assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 19);
    }
    assert_eq!((cache.counts().computed, source.asked()), (1, asked));
}

/// Who needs it at the same time shares it then too.
#[tokio::test]
async fn requests_share_a_computation_without_the_engine_too() {
    let (state, engine, _sound) = unsteady();
    let (cache, source) = (state.cache::<u32>("numbers"), Source::shut());
    engine.is_away.store(true, Ordering::SeqCst);
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let (cache, source) = (cache.clone(), source.clone());
        requests.spawn(async move { *cache.get_or("k", ask(&source)).await.unwrap() });
    }
    source.was_asked(1).await;
    while cache.counts().joined < 19 {
        tokio::task::yield_now().await;
    }
    source.answer(1);
    assert_eq!(requests.join_all().await, [0; 20]);
    assert_eq!(source.asked(), 1);
}

/// Nothing hangs on one that does not answer.
#[tokio::test(start_paused = true)]
async fn an_engine_that_is_silent_is_not_waited_for_long() {
    let (state, engine, _sound) = unsteady();
    let (cache, source) = (state.cache::<u32>("numbers"), Source::open());
    engine.is_silent.store(true, Ordering::SeqCst);
    let begin = tokio::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 0);
    }
    // The clock of the test stands still but for what is waited for.
    assert!(begin.elapsed() <= Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!(state.warm_up().await, 0);
    assert!(begin.elapsed() <= Duration::from_secs(7), "{:?}", begin.elapsed());
}

/// What cannot be removed is said: the caller has to know.
#[tokio::test]
async fn a_removal_that_fails_is_an_error() {
    let (state, engine, _sound) = unsteady();
    let cache = state.cache::<u32>("numbers");
    engine.is_away.store(true, Ordering::SeqCst);
    assert!(matches!(cache.remove("k").await, Err(Error::State(StateError::Unavailable(_)))));
    assert!(matches!(cache.clear().await, Err(Error::State(StateError::Unavailable(_)))));
    assert!(matches!(cache.get("k").await, Err(Error::State(StateError::Unavailable(_)))));
}
