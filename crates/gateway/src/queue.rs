//! How a request comes to a worker: at once if one may be asked and nobody waits, else by its place in the service's
//! line, for as long as it may wait. Nothing is allocated for a request that does not wait.

use std::{
    ops::Deref,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    balance::{OFFERS_MAX, choose},
    config::Class,
    core::Core,
    line::{Call, Refused},
    moment::Moment,
    problem::{Failure, Unstarted},
    route::Target,
    service::Service,
    upstream::Upstream,
    watch::{Phase, Watched},
};

/// One request's stay inside a worker's gate; ends when dropped, and lets the next one in that waits.
pub(crate) struct Pass {
    upstream: Rc<Upstream>,
}

impl Pass {
    /// For a gate that was entered.
    pub(crate) fn of(upstream: &Rc<Upstream>) -> Self {
        Self { upstream: Rc::clone(upstream) }
    }

    /// Notes that the worker answered this request with a response head.
    pub(crate) fn answered(&self) {
        self.upstream.gate.note_answer();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Upstream { gate, home, .. } = self.upstream.deref();
        gate.leave();
        home.joint.left(gate);
    }
}

/// After so long a request takes what it can get: a worker that it was lost with too, if the others are all busy.
const OTHERS_FOR: Duration = Duration::from_secs(1);
/// Where there are more workers than are asked at a time, the first one in the line asks the next ones so soon.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// One request's looking for a worker, over all of its attempts.
pub(crate) struct Search {
    class: Class,
    /// Workers that it was lost with, not to be asked again while there are others.
    pub(crate) tried: Vec<Rc<Upstream>>,
    /// When it ends, from the first loss or wait on.
    deadline: Option<Instant>,
    /// Its waiting for a worker to start, if it had to.
    start: Option<Box<Start>>,
}

/// One request's waiting for a worker to start, over all of its attempts.
struct Start {
    /// When it ends.
    deadline: Instant,
    /// Since when no worker is ready, if that is so.
    since: Option<Instant>,
    /// How long it was so before.
    took: Duration,
}

impl Search {
    pub(crate) fn new(class: Class) -> Self {
        Self { class, tried: Vec::new(), deadline: None, start: None }
    }

    /// The time begins anew: an attempt had come so far that something was sent.
    pub(crate) fn begin_anew(&mut self) {
        self.deadline = None;
    }

    /// Whether it has looked long enough.
    pub(crate) fn is_over(&mut self, core: &Core, now: Instant) -> bool {
        self.deadline(core, now) <= now
    }

    /// How long it has waited for a worker to start, if it had to.
    pub(crate) fn start_took(&self) -> Option<Duration> {
        self.start.as_ref().map(|start| start.took)
    }

    /// When it ends, as things stand `now`. While no worker is ready, that is another time than when it waits for its turn,
    /// which it does afterwards. Together they are the most that it waits, however often workers come and go.
    fn ends(&mut self, core: &Core, service: &Service, now: Instant) -> Instant {
        let Some(wait) = service.start_wait() else {
            self.has_started(now);
            return self.deadline(core, now);
        };
        self.deadline = None;
        let new = || Box::new(Start { deadline: now + wait, since: None, took: Duration::ZERO });
        let start = self.start.get_or_insert_with(new);
        start.since.get_or_insert(now);
        start.deadline
    }

    /// A worker is ready, if none was before.
    fn has_started(&mut self, now: Instant) {
        if let Some(start) = &mut self.start
            && let Some(since) = start.since.take()
        {
            start.took += now.saturating_duration_since(since);
        }
    }

    /// Whether no worker is ready that could serve it.
    fn is_starting(&self) -> bool {
        self.start.as_ref().is_some_and(|start| start.since.is_some())
    }

    fn deadline(&mut self, core: &Core, now: Instant) -> Instant {
        *self.deadline.get_or_insert_with(|| now + core.limits().queue_timeout)
    }
}

/// The class of a request: what its `Lethe-Class` field says, else its route's. Anybody may stand back, but only those who
/// are trusted may step forward: else the traffic that its route has put behind would come first by one field.
pub(crate) fn class(field: Option<&[u8]>, route: Class, trusted: bool) -> Class {
    match field.map(<[u8]>::trim_ascii) {
        Some(name) if name.eq_ignore_ascii_case(b"batch") => Class::Batch,
        Some(name) if trusted && name.eq_ignore_ascii_case(b"timely") => Class::Timely,
        _ => route,
    }
}

