//! Plays a journey at a worker for which a file of the service is empty, from the start or only afterwards.

use std::{path::Path, sync::Arc};

use lethe_journey::journey::Journey;

use super::{Cast, Ends, Run, Stage, actor, outcome};
use crate::worker::{Error, Worker};

/// When a file is emptied, in the worker's world alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emptied {
    /// Before the program is started.
    BeforeStart,
    /// When it has started.
    AfterStart,
}

impl Stage {
    /// Plays the journey at one fresh worker, until `ends` says so.
    ///
    /// # Errors
    /// When the worker does not start, which may be for want of the file, or the file cannot be emptied.
    pub(crate) fn play_emptied(
        &self,
        journey: &Arc<Journey>,
        file: &Path,
        when: Emptied,
        ends: Ends<'_>,
    ) -> Result<Run, Error> {
        self.empty_what_is_beside()?;
        let worker = self.without(file, when)?;
        let cast = Cast { stage: self, entropy: None, workers: vec![actor(worker)] };
        let mut player = self.player(journey)?;
        let mut run = Run::default();
        for step in 1..=journey.steps.len() {
            let outcome = outcome(self.runtime.block_on(player.step(step, &cast.workers[0].destination)));
            let has_ended = ends(step, &outcome);
            run.outcomes.push(outcome);
            if has_ended {
                break;
            }
        }
        Ok(run)
    }

    fn without(&self, file: &Path, when: Emptied) -> Result<Worker, Error> {
        if when == Emptied::BeforeStart {
            return self.pool.without(file);
        }
        let worker = self.pool.fresh()?;
        worker.empty(file)?;
        Ok(worker)
    }
}
