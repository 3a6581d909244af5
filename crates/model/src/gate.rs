//! The gate through which requests reach one worker. It counts who is inside, and once closed lets
//! nobody in, so that "no request is being sent to it, and none will be" is one atomic fact: the
//! gateway enters, the supervisor closes and waits until it is empty, and neither knows the other. In the end it
//! tells how the worker died, for the gateway to know whether a request may have been the cause.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

const CLOSED: u64 = 1 << 63;

/// How a worker's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// By itself: it exited, or a fault of its own raised a signal. What it was doing may have been the cause.
    Fell,
    /// From outside, by a signal that a fault of its own does not raise. What it was doing was not the cause.
    Killed,
}

/// Why a gate did not let a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is closed, for good.
    Closed,
    /// As many are inside as may be.
    Full,
}

/// The gate of one worker. States: open → closed (for good).
#[derive(Debug, Default)]
pub struct Gate {
    /// Requests inside, with [`CLOSED`] as the top bit.
    state: AtomicU64,
    answered: AtomicU64,
    emptied: Notify,
    fate: OnceLock<Fate>,
    decided: Notify,
}

impl Gate {
    /// An open gate with nobody inside.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Enters for one request; `None` when the gate is closed. The request is inside until the
    /// [`Pass`] is dropped.
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        self.admit(None).ok().map(|()| Pass { gate: Arc::clone(self) })
    }

    /// Enters for one request if fewer than `limit` are inside, counting those of everybody. Each success is to be
    /// followed by exactly one [`leave`](Self::leave): for who has a guard of their own, and so needs no [`Pass`].
    pub fn admit(&self, limit: Option<u32>) -> Result<(), Refusal> {
        let Some(limit) = limit else {
            // Optimistic: the closed case is rare and undoes its step.
            if self.state.fetch_add(1, Ordering::SeqCst) & CLOSED == 0 {
                return Ok(());
            }
            self.leave();
            return Err(Refusal::Closed);
        };
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            if state & CLOSED != 0 {
                return Err(Refusal::Closed);
            }
            if state >= u64::from(limit) {
                return Err(Refusal::Full);
            }
            match self.state.compare_exchange_weak(state, state + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => state = now,
            }
        }
    }

    /// Leaves after an [`admit`](Self::admit). The order of this and whatever the caller looks at afterwards is the
    /// same to all threads, so that "I left, and nobody waited" and "I waited, and nobody left" are never both true.
    pub fn leave(&self) {
        if self.state.fetch_sub(1, Ordering::SeqCst) == CLOSED | 1 {
            self.emptied.notify_waiters();
        }
    }

    /// Closes the gate for good. Those inside stay until they are done.
    pub fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::SeqCst);
        self.emptied.notify_waiters();
    }

    /// Closes the gate for good if nobody is inside; returns whether it is closed now. Who comes at the same time is either
    /// inside, and it stays open, or is not let in.
    pub fn close_if_empty(&self) -> bool {
        let closed = self.state.compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::Acquire);
        if closed.is_ok() {
            self.emptied.notify_waiters();
        }
        closed.map_or_else(|state| state & CLOSED != 0, |_| true)
    }

    /// Whether the gate is closed.
    pub fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Requests inside now.
    pub fn in_flight(&self) -> u64 {
        self.state.load(Ordering::Acquire) & !CLOSED
    }

    /// Requests that the worker answered with a response head, since it started.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Notes that the worker answered a request with a response head.
    pub fn note_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the gate is closed and nobody is inside. Cancellation safe.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Registered before the look, so that the last one out cannot slip between the two.
            emptied.as_mut().enable();
            if self.state.load(Ordering::Acquire) == CLOSED {
                return;
            }
            emptied.await;
        }
    }
}

impl Gate {
    /// Notes how the worker's process ended; only the first note counts.
    pub fn ended(&self, fate: Fate) {
        let _ = self.fate.set(fate);
        self.decided.notify_waiters();
    }

    /// Waits until it is known how the worker's process ended. Cancellation safe.
    pub async fn fate(&self) -> Fate {
        loop {
            let decided = self.decided.notified();
            tokio::pin!(decided);
            decided.as_mut().enable();
            if let Some(fate) = self.fate.get() {
                return *fate;
            }
            decided.await;
        }
    }
}

/// One request's stay inside a [`Gate`]; ends when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
}

impl Pass {
    /// Notes that the worker answered this request with a response head.
    pub fn answered(&self) {
        self.gate.note_answer();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closes_and_empties() {
        let gate = Gate::new();
        let first = gate.enter().unwrap();
        let second = gate.enter().unwrap();
        second.answered();
        assert_eq!((gate.in_flight(), gate.answered()), (2, 1));
        gate.close();
        assert!(gate.enter().is_none());
        assert_eq!(gate.in_flight(), 2);
        let waiter = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.emptied().await }
        });
        drop(first);
        drop(second);
        waiter.await.unwrap();
        gate.emptied().await;
        assert_eq!(gate.in_flight(), 0);
    }

    #[tokio::test]
    async fn tells_how_it_ended() {
        let gate = Gate::new();
        let waiter = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.fate().await }
        });
        gate.ended(Fate::Killed);
        gate.ended(Fate::Fell);
        assert_eq!(waiter.await.unwrap(), Fate::Killed);
    }

    #[test]
    fn a_limit_counts_everybody_inside() {
        let gate = Gate::new();
        let pass = gate.enter().unwrap();
        assert_eq!(gate.admit(Some(2)), Ok(()));
        assert_eq!(gate.admit(Some(2)), Err(Refusal::Full));
        assert_eq!(gate.admit(Some(1)), Err(Refusal::Full), "a limit that was lowered below what is inside");
        drop(pass);
        assert_eq!(gate.admit(Some(2)), Ok(()));
        gate.close();
        assert_eq!(gate.admit(Some(9)), Err(Refusal::Closed));
        assert_eq!(gate.admit(None), Err(Refusal::Closed));
        assert_eq!(gate.in_flight(), 2, "a refusal leaves no trace");
    }

    #[test]
    fn a_limit_holds_among_threads() {
        const LIMIT: u32 = 3;
        let (gate, most) = (Gate::new(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        if gate.admit(Some(LIMIT)).is_ok() {
                            most.fetch_max(gate.in_flight(), Ordering::Relaxed);
                            gate.leave();
                        }
                    }
                });
            }
        });
        assert_eq!(gate.in_flight(), 0);
        assert!((1..=u64::from(LIMIT)).contains(&most.into_inner()));
    }

    #[test]
    fn it_closes_empty_or_stays_open() {
        let gate = Gate::new();
        let pass = gate.enter().unwrap();
        assert!(!gate.close_if_empty() && gate.enter().is_some());
        drop(pass);
        assert!(gate.close_if_empty() && gate.enter().is_none());
        assert!(gate.close_if_empty(), "it is closed already");
        // One enters while another closes: one of the two succeeds, and never both.
        for _ in 0..500 {
            let gate = Gate::new();
            let (entered, closed) = std::thread::scope(|scope| {
                let entering = scope.spawn(|| gate.enter());
                let closed = gate.close_if_empty();
                (entering.join().unwrap(), closed)
            });
            assert_ne!(entered.is_some(), closed);
        }
    }

    #[test]
    fn nobody_enters_after_it_was_seen_empty() {
        // Many threads enter and leave while one closes: once closed and empty, it stays empty.
        for _ in 0..200 {
            let gate = Gate::new();
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| while gate.enter().is_some() {});
                }
                gate.close();
            });
            assert_eq!(gate.in_flight(), 0);
            assert!(gate.is_closed());
        }
    }
}
