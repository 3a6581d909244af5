//! A circuit breaker: after some failures in a row an engine is left alone for a while, so that callers learn at once that
//! it is away instead of each waiting for it, and it is not beset while it comes back.
//!
//! Closed => Open after [`FAILURES_MAX`] failures in a row; Open => Probing when its rest is over and a call comes; Probing
//! => Closed when that call succeeds, => Open when it fails, and free for the next call when nothing is heard of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    clock::jittered,
    figures::{self, BreakerState},
};

/// Failures in a row that open it.
pub(crate) const FAILURES_MAX: u32 = 5;
/// How long it stays open: between half of this and all of it, so that many workers do not come back at once.
pub(crate) const REST: Duration = Duration::from_secs(1);

/// Decides whether an engine is asked at all. Time is tokio's.
pub(crate) struct Breaker {
    /// Which engine it is of, for the log.
    engine: String,
    state: Mutex<State>,
    /// How often it went from closed to open.
    opened: AtomicU64,
}

enum State {
    Closed { failures: u32 },
    Open { until: Instant, why: Arc<str> },
    Probing { why: Arc<str> },
}

/// The engine is not asked now. Says why it was given up, in the words of the last failure, and when it is asked again.
#[derive(Clone, Debug)]
pub(crate) struct Resting {
    why: Arc<str>,
    left: Duration,
}

impl fmt::Display for Resting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; it is tried again in {} ms", self.why, self.left.as_millis().max(1))
    }
}

/// The right to make one call. Dropped without a word, as when the caller has gone, it counts as neither.
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    /// A closed one. `engine` names the engine in the log, which says when it goes away and when it is back.
    pub(crate) fn new(engine: impl Into<String>) -> Self {
        let state = Mutex::new(State::Closed { failures: 0 });
        Self { engine: engine.into(), state, opened: AtomicU64::new(0) }
    }

    /// Asks whether a call may be made; else says why not, and after how long to ask again.
    pub(crate) fn enter(&self) -> Result<Pass<'_>, Resting> {
        let mut state = self.state();
        let is_probe = match &*state {
            State::Closed { .. } => false,
            State::Open { until, why } => {
                let (left, why) = (until.saturating_duration_since(Instant::now()), Arc::clone(why));
                if !left.is_zero() {
                    return Err(Resting { why, left });
                }
                *state = State::Probing { why };
                true
            }
            // The probe ends soon: its own timeout sees to that.
            State::Probing { why } => return Err(Resting { why: Arc::clone(why), left: REST }),
        };
        Ok(Pass { breaker: self, is_probe })
    }

    /// How it is, for who watches.
    pub(crate) fn figures(&self, engine: &'static str, server: &str) -> figures::Breaker {
        let state = match &*self.state() {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } => BreakerState::Probing,
        };
        let opened_total = self.opened.load(Ordering::Relaxed);
        figures::Breaker { engine, server: server.to_owned(), state, opened_total }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The engine has answered, whatever it said.
    pub(crate) fn succeeded(mut self) {
        if std::mem::take(&mut self.is_probe) {
            tracing::info!("{} answers again", self.breaker.engine);
        }
        *self.breaker.state() = State::Closed { failures: 0 };
    }

    /// The engine did not answer. `why` is for whoever is told so while it rests, and shows no secret.
    pub(crate) fn failed(mut self, why: &str) {
        let was_probe = std::mem::take(&mut self.is_probe);
        let mut state = self.breaker.state();
        match &mut *state {
            State::Closed { failures } if !was_probe && *failures + 1 < FAILURES_MAX => *failures += 1,
            // A call from before it opened says nothing new.
            State::Open { .. } | State::Probing { .. } if !was_probe => {}
            found => {
                if matches!(found, State::Closed { .. }) {
                    self.breaker.opened.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        "{} does not answer ({why}); state that is kept there cannot be read or written until it does",
                        self.breaker.engine
                    );
                }
                *found = State::Open { until: Instant::now() + jittered(REST), why: why.into() };
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        if self.is_probe
            && let State::Probing { why } = &*state
        {
            *state = State::Open { until: Instant::now(), why: Arc::clone(why) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.enter().expect("a closed breaker").failed("it hung up");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_a_probe_closes_it() {
        let breaker = Breaker::new("an engine");
        fail(&breaker, FAILURES_MAX - 1);
        breaker.enter().unwrap().succeeded();
        fail(&breaker, FAILURES_MAX);
        let resting = breaker.enter().err().expect("an open breaker");
        let told = breaker.figures("paper", "desk");
        assert_eq!((told.state, told.opened_total), (BreakerState::Open, 1));
        assert!(resting.left <= REST && resting.left >= REST / 2, "{resting:?}");
        assert!(resting.to_string().starts_with("it hung up; it is tried again in "), "{resting}");
        tokio::time::advance(REST).await;
        let probe = breaker.enter().expect("a probe after the rest");
        assert!(breaker.enter().is_err(), "one probe at a time");
        assert_eq!(breaker.figures("paper", "desk").state, BreakerState::Probing);
        probe.failed("it is still away");
        let resting = breaker.enter().err().expect("a failed probe opens it again");
        assert!(resting.to_string().starts_with("it is still away"), "{resting}");
        tokio::time::advance(REST).await;
        breaker.enter().unwrap().succeeded();
        fail(&breaker, FAILURES_MAX - 1);
        assert!(breaker.enter().is_ok(), "failures are counted anew");
        let told = breaker.figures("paper", "desk");
        assert_eq!((told.state, told.opened_total), (BreakerState::Closed, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_is_left_to_the_next() {
        let breaker = Breaker::new("an engine");
        let late = breaker.enter().unwrap();
        fail(&breaker, FAILURES_MAX);
        tokio::time::advance(REST).await;
        drop(breaker.enter().unwrap());
        let probe = breaker.enter().expect("the next is a probe at once");
        late.failed("it hung up");
        probe.succeeded();
        assert!(breaker.enter().is_ok());
    }
}
