//! A new worker has in memory what the others are asked for most.

use async_trait::async_trait;
use lethe_state::{
    Engines,
    cache::{Cache, Claim, Entry, Fill, Usage},
    feed::Feed,
};

use super::{socket::Daemon, *};

/// Counts what the engine is asked for.
struct Counting {
    engine: Arc<dyn Cache>,
    reads: AtomicU32,
    batches: AtomicU32,
}

#[async_trait]
impl Cache for Counting {
    async fn begin(&self, cache: &str, key: &str, lease: Duration) -> Result<Begun, StateError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.engine.begin(cache, key, lease).await
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, StateError> {
        self.engine.extend(claim, lease).await
    }

    async fn fill(&self, claim: &Claim, fill: Fill) -> Result<bool, StateError> {
        self.engine.fill(claim, fill).await
    }

    async fn abandon(&self, claim: &Claim, pause: Duration) -> Result<bool, StateError> {
        self.engine.abandon(claim, pause).await
    }

    async fn get_many(&self, cache: &str, keys: &[String]) -> Result<Vec<Option<Entry>>, StateError> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.engine.get_many(cache, keys).await
    }

    async fn get(&self, cache: &str, key: &str) -> Result<Option<Entry>, StateError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.engine.get(cache, key).await
    }

    async fn remove(&self, cache: &str, key: &str) -> Result<(), StateError> {
        self.engine.remove(cache, key).await
    }

    async fn clear(&self, cache: &str) -> Result<(), StateError> {
        self.engine.clear(cache).await
    }

    async fn usage(&self, cache: &str) -> Result<Usage, StateError> {
        self.engine.usage(cache).await
    }

    async fn follow(&self, cache: &str) -> Result<Feed, StateError> {
        self.engine.follow(cache).await
    }
}

/// One more worker, whose calls are counted.
fn worker(daemon: &Daemon) -> (State, Arc<Counting>) {
    let engine = daemon.remote().engines().cache;
    let counting = Arc::new(Counting { engine, reads: AtomicU32::new(0), batches: AtomicU32::new(0) });
    (State::new(Engines { cache: counting.clone(), ..Engines::absent("test") }), counting)
}

/// A worker that has warmed up with so many entries. It may take some, since a busy machine does not get far within
/// the two seconds that it has; each time, `serve` is what another worker does before.
async fn warmed(daemon: &Daemon, entries: usize, serve: impl AsyncFn()) -> (State, Arc<Counting>) {
    loop {
        serve().await;
        let (state, engine) = worker(daemon);
        let warmed = state.warm_up().await;
        assert!(warmed <= entries, "{warmed}");
        if warmed == entries {
            return (state, engine);
        }
    }
}

async fn number(n: u32) -> Result<u32, Failed> {
    Ok(n)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_for_a_hot_key_asks_nobody() {
    const HOT: u32 = 300;
    let daemon = Daemon::start();
    let old = [daemon.worker(), daemon.worker()];
    let serve = async || {
        for (half, worker) in old.iter().enumerate() {
            let cache = worker.cache::<u32>("numbers").fresh(60 * MINUTE);
            for n in (0..HOT).filter(|n| *n as usize % 2 == half) {
                for _ in 0..50 {
                    assert_eq!(*cache.get_or(&n.to_string(), move || number(n)).await.unwrap(), n);
                }
            }
            worker.report_hot_keys().await;
        }
    };

    // Anew where the feed was silent for too long before all were asked for, as it is on a machine that stops for a while.
    let cache = loop {
        let (new, engine) = warmed(&daemon, HOT as usize, &serve).await;
        let (reads, batches) = (engine.reads.load(Ordering::SeqCst), engine.batches.load(Ordering::SeqCst));
        assert!(batches <= 3, "{batches} calls for {HOT} entries");
        let cache = new.cache::<u32>("numbers");
        for n in 0..HOT {
            let value = cache.get_or(&n.to_string(), async || Err::<u32, _>(Failed)).await.unwrap();
            assert_eq!(*value, n);
        }
        if engine.reads.load(Ordering::SeqCst) == reads {
            assert_eq!(cache.counts().near, u64::from(HOT));
            break cache;
        }
    };

    // It is told of changes like any other.
    old[0].cache::<u32>("numbers").remove("7").await.unwrap();
    while *cache.get_or("7", async || number(700).await).await.unwrap() != 700 {}
}

/// A worker without others, or whose others were asked for nothing, begins at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_worker_has_nothing_to_wait_for() {
    let daemon = Daemon::start();
    let (state, engine) = worker(&daemon);
    assert_eq!(state.warm_up().await, 0);
    state.report_hot_keys().await;
    assert_eq!(state.warm_up().await, 0);
    assert_eq!((engine.reads.load(Ordering::SeqCst), engine.batches.load(Ordering::SeqCst)), (2, 0));
}

/// Long values are read in several calls, and what is gone is passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_values_are_read_ahead_too() {
    let daemon = Daemon::start();
    let old = daemon.worker();
    let cache = old.cache::<String>("texts").fresh(60 * MINUTE);
    let serve = async || {
        for n in 0..12 {
            for _ in 0..100 {
                let text = async || Ok::<_, Failed>("x".repeat(300_000));
                assert_eq!(cache.get_or(&n.to_string(), text).await.unwrap().len(), 300_000);
            }
        }
        old.report_hot_keys().await;
        for gone in ["3", "4"] {
            cache.remove(gone).await.unwrap();
        }
    };
    let (new, engine) = warmed(&daemon, 10, serve).await;
    assert!(engine.batches.load(Ordering::SeqCst) > 1);
    let reads = engine.reads.load(Ordering::SeqCst);
    for n in (0..12).filter(|n| ![3, 4].contains(n)) {
        let gone = async || Err::<String, _>(Failed);
        new.cache::<String>("texts").get_or(&n.to_string(), gone).await.unwrap();
    }
    assert_eq!(engine.reads.load(Ordering::SeqCst), reads);
}
