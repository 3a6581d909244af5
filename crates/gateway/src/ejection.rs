//! Which workers are passed over although they live: those that keep failing, and those whose health check fails. The
//! cores judge a worker together, by its [`Standing`]: a count that success resets is only written to when something
//! fails, so sharing it costs a request one read of memory that nobody writes, and a worker is out on all cores at
//! once. A floor keeps most of the workers in, whatever is thought of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lethe_model::gate::Gate;

use crate::config::Ejection;

/// The worker's health check fails: it is out until that says otherwise.
const UNHEALTHY: u64 = 1 << 63;

/// What is thought of one worker. In → Out (failing) → In, on probation → In | Out for twice as long; and beside it
/// Out (unhealthy) ⇄ In.
#[derive(Debug)]
pub(crate) struct Standing {
    gate: Arc<Gate>,
    /// When `out` counts from.
    epoch: Instant,
    /// Failures in a row.
    failures: AtomicU32,
    /// How often it was put out since its last success.
    times: AtomicU32,
    /// Until when it is out in milliseconds since the epoch, 0 if it is not, with [`UNHEALTHY`] as the top bit.
    out: AtomicU64,
    /// It is no longer in the roster.
    left: AtomicBool,
    /// Its place in the list of those that are out, 0 if it has none. Only written to by who has the list.
    place: AtomicU64,
}

impl Standing {
    pub(crate) fn new(gate: Arc<Gate>, epoch: Instant) -> Arc<Self> {
        Arc::new(Self {
            gate,
            epoch,
            failures: AtomicU32::new(0),
            times: AtomicU32::new(0),
            out: AtomicU64::new(0),
            left: AtomicBool::new(false),
            place: AtomicU64::new(0),
        })
    }

    /// The gate of the worker.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether anything speaks against it; only then the clock must be asked.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.out.load(Relaxed) != 0
    }

    /// Whether it is passed over at `now`.
    pub(crate) fn is_out(&self, now: Instant) -> bool {
        let out = self.out.load(Relaxed);
        out & UNHEALTHY != 0 || self.ms(now) < out
    }

    /// When it will be back, if it is out at `now` and that is known.
    pub(crate) fn back_at(&self, now: Instant) -> Option<Instant> {
        let out = self.out.load(Relaxed);
        let comes = out & UNHEALTHY == 0 && self.ms(now) < out;
        comes.then(|| self.epoch + Duration::from_millis(out))
    }

    /// Whether a success would change anything.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures.load(Relaxed) | self.times.load(Relaxed) != 0
    }

    /// A whole response that is no failure: all is forgotten, unless the worker is out, as then the request was sent
    /// before that.
    pub(crate) fn succeeded(&self, now: Instant) {
        if self.has_failed() && !self.is_out(now) {
            self.failures.store(0, Relaxed);
            self.times.store(0, Relaxed);
            // Its time is over; unless another core has just put it out again, nothing speaks against it any more.
            let out = self.out.load(Relaxed);
            if self.ms(now) >= out {
                let _ = self.out.compare_exchange(out, 0, Relaxed, Relaxed);
            }
        }
    }

    /// It is no longer in the roster.
    pub(crate) fn leave(&self) {
        self.left.store(true, Relaxed);
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }

    /// Whether it is out, and counts as one that could be in.
    pub(crate) fn counts(&self, now: Instant) -> bool {
        self.is_out(now) && !self.left.load(Relaxed) && !self.gate.is_closed()
    }
}

/// For how long a worker is out that was put out `times` before since its last success.
fn time_out(policy: &Ejection, times: u32) -> Duration {
    policy.shortest.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).min(policy.longest)
}

/// Whether one more may be out beside `out` others of `ready`.
fn has_room(out: usize, ready: usize, percent: u8) -> bool {
    (out + 1) * 100 <= ready * usize::from(percent)
}

