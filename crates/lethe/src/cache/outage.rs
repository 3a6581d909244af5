//! Whether the engine is asked at all: `Asking → Away` after [`FAILURES_MAX`] failures in a row; in `Away` one call in each
//! [`PROBE_EVERY`] still asks, and the first that is answered leads back to `Asking`.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// So many failures in a row mean that the engine is away, and not that one call was slow.
const FAILURES_MAX: u32 = 3;
/// How often one that is away is asked.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// The log speaks of an outage at most so often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What is known of the engine.
#[derive(Default)]
pub(super) struct Outage(Mutex<Health>);

#[derive(Default)]
struct Health {
    failures: u32,
    /// When the next call may ask, while it is away.
    probe_at: Option<Instant>,
    logged_at: Option<Instant>,
}

impl Outage {
    /// Whether this call may ask.
    pub(super) fn may_ask(&self) -> bool {
        let (mut health, now) = (self.health(), Instant::now());
        match health.probe_at {
            Some(probe_at) if now < probe_at => false,
            Some(_) => {
                health.probe_at = Some(now + PROBE_EVERY);
                true
            }
            None => true,
        }
    }

    /// The engine has answered.
    pub(super) fn answered(&self) {
        let mut health = self.health();
        if health.probe_at.take().is_some() {
            tracing::info!("caches are asked again");
        }
        health.failures = 0;
    }

    /// It has not.
    pub(super) fn failed(&self, why: &dyn fmt::Display) {
        let (mut health, now) = (self.health(), Instant::now());
        health.failures = health.failures.saturating_add(1);
        if health.failures >= FAILURES_MAX && health.probe_at.is_none() {
            health.probe_at = Some(now + PROBE_EVERY);
        }
        if health.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
            health.logged_at = Some(now);
            tracing::warn!(%why, "caches cannot be asked: values are computed without them");
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing that could panic half-way is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
