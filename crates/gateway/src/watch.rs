//! What each client's task is doing now and since when, so that one tick of the core can enforce every timeout without
//! a timer for each request.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use crate::config::Limits;

/// How long a client that was answered is still listened to. Closing at once would reset the connection, and the client
/// might never see the answer.
const LINGER_FOR: Duration = Duration::from_secs(5);

/// What a task is doing for a client. Head → Choosing → (Uploading →) Waiting → Answering → Idle → Head …, with a way
/// back from Waiting to Choosing when a worker was lost, and from Waiting to Tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A head is being received.
    Head,
    /// A worker is chosen, waited for and connected to, each with a timeout of its own.
    Choosing,
    /// A request body is being received and passed on.
    Uploading,
    /// The request is sent; the worker has the time of the route.
    Waiting,
    /// The response is being sent.
    Answering,
    /// Between requests.
    Idle,
    /// Upgraded: bytes are passed both ways.
    Tunnel,
    /// All is said; what the client still sends is read and thrown away, so that it gets to read the answer.
    Lingering,
    /// An HTTP/2 connection with open streams, each of which is watched by itself.
    Busy,
    /// An HTTP/2 connection without any, which it watches itself.
    Quiet,
}

/// What the tick must do to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// The client was too slow, and nobody waits for an answer.
    Close,
    /// The worker or the client's request was too slow, which is to be answered.
    Answer,
}

/// Whether it is worth something to a task to hear at once when its client leaves. Unasked → Asked → Worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Unasked,
    /// The task would hear of it, had it lasted for longer.
    Asked,
    /// It has.
    Worth,
}

/// The state of one such task, a connection's or an HTTP/2 stream's, shared with the core's tick.
pub(crate) struct Watched {
    /// Set once the time of the request in hand is over; it is to be answered now.
    pub(crate) late: Cell<bool>,
    /// The gateway is stopping: the next response is the last one.
    pub(crate) draining: Cell<bool>,
    /// All the same an idle client is not closed yet: its next request may be on its way.
    pub(crate) lingers: Cell<bool>,
    /// The client owes the next piece of its request body.
    pub(crate) owes: Cell<bool>,
    phase: Cell<Phase>,
    /// Since when, as the tick saw it first: requests do not ask the clock.
    since: Cell<Option<Instant>>,
    /// The time of the route of the request in hand.
    timeout: Cell<Duration>,
    /// How long its response may stand still.
    stall: Cell<Duration>,
    /// The client does not take what is written to it.
    blocked: Cell<bool>,
    leave: Cell<Leave>,
    waker: RefCell<Option<Waker>>,
}

impl Watched {
    pub(crate) fn new(phase: Phase) -> Rc<Self> {
        Rc::new(Self {
            late: Cell::new(false),
            draining: Cell::new(false),
            lingers: Cell::new(false),
            owes: Cell::new(false),
            phase: Cell::new(phase),
            since: Cell::new(None),
            timeout: Cell::new(Duration::MAX),
            stall: Cell::new(Duration::MAX),
            blocked: Cell::new(false),
            leave: Cell::new(Leave::Unasked),
            waker: RefCell::new(None),
        })
    }

    /// Whether the connection ends as soon as it is idle.
    pub(crate) fn ends_idle(&self) -> bool {
        self.draining.get() && !self.lingers.get()
    }

