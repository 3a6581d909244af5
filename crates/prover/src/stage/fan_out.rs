//! One step at one worker, and its user listening at all of them, each time as in another tab.

use std::{sync::Arc, time::Duration};

use lethe_journey::{journey::Journey, player::Player};
use tokio::time::Instant;

use super::{Actor, Cast, Ends, Outcome, Stage, told};
use crate::worker::Error;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Whether it arrived at each worker.
    At(Vec<bool>),
    /// The step cannot be looked at so, and why.
    Unclear(String),
}

/// How one is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    /// Workers.
    pub(crate) workers: usize,
    /// The one that all steps are sent to, from 0.
    pub(crate) sender: usize,
    /// Between the last tab that is opened and the step: a worker may need a moment to subscribe for a new listener.
    pub(crate) settle: Duration,
    /// Whether each tab also says what was said there before in steps of their own.
    pub(crate) repeats: bool,
    /// For how long the message is waited for.
    pub(crate) within: Duration,
}

impl Stage {
    /// Plays the steps up to `at`, from 1, at one of so many fresh workers. Before that step its user opens the channel at which
    /// something is to arrive once more at each worker. A step before that `ends`, and one that has no answer, says nothing.
    pub(crate) fn listen(
        &self,
        journey: &Arc<Journey>,
        at: usize,
        listening: Listening,
        ends: Ends<'_>,
    ) -> Result<Heard, Error> {
        self.empty_what_is_beside()?;
        let mut cast = Cast { stage: self, entropy: None, workers: Vec::new() };
        for _ in 0..listening.workers {
            let worker = cast.fresh()?;
            cast.workers.push(worker);
        }
        let mut player = self.player(journey)?;
        let destination = &cast.workers[listening.sender].destination;
        for step in 1..at {
            let outcome = match self.runtime.block_on(player.step(step, destination)) {
                Ok(observed) => Outcome::Answered(Box::new(observed)),
                Err(error) => Outcome::Lost(told(&error)),
            };
            if ends(step, &outcome) {
                return Ok(Heard::Unclear(format!("step {step} was not as on one worker")));
            }
        }
        Ok(self.runtime.block_on(heard(&mut player, at, &cast.workers, listening)))
    }
}

async fn heard(player: &mut Player, at: usize, workers: &[Actor], listening: Listening) -> Heard {
    let mut tabs = Vec::new();
    for Actor { destination, .. } in workers {
        let mut tab = player.fork();
        let mut opened = tab.listen(at, destination).await;
        if listening.repeats && opened.is_ok() {
            opened = tab.say_again(at).await;
        }
        if let Err(error) = opened {
            return Heard::Unclear(format!("its user cannot listen in another tab: {}", told(&error)));
        }
        tabs.push(tab);
    }
    tokio::time::sleep(listening.settle).await;
    // Nothing of it is for the step that comes.
    tabs.iter().for_each(|tab| tab.forget_heard(at));
    let sent = player.trigger(at, &workers[listening.sender].destination).await;
    let text = match (sent, player.awaited(at)) {
        (Ok(observed), Ok(text)) if observed.is_met() => text,
        (Ok(observed), Ok(_)) => {
            let unmet = observed.unmet.first().map(ToString::to_string).unwrap_or_default();
            return Heard::Unclear(format!("step {at} gave {unmet}"));
        }
        (Err(error), _) | (_, Err(error)) => return Heard::Unclear(told(&error)),
    };
    let until = Instant::now() + listening.within;
    let mut arrived = Vec::new();
    for tab in &tabs {
        match tab.hears(at, &text, until).await {
            Some(has_arrived) => arrived.push(has_arrived),
            None => return Heard::Unclear("more messages come than are kept".into()),
        }
    }
    Heard::At(arrived)
}