/// A worker that let the request in, after a wait if need be. Cancellation safe: who stops waiting leaves the line.
pub(crate) async fn find(
    core: &Core,
    watched: &Watched,
    target: &Target,
    search: &mut Search,
) -> Result<(Rc<Upstream>, Pass), Failure> {
    // Who comes later does not go first.
    if target.service.home.joint.line.is_clear(search.class)
        && let Some(found) = look(core, target, search, &Moment::now())
    {
        return Ok(found);
    }
    Box::pin(wait(core, watched, target, search)).await
}

fn look(core: &Core, target: &Target, search: &mut Search, now: &Moment) -> Option<(Rc<Upstream>, Pass)> {
    choose(&target.service, target.route.balance, search.class, &mut search.tried, &core.dice, now)
}

/// Waits until it is called, or until the time of a worker that is passed over.
async fn wait(
    core: &Core,
    watched: &Watched,
    target: &Target,
    search: &mut Search,
) -> Result<(Rc<Upstream>, Pass), Failure> {
    let service = &target.service;
    let joint = &service.home.joint;
    let (class, now) = (search.class, Instant::now());
    let deadline = search.ends(core, service, now);
    let shed = || joint.line.shed(class, Instant::now());
    let full = |Refused { retry_after_s }, is_starting| match is_starting {
        true => Failure::NotStarted(Unstarted::Full),
        false => Failure::QueueFull { retry_after_s },
    };
    let max = core.limits().queue_max;
    let joined = joint.line.join(&joint.limit, service.home.core, class, max, now, deadline);
    let place = match joined {
        Ok(place) => place,
        Err(refused) => {
            shed();
            return Err(full(refused, search.is_starting()));
        }
    };
    tracing::debug!(service = %service.name, ?class, "a request waits for a worker");
    watched.enter(Phase::Choosing);
    let (mut is_called, mut is_called_off) = (false, false);
    let others_until = (!search.tried.is_empty()).then(|| now + OTHERS_FOR);
    loop {
        if others_until.is_some_and(|until| until <= Instant::now()) {
            search.tried.clear();
        }
        // In the line before the look, so that no slot and no news slip between the two.
        if (is_called || place.is_next())
            && let Some(found) = look(core, target, search, &Moment::now())
        {
            core.shard.waited(now.elapsed());
            search.has_started(Instant::now());
            drop(place);
            // There may be room for more.
            joint.line.pass_on(service.home.core);
            return Ok(found);
        }
        let looked = Instant::now();
        let deadline = search.ends(core, service, looked);
        let is_starting = search.is_starting();
        if looked >= deadline || (is_starting && is_called_off) {
            core.shard.waited(now.elapsed());
            let Refused { retry_after_s } = shed();
            return Err(match is_starting {
                true if is_called_off => Failure::NotStarted(Unstarted::Failed),
                true => Failure::NotStarted(Unstarted::Late),
                false => Failure::NoWorker { retry_after_s },
            });
        }
        if is_starting {
            // In the line before it rings, so that who hears it finds it there.
            joint.want.ring();
        }
        let is_many = service.rotation.borrow().len() > OFFERS_MAX && place.is_next();
        let soonest = service.soonest(looked).into_iter().chain(is_many.then(|| looked + LOOK_PAUSE));
        let until = soonest.chain(others_until.filter(|until| *until > looked)).fold(deadline, Instant::min);
        let call = tokio::time::timeout_at(until.into(), place.called()).await;
        is_called = matches!(call, Ok(Call::News | Call::Unstarted));
        is_called_off = matches!(call, Ok(Call::Unstarted));
        match call {
            Ok(Call::Slot(gate)) => match service.take_over(&gate, &search.tried, Instant::now()) {
                Some(found) => {
                    core.shard.waited(now.elapsed());
                    search.has_started(Instant::now());
                    return Ok(found);
                }
                None => place.decline(&gate, Instant::now()),
            },
            Ok(Call::Evicted) => return Err(full(shed(), is_starting)),
            Ok(Call::News | Call::Unstarted) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for (field, route, expected) in [
            (None, Class::Timely, Class::Timely),
            (None, Class::Batch, Class::Batch),
            (Some("batch"), Class::Timely, Class::Batch),
            (Some(" Batch "), Class::Timely, Class::Batch),
            (Some("TIMELY"), Class::Batch, Class::Timely),
            (Some("batch, timely"), Class::Timely, Class::Timely),
            (Some(""), Class::Batch, Class::Batch),
        ] {
            assert_eq!(class(field.map(str::as_bytes), route, true), expected, "{field:?} {route:?}");
        }
        assert_eq!(class(Some(b"timely"), Class::Batch, false), Class::Batch, "anybody could say so");
        assert_eq!(class(Some(b"batch"), Class::Timely, false), Class::Batch);
    }
}
