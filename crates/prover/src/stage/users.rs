//! Plays a journey by several users, one after the other, each at one worker.

use std::sync::Arc;

use lethe_journey::{journey::Journey, observed::Observed};

use super::{Cast, Stage};
use crate::worker::Error;

impl Stage {
    /// What one user after the other was given, the first at the worker that `at` has first, and so on; workers are numbered from 0, and
    /// nobody has used them before. A user ends at the first step that is lost or not as the journey expects.
    pub(crate) fn play_users(
        &self,
        journey: &Arc<Journey>,
        at: &[usize],
    ) -> Result<Vec<Vec<Observed>>, Error> {
        self.empty_what_is_beside()?;
        let mut cast = Cast { stage: self, entropy: None, workers: Vec::new() };
        for _ in 0..at.iter().max().map_or(0, |last| last + 1) {
            let worker = cast.fresh()?;
            cast.workers.push(worker);
        }
        let play = |&at: &usize| {
            let mut player = self.player(journey)?;
            let mut given = Vec::new();
            for step in 1..=journey.steps.len() {
                match self.runtime.block_on(player.step(step, &cast.workers[at].destination)) {
                    Ok(observed) if observed.is_met() => given.push(observed),
                    _ => break,
                }
            }
            Ok(given)
        };
        at.iter().map(play).collect()
    }
}
