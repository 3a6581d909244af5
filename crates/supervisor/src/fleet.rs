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
    rollout::{
        self, Seat,
        policy::Policy,
        rolling::{Driver, Phase, Rolling, Watch},
    },
    service::Spec,
    supervisor::{Error, WorkerStatus},
};

type Places = Vec<Arc<Place>>;

/// A worker that is wanted and is told to leave before it is ready is started again so often, if it is still wanted.
const WAKES_MAX: u32 = 3;

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
    /// The version that takes over.
    rolling: Mutex<Option<Arc<Rolling>>>,
}

impl Fleet {
    /// A service without places.
    pub(crate) fn new(ground: Ground) -> Self {
        let wanted = AtomicU32::new(ground.spec.instances);
        let ground = Mutex::new(Arc::new(ground));
        let closed = AtomicBool::new(false);
        let (command, rolling) = (tokio::sync::Mutex::new(()), Mutex::default());
        Self { ground, places: Mutex::default(), closed, wanted, command, rolling }
    }

    /// Opens a place, in which `restarts` workers died before, and starts its first worker.
    pub(crate) fn open(self: &Arc<Self>, restarts: u64) -> Result<Arc<Place>, Error> {
        self.open_on(self.ground(), restarts)
    }

    /// The same for a worker of another version.
    pub(crate) fn open_on(self: &Arc<Self>, ground: Arc<Ground>, restarts: u64) -> Result<Arc<Place>, Error> {
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

    /// The workers as shown to people, oldest place first; with what they use, or without.
    pub(crate) fn workers(&self, with_usage: bool) -> Vec<WorkerStatus> {
        let places = self.places().clone();
        places.iter().map(|place| place.status(with_usage)).collect()
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
        let command = self.unless_stopping(self.command.lock()).await?;
        if let Some(rolling) = self.rolling() {
            // With the lock held: the end of the rollout, which takes it too, comes after this.
            self.want(wanted);
            rolling.look();
            drop(command);
            return self.scaled(&rolling, wanted as usize).await;
        }
        let (opened, surplus) = self.begin_scaling(wanted)?;
        surplus.iter().for_each(|place| place.leave());
        for place in &opened {
            // Those that do not become ready stay, and go on trying: that many are wanted.
            self.proved(place).await?;
        }
        // Who leaves may take long, as its requests do; meanwhile others may be wanted.
        drop(command);
        self.unless_stopping(all_leave(&surplus)).await
    }

    /// Opens a place if there is none that stays, and keeps one that is only tried; returns when one has a ready worker.
    pub(crate) async fn wake(self: Arc<Self>) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            if self.wanted() == 0 || self.staying().is_empty() {
                let _command = self.unless_stopping(self.command.lock()).await?;
                self.want(self.wanted().max(1));
                if self.staying().is_empty() {
                    self.open(0)?;
                }
            }
            tries += 1;
            let places = self.staying();
            match self.any_proved(&places).await {
                // They were told to leave while they were waited for, as when others take their place.
                Err(_) if places.iter().all(|place| place.is_leaving()) && tries < WAKES_MAX => {}
                proved => return proved,
            }
        }
    }

    /// Tells all places to leave if nobody is inside the worker of any; returns whether none stays. Not while another
    /// command runs.
    pub(crate) fn rest(&self) -> bool {
        let Ok(_command) = self.command.try_lock() else { return false };
        if self.not_while_rolling().is_err() {
            return false;
        }
        let staying = self.staying();
        if staying.iter().any(|place| place.is_busy()) {
            return false;
        }
        // Who came between the look and this is inside, and keeps its worker.
        let (resting, left): (Vec<_>, Vec<_>) = staying.iter().partition(|place| place.close_if_idle());
        self.want(u32::try_from(left.len()).unwrap_or(u32::MAX));
        resting.iter().for_each(|place| place.leave());
        left.is_empty()
    }

    /// The same, without waiting for what comes of it. Not while another command runs: then it is false.
    pub(crate) fn resize(self: &Arc<Self>, wanted: u32) -> Result<bool, Error> {
        let Ok(_command) = self.command.try_lock() else { return Ok(false) };
        if let Some(rolling) = self.rolling() {
            self.want(wanted);
            rolling.look();
            return Ok(true);
        }
        let (_, surplus) = self.begin_scaling(wanted)?;
        surplus.iter().for_each(|place| place.leave());
        Ok(true)
    }

    /// Opens the places that are wanting, and gives them and those that are to leave. To be called with the command's
    /// lock held.
    fn begin_scaling(self: &Arc<Self>, wanted: u32) -> Result<(Places, Places), Error> {
        self.want(wanted);
        let wanted = wanted as usize;
        let staying = self.staying();
        let opened: Vec<_> = (staying.len()..wanted).map(|_| self.open(0)).collect::<Result<_, _>>()?;
        let seats: Vec<Seat> = staying.iter().map(seat).collect();
        let surplus = rollout::surplus(&seats, wanted).into_iter().map(|n| Arc::clone(&staying[n])).collect();
        Ok((opened, surplus))
    }

    /// Replaces all workers, one after the other.
    pub(crate) async fn restart(self: Arc<Self>) -> Result<u32, Error> {
        let _command = self.unless_stopping(self.command.lock()).await?;
        self.not_while_rolling()?;
        let mut replaced = 0;
        for old in self.staying() {
            self.replace(&old).await?;
            replaced += 1;
        }
        Ok(replaced)
    }

    /// Begins to let a version of `spec` take the place of the one that runs.
    pub(crate) async fn roll(
        self: Arc<Self>,
        spec: Spec,
        policy: Policy,
        watch: Box<dyn Watch>,
    ) -> Result<Arc<Rolling>, Error> {
        let _command = loop {
            let command = self.unless_stopping(self.command.lock()).await?;
            let Some(before) = self.rolling() else { break command };
            // Its end needs the lock.
            drop(command);
            if !self.unless_stopping(before.give_way()).await? {
                return Err(Error::Rolling(self.name()));
            }
        };
        let old = self.ground();
        let new = Arc::new(Ground { spec: Arc::new(spec), ..Ground::clone(&old) });
        let rolling = Rolling::new(old, new);
        *self.rolling.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&rolling));
        let driver = Driver::new(Arc::clone(&self), Arc::clone(&rolling), policy, watch);
        let (fleet, begun) = (Arc::clone(&self), Arc::clone(&rolling));
        tokio::spawn(async move {
            let phase = driver.run().await;
            fleet.end_roll(&begun, phase).await;
        });
        Ok(rolling)
    }

    /// Ends a rollout. That is a command as others are: whatever was wanted before it is seen to here, and what is wanted
    /// afterwards is seen to by who wants it.
    async fn end_roll(self: &Arc<Self>, rolling: &Rolling, phase: Phase) {
        let _command = self.command.lock().await;
        *self.rolling.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if matches!(phase, Phase::Promoted | Phase::RolledBack(..)) {
            let ground = self.ground();
            // Opened at the very moment in which the versions changed places.
            let is_stray = |place: &&Arc<Place>| !Arc::ptr_eq(place.ground(), &ground);
            self.staying().iter().filter(is_stray).for_each(|place| place.leave());
            // An error is the end of the service, or of all.
            if let Ok((_, surplus)) = self.begin_scaling(self.wanted()) {
                surplus.iter().for_each(|place| place.leave());
            }
        }
        rolling.end(phase);
    }

    /// The rollout that is under way.
    pub(crate) fn rolling(&self) -> Option<Arc<Rolling>> {
        self.rolling.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New places are opened on this ground from now on.
    pub(crate) fn stand_on(&self, ground: &Arc<Ground>) {
        *self.ground.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(ground);
    }

    /// Whether the service was removed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// How many places were told to leave and are still there.
    pub(crate) fn leaving(&self) -> usize {
        self.places().iter().filter(|place| place.is_leaving()).count()
    }

    /// An error while one version takes the place of another.
    fn not_while_rolling(&self) -> Result<(), Error> {
        match self.rolling() {
            None => Ok(()),
            Some(rolling) if rolling.phase.borrow().is_end() => Err(Error::Stuck(self.name())),
            Some(_) => Err(Error::Rolling(self.name())),
        }
    }

    /// Waits until as many are ready as the rollout was told to come to, or it has ended.
    async fn scaled(&self, rolling: &Rolling, wanted: usize) -> Result<(), Error> {
        let name = self.name();
        let mut roster = self.ground().hub.board.subscribe();
        let enough = roster.wait_for(|roster| roster.ready(name.as_str()).count() >= wanted);
        let waited = async {
            tokio::select! {
                _ = rolling.ended() => {}
                _ = timeout(rollout::PATIENCE, enough) => {}
            }
        };
        self.unless_stopping(waited).await
    }

    /// Waits until all places have a ready worker; an error if one fails too often or takes too long.
    pub(crate) async fn all_proved(&self) -> Result<(), Error> {
        for place in self.staying() {
            self.proved(&place).await?;
        }
        Ok(())
    }

    /// Waits until one of these has a ready worker; an error if each of them leaves, fails too often or takes too long.
    async fn any_proved(self: &Arc<Self>, places: &[Arc<Place>]) -> Result<(), Error> {
        let mut proofs = JoinSet::new();
        for place in places {
            let (fleet, place) = (Arc::clone(self), Arc::clone(place));
            proofs.spawn(async move { fleet.proved(&place).await });
        }
        let service = self.name();
        let mut outcome = Err(Error::Rollout { service, reason: "it was ended before".into() });
        while let Some(proof) = proofs.join_next().await {
            match proof {
                Ok(Ok(())) => return Ok(()),
                Ok(failed) => outcome = failed,
                Err(_) => {}
            }
        }
        outcome
    }

    /// Replaces one worker.
    pub(crate) async fn drain(self: Arc<Self>, instance: InstanceId) -> Result<(), Error> {
        let _command = self.unless_stopping(self.command.lock()).await?;
        self.not_while_rolling()?;
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
    pub(crate) fn staying(&self) -> Vec<Arc<Place>> {
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
