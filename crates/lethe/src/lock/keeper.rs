//! The task that renews a lease until it is let go or lost.
//!
//! It goes `Held → Held` with each renewal, `Held → Lost` when somebody else has the lock or no renewal came through in
//! time, and ends with a release unless it was lost.

use std::{sync::Arc, time::Duration};

use lethe_state::{
    error::Error as StateError,
    locks::{Locks, Token},
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

/// A lease is renewed after this part of it, so that two renewals may fail before it ends.
const RENEWALS_A_LEASE: u32 = 3;
/// After a renewal that failed, the next one comes after this part of the lease.
const TRIES_A_LEASE: u32 = 12;

/// Holds the task's ends. Dropped, the task lets the lock go and ends.
#[derive(Debug)]
pub(super) struct Keeper {
    state: watch::Receiver<State>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<bool, StateError>>,
}

/// What this process knows of its lease.
#[derive(Clone, Copy, Debug)]
enum State {
    /// It lasts at least until then.
    HeldUntil(Instant),
    Lost,
}

impl Keeper {
    /// Keeps the lease that was asked for at `asked`, and lasts `length`.
    pub(super) fn start(
        locks: Arc<dyn Locks>,
        name: String,
        token: Token,
        asked: Instant,
        length: Duration,
    ) -> Self {
        let (said, state) = watch::channel(State::HeldUntil(asked + length));
        let (stop, stopped) = oneshot::channel();
        let lease = Kept { locks, name, token, length };
        let task = tokio::spawn(lease.keep(asked + length, said, stopped));
        Self { state, stop, task }
    }

    pub(super) fn is_held(&self) -> bool {
        // The task may not have run since the process was stopped.
        matches!(*self.state.borrow(), State::HeldUntil(end) if Instant::now() < end)
    }

    pub(super) async fn lost(&self) {
        let mut state = self.state.clone();
        // It fails when the task is gone, with the runtime: nobody renews the lease then.
        let _ = state.wait_for(|state| matches!(state, State::Lost)).await;
    }

    pub(super) async fn release(self) -> Result<bool, StateError> {
        drop(self.stop);
        self.task.await.unwrap_or_else(|_| Err(super::interrupted()))
    }
}

/// A lease that is kept.
struct Kept {
    locks: Arc<dyn Locks>,
    name: String,
    token: Token,
    length: Duration,
}

impl Kept {
    /// Renews until it is stopped or lost. Returns whether the lock was let go by this.
    async fn keep(
        self,
        mut end: Instant,
        said: watch::Sender<State>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<bool, StateError> {
        let mut next = end - self.length + self.length / RENEWALS_A_LEASE;
        loop {
            let renewed = async {
                sleep_until(next.min(end)).await;
                let asked = Instant::now();
                (asked, timeout_at(end, self.locks.renew(&self.name, self.token, self.length)).await)
            };
            let (asked, renewed) = tokio::select! {
                biased;
                _ = &mut stopped => return self.locks.release(&self.name, self.token).await,
                renewed = renewed => renewed,
            };
            match renewed {
                Ok(Ok(Some(_))) => {
                    end = asked + self.length;
                    next = asked + self.length / RENEWALS_A_LEASE;
                    said.send_replace(State::HeldUntil(end));
                    continue;
                }
                // Whoever was stopped for longer than the lease hears it from the engine.
                Ok(Ok(None)) => {}
                Ok(Err(error)) if Instant::now() < end => {
                    tracing::warn!(lock = self.name, %error, "a lock could not be renewed; it is tried again");
                    next = Instant::now() + self.length / TRIES_A_LEASE;
                    continue;
                }
                Ok(Err(_)) | Err(_) => {}
            }
            tracing::warn!(lock = self.name, token = self.token, "a lock was lost");
            said.send_replace(State::Lost);
            return Ok(false);
        }
    }
}