/// The workers of one service that are out, for all cores. Locked when a worker is put out or back, and by who waits for
/// one, never for a request that succeeds.
#[derive(Debug, Default)]
pub(crate) struct Outs {
    list: Mutex<List>,
    /// The length of the list.
    len: AtomicUsize,
    /// How often a worker was put out.
    ejections: AtomicU64,
}

/// Those that were put out, the longest out first; some may be back by now.
#[derive(Debug, Default)]
struct List {
    of: BTreeMap<u64, Arc<Standing>>,
    /// The last place that was given.
    issued: u64,
    /// When it was gone through for those that are back.
    tidied: Option<Instant>,
}

/// A list of so many is gone through whenever that could help, a longer one at most each [`TIDY_PAUSE`]: when thousands of
/// workers fail, most of their failures find that no more may be out.
const TIDY_AT_ONCE: usize = 64;
const TIDY_PAUSE: Duration = Duration::from_millis(10);

impl List {
    fn add(&mut self, standing: &Arc<Standing>) {
        self.issued += 1;
        standing.place.store(self.issued, Relaxed);
        self.of.insert(self.issued, Arc::clone(standing));
    }

    fn forget(&mut self, standing: &Standing) {
        self.of.remove(&standing.place.swap(0, Relaxed));
    }

    /// Forgets those that are back or gone.
    fn tidy(&mut self, now: Instant) {
        let is_tidy = self.tidied.is_some_and(|last| now.saturating_duration_since(last) < TIDY_PAUSE);
        if is_tidy && self.of.len() > TIDY_AT_ONCE {
            return;
        }
        self.tidied = Some(now);
        self.of.retain(|_, standing| {
            let stays = standing.counts(now);
            if !stays {
                standing.place.store(0, Relaxed);
            }
            stays
        });
    }
}

impl Outs {
    /// Notes a failure of a worker among `ready` of its service, and puts it out when there were too many. A worker
    /// whose gate is closed is dead or leaving, which its failures are no news about.
    pub(crate) fn failed(
        &self,
        standing: &Arc<Standing>,
        policy: &Ejection,
        ready: usize,
        now: Instant,
    ) -> bool {
        if policy.failures == 0 || standing.gate.is_closed() || standing.is_out(now) {
            return false;
        }
        let failures = standing.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < policy.failures {
            return false;
        }
        let times = standing.times.load(Relaxed);
        let until = standing.ms(now + time_out(policy, times)).max(1);
        let put_out = self.put_out(standing, until, policy.out_percent_max, ready, now);
        if put_out {
            standing.times.store(times.saturating_add(1), Relaxed);
            // On probation when it is back: the next failure puts it out again, a success forgets all.
            standing.failures.store(policy.failures - 1, Relaxed);
        }
        put_out
    }

    /// Puts a worker out until [`healthy`](Self::healthy), if the floor allows it.
    pub(crate) fn unhealthy(
        &self,
        standing: &Arc<Standing>,
        percent: u8,
        ready: usize,
        now: Instant,
    ) -> bool {
        standing.out.load(Relaxed) & UNHEALTHY != 0 || self.put_out(standing, UNHEALTHY, percent, ready, now)
    }

    /// Its health check succeeds again. Returns whether that brought it back.
    pub(crate) fn healthy(&self, standing: &Standing) -> bool {
        standing.out.fetch_and(!UNHEALTHY, Relaxed) & UNHEALTHY != 0
    }

    fn put_out(&self, standing: &Arc<Standing>, out: u64, percent: u8, ready: usize, now: Instant) -> bool {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let was_out = standing.counts(now);
        if !was_out {
            list.forget(standing);
            if !has_room(list.of.len(), ready, percent) {
                list.tidy(now);
            }
        }
        let allowed = was_out || has_room(list.of.len(), ready, percent);
        if allowed {
            let kept = standing.out.load(Relaxed) & UNHEALTHY;
            standing.out.store(out | kept, Relaxed);
            if !was_out {
                list.add(standing);
                self.ejections.fetch_add(1, Relaxed);
            }
        }
        self.len.store(list.of.len(), Relaxed);
        allowed
    }

