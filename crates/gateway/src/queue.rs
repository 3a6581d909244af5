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
    problem::Failure,
    route::Target,
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
}

impl Search {
    pub(crate) fn new(class: Class) -> Self {
        Self { class, tried: Vec::new(), deadline: None }
    }

    /// The time begins anew: an attempt had come so far that something was sent.
    pub(crate) fn begin_anew(&mut self) {
        self.deadline = None;
    }

    /// Whether it has looked long enough.
    pub(crate) fn is_over(&mut self, core: &Core, now: Instant) -> bool {
        self.deadline(core, now) <= now
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
    let deadline = search.deadline(core, now);
    let shed = || joint.line.shed(class, Instant::now());
    let full = |Refused { retry_after_s }| Failure::QueueFull { retry_after_s };
    let max = core.limits().queue_max;
    let joined = joint.line.join(&joint.limit, service.home.core, class, max, now, deadline);
    let place = match joined {
        Ok(place) => place,
        Err(refused) => {
            shed();
            return Err(full(refused));
        }
    };
    tracing::debug!(service = %service.name, ?class, "a request waits for a worker");
    watched.enter(Phase::Choosing);
    let mut is_called = false;
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
            drop(place);
            // There may be room for more.
            joint.line.pass_on(service.home.core);
            return Ok(found);
        }
        let looked = Instant::now();
        if looked >= deadline {
            core.shard.waited(now.elapsed());
            let Refused { retry_after_s } = shed();
            return Err(Failure::NoWorker { retry_after_s });
        }
        let is_many = service.rotation.borrow().len() > OFFERS_MAX && place.is_next();
        let soonest = service.soonest(looked).into_iter().chain(is_many.then(|| looked + LOOK_PAUSE));
        let until = soonest.chain(others_until.filter(|until| *until > looked)).fold(deadline, Instant::min);
        let call = tokio::time::timeout_at(until.into(), place.called()).await;
        is_called = matches!(call, Ok(Call::News));
        match call {
            Ok(Call::Slot(gate)) => match service.take_over(&gate, &search.tried, Instant::now()) {
                Some(found) => {
                    core.shard.waited(now.elapsed());
                    return Ok(found);
                }
                None => place.decline(&gate, Instant::now()),
            },
            Ok(Call::Evicted) => return Err(full(shed())),
            Ok(Call::News) | Err(_) => {}
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
