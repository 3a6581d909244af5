//! Asks the engine, but never for long: `Asking → Away` after [`FAILURES_MAX`] failures in a row; in `Away` one request in
//! each [`PROBE_EVERY`] still asks, and the first that is answered leads back to `Asking`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lethe_state::limits::{Limits, Take, Verdict};
use tokio::time::{Instant, timeout};

use super::Outage;
use crate::session;

/// So many failures in a row mean that the engine is away, and not that one call was slow.
const FAILURES_MAX: u32 = 3;
/// How often one that is away is asked.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// The log speaks of an outage at most so often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The way to the engine, shared by all requests of a layer.
pub(super) struct Gate {
    settings: Settings,
    health: Mutex<Health>,
}

#[derive(Clone)]
pub(super) struct Settings {
    engine: Arc<dyn Limits>,
    pub(super) timeout: Duration,
    pub(super) outage: Outage,
}

#[derive(Default)]
struct Health {
    failures: u32,
    /// When the next request may ask, while it is away.
    probe_at: Option<Instant>,
    logged_at: Option<Instant>,
    /// Requests that were not counted, or refused, since the log spoke of it.
    unlogged: u64,
}

/// The engine cannot be asked.
#[derive(Debug)]
pub(super) struct Away;

impl Gate {
    pub(super) fn new(engine: Arc<dyn Limits>, timeout: Duration, outage: Outage) -> Self {
        Self { settings: Settings { engine, timeout, outage }, health: Mutex::default() }
    }

    /// Another one, with other settings.
    pub(super) fn with(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Self { settings, health: Mutex::default() }
    }

    pub(super) fn outage(&self) -> Outage {
        self.settings.outage
    }

    /// Finds out what is to be asked, and asks; both together within the timeout.
    pub(super) async fn ask<T>(
        &self,
        takes: impl Future<Output = Result<(Vec<Take>, T), session::Error>>,
    ) -> Result<(Vec<Verdict>, T), Away> {
        if !self.may_ask() {
            return Err(self.failed("it has failed several times and is asked again soon"));
        }
        let asked = timeout(self.settings.timeout, async {
            let (mut takes, rest) = takes.await.map_err(|error| crate::problem::chain(&error))?;
            let engine = &self.settings.engine;
            let verdicts = match takes.pop() {
                None => Ok(Vec::new()),
                // An engine with a stock serves single calls alone from it.
                Some(take) if takes.is_empty() => engine
                    .take(&take.limit, &take.key, take.quota, take.cost)
                    .await
                    .map(|verdict| vec![verdict]),
                Some(last) => {
                    takes.push(last);
                    engine.take_all(takes).await
                }
            };
            Ok::<_, String>((verdicts.map_err(|error| crate::problem::chain(&error))?, rest))
        });
        match asked.await {
            Ok(Ok(answer)) => {
                self.answered();
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(self.failed("it did not answer in time")),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing that could panic half-way is done under the lock.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_ask(&self) -> bool {
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

    fn answered(&self) {
        let mut health = self.health();
        if health.probe_at.take().is_some() {
            tracing::info!("the limits are counted again");
        }
        health.failures = 0;
    }

    fn failed(&self, why: &str) -> Away {
        let (mut health, now) = (self.health(), Instant::now());
        health.failures = health.failures.saturating_add(1);
        health.unlogged += 1;
        if health.failures >= FAILURES_MAX && health.probe_at.is_none() {
            health.probe_at = Some(now + PROBE_EVERY);
        }
        if health.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
            let requests = std::mem::take(&mut health.unlogged);
            health.logged_at = Some(now);
            match self.settings.outage {
                Outage::Allow => {
                    tracing::warn!(requests, why, "limits cannot be asked: requests pass uncounted")
                }
                Outage::Refuse => {
                    tracing::error!(requests, why, "limits cannot be asked: requests are refused")
                }
            }
        }
        Away
    }
}
