//! What the streams of one HTTP/2 connection and the task that drives it share: who waits for the client since when, and
//! how many they are. From it and the socket's pulse follows when a connection has lasted too long.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use tokio::time::{Duration, Instant};

use super::guard::Pulse;
use crate::config::Limits;

/// After the last stream of a draining connection has ended, the client gets this long to close it. Most do at once; one that
/// is closed sooner may have been about to send a request.
const FAREWELL: Duration = Duration::from_secs(5);

/// A stream's wait for the client. It is over when it has lasted for the stall timeout; what the client did meanwhile, and
/// nobody has looked at yet, still counts.
#[derive(Default)]
pub(super) struct Wait {
    since: Cell<Option<Instant>>,
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Wait {
    /// The client is to do something.
    pub(super) fn begin(&self, cx: &Context<'_>) {
        if self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The client did something.
    pub(super) fn end(&self) {
        self.over.set(false);
        self.since.set(None);
    }

    /// Whether it has lasted too long.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    fn give_up(&self) {
        self.over.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What a connection and its streams share.
pub(super) struct Shared {
    pub(super) pulse: Pulse,
    waits: RefCell<Vec<Rc<Wait>>>,
    /// When the last stream ended, or the connection began.
    empty_since: Cell<Instant>,
    /// Streams may not be more than this; beyond, the connection's task is woken when one ends.
    streams_max: usize,
    waker: RefCell<Option<Waker>>,
}

impl Shared {
    pub(super) fn new(streams_max: usize) -> Rc<Self> {
        Rc::new(Self {
            pulse: Pulse::new(),
            waits: RefCell::default(),
            empty_since: Cell::new(Instant::now()),
            streams_max,
            waker: RefCell::default(),
        })
    }

    /// A stream begins.
    pub(super) fn enter(&self) -> Rc<Wait> {
        let wait = Rc::new(Wait::default());
        self.waits.borrow_mut().push(Rc::clone(&wait));
        wait
    }

    /// A stream has ended.
    pub(super) fn leave(&self, wait: &Rc<Wait>) {
        let mut waits = self.waits.borrow_mut();
        let full = waits.len() >= self.streams_max;
        if let Some(at) = waits.iter().position(|other| Rc::ptr_eq(other, wait)) {
            waits.swap_remove(at);
        }
        if waits.is_empty() {
            self.empty_since.set(Instant::now());
        }
        if (full || waits.is_empty())
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Whether another stream may begin.
    pub(super) fn has_room(&self) -> bool {
        self.waits.borrow().len() < self.streams_max
    }

    /// Remembers the connection's task.
    pub(super) fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if known.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Looks at all that has begun and not ended.
    pub(super) fn look(&self, limits: &Limits, now: Instant, is: Situation) -> Look {
        let pulse = &self.pulse;
        let overdue = |since: Option<Instant>, timeout| since.is_some_and(|since| now >= since + timeout);
        if overdue(pulse.block_since(), limits.head_timeout) {
            return Look::Over("the client does not end a header block");
        }
        if overdue(pulse.blocked_since(), limits.stall_timeout) {
            return Look::Over("the client reads nothing");
        }
        // What begins later cannot end earlier.
        let mut next = now + shortest(limits);
        if let Some(since) = pulse.block_since() {
            next = next.min(since + limits.head_timeout);
        }
        if let Some(since) = pulse.blocked_since() {
            next = next.min(since + limits.stall_timeout);
        }
        let waits = self.waits.borrow();
        if waits.is_empty() {
            let (end, why) = self.end_when_empty(limits, is);
            if now >= end {
                return Look::Over(why);
            }
            return Look::Again(next.min(end));
        }
        for wait in waits.iter() {
            match wait.since.get().map(|since| since + limits.stall_timeout) {
                Some(end) if now >= end => wait.give_up(),
                Some(end) => next = next.min(end),
                None => {}
            }
        }
        Look::Again(next)
    }

    /// When a connection without streams ends.
    fn end_when_empty(&self, limits: &Limits, is: Situation) -> (Instant, &'static str) {
        let empty_since = self.empty_since.get();
        if is.unsent {
            (empty_since.max(self.pulse.written_at()) + limits.stall_timeout, "the client opens no window")
        } else if let Some(since) = is.draining_since {
            (empty_since.max(since) + FAREWELL, "the gateway drains")
        } else {
            (empty_since + limits.idle_timeout, "the client has been idle")
        }
    }
}

/// No timeout of a connection is shorter.
pub(super) fn shortest(limits: &Limits) -> Duration {
    limits.head_timeout.min(limits.idle_timeout).min(limits.stall_timeout)
}

/// What the connection's task knows.
#[derive(Clone, Copy)]
pub(super) struct Situation {
    /// The connection has something left of streams that ended here.
    pub(super) unsent: bool,
    pub(super) draining_since: Option<Instant>,
}

/// What a look has shown.
pub(super) enum Look {
    /// Nothing; the next is due then.
    Again(Instant),
    /// The connection has lasted too long, and why.
    Over(&'static str),
}
