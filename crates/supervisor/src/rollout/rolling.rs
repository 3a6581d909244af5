//! A rollout that is under way: looks how the workers are, asks [`steps`] what is next, and does it. It goes on to its
//! end whoever asked for it, and nothing of it waits for anything but a change.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lethe_model::{roster::WorkerState, service::InstanceId};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    policy::Policy,
    steps::{self, Action, Reason, Seat, Track, Version, View},
};
use crate::{
    fleet::Fleet,
    place::{Ground, Place},
};

/// How often is looked how things are when nothing is heard.
const LOOK: Duration = Duration::from_millis(100);
/// How often the versions are compared.
const COMPARE: Duration = Duration::from_secs(1);

/// Who watches a rollout: what it does is told to him, and he says how the versions do.
pub trait Watch: Send {
    /// Compares the versions, about each second.
    fn compare(&mut self, sides: &Sides) -> Comparison;

    /// Something has happened.
    fn note(&mut self, step: &Step);
}

/// The workers of both versions that are there.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    /// Those of the version that is to leave.
    pub old: Vec<InstanceId>,
    /// Those of the version that is to come.
    pub new: Vec<InstanceId>,
    /// Those of the new ones that have not been ready for long: how fast they answer says nothing yet.
    pub cold: BTreeSet<InstanceId>,
}

/// How the versions do.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Workers that the gateway passes over.
    pub out: BTreeSet<InstanceId>,
    /// In which way the new version answers worse.
    pub worse: Option<String>,
}

/// Something that has happened in a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// Workers that are wanted.
    pub wanted: usize,
    /// Old workers that were not told to leave.
    pub old: usize,
    /// New workers that were not told to leave.
    pub new: usize,
    /// Those of them that are ready.
    pub ready: usize,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum What {
    /// New workers were started.
    Started {
        /// How many.
        count: usize,
    },
    /// Workers of the old version were started.
    StartedOld {
        /// How many.
        count: usize,
    },
    /// Old workers drain.
    Draining {
        /// How many.
        count: usize,
    },
    /// New workers drain.
    DrainingNew {
        /// How many.
        count: usize,
    },
    /// It waits.
    Waiting {
        /// What for, for people.
        text: String,
    },
    /// It pauses at a checkpoint.
    Pausing {
        /// The share of new workers.
        percent: u8,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// All workers are new and are watched.
    Baking {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// The old version comes back.
    GoingBack {
        /// Why, for people.
        reason: String,
    },
    /// The new version has taken over.
    Promoted,
    /// The old version is back.
    RolledBack {
        /// Why, for people.
        reason: String,
    },
    /// It was cut off, since `lethe` stops or the service was removed.
    Interrupted,
}

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Workers of both versions are there.
    Rolling,
    /// All workers are new, and are watched.
    Baking,
    /// The new version has taken over.
    Promoted,
    /// The old version is back: why, and what one of the new workers said last.
    RolledBack(Reason, Option<String>),
    /// The old version was to come back and does not start either: why it was to, and what one of its workers said last.
    /// Whatever is healthy of both goes on; the old one comes back as soon as it starts, unless another version is
    /// rolled out before.
    Stuck(Reason, Option<String>),
    /// It was cut off.
    Interrupted,
}

impl Phase {
    /// Whether there is nothing more to come.
    pub fn is_end(&self) -> bool {
        !matches!(self, Self::Rolling | Self::Baking)
    }
}

/// A rollout under way.
#[derive(Debug)]
pub(crate) struct Rolling {
    pub(crate) old: Arc<Ground>,
    pub(crate) new: Arc<Ground>,
    pub(crate) phase: watch::Sender<Phase>,
    /// Who has called it off.
    called_off: watch::Sender<Option<String>>,
    /// Another version is to come.
    gives_way: watch::Sender<bool>,
    /// Nothing is done for it any more.
    is_over: watch::Sender<bool>,
    changed: Notify,
}

impl Rolling {
    pub(crate) fn new(old: Arc<Ground>, new: Arc<Ground>) -> Arc<Self> {
        let phase = watch::Sender::new(Phase::Rolling);
        let (called_off, gives_way, is_over) = Default::default();
        Arc::new(Self { old, new, phase, called_off, gives_way, is_over, changed: Notify::new() })
    }

    /// Has it go back. False if it has ended.
    pub(crate) fn call_off(&self, by: String) -> bool {
        if self.phase.borrow().is_end() {
            return false;
        }
        self.called_off.send_if_modified(|called_off| {
            let is_first = called_off.is_none();
            called_off.get_or_insert(by);
            is_first
        });
        self.changed.notify_one();
        true
    }

    /// Has it end for another version, if workers of both may not be needed: what is only watched is good as it is, and what
    /// is stuck goes no further. Returns whether it is over then. Cancellation safe.
    pub(crate) async fn give_way(&self) -> bool {
        if *self.phase.borrow() == Phase::Rolling {
            return false;
        }
        self.gives_way.send_replace(true);
        self.changed.notify_one();
        let (mut phase, mut is_over) = (self.phase.subscribe(), self.is_over.subscribe());
        tokio::select! {
            biased;
            _ = is_over.wait_for(|is_over| *is_over) => true,
            _ = phase.wait_for(|phase| *phase == Phase::Rolling) => false,
        }
    }

    /// Notes that nothing is done for it any more, and how it has ended.
    pub(crate) fn end(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.is_over.send_replace(true);
    }

    /// Has it look at once.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// Waits until it is at its end. Cancellation safe.
    pub(crate) async fn ended(&self) -> Phase {
        let mut phase = self.phase.subscribe();
        match phase.wait_for(Phase::is_end).await {
            Ok(phase) => phase.clone(),
            Err(_) => Phase::Interrupted,
        }
    }
}

/// What does a rollout.
pub(crate) struct Driver {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) rolling: Arc<Rolling>,
    pub(crate) policy: Policy,
    pub(crate) watch: Box<dyn Watch>,
    began: Instant,
    known: Vec<Known>,
    track: Track,
    reason: Option<(Reason, Option<String>)>,
    comparison: Comparison,
    compared: Instant,
    told: Option<What>,
}

