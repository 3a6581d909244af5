//! The task that keeps a pool as it is to be: closes connections that are old or not needed, and makes those of the
//! minimum, so that a call seldom has to wait for one to be made.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Entry, NoConnection, Shared, lock, say_farewell};
use crate::clock::jittered;

/// How often it looks after the pool.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it waits when the server is away, at most.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// Starts the task, which ends with the pool.
pub(super) fn start(shared: &Arc<Shared>) {
    tokio::spawn(keep(Arc::downgrade(shared)));
}

async fn keep(pool: Weak<Shared>) {
    let mut pause = Duration::ZERO;
    loop {
        let Some(shared) = pool.upgrade().filter(|shared| !shared.closed.load(Ordering::SeqCst)) else {
            return;
        };
        for entry in shared.take_unneeded() {
            say_farewell(entry).await;
        }
        pause = match shared.fill_up().await {
            Ok(()) => LOOK_EVERY,
            // Callers report what is wrong; this only tries again, ever less often.
            Err(_) => (pause * 2).clamp(LOOK_EVERY, AWAY_MAX),
        };
        drop(shared);
        sleep(jittered(pause)).await;
    }
}

impl Shared {
    /// Takes out the connections that have lived long enough, and those that nobody has used for long beyond the minimum.
    fn take_unneeded(&self) -> Vec<Entry> {
        let now = Instant::now();
        let mut idle = lock(&self.idle);
        // Those that rest longest are first.
        let spare = self.size.load(Ordering::Relaxed).saturating_sub(self.config.min as usize);
        let (mut unneeded, mut kept, mut tired) = (Vec::new(), Vec::with_capacity(idle.len()), 0);
        for entry in idle.drain(..) {
            let is_tired = now.saturating_duration_since(entry.rests_since) >= self.config.idle_timeout;
            if now >= entry.ends_at {
                unneeded.push(entry);
            } else if is_tired && tired < spare {
                tired += 1;
                unneeded.push(entry);
            } else {
                kept.push(entry);
            }
        }
        *idle = kept;
        unneeded
    }

    /// Makes the connections that are missing to the minimum. Those that callers wait for go first.
    async fn fill_up(self: &Arc<Self>) -> Result<(), NoConnection> {
        while self.size.load(Ordering::Relaxed) < self.config.min as usize {
            let Ok(_permit) = self.permits.clone().try_acquire_owned() else { return Ok(()) };
            let entry = self.connect().await?;
            if self.closed.load(Ordering::SeqCst) {
                say_farewell(entry).await;
                return Err(NoConnection::Closed);
            }
            self.keep(entry);
        }
        Ok(())
    }
}
