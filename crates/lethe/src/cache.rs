//! Caches: values that are computed once for all workers, kept for a while, and found in memory where they are asked for
//! often. A value is fresh, then stale: still returned at once, while one worker computes it anew behind everybody's back.
//!
//! A request goes memory (`kept`) → one flight for all requests of this worker (`flights`) → the engine's word on who computes
//! (`core`) → the computation itself (`computing`). When the engine is away (`outage`), the value is computed without it.

mod computing;
mod core;
mod counts;
mod error;
mod flights;
mod hot;
mod kept;
mod outage;
mod registry;
mod warm;

use std::{fmt, future::Future, marker::PhantomData, sync::Arc, time::Duration};

use lethe_state::cache::Room;
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::registry::Registry;
use self::{computing::Slot, core::Core, error::Failure, kept::Kept};
pub use self::{counts::Counts, error::Cause, registry::CACHES_MAX, warm::WARM_UP_MAX};
use crate::{Error, State};

/// For how long a value is fresh unless it is said.
pub const FRESH: Duration = Duration::from_secs(60);
/// For how long it is then stale unless it is said.
pub const STALE: Duration = Duration::from_secs(600);
/// For how long it is remembered that there is none, unless it is said.
pub const ABSENT: Duration = Duration::from_secs(10);
/// How long a computation may take unless it is said.
pub const COMPUTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request waits for another worker's computation unless it is said.
pub const WAIT: Duration = Duration::from_secs(10);
/// How often a request asks anew because what it waited for was removed meanwhile, or is of no use to it. After that it computes
/// the value for itself.
const TRIES_MAX: u32 = 4;

/// A cache of `T`. Cheap to clone.
///
/// ```
/// use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lethe::Error> {
/// # let state = lethe::State::ephemeral()?;
/// # async fn load() -> Result<Vec<String>, std::io::Error> { Ok(vec!["mug".into()]) }
/// let catalogue = state.cache::<Vec<String>>("catalogue").fresh(Duration::from_secs(60)).stale(Duration::from_secs(600));
/// let products = catalogue.get_or("all", || load()).await?;
/// assert_eq!(*products, ["mug"]);
/// catalogue.remove("all").await?; // what is in it has changed
/// # Ok(())
/// # }
/// ```
pub struct Cache<T> {
    core: Arc<Core>,
    /// Also what keeps the engine there.
    state: State,
    policy: Policy,
    value: PhantomData<fn() -> T>,
}

/// How values are kept, and how long is waited for them.
#[derive(Clone, Copy, Debug)]
struct Policy {
    fresh: Duration,
    stale: Duration,
    absent: Duration,
    compute_timeout: Duration,
    wait: Duration,
    room: Room,
}

impl State {
    /// A cache, whose values are kept as the JSON of `T`. Names are 1 to 64 lower-case ASCII letters, digits, `-` and `_`; give it
    /// another one when `T` becomes something else, so that old and new workers do not meet in it.
    pub fn cache<T>(&self, name: &str) -> Cache<T> {
        let policy = Policy {
            fresh: FRESH,
            stale: STALE,
            absent: ABSENT,
            compute_timeout: COMPUTE_TIMEOUT,
            wait: WAIT,
            room: Room::default(),
        };
        Cache { core: self.caches().core(name), state: self.clone(), policy, value: PhantomData }
    }
}

impl<T> Cache<T> {
    /// For how long a value is fresh, [`FRESH`] unless it is said. Nothing but a removal has it computed again so long.
    pub fn fresh(mut self, fresh: Duration) -> Self {
        self.policy.fresh = fresh;
        self
    }

    /// For how long it may be used after that while it is computed anew, or cannot be: [`STALE`] unless it is said.
    pub fn stale(mut self, stale: Duration) -> Self {
        self.policy.stale = stale;
        self
    }

    /// For how long it is remembered that there is none ([`Cache::find_or`]), [`ABSENT`] unless it is said.
    pub fn absent(mut self, absent: Duration) -> Self {
        self.policy.absent = absent;
        self
    }

    /// How long a computation may take before it is given up, [`COMPUTE_TIMEOUT`] unless it is said.
    pub fn compute_timeout(mut self, timeout: Duration) -> Self {
        self.policy.compute_timeout = timeout;
        self
    }

