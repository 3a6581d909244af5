//! One worker, as one core sees it: where it is, how fast it was, which connections to it are idle, and what speaks
//! against asking it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use lethe_model::{
    gate::Gate,
    roster::{Address, Protocol, Worker},
    service::InstanceId,
};

use crate::{
    ejection::Standing, h2c::Lane, link::Link, moment::Moment, service::Home, shard::WorkerShard,
    slow_start::Warmth,
};

/// Idle connections are closed after this. Node and uvicorn close them after 5 s; being first avoids the race.
const POOL_IDLE_FOR: Duration = Duration::from_secs(4);
/// After so many refusals in a row it is passed over for a moment.
const REFUSALS_MAX: u32 = 3;
/// After so long without news, half of what is known about a worker's latency is forgotten.
const LATENCY_HALVES_IN: Duration = Duration::from_secs(1);

/// One worker, as one core sees it.
pub(crate) struct Upstream {
    pub(crate) instance: InstanceId,
    pub(crate) address: Address,
    pub(crate) protocol: Protocol,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<WorkerShard>,
    pub(crate) weight: Cell<u32>,
    /// What all cores think of it.
    pub(crate) standing: Arc<Standing>,
    pub(crate) warmth: Warmth,
    /// It is in its service's list of those with idle connections.
    pub(crate) is_pooled: Cell<bool>,
    pub(crate) home: Rc<Home>,
    /// Until when it is passed over.
    suspect_until: Cell<Option<Instant>>,
    /// Rounds in which it refused what it was asked, and answered nothing in between. See [`Self::refused`].
    refusals: Cell<u32>,
    latency: Latency,
    is_ready: Cell<bool>,
    /// Idle connections, the most recently used last.
    #[allow(clippy::vec_box, reason = "links are large, and go from hand to hand boxed")]
    idle: RefCell<Vec<Box<Link>>>,
    /// Its HTTP/2 connections, if it speaks that.
    lane: RefCell<Option<Rc<Lane>>>,
}

impl Upstream {
    /// One that is in the roster. When it no longer is, its standing is to be [taken off the list](Joint::unlist).
    pub(crate) fn new(worker: &Worker, home: &Rc<Home>) -> Rc<Self> {
        let standing = home.joint.list(&worker.gate);
        Rc::new(Self {
            instance: worker.instance.clone(),
            address: worker.address.clone(),
            protocol: worker.protocol,
            gate: Arc::clone(&worker.gate),
            stats: WorkerShard::new(),
            weight: Cell::new(worker.weight),
            standing,
            warmth: Warmth::default(),
            is_pooled: Cell::new(false),
            home: Rc::clone(home),
            suspect_until: Cell::new(None),
            refusals: Cell::new(0),
            latency: Latency::default(),
            is_ready: Cell::new(false),
            idle: RefCell::default(),
            lane: RefCell::default(),
        })
    }

    /// Notes that it refused a connection.
    pub(crate) fn suspect(&self, now: Instant) {
        self.suspect_until.set(Some(self.home.suspicions.begin(now)));
        self.idle.borrow_mut().clear();
    }

    /// Whether it is passed over now, and if so, until when, as far as that is known.
    pub(crate) fn passed_over_until(&self, now: Instant) -> Option<Option<Instant>> {
        if let Some(until) = self.suspect_until.get().filter(|&until| now < until) {
            return Some(Some(until));
        }
        (self.standing.is_doubtful() && self.standing.is_out(now)).then(|| self.standing.back_at(now))
    }

    /// Whether it refused a connection a moment ago; the clock is only asked if there is reason to.
    pub(crate) fn is_suspect(&self, now: &Moment) -> bool {
        self.suspect_until.get().is_some_and(|until| now.get() < until)
    }

    /// Whether it is passed over for its failures or its health.
    pub(crate) fn is_out(&self, now: &Moment) -> bool {
        self.standing.is_doubtful() && self.standing.is_out(now.get())
    }

    /// Notes the time that a response took to its head, at `now`.
    pub(crate) fn answered(&self, latency: Duration, now: Instant) {
        self.refusals.set(0);
        self.stats.answered(latency);
        self.latency.note(latency, now);
        if self.home.adapts.get() {
            self.home.seen.answered(latency, self.gate.in_flight());
        }
    }