    /// Enters a phase, or begins the one it is in anew.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(None);
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Since when a tick has seen it idle; `None` for one that is not, or is to leave already.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let is_idle = matches!(self.phase.get(), Phase::Idle | Phase::Quiet);
        self.since.get().filter(|_| is_idle && !self.draining.get())
    }

    /// An attempt begins: from the last byte of the request on, the worker will have `timeout`.
    pub(crate) fn expect(&self, timeout: Duration) {
        self.timeout.set(timeout);
        self.late.set(false);
        self.owes.set(false);
    }

    /// The response goes to the client, and may stand still for `stall` at a time.
    pub(crate) fn answer(&self, stall: Duration) {
        self.stall.set(stall);
        self.late.set(false);
        self.enter(Phase::Answering);
    }

    /// More of the response came, or it is not the worker who is waited for.
    pub(crate) fn moved(&self) {
        self.late.set(false);
        if !self.blocked.get() {
            self.since.set(None);
        }
    }

    /// Remembers how to wake the connection's task; a task's waker never changes.
    pub(crate) fn remember(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if slot.is_none() {
            *slot = Some(waker.clone());
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether no tick has met the task where it had to ask this: what it does is mostly done before it would pay to have
    /// the kernel tell when the client leaves. Otherwise the tick wakes it.
    pub(crate) fn is_brief(&self) -> bool {
        if self.leave.get() == Leave::Unasked {
            self.leave.set(Leave::Asked);
        }
        self.leave.get() != Leave::Worth
    }

    /// The tick meets the task.
    pub(crate) fn lasts(&self) {
        if self.leave.get() == Leave::Asked {
            self.leave.set(Leave::Worth);
            self.wake();
        }
    }

    /// What the tick at `now` must do, if anything. Each phase is timed from the first tick that sees it.
    pub(crate) fn overdue(&self, now: Instant, limits: &Limits) -> Option<Overdue> {
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        let age = now.saturating_duration_since(since);
        let (limit, overdue) = match self.phase.get() {
            Phase::Head => (limits.head_timeout, Overdue::Close),
            Phase::Idle => (limits.idle_timeout, Overdue::Close),
            Phase::Answering if self.blocked.get() => (limits.stall_timeout, Overdue::Close),
            Phase::Uploading | Phase::Waiting | Phase::Answering if self.late.get() => return None,
            Phase::Uploading => (limits.stall_timeout, Overdue::Answer),
            Phase::Waiting => (self.timeout.get(), Overdue::Answer),
            Phase::Answering => (self.stall.get(), Overdue::Answer),
            Phase::Tunnel => (limits.tunnel_timeout, Overdue::Close),
            Phase::Lingering => (LINGER_FOR, Overdue::Close),
            Phase::Choosing | Phase::Busy | Phase::Quiet => return None,
        };
        (age > limit).then_some(overdue)
    }

    /// The first bytes of a head came.
    pub(crate) fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// A write came to an end, with or without success.
    pub(crate) fn wrote(&self, pending: bool) {
        if pending != self.blocked.replace(pending)
            && matches!(self.phase.get(), Phase::Answering | Phase::Idle)
        {
            self.since.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;

    #[test]
    fn each_phase_has_its_limit() {
        let limits = Limits {
            head_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            tunnel_timeout: Duration::from_secs(20),
            ..Limits::default()
        };
        let start = Instant::now();
        let client = Watched::new(Phase::Head);
        client.expect(Duration::from_secs(3));
        // What is said after so many seconds in a phase, by a tick that has seen its begin.
        let after = |seconds| {
            client.since.set(Some(start));
            client.overdue(start + Duration::from_secs(seconds), &limits)
        };
        assert_eq!((after(1), after(2)), (None, Some(Overdue::Close)));
        client.enter(Phase::Waiting);
        assert_eq!((after(3), after(4)), (None, Some(Overdue::Answer)));
        client.enter(Phase::Uploading);
        assert_eq!((after(10), after(11)), (None, Some(Overdue::Answer)));
        client.late.set(true);
        assert_eq!(after(11), None, "said once");
        client.answer(Duration::MAX);
        assert_eq!(after(99), None, "a quiet stream may last");
        client.answer(Duration::from_secs(5));
        assert_eq!((after(5), after(6)), (None, Some(Overdue::Answer)), "others may not");
        client.late.set(true);
        assert_eq!(after(6), None, "said once");
        client.moved();
        assert_eq!(client.overdue(start + Duration::from_secs(99), &limits), None, "it begins anew");
        client.blocked.set(true);
        assert_eq!(after(11), Some(Overdue::Close), "a client that takes nothing");
        client.enter(Phase::Idle);
        assert_eq!((after(10), after(11)), (None, Some(Overdue::Close)));
        client.enter(Phase::Tunnel);
        assert_eq!((after(20), after(21)), (None, Some(Overdue::Close)));
        client.enter(Phase::Busy);
        assert_eq!(after(99), None);
        client.enter(Phase::Quiet);
        assert_eq!(after(99), None);
    }

    #[test]
    fn a_phase_is_timed_from_the_first_tick_that_sees_it() {
        let limits = Limits { head_timeout: Duration::from_secs(1), ..Limits::default() };
        let (client, start) = (Watched::new(Phase::Head), Instant::now());
        let second = |n| start + Duration::from_secs(n);
        assert_eq!(client.overdue(second(5), &limits), None);
        assert_eq!(client.overdue(second(6), &limits), None);
        assert_eq!(client.overdue(second(7), &limits), Some(Overdue::Close));
    }

    #[test]
    fn who_lasts_is_told_once_by_the_tick() {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Relaxed);
            }
        }
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let woken = || flag.0.swap(false, Relaxed);
        let watched = Watched::new(Phase::Waiting);
        watched.remember(&Arc::clone(&flag).into());
        watched.lasts();
        assert!(!woken(), "it did not ask");
        assert!(watched.is_brief());
        watched.lasts();
        assert!(woken());
        assert!(!watched.is_brief());
        watched.lasts();
        assert!(!woken());
    }
}