    /// How long a request waits for what another worker computes before it computes it for itself, [`WAIT`] unless it is said. A
    /// worker that has died is noticed after three seconds.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.policy.wait = wait;
        self
    }

    /// How many entries, and bytes of keys and values, the cache may hold over all workers: 10,000 and 64 MiB unless it is said. When
    /// there are more, those go that were not used for longest.
    pub fn room(mut self, entries: u32, bytes: u64) -> Self {
        self.policy.room = Room { entries, bytes };
        self
    }

    /// What this worker has done with the cache since it began.
    pub fn counts(&self) -> Counts {
        self.core.counts()
    }

    /// Removes a value, because what it was made of has changed. Whoever asks after that gets none that was begun to be computed
    /// before: in this worker at once, in others within a second.
    ///
    /// When it fails, the value may be there until its time is over.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        Ok(self.core.remove(key).await?)
    }

    /// Removes all values.
    pub async fn clear(&self) -> Result<(), Error> {
        Ok(self.core.clear().await?)
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Cache<T> {
    /// The value of a key, or what `compute` makes of it: that is asked once, however many requests of however many workers need it
    /// at the same time.
    ///
    /// A stale value is returned at once, and `compute` runs in the background, in one worker. When it fails there, the stale
    /// value stays, and it is tried again after a second, then two, up to a minute. What is computed for a request that
    /// leaves is still kept.
    ///
    /// Fails with [`Error::Compute`] when there is no value and `compute` fails, panics or takes too long; all who waited for it
    /// get that. When the engine is away, `compute` runs without it, once for all requests of this worker.
    pub async fn get_or<F, Fut, E>(&self, key: &str, compute: F) -> Result<Arc<T>, Error>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let computing = computing::slot(|| async { compute().await.map(Some) });
        // Where the cache is used otherwise, it may be remembered that there is none. That is of no use here.
        let usable = |kept: &Kept| kept.get::<T>().ok().flatten();
        self.obtain(key, computing, usable).await
    }

    /// The same for what may not exist: that it does not is remembered too, for [`Cache::absent`].
    pub async fn find_or<F, Fut, E>(&self, key: &str, compute: F) -> Result<Option<Arc<T>>, Error>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.obtain(key, computing::slot(compute), |kept| kept.get::<T>().ok()).await
    }

    /// The value that is there, fresh or stale; none is computed. `None` also when it is known that there is none.
    pub async fn get(&self, key: &str) -> Result<Option<Arc<T>>, Error> {
        match self.core.look(key).await? {
            // What another version of the service has kept is nothing to this one.
            Some(kept) => Ok(kept.get().unwrap_or_default()),
            None => Ok(None),
        }
    }

    async fn obtain<V>(
        &self,
        key: &str,
        compute: Slot,
        usable: impl Fn(&Kept) -> Option<V>,
    ) -> Result<V, Error> {
        if let Some(value) = self.core.near(key).and_then(|kept| usable(&kept)) {
            return Ok(value);
        }
        let failed = |failure: Failure| failure.into_error(self.core.name(), key);
        self.state.caches().report();
        for _ in 0..TRIES_MAX {
            let seat = self.core.board(key, self.policy, &compute);
            let landed = seat.flight.await.map_err(failed)?;
            if landed.is_overtaken && !seat.is_first {
                continue;
            }
            if let Some(value) = usable(&landed.kept) {
                return Ok(value);
            }
            // Another version of the service has kept it, or another use of the cache: it is made anew.
            if let Err(error) = self.core.remove(key).await {
                tracing::debug!(cache = self.core.name(), key, %error, "what is cached is of another type and stays");
                break;
            }
        }
        let kept = self.core.compute_alone(self.policy, &compute).await.map_err(failed)?;
        usable(&kept).ok_or_else(|| failed(Failure::Compute(Cause::new("it is not what was asked for"))))
    }
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        let (core, state) = (Arc::clone(&self.core), self.state.clone());
        Self { core, state, policy: self.policy, value: PhantomData }
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.core.name()).field("policy", &self.policy).finish()
    }
}
