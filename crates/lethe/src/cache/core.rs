//! One cache in this worker: what is near, what is under way, and what the engine is asked.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use lethe_state::{
    cache::{Begun, Cache, Claim, Fill},
    error::Error as StateError,
    near::{Bounds, Copies},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tracing::Instrument as _;

use super::{
    Policy,
    computing::{COMPUTING_MAX, Slot},
    counts::{Counters, Counts},
    error::Failure,
    flights::{Flights, Landed, Seat},
    hot::Hot,
    kept::Kept,
    outage::Outage,
};

/// For how long a claim lasts unless it is extended, as it is while its value is computed: for so long others wait for a
/// worker that has died.
const LEASE: Duration = Duration::from_secs(3);
/// Extensions of a lease in its time, so that two may fail.
const EXTENSIONS_A_LEASE: u32 = 3;
/// Longest wait for an answer of the engine.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(1);
/// Who waits for another worker looks again after this, then after twice as long, up to the second.
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(50);
/// Most computations in the background at one time in this worker, over all caches. What is over it is left to others, or to later.
const REFRESHING_MAX: usize = 16;
/// After a refresh that failed, nobody tries again for this; for twice as long after the next, up to the second.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// What is kept in memory of one cache: most entries, and most bytes.
const NEAR: Bounds = Bounds {
    entries_max: 10_000,
    bytes_max: 32 << 20,
    age_max: Duration::from_secs(300),
    outage_max: Duration::ZERO,
};

/// What all caches of this worker share.
pub(super) struct Joint {
    engine: Arc<dyn Cache>,
    outage: Outage,
    computing: Semaphore,
    refreshing: Arc<Semaphore>,
}

/// A cache.
pub(super) struct Core {
    name: Arc<str>,
    joint: Arc<Joint>,
    copies: Copies<Kept>,
    flights: Arc<Flights>,
    counters: Counters,
    hot: Hot,
}

/// How a key stands.
enum Standing {
    Found(Kept, Option<Claim>),
    Missing(Claim),
    Busy(Duration),
}

impl Joint {
    pub(super) fn new(engine: Arc<dyn Cache>) -> Self {
        Self {
            engine,
            outage: Outage::default(),
            computing: Semaphore::new(COMPUTING_MAX),
            refreshing: Arc::new(Semaphore::new(REFRESHING_MAX)),
        }
    }

    pub(super) fn engine(&self) -> &Arc<dyn Cache> {
        &self.engine
    }

    /// Asks the engine, but never for long, and not while it is away.
    async fn ask<T>(&self, asking: impl Future<Output = Result<T, StateError>>) -> Result<T, StateError> {
        let away = |why: &str| StateError::Unavailable(why.to_owned());
        if !self.outage.may_ask() {
            return Err(away("it has failed several times and is asked again soon"));
        }
        let late = |_| Err(away("it did not answer in time"));
        let answer = timeout(ENGINE_TIMEOUT, asking).await.unwrap_or_else(late);
        match &answer {
            Err(error @ (StateError::Unavailable(_) | StateError::Engine(_))) => self.outage.failed(error),
            _ => self.outage.answered(),
        }
        answer
    }
}