    /// Brings the longest out back while more are out than may be among `ready`: others may have left since. Returns
    /// whether there was one.
    pub(crate) fn keep_floor(&self, percent: u8, ready: usize, now: Instant) -> bool {
        if self.len.load(Relaxed) == 0 {
            return false;
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |list: &List| !list.of.is_empty() && !has_room(list.of.len() - 1, ready, percent);
        if is_over(&list) {
            list.tidy(now);
        }
        let mut brought = false;
        while is_over(&list)
            && let Some((_, standing)) = list.of.pop_first()
        {
            standing.place.store(0, Relaxed);
            standing.out.store(0, Relaxed);
            brought = true;
        }
        self.len.store(list.of.len(), Relaxed);
        brought
    }

    /// When the next one is back, as far as that is known. O(those that are out).
    pub(crate) fn next_back(&self, now: Instant) -> Option<Instant> {
        if self.len.load(Relaxed) == 0 {
            return None;
        }
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.of.values().filter(|standing| standing.counts(now)).filter_map(|out| out.back_at(now)).min()
    }

    /// How many are out at `now`, and how often one was put out since the start.
    pub(crate) fn counted(&self, now: Instant) -> (u64, u64) {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let out = list.of.values().filter(|standing| standing.counts(now)).count();
        (out as u64, self.ejections.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Ejection = Ejection {
        failures: 3,
        shortest: Duration::from_secs(1),
        longest: Duration::from_secs(6),
        out_percent_max: 50,
    };

    fn standings(count: usize, epoch: Instant) -> Vec<Arc<Standing>> {
        (0..count).map(|_| Standing::new(Gate::new(), epoch)).collect()
    }

    fn fail(outs: &Outs, standing: &Arc<Standing>, times: usize, ready: usize, now: Instant) -> bool {
        (0..times).map(|_| outs.failed(standing, &POLICY, ready, now)).last().unwrap_or(false)
    }

    #[test]
    fn out_after_failures_in_a_row_and_longer_each_time() {
        let begin = Instant::now();
        let at = |s: f64| begin + Duration::from_secs_f64(s);
        let (outs, workers) = (Outs::default(), standings(4, begin));
        let worker = &workers[0];
        assert!(!fail(&outs, worker, 2, 4, at(0.0)));
        worker.succeeded(at(0.0));
        assert!(!fail(&outs, worker, 2, 4, at(0.0)), "a success begins the row anew");
        assert!(fail(&outs, worker, 1, 4, at(0.0)));
        assert!(worker.is_out(at(0.9)) && !worker.is_out(at(1.0)));
        assert_eq!(worker.back_at(at(0.5)), Some(at(1.0)));
        assert_eq!(outs.counted(at(0.5)), (1, 1));
        // What was sent before says nothing new.
        worker.succeeded(at(0.5));
        assert!(!fail(&outs, worker, 9, 4, at(0.5)));
        assert!(worker.is_out(at(0.9)));
        // On probation: one failure, and twice as long.
        for (from, until) in [(1.0, 3.0), (3.0, 7.0), (7.0, 13.0), (13.0, 19.0)] {
            assert!(fail(&outs, worker, 1, 4, at(from)), "{from}");
            assert!(worker.is_out(at(until - 0.1)) && !worker.is_out(at(until)), "{until}");
        }
        assert!(worker.is_doubtful());
        worker.succeeded(at(19.0));
        assert!(!worker.is_doubtful());
        assert!(!fail(&outs, worker, 2, 4, at(19.0)), "all is forgotten");
        assert!(fail(&outs, worker, 1, 4, at(19.0)));
        assert!(!worker.is_out(at(20.0)));
        assert_eq!(outs.counted(at(20.0)), (0, 6));
    }

    #[test]
    fn the_floor_holds() {
        let now = Instant::now();
        for (ready, percent, expected) in
            [(1, 50, 0), (1, 100, 1), (2, 50, 1), (3, 50, 1), (4, 50, 2), (10, 33, 3)]
        {
            let (outs, workers) = (Outs::default(), standings(ready, now));
            let policy = Ejection { failures: 1, out_percent_max: percent, ..POLICY };
            let out = workers.iter().filter(|worker| outs.failed(worker, &policy, ready, now)).count();
            assert_eq!(out, expected, "{percent} % of {ready}");
            assert_eq!(workers.iter().filter(|worker| worker.is_out(now)).count(), expected);
        }
    }

    #[test]
    fn those_who_left_make_room_and_the_floor_is_kept() {
        let now = Instant::now();
        let (outs, workers) = (Outs::default(), standings(4, now));
        assert!(fail(&outs, &workers[0], 3, 4, now) && fail(&outs, &workers[1], 3, 4, now));
        assert!(!fail(&outs, &workers[2], 3, 4, now));
        workers[0].leave();
        assert!(fail(&outs, &workers[2], 1, 4, now), "the next failure asks again");
        // One of those that are in died: of three, one may be out, and that is the younger one.
        workers[3].gate.close();
        outs.keep_floor(50, 3, now);
        assert!(!workers[1].is_out(now) && workers[2].is_out(now));
        assert!(!fail(&outs, &workers[3], 9, 3, now), "a death is no failure");
    }

    #[test]
    fn thousands_that_fail_are_counted_exactly_enough() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let (outs, workers) = (Outs::default(), standings(1000, begin));
        let put_out = |workers: &[Arc<Standing>], now: Instant| {
            workers.iter().for_each(|worker| _ = fail(&outs, worker, 3, 1000, now));
            workers.iter().filter(|worker| worker.is_out(now)).count()
        };
        assert_eq!(put_out(&workers[..600], at(0)), 500, "the floor holds");
        assert_eq!(outs.next_back(at(1)), Some(at(1000)));
        // They are back, which is seen at the latest after a pause.
        assert_eq!(put_out(&workers[500..], at(1000 + TIDY_PAUSE.as_millis() as u64)), 500);
        assert_eq!(outs.counted(at(1010)).0, 500);
        // Who was put out again is the last one to be brought back, whatever place it had before.
        let (old, again) = (&workers[700], &workers[500]);
        assert!(fail(&outs, again, 1, 1000, at(2010)));
        assert!(fail(&outs, old, 1, 1000, at(2011)));
        assert!(!outs.keep_floor(50, 1000, at(2100)));
        assert!(outs.keep_floor(50, 2, at(2200)));
        assert!(!again.is_out(at(2200)) && old.is_out(at(2200)));
        assert_eq!((outs.counted(at(2200)).0, outs.list.lock().unwrap().of.len()), (1, 1));
    }

    #[test]
    fn unhealthy_until_healthy() {
        let now = Instant::now();
        let later = now + Duration::from_secs(3600);
        let (outs, workers) = (Outs::default(), standings(2, now));
        assert!(outs.unhealthy(&workers[0], 50, 2, now));
        assert!(outs.unhealthy(&workers[0], 50, 2, now), "it stays out");
        assert!(!outs.unhealthy(&workers[1], 50, 2, now), "the floor is one for both reasons");
        assert!(!fail(&outs, &workers[1], 9, 2, now));
        assert!(workers[0].is_out(later) && workers[0].is_doubtful() && workers[0].back_at(now).is_none());
        assert!(outs.healthy(&workers[0]) && !outs.healthy(&workers[0]));
        assert!(!workers[0].is_out(now) && !workers[0].is_doubtful());
        assert!(outs.unhealthy(&workers[1], 50, 2, now));
    }

    #[test]
    fn off_by_zero() {
        let now = Instant::now();
        let (outs, workers) = (Outs::default(), standings(2, now));
        let policy = Ejection { failures: 0, ..POLICY };
        assert!((0..99).all(|_| !outs.failed(&workers[0], &policy, 2, now)));
    }
}
