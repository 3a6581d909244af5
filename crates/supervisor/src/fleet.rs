//! One service: its places, and the commands on them. Commands on one service run one after the other; a stop
//! of the supervisor overrides them all.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use lethe_model::service::{InstanceId, ServiceName};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    place::{Ground, Place},
    rollout::{self, Seat},
    service::Spec,
    supervisor::{Error, WorkerStatus},
};

/// The places of one service.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// What new places are opened on. Another one with each change of the spec; places keep theirs.
    ground: Mutex<Arc<Ground>>,
    /// Oldest first.
    places: Mutex<Vec<Arc<Place>>>,
    /// Set for good when the service is removed, with `places` locked: no place is opened afterwards.
    closed: AtomicBool,
    /// How many workers there shall be.
    wanted: AtomicU32,
    /// Held by the command that runs.
    command: tokio::sync::Mutex<()>,
}

impl Fleet {
    /// A service without places.
    pub(crate) fn new(ground: Ground) -> Self {
        let wanted = AtomicU32::new(ground.spec.instances);
        let ground = Mutex::new(Arc::new(ground));
        let closed = AtomicBool::new(false);
        Self { ground, places: Mutex::default(), closed, wanted, command: tokio::sync::Mutex::new(()) }
    }

    /// Opens a place, in which `restarts` workers died before, and starts its first worker.
    pub(crate) fn open(self: &Arc<Self>, restarts: u64) -> Result<Arc<Place>, Error> {
        let ground = self.ground();
        let mut places = self.places();
        // Looked at with the lock held: a stop that comes later finds the new place.
        if *ground.hub.stopping.borrow() {
            return Err(Error::Stopping);
        }
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Removed(ground.spec.name.clone()));
        }
        let place = Arc::new(Place::new(ground, restarts));
        places.push(Arc::clone(&place));
        let (fleet, running) = (Arc::clone(self), Arc::clone(&place));
        tokio::spawn(async move {
            running.run().await;
            fleet.places().retain(|place| !Arc::ptr_eq(place, &running));
            // Said last: whoever waited for its end must not find it in the list any more.
            running.has_left();
        });
        Ok(place)
    }

    /// How many workers there shall be.
    pub(crate) fn wanted(&self) -> u32 {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Says how many there shall be, and changes nothing.
    pub(crate) fn want(&self, count: u32) {
        self.wanted.store(count, Ordering::Relaxed);
    }

    /// The workers as shown to people, oldest place first.
    pub(crate) fn workers(&self) -> Vec<WorkerStatus> {
        let places = self.places().clone();
        places.iter().map(|place| place.status()).collect()
    }

    /// The names of the present workers.
    pub(crate) fn instances(&self) -> Vec<InstanceId> {
        self.places().iter().map(|place| place.instance()).collect()
    }

    /// The place whose present worker is `instance`.
    pub(crate) fn find(&self, instance: &str) -> Option<Arc<Place>> {
        self.places().iter().find(|place| place.instance().as_str() == instance).cloned()
    }

    /// Tells all places to leave.
    pub(crate) fn tell_to_leave(&self) {
        self.places().iter().for_each(|place| place.leave());
    }

    /// Its name.
    pub(crate) fn name(&self) -> ServiceName {
        self.ground().spec.name.clone()
    }

    /// Opens no place any more, and stops.
    pub(crate) async fn close(&self) {
        {
            let _places = self.places();
            self.closed.store(true, Ordering::Relaxed);
        }
        self.want(0);
        self.stop().await;
    }

    /// Tells all places to leave, and waits until they have.
    pub(crate) async fn stop(&self) {
        let places = self.places().clone();
        all_leave(&places).await;
    }

    /// Opens or drains places until there are `wanted`.
    pub(crate) async fn scale(self: Arc<Self>, wanted: u32) -> Result<(), Error> {
        let _command = self.unless_stopping(self.command.lock()).await?;
        self.wanted.store(wanted, Ordering::Relaxed);
        let wanted = wanted as usize;
        let staying = self.staying();
        let opened: Vec<_> = (staying.len()..wanted).map(|_| self.open(0)).collect::<Result<_, _>>()?;
        let seats: Vec<Seat> = staying.iter().map(seat).collect();
        let surplus: Vec<_> =
            rollout::surplus(&seats, wanted).into_iter().map(|n| Arc::clone(&staying[n])).collect();
        self.unless_stopping(all_leave(&surplus)).await?;
        for place in &opened {
            // Those that do not become ready stay, and go on trying: that many are wanted.
            self.proved(place).await?;
        }
        Ok(())
    }

    /// Replaces all workers, one after the other.
    pub(crate) async fn restart(self: Arc<Self>) -> Result<u32, Error> {
        let _command = self.unless_stopping(self.command.lock()).await?;
        let mut replaced = 0;
        for old in self.staying() {
            self.replace(&old).await?;
            replaced += 1;
        }
        Ok(replaced)
    }

    /// Replaces all workers by such of another spec, one after the other; how many it wants stays as it is. If a new
    /// one does not become ready, those that were replaced are put back as they were.
    pub(crate) async fn update(self: Arc<Self>, spec: Spec) -> Result<u32, Error> {
        let _command = self.unless_stopping(self.command.lock()).await?;
        let old = self.ground();
        *self.ground.lock().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Ground { spec: Arc::new(spec), ..Ground::clone(&old) });
        let before = self.staying();
        let mut replaced = 0;
        for place in &before {
            if let Err(error) = self.replace(place).await {
                *self.ground.lock().unwrap_or_else(PoisonError::into_inner) = old;
                self.put_back(&before).await?;
                return Err(error);
            }
            replaced += 1;
        }
        Ok(replaced)
    }

    /// Replaces all places but those in `kept`.
    async fn put_back(self: &Arc<Self>, kept: &[Arc<Place>]) -> Result<(), Error> {
        let is_kept = |place: &Arc<Place>| kept.iter().any(|kept| Arc::ptr_eq(kept, place));
        for place in self.staying().iter().filter(|place| !is_kept(place)) {
            self.replace(place).await?;
        }
        Ok(())
    }

    /// Waits until all places have a ready worker; an error if one fails too often or takes too long.
    pub(crate) async fn all_proved(&self) -> Result<(), Error> {
        for place in self.staying() {
            self.proved(&place).await?;
        }
        Ok(())
    }

    /// Replaces one worker.
    pub(crate) async fn drain(self: Arc<Self>, instance: InstanceId) -> Result<(), Error> {
        let _command = self.unless_stopping(self.command.lock()).await?;
        // It may have died, or have been drained, while another command ran.
        let old = self.find(instance.as_str()).filter(|place| !place.is_leaving());
        let old = old.ok_or_else(|| Error::NoWorker { name: instance.into(), near: None })?;
        self.replace(&old).await
    }

    /// A new place beside an old one; when it is ready, the old one leaves. If it does not become ready it is
    /// the new one that leaves.
    async fn replace(self: &Arc<Self>, old: &Arc<Place>) -> Result<(), Error> {
        let new = self.open(old.restarts())?;
        if let Err(error) = self.proved(&new).await {
            self.unless_stopping(all_leave(&[new])).await?;
            return Err(error);
        }
        self.unless_stopping(all_leave(&[Arc::clone(old)])).await
    }

    /// Waits until a new place has a ready worker; an error if it fails too often or takes too long.
    async fn proved(&self, place: &Place) -> Result<(), Error> {
        let mut progress = place.progress();
        let outcome = progress.wait_for(|&progress| rollout::proved(progress).is_some());
        let outcome = self.unless_stopping(timeout(rollout::PATIENCE, outcome)).await?;
        let proved =
            matches!(outcome.map(|seen| seen.map(|seen| rollout::proved(*seen))), Ok(Ok(Some(true))));
        if proved {
            return Ok(());
        }
        let reason =
            place.trouble().unwrap_or_else(|| format!("it was not ready in {:?}", rollout::PATIENCE));
        Err(Error::Rollout { service: self.ground().spec.name.clone(), reason })
    }

    /// The places that were not told to leave, oldest first.
    fn staying(&self) -> Vec<Arc<Place>> {
        self.places().iter().filter(|place| !place.is_leaving()).cloned().collect()
    }

    async fn unless_stopping<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut stopping = self.ground().hub.stopping.subscribe();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => Err(Error::Stopping),
            done = work => Ok(done),
        }
    }

    fn ground(&self) -> Arc<Ground> {
        Arc::clone(&self.ground.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn places(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seat(place: &Arc<Place>) -> Seat {
    Seat { state: place.state(), failures: place.progress().borrow().failures }
}

/// Tells places to leave, all at once, and waits until they have.
async fn all_leave(places: &[Arc<Place>]) {
    let mut leaving = JoinSet::new();
    for place in places {
        place.leave();
        let mut progress = place.progress();
        leaving.spawn(async move {
            let _ = progress.wait_for(|progress| progress.gone).await;
        });
    }
    while leaving.join_next().await.is_some() {}
}
