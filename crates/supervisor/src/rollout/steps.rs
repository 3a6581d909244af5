//! Decides the next step of a rollout from how the workers of both versions are. Pure: it knows no clock and no worker,
//! and what it has to remember is its [`Track`].
//!
//! Forward: start new → they are ready and warm → as many old ones drain → … → bake → promoted. From each of these to
//! going back: start old → new ones drain → restored; or stuck, as long as the old ones do not start either.

use std::{fmt, time::Duration};

use super::policy::Policy;

pub(crate) use super::STARTS_MAX;
/// New workers that may end by their own fault after they were ready, before the new version is given up.
pub const FALLS_MAX: u32 = 3;
/// How long a new worker may be passed over by the gateway before the new version is given up.
pub const OUT_MAX: Duration = Duration::from_secs(3);

/// Which of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The one that is to leave.
    Old,
    /// The one that is to come.
    New,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::New => "new",
        })
    }
}

/// One place that was not told to leave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seat {
    pub(crate) id: usize,
    /// Since when its worker is ready; `None` if it is not.
    pub(crate) ready_for: Option<Duration>,
    /// Since when it has not been ready.
    pub(crate) unready_for: Duration,
    /// Since when the gateway passes it over.
    pub(crate) out_for: Option<Duration>,
    /// Since when the place is there.
    pub(crate) age: Duration,
    /// Starts that failed, since the last one that did not.
    pub(crate) failures: u32,
    /// Workers that ended here by their own fault after they were ready.
    pub(crate) falls: u32,
}

impl Seat {
    fn is_healthy(&self) -> bool {
        self.ready_for.is_some() && self.out_for.is_none()
    }

    fn counts(&self, warm_up: Duration) -> bool {
        self.is_healthy() && self.ready_for.is_some_and(|ready| ready >= warm_up)
    }

    fn is_late(&self, grace: Duration) -> bool {
        self.ready_for.is_none() && self.unready_for >= grace
    }

    fn is_ill(&self, grace: Duration) -> bool {
        self.age >= grace && self.out_for.is_some_and(|out| out >= OUT_MAX)
    }

    /// Whether nothing is to be expected of it any more.
    fn is_lost(&self, grace: Duration) -> bool {
        self.failures >= STARTS_MAX || self.is_late(grace) || self.is_ill(grace)
    }
}

/// How things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// Since the start of the rollout.
    pub(crate) now: Duration,
    pub(crate) wanted: usize,
    /// Oldest first, as are the new ones.
    pub(crate) old: &'a [Seat],
    pub(crate) new: &'a [Seat],
    /// Places that were told to leave and are still there.
    pub(crate) leaving: usize,
    /// In which way the new version answers worse.
    pub(crate) worse: Option<&'a str>,
    /// Who wants it to end here, and go back.
    pub(crate) called_off: Option<&'a str>,
    /// It has been watched for long enough.
    pub(crate) is_baked: bool,
}

/// What is remembered from one step to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    /// Set for good when the old version shall come back.
    pub(crate) is_back: bool,
    /// Checkpoints that are behind.
    passed: usize,
    /// Since when there is a pause at the next one.
    paused: Option<Duration>,
    /// Since when no old worker is left.
    pub(crate) baking: Option<Duration>,
}

/// What is to be done next. After all but the waiting ones, the next is asked for at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Open so many places.
    Start(Version, usize),
    /// Tell these to leave.
    Drain(Version, Vec<usize>),
    /// Nothing, before something changes.
    Wait(Why),
    /// Nothing, before this moment.
    Pause { percent: u8, until: Duration },
    /// Nothing, before this moment.
    Bake { until: Duration },
    /// The new version has taken over. The last action.
    Promote,
    /// From now on the old version comes back.
    Rollback(Reason),
    /// Nothing, before something changes: the old version was to come back, and does not start either.
    Stuck,
    /// The old version is back. The last action.
    Restored,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// So many workers of a version are not ready.
    Starting(Version, usize),
    /// So many new workers are ready, and not for long enough.
    WarmUp(usize),
    /// So many workers are passed over by the gateway.
    Out(Version, usize),
    /// No more may leave before others are healthy.
    MinHealthy,
    /// So many workers finish their requests.
    Draining(usize),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = |count: usize| if count == 1 { "worker" } else { "workers" };
        match *self {
            Self::Starting(version, count) => {
                write!(
                    f,
                    "until {count} {version} {} {} ready",
                    workers(count),
                    if count == 1 { "is" } else { "are" }
                )
            }
            Self::WarmUp(count) => write!(
                f,
                "until {count} new {} warmed up",
                if count == 1 { "worker has" } else { "workers have" }
            ),
            Self::Out(version, count) => {
                write!(
                    f,
                    "until {count} {version} {} healthy again",
                    if count == 1 { "worker is" } else { "workers are" }
                )
            }
            Self::MinHealthy => f.write_str("until enough workers are healthy for the next to leave"),
            Self::Draining(count) => {
                write!(f, "until {count} {} finished", if count == 1 { "worker has" } else { "workers have" })
            }
        }
    }
}