    /// Notes that a response came whole, and was neither a 5xx (but 501 and 505 are no failures) nor anything like it.
    pub(crate) fn succeeded(&self, now: &Moment) {
        if self.standing.has_failed() {
            self.standing.succeeded(now.get());
        }
    }

    /// Notes that an attempt ended without a whole response, or with a 5xx other than 501 and 505.
    pub(crate) fn failed(&self, now: Instant) {
        let joint = &self.home.joint;
        if joint.outs.failed(&self.standing, &self.home.ejection.get(), joint.ready(), now) {
            tracing::warn!(worker = %self.instance, "passed over for a while: it keeps failing");
        }
    }

    /// The round of refusals that a request which is sent now would be in.
    pub(crate) fn refusals(&self) -> u32 {
        self.refusals.get()
    }

    /// Notes that it refused a request which was sent in this `round`, although it lives. That is no failure: it says that
    /// it has enough to do, or that it closes a connection, when many are refused together and count as one. But who
    /// refuses whatever he is asked is passed over for as long as one who takes no connections, so that nobody hammers at
    /// him, and is asked again by one request after each such time.
    pub(crate) fn refused(&self, round: u32, now: Instant) {
        if self.refusals.get() == round {
            self.refusals.set(round.saturating_add(1));
        }
        if self.refusals.get() >= REFUSALS_MAX {
            self.suspect(now);
        }
    }

    /// How its load compares with that of others at `now`: requests in flight, and the latency in microseconds if it
    /// was ever measured, both in relation to the share that it is to have.
    pub(crate) fn load(&self, now: Instant) -> (f64, Option<f64>) {
        let share = self.share(now) * f64::from(self.weight.get().max(1));
        ((self.gate.in_flight() + 1) as f64 / share, self.latency.us(now))
    }

    /// What it has of its full share at `now`, over 0 and at most 1.
    pub(crate) fn share(&self, now: Instant) -> f64 {
        if self.warmth.is_full() || self.home.full.get() == 0 {
            return 1.0;
        }
        let share = self.warmth.share(now, self.home.slow_start.get());
        self.note_warmth();
        share
    }

    /// Whether a turn that it is offered is really its own.
    pub(crate) fn takes_turn(&self, now: &Moment) -> bool {
        if self.warmth.is_full() || self.home.full.get() == 0 {
            return true;
        }
        let takes = self.warmth.takes_turn(now.get(), self.home.slow_start.get());
        self.note_warmth();
        takes
    }

    /// It was warming up just now; counts it if it no longer is.
    fn note_warmth(&self) {
        if self.warmth.is_full() && self.is_ready.get() {
            self.home.full.set(self.home.full.get() + 1);
        }
    }

    /// Whether it may get requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.get()
    }

    /// It may get requests from now on.
    pub(crate) fn set_ready(&self) {
        self.is_ready.set(true);
    }

    /// It may not get requests any more. Returns its idle connections. Those of HTTP/2 end with their last requests: a server
    /// that waits for its connections to end would wait for them in vain.
    #[allow(clippy::vec_box, reason = "links are large, and go from hand to hand boxed")]
    pub(crate) fn retire(&self) -> Vec<Box<Link>> {
        self.is_ready.set(false);
        self.lane.take();
        self.idle.take()
    }

    /// The HTTP/2 connections to it. A request that was let in before it was retired has one for itself.
    pub(crate) fn lane(&self) -> Rc<Lane> {
        let new = || Lane::new(self.address.clone());
        if !self.is_ready.get() {
            return new();
        }
        Rc::clone(self.lane.borrow_mut().get_or_insert_with(new))
    }

    /// The most recently used idle connection.
    pub(crate) fn take_idle(&self) -> Option<Box<Link>> {
        self.idle.borrow_mut().pop()
    }

    /// Keeps a connection that may carry another request.
    pub(crate) fn put_idle(self: &Rc<Self>, link: Box<Link>, idle_max: usize) {
        let mut idle = self.idle.borrow_mut();
        if self.is_ready.get() && idle.len() < idle_max {
            idle.push(link);
            if !self.is_pooled.replace(true) {
                self.home.pooled.borrow_mut().push(Rc::downgrade(self));
            }
        }
    }

    /// How many connections are idle and may go on being so, and those that were for too long.
    #[allow(clippy::vec_box, reason = "links are large, and go from hand to hand boxed")]
    pub(crate) fn take_expired(&self, now: Instant) -> (usize, Vec<Box<Link>>) {
        let mut idle = self.idle.borrow_mut();
        let is_expired =
            |link: &mut Box<Link>| now.saturating_duration_since(link.idle_since(now)) >= POOL_IDLE_FOR;
        let expired = idle.extract_if(.., is_expired).collect();
        (idle.len(), expired)
    }
}