/// A place and since when it is how it is.
struct Known {
    place: Arc<Place>,
    version: Version,
    seen: Instant,
    ready: Option<Instant>,
    unready: Instant,
    out: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        rolling: Arc<Rolling>,
        policy: Policy,
        watch: Box<dyn Watch>,
    ) -> Self {
        let now = Instant::now();
        Self {
            fleet,
            rolling,
            policy,
            watch,
            began: now,
            known: Vec::new(),
            track: Track::default(),
            reason: None,
            comparison: Comparison::default(),
            // The first comparison is where all later ones begin.
            compared: now.checked_sub(COMPARE).unwrap_or(now),
            told: None,
        }
    }

    /// Goes on to the end, and says which it was. The fleet's own ground is that of the version that is to stay.
    pub(crate) async fn run(mut self) -> Phase {
        let hub = Arc::clone(&self.rolling.new.hub);
        let (mut roster, mut stopping) = (hub.board.subscribe(), hub.stopping.subscribe());
        let phase = loop {
            roster.borrow_and_update();
            let due = match self.step() {
                Ok(Next::Wait(due)) => due,
                Ok(Next::End(phase)) => break phase,
                Err(_) => break Phase::Interrupted,
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break Phase::Interrupted,
                _ = self.rolling.changed.notified() => {}
                _ = roster.changed() => {}
                () = sleep_until(due.min(Instant::now() + LOOK)) => {}
            }
        };
        let what = match &phase {
            Phase::RolledBack(reason, _) | Phase::Stuck(reason, _) => {
                What::RolledBack { reason: reason.to_string() }
            }
            Phase::Promoted => What::Promoted,
            _ => What::Interrupted,
        };
        self.tell(what);
        phase
    }

    /// Does all that can be done now.
    fn step(&mut self) -> Result<Next, crate::supervisor::Error> {
        loop {
            if self.fleet.is_closed() {
                return Ok(Next::End(Phase::Interrupted));
            }
            let now = Instant::now();
            self.look(now);
            if now.duration_since(self.compared) >= COMPARE {
                self.compared = now;
                let sides = self.sides(now);
                self.comparison = self.watch.compare(&sides);
                self.look(now);
            }
            let (old, new) = (self.seats(Version::Old, now), self.seats(Version::New, now));
            let called_off = self.rolling.called_off.borrow().clone();
            let view = View {
                now: now - self.began,
                wanted: self.fleet.wanted() as usize,
                old: &old,
                new: &new,
                leaving: self.fleet.leaving(),
                worse: self.comparison.worse.as_deref(),
                called_off: called_off.as_deref(),
                is_baked: *self.rolling.gives_way.borrow(),
            };
            let action = steps::next(&self.policy, &mut self.track, &view);
            match action {
                Action::Start(version, count) => {
                    let ground = if version == Version::Old { &self.rolling.old } else { &self.rolling.new };
                    for _ in 0..count {
                        self.fleet.open_on(Arc::clone(ground), 0)?;
                    }
                    self.look(Instant::now());
                    self.tell(match version {
                        Version::New => What::Started { count },
                        Version::Old => What::StartedOld { count },
                    });
                }
                Action::Drain(version, ids) => {
                    let count = ids.len();
                    self.known
                        .iter()
                        .filter(|known| ids.contains(&id(&known.place)))
                        .for_each(|it| it.place.leave());
                    self.look(Instant::now());
                    self.tell(match version {
                        Version::Old => What::Draining { count },
                        Version::New => What::DrainingNew { count },
                    });
                }
                Action::Wait(why) => {
                    self.tell(What::Waiting { text: why.to_string() });
                    return Ok(Next::Wait(now + LOOK));
                }
                Action::Pause { percent, until } => {
                    self.tell(What::Pausing { percent, for_ms: millis(self.policy.pause) });
                    return Ok(Next::Wait(self.began + until));
                }
                Action::Bake { until } => {
                    self.fleet.stand_on(&self.rolling.new);
                    self.rolling.phase.send_if_modified(|phase| {
                        let is_news = *phase != Phase::Baking;
                        *phase = Phase::Baking;
                        is_news
                    });
                    self.tell(What::Baking { for_ms: millis(self.policy.bake) });
                    return Ok(Next::Wait(self.began + until));
                }
                Action::Rollback(reason) => {
                    self.fleet.stand_on(&self.rolling.old);
                    self.rolling.phase.send_replace(Phase::Rolling);
                    self.tell(What::GoingBack { reason: reason.to_string() });
                    self.reason = Some((reason, self.trouble(Version::New)));
                }
                Action::Stuck => {
                    let reason = self.reason.as_ref().map_or(Reason::Start, |(reason, _)| reason.clone());
                    let phase = Phase::Stuck(reason, self.trouble(Version::Old));
                    if new.is_empty() || *self.rolling.gives_way.borrow() {
                        return Ok(Next::End(phase));
                    }
                    // Nobody is to wait for it any longer; what is healthy of the new version serves meanwhile.
                    self.rolling.phase.send_if_modified(|now| {
                        let is_news = !now.is_end();
                        if is_news {
                            *now = phase;
                        }
                        is_news
                    });
                    return Ok(Next::Wait(now + LOOK));
                }
                Action::Promote => {
                    self.fleet.stand_on(&self.rolling.new);
                    return Ok(Next::End(Phase::Promoted));
                }
                Action::Restored => {
                    let (reason, trouble) = self.reason.take().unwrap_or((Reason::Start, None));
                    return Ok(Next::End(Phase::RolledBack(reason, trouble)));
                }
            }
        }
    }

    /// Notes which places there are, and since when they are how they are.
    fn look(&mut self, now: Instant) {
        let staying = self.fleet.staying();
        self.known.retain(|known| staying.iter().any(|place| Arc::ptr_eq(place, &known.place)));
        for place in staying {
            if !self.known.iter().any(|known| Arc::ptr_eq(&place, &known.place)) {
                let is_new = Arc::ptr_eq(place.ground(), &self.rolling.new);
                let version = if is_new { Version::New } else { Version::Old };
                self.known.push(Known { place, version, seen: now, ready: None, unready: now, out: None });
            }
        }
        for known in &mut self.known {
            match (known.place.state() == WorkerState::Ready, known.ready) {
                (true, None) => known.ready = Some(now),
                (false, Some(_)) => (known.ready, known.unready) = (None, now),
                _ => {}
            }
            let is_out = known.ready.is_some() && self.comparison.out.contains(&known.place.instance());
            known.out = is_out.then(|| known.out.unwrap_or(now));
        }
    }

    fn seats(&self, version: Version, now: Instant) -> Vec<Seat> {
        let seat = |known: &Known| {
            let progress = *known.place.progress().borrow();
            Seat {
                id: id(&known.place),
                ready_for: known.ready.map(|ready| now - ready),
                unready_for: known.ready.map_or(now - known.unready, |_| Duration::ZERO),
                out_for: known.out.map(|out| now - out),
                age: now - known.seen,
                failures: progress.failures,
                falls: progress.falls,
            }
        };
        self.of(version).map(seat).collect()
    }

    fn of(&self, version: Version) -> impl Iterator<Item = &Known> {
        self.known.iter().filter(move |known| known.version == version)
    }

    fn sides(&self, now: Instant) -> Sides {
        let instance = |known: &Known| known.place.instance();
        let cold = self.policy.cold.max(self.policy.warm_up);
        let is_cold = |known: &&Known| known.ready.is_none_or(|ready| now - ready < cold);
        Sides {
            old: self.of(Version::Old).map(instance).collect(),
            new: self.of(Version::New).map(instance).collect(),
            cold: self.of(Version::New).filter(is_cold).map(instance).collect(),
        }
    }

    /// What one of the workers of a version said last that does not do well.
    fn trouble(&self, version: Version) -> Option<String> {
        self.of(version).find_map(|known| known.place.trouble())
    }

    /// Tells what has happened, unless it was the last that was told, or the end was.
    fn tell(&mut self, what: What) {
        if self.rolling.phase.borrow().is_end() {
            return;
        }
        let repeats = matches!(what, What::Waiting { .. } | What::Pausing { .. } | What::Baking { .. });
        if repeats && self.told.as_ref() == Some(&what) {
            return;
        }
        self.told = Some(what.clone());
        let step = Step {
            what,
            wanted: self.fleet.wanted() as usize,
            old: self.of(Version::Old).count(),
            new: self.of(Version::New).count(),
            ready: self.of(Version::New).filter(|known| known.ready.is_some()).count(),
        };
        self.watch.note(&step);
    }
}

/// What [`Driver::step`] comes to.
enum Next {
    Wait(Instant),
    End(Phase),
}

/// Names a place for as long as somebody has it.
fn id(place: &Arc<Place>) -> usize {
    Arc::as_ptr(place).addr()
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Watches nothing.
pub(crate) struct Blind;

impl Watch for Blind {
    fn compare(&mut self, _: &Sides) -> Comparison {
        Comparison::default()
    }

    fn note(&mut self, _: &Step) {}
}