/// Why the old version comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A place of the new version had [`STARTS_MAX`] failed starts in a row.
    Start,
    /// A new worker was not ready within the grace.
    Unready(Duration),
    /// Its workers ended by their own fault, so often.
    Falls(u32),
    /// So many of its workers are passed over by the gateway.
    Health(usize),
    /// It answers worse; the text says how.
    Worse(String),
    /// Somebody has called it off; the text says who.
    CalledOff(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => write!(f, "{STARTS_MAX} starts in a row failed"),
            Self::Unready(grace) => write!(f, "it was not ready in {grace:?}"),
            Self::Falls(count) => write!(f, "{count} of its workers ended by their own fault"),
            Self::Health(1) => f.write_str("one of its workers is unhealthy"),
            Self::Health(count) => write!(f, "{count} of its workers are unhealthy"),
            Self::Worse(how) => f.write_str(how),
            Self::CalledOff(by) => write!(f, "called off by {by}"),
        }
    }
}

/// Decides what is next, and notes in `track` what is to be remembered.
pub(crate) fn next(policy: &Policy, track: &mut Track, view: &View<'_>) -> Action {
    if !track.is_back {
        if let Some(reason) = why_back(policy, view) {
            track.is_back = true;
            return Action::Rollback(reason);
        }
        // One is tried also where none is wanted: no version takes over untried.
        return forward(policy, track, &View { wanted: view.wanted.max(1), ..*view });
    }
    back(policy, view)
}

fn why_back(policy: &Policy, view: &View<'_>) -> Option<Reason> {
    if let Some(by) = view.called_off {
        return Some(Reason::CalledOff(by.into()));
    }
    let new = view.new;
    if new.iter().any(|seat| seat.failures >= STARTS_MAX) {
        return Some(Reason::Start);
    }
    if new.iter().any(|seat| seat.is_late(policy.grace)) {
        return Some(Reason::Unready(policy.grace));
    }
    if !policy.goes_back {
        return None;
    }
    let falls = new.iter().map(|seat| seat.falls).sum();
    if falls >= FALLS_MAX {
        return Some(Reason::Falls(falls));
    }
    let ill = new.iter().filter(|seat| seat.is_ill(policy.grace)).count();
    if ill > 0 {
        return Some(Reason::Health(ill));
    }
    view.worse.map(|how| Reason::Worse(how.into()))
}

fn forward(policy: &Policy, track: &mut Track, view: &View<'_>) -> Action {
    let View { now, wanted, old, new, .. } = *view;
    let counted = new.iter().filter(|seat| seat.counts(policy.warm_up)).count();
    let checkpoint = policy.checkpoints.get(track.passed).copied();
    let goal = checkpoint.map_or(wanted, |percent| policy.at(percent, wanted));
    if let Some(drain) = too_many(Version::New, new, wanted) {
        return drain;
    }
    // An old one leaves for each new one that stands in: launch before terminate.
    if let Some(drain) = replaced(policy, view, Version::Old, old, counted) {
        return drain;
    }
    let room = policy.most(wanted).saturating_sub(old.len() + new.len());
    let missing = goal.saturating_sub(new.len()).min(room);
    if missing > 0 {
        return Action::Start(Version::New, missing);
    }
    // More are wanted meanwhile than the checkpoint lets be new.
    let missing = wanted.saturating_sub(goal.max(new.len())).saturating_sub(old.len()).min(room);
    if missing > 0 {
        return Action::Start(Version::Old, missing);
    }
    if counted < goal {
        return Action::Wait(why(policy, Version::New, new));
    }
    if let Some(percent) = checkpoint {
        let until = *track.paused.get_or_insert(now) + policy.pause;
        if now < until {
            return Action::Pause { percent, until };
        }
        track.paused = None;
        track.passed += 1;
        return forward(policy, track, view);
    }
    if !old.is_empty() {
        return Action::Wait(Why::MinHealthy);
    }
    if view.leaving > 0 {
        return Action::Wait(Why::Draining(view.leaving));
    }
    let until = *track.baking.get_or_insert(now) + policy.bake;
    if now < until && !view.is_baked {
        return Action::Bake { until };
    }
    Action::Promote
}

