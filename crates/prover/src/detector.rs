//! What is looked for beside the schedules, each in a file of its own.

mod configuration;
mod drain;
mod effect;
mod fan_out;
mod idle;
mod job;
pub(crate) mod limit;
mod midnight;
mod migration;
mod retry;
mod slow_start;
mod users;

use lethe_journey::journey::Journey;

use crate::{
    finding::Finding,
    proof::{Coverage, Progress},
    stage::Stage,
    trial::{Found, Trial},
    worker::Error,
};

impl Trial<'_> {
    /// Looks for all that a journey can show, and adds what is found.
    pub(crate) fn detect(&mut self, found: &mut Found, workers: usize) -> Result<(), Error> {
        self.slow_starts(found)?;
        self.drains(found)?;
        self.retries(found)?;
        self.fan_outs(found)?;
        self.migrations(found, workers)?;
        self.users(found)
    }
}

/// Looks for what needs no journey, once; `journey` is only for the report.
pub(crate) fn look_once(
    stage: &Stage,
    journey: &Journey,
    coverage: &mut Coverage,
    progress: &dyn Fn(Progress<'_>),
) -> Result<Vec<Finding>, Error> {
    coverage.notices.extend(drain::dismissal(stage, progress)?);
    let Some(window) = stage.idle() else {
        coverage.notices.push(idle::NOT_WAITED.into());
        return Ok(Vec::new());
    };
    let mut idle = idle::look(stage, journey, window, progress)?;
    coverage
        .not_looked_at
        .push(format!("schedules that fire less often than each {} s and not at midnight", window.as_secs()));
    coverage.schedules.append(&mut idle.rows);
    if !stage.may_come_to_midnight() {
        coverage.notices.push(midnight::NOT_ALLOWED.into());
        return Ok(idle.finding.into_iter().collect());
    }
    let mut midnight = midnight::look(stage, journey, &idle.seen, progress);
    coverage.schedules.append(&mut midnight.rows);
    coverage.notices.append(&mut midnight.notices);
    Ok(idle.finding.into_iter().chain(midnight.finding).collect())
}