impl Core {
    pub(super) fn new(name: &str, joint: Arc<Joint>) -> Self {
        let (engine, name) = (Arc::clone(&joint.engine), Arc::<str>::from(name));
        let followed = Arc::clone(&name);
        let follow = move || -> BoxFuture<'static, _> {
            let (engine, name) = (Arc::clone(&engine), Arc::clone(&followed));
            async move { engine.follow(&name).await }.boxed()
        };
        Self {
            name,
            joint,
            copies: Copies::new(NEAR, follow),
            flights: Arc::default(),
            counters: Counters::default(),
            hot: Hot::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn counts(&self) -> Counts {
        self.counters.counts()
    }

    pub(super) fn hot(&self) -> &Hot {
        &self.hot
    }

    pub(super) fn copies(&self) -> &Copies<Kept> {
        &self.copies
    }

    /// What memory has.
    pub(super) fn near(&self, key: &str) -> Option<Kept> {
        self.hot.count(key);
        let kept = self.copies.get(key)?;
        self.counters.near.add_one();
        Some(kept)
    }

    /// What memory or the engine has.
    pub(super) async fn look(&self, key: &str) -> Result<Option<Kept>, StateError> {
        if let Some(kept) = self.near(key) {
            return Ok(Some(kept));
        }
        let (engine, name, owned) = (Arc::clone(&self.joint.engine), Arc::clone(&self.name), key.to_owned());
        let read =
            || async move { engine.get(&name, &owned).await?.map(Kept::read).ok_or(StateError::NotFound) };
        match self.joint.ask(self.copies.load_through(key, read)).await {
            Ok(kept) => Ok(Some(kept)),
            Err(StateError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn remove(&self, key: &str) -> Result<(), StateError> {
        let _writing = self.copies.writing(key);
        let removed = self.joint.engine.remove(&self.name, key).await;
        // Who boards after this must not get what was begun before.
        self.flights.strike(key);
        removed
    }

    pub(super) async fn clear(&self) -> Result<(), StateError> {
        let _writing = self.copies.writing_any();
        let cleared = self.joint.engine.clear(&self.name).await;
        self.flights.strike_all();
        cleared
    }

    /// A seat in a flight to the value of a key.
    pub(super) fn board(self: &Arc<Self>, key: &str, policy: Policy, compute: &Slot) -> Seat {
        let seat = self.flights.board(key, |key| {
            let (core, compute) = (Arc::clone(self), compute.clone());
            async move { core.fly(&key, policy, compute).await }
        });
        if !seat.is_first {
            self.counters.joined.add_one();
        }
        seat
    }

    async fn fly(self: Arc<Self>, key: &str, policy: Policy, compute: Slot) -> Result<Landed, Failure> {
        let landed = |kept| Ok(Landed { kept, is_overtaken: false });
        let (until, mut pause) = (Instant::now() + policy.wait, LOOK_MIN);
        loop {
            match self.begin(key).await {
                Ok(Standing::Found(kept, claim)) => {
                    self.counters.found.add_one();
                    if let Some(claim) = claim {
                        self.refresh(claim, policy, compute);
                    }
                    return landed(kept);
                }
                Ok(Standing::Missing(claim)) => return self.compute_claimed(claim, policy, &compute).await,
                Ok(Standing::Busy(left)) => {
                    let now = Instant::now();
                    if now >= until {
                        return self.compute_alone(policy, &compute).await.and_then(landed);
                    }
                    sleep(pause.min(left).min(until - now)).await;
                    pause = (pause * 2).min(LOOK_MAX);
                }
                Err(error) => match Failure::of_rule(&error) {
                    Some(failure) => return Err(failure),
                    None => return self.compute_alone(policy, &compute).await.and_then(landed),
                },
            }
        }
    }

    /// Asks the engine how a key stands, and keeps near what it has.
    async fn begin(&self, key: &str) -> Result<Standing, StateError> {
        let told = Arc::new(Mutex::new(None));
        let read = || {
            let (engine, name) = (Arc::clone(&self.joint.engine), Arc::clone(&self.name));
            let (key, tell) = (key.to_owned(), Arc::clone(&told));
            async move {
                let tell = |standing| *tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
                match engine.begin(&name, &key, LEASE).await? {
                    Begun::Fresh(entry) => Ok(Kept::read(entry)),
                    Begun::Stale(entry, claim) => {
                        let kept = Kept::read(entry);
                        tell(Standing::Found(kept.clone(), claim));
                        Ok(kept)
                    }
                    Begun::Missing(claim) => {
                        tell(Standing::Missing(claim));
                        Err(StateError::NotFound)
                    }
                    Begun::Busy(left) => {
                        tell(Standing::Busy(left));
                        Err(StateError::NotFound)
                    }
                }
            }
        };
        let kept = self.joint.ask(self.copies.load_through(key, read)).await;
        let told = told.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (told, kept) {
            (Some(standing), _) => Ok(standing),
            (None, Ok(kept)) => Ok(Standing::Found(kept, None)),
            (None, Err(error)) => Err(error),
        }
    }

    /// Computes what this worker alone has the claim on, and keeps it.
    async fn compute_claimed(&self, claim: Claim, policy: Policy, compute: &Slot) -> Result<Landed, Failure> {
        self.counters.computed.add_one();
        match self.hold(&claim, compute.run(Some(&self.joint.computing), policy.compute_timeout)).await {
            Ok(kept) => {
                let is_overtaken = match self.fill(&claim, policy, &kept).await {
                    Ok(is_kept) => !is_kept,
                    // What makes no sense is to be seen by who has written it; all else costs no more than the next computation.
                    Err(StateError::Invalid(text)) => return Err(Failure::Invalid(text)),
                    Err(_) => false,
                };
                Ok(Landed { kept, is_overtaken })
            }
            Err(cause) => {
                self.counters.failed.add_one();
                self.give_back(&claim, Duration::ZERO).await;
                Err(Failure::Compute(cause))
            }
        }
    }

    /// Computes it without asking the engine.
    pub(super) async fn compute_alone(&self, policy: Policy, compute: &Slot) -> Result<Kept, Failure> {
        self.counters.alone.add_one();
        let computed = compute.run(Some(&self.joint.computing), policy.compute_timeout).await;
        computed.map_err(|cause| {
            self.counters.failed.add_one();
            Failure::Compute(cause)
        })
    }

    /// Computes it anew in the background.
    fn refresh(self: &Arc<Self>, claim: Claim, policy: Policy, compute: Slot) {
        let core = Arc::clone(self);
        let room = Arc::clone(&self.joint.refreshing).try_acquire_owned();
        let refreshing = async move {
            let Ok(_room) = room else { return core.give_back(&claim, Duration::ZERO).await };
            core.counters.refreshed.add_one();
            match core.hold(&claim, compute.run(None, policy.compute_timeout)).await {
                Ok(kept) => _ = core.fill(&claim, policy, &kept).await,
                Err(cause) => {
                    core.counters.failed.add_one();
                    let pause = PAUSE_MIN.saturating_mul(1 << claim.failures.min(10)).min(PAUSE_MAX);
                    tracing::warn!(
                        cache = &*core.name, key = claim.key, %cause, retry_in = ?pause,
                        "a stale value could not be computed anew; it stays for now"
                    );
                    core.give_back(&claim, pause).await;
                }
            }
        };
        tokio::spawn(refreshing.in_current_span());
    }

    /// Does some work, and extends the claim meanwhile.
    async fn hold<T>(&self, claim: &Claim, work: impl Future<Output = T>) -> T {
        let every = LEASE / EXTENSIONS_A_LEASE;
        let mut work = pin!(work);
        loop {
            let extending = async {
                sleep(every).await;
                // What cannot be extended now may be the next time; what is lost is found to be at the end.
                if let Err(error) = self.joint.ask(self.joint.engine.extend(claim, LEASE)).await {
                    tracing::debug!(%error, "a claim could not be extended");
                }
            };
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = extending => {}
            }
        }
    }

    /// Keeps what was computed. False when it was removed meanwhile, or the claim was lost otherwise.
    async fn fill(&self, claim: &Claim, policy: Policy, kept: &Kept) -> Result<bool, StateError> {
        let value = kept.json();
        let (fresh, stale) = match &value {
            Some(_) => (policy.fresh, policy.stale),
            None => (policy.absent, Duration::ZERO),
        };
        let fill = Fill { value, fresh, stale, room: policy.room };
        let _writing = self.copies.writing(claim.key.as_str());
        let filled = self.joint.ask(self.joint.engine.fill(claim, fill)).await;
        if let Err(error) = &filled {
            tracing::warn!(cache = &*self.name, key = claim.key, %error, "a value is not cached");
            self.give_back(claim, Duration::ZERO).await;
        }
        filled
    }

    /// So that others need not wait for the end of the lease.
    async fn give_back(&self, claim: &Claim, pause: Duration) {
        if let Err(error) = self.joint.ask(self.joint.engine.abandon(claim, pause)).await {
            tracing::debug!(%error, "a claim ends by itself");
        }
    }
}