/// How long a worker takes to the head of a response. It rises to the worst at once, since what has made one request
/// slow will mostly do so to the next, and comes down by time, not by number: a worker that is avoided for having been
/// slow gets few requests that could show otherwise, and must be forgiven without any.
#[derive(Debug, Default)]
struct Latency {
    us: Cell<f64>,
    at: Cell<Option<Instant>>,
}

impl Latency {
    fn note(&self, latency: Duration, now: Instant) {
        let us = latency.as_secs_f64() * 1e6;
        let (known, kept) = self.at.get().map_or((us, 0.0), |at| (self.us.get(), kept(at, now)));
        self.us.set(if us > known * kept { us } else { us + (known - us) * kept });
        self.at.set(Some(now));
    }

    fn us(&self, now: Instant) -> Option<f64> {
        self.at.get().map(|at| self.us.get() * kept(at, now))
    }
}

/// What is left at `now` of what was known `at`. A hyperbola instead of an exponential: as good here, and cheaper.
fn kept(at: Instant, now: Instant) -> f64 {
    let age = now.saturating_duration_since(at).as_secs_f64() / LATENCY_HALVES_IN.as_secs_f64();
    1.0 / (1.0 + age)
}

#[cfg(test)]
mod tests {
    use lethe_model::roster::WorkerState::Ready;

    use super::*;
    use crate::service::tests::{apply, service, turn, worker};

    #[test]
    fn latency_rises_at_once_and_falls_by_time() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let check = |latency: &Latency, now, expected: f64| {
            let us = latency.us(now).unwrap();
            assert!((us - expected).abs() < expected / 1000.0, "{us}, not {expected}");
        };
        let latency = Latency::default();
        assert_eq!(latency.us(begin), None);
        latency.note(Duration::from_millis(1), begin);
        check(&latency, begin, 1000.0);
        latency.note(Duration::from_millis(100), begin);
        check(&latency, begin, 100_000.0);
        latency.note(Duration::from_millis(1), begin);
        check(&latency, begin, 100_000.0);
        check(&latency, at(1000), 50_000.0);
        check(&latency, at(9000), 10_000.0);
        latency.note(Duration::from_millis(1), at(9000));
        check(&latency, at(9000), 10_900.0);
        // Many that are fast within a second say the same as a second without any.
        let latency = Latency::default();
        latency.note(Duration::from_millis(100), begin);
        (1..=1000).for_each(|ms| latency.note(Duration::from_millis(1), at(ms)));
        let us = latency.us(at(1000)).unwrap();
        assert!((20_000.0..50_000.0).contains(&us), "{us}");
    }
    #[test]
    fn refusals_count_in_rounds() {
        let service = service("shop");
        apply(&service, &[worker(1, Ready)]);
        let (upstream, now) = (turn(&service).unwrap(), Instant::now());
        let refuse = |round| {
            upstream.refused(round, now);
            upstream.is_suspect(&Moment::at(now))
        };
        // All that are refused when a connection is closed are one round.
        let round = upstream.refusals();
        assert!(!(0..100).any(|_| refuse(round)));
        assert!(!refuse(upstream.refusals()));
        upstream.answered(Duration::ZERO, now);
        assert!(!(1..REFUSALS_MAX).any(|_| refuse(upstream.refusals())), "it has answered in between");
        assert!(refuse(upstream.refusals()));
        assert_eq!(service.soonest(now), service.home.suspicions.next_end(now));
        // On probation: the next one is enough.
        let later = now + 2 * crate::suspicion::SUSPECT_FOR;
        assert!(!upstream.is_suspect(&Moment::at(later)));
        upstream.refused(upstream.refusals(), later);
        assert!(upstream.is_suspect(&Moment::at(later)));
    }
}