fn back(policy: &Policy, view: &View<'_>) -> Action {
    let View { wanted, old, new, .. } = *view;
    let healthy = old.iter().filter(|seat| seat.is_healthy()).count();
    // Those that serve nobody are not needed for anything.
    let useless: Vec<usize> = new.iter().filter(|seat| !seat.is_healthy()).map(|seat| seat.id).collect();
    if !useless.is_empty() {
        return Action::Drain(Version::New, useless);
    }
    if let Some(drain) = too_many(Version::Old, old, wanted) {
        return drain;
    }
    if let Some(drain) = replaced(policy, view, Version::New, new, healthy) {
        return drain;
    }
    let room = policy.most(wanted).saturating_sub(old.len() + new.len());
    let missing = wanted.saturating_sub(old.len()).min(room);
    if missing > 0 {
        return Action::Start(Version::Old, missing);
    }
    if healthy < wanted {
        let is_stuck = old.iter().any(|seat| seat.is_lost(policy.grace));
        return if is_stuck { Action::Stuck } else { Action::Wait(why(policy, Version::Old, old)) };
    }
    if !new.is_empty() {
        return Action::Wait(Why::MinHealthy);
    }
    if view.leaving > 0 {
        return Action::Wait(Why::Draining(view.leaving));
    }
    Action::Restored
}

/// Workers of the version that stays, beyond those that are wanted: since fewer are wanted than were.
fn too_many(version: Version, seats: &[Seat], wanted: usize) -> Option<Action> {
    let count = seats.len().saturating_sub(wanted);
    // The least useful first, then the one that is ready since last, then the youngest.
    let mut order: Vec<&Seat> = seats.iter().rev().collect();
    order.sort_by_key(|seat| (seat.is_healthy(), seat.ready_for));
    (count > 0).then(|| Action::Drain(version, order.iter().take(count).map(|seat| seat.id).collect()))
}

/// Workers of the version that leaves for which others stand in, so many; as long as enough are left that can answer.
fn replaced(
    policy: &Policy,
    view: &View<'_>,
    version: Version,
    seats: &[Seat],
    others: usize,
) -> Option<Action> {
    let surplus = seats.len().saturating_sub(view.wanted.saturating_sub(others));
    let healthy = seats.iter().filter(|seat| seat.is_healthy()).count();
    let spare = (healthy + others).saturating_sub(policy.least(view.wanted));
    let (well, ill): (Vec<&Seat>, Vec<&Seat>) = seats.iter().partition(|seat| seat.is_healthy());
    let ids: Vec<usize> =
        ill.into_iter().chain(well.into_iter().take(spare)).take(surplus).map(|seat| seat.id).collect();
    (!ids.is_empty()).then_some(Action::Drain(version, ids))
}

/// What those lack that do not count yet.
fn why(policy: &Policy, version: Version, seats: &[Seat]) -> Why {
    let starting = seats.iter().filter(|seat| seat.ready_for.is_none()).count();
    let out = seats.iter().filter(|seat| seat.ready_for.is_some() && seat.out_for.is_some()).count();
    if starting > 0 {
        Why::Starting(version, starting)
    } else if out > 0 {
        Why::Out(version, out)
    } else {
        Why::WarmUp(seats.iter().filter(|seat| !seat.counts(policy.warm_up)).count())
    }
}

#[cfg(test)]
mod tests;
