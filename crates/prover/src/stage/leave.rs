//! Plays a step whose worker is asked to end while it is at work on it, as each rollout and each removal of a worker does.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use lethe_journey::{journey::Journey, player::Player};

use super::{Actor, Cast, Ends, LOOK_EVERY, Outcome, Run, Stage, actor, outcome};
use crate::{
    tap::{self, Event},
    worker::{Error, Worker},
};

/// How long a worker that was asked to end may still be there: what `lethe` and most others give it by default.
pub(crate) const LEAVE_MAX: Duration = Duration::from_secs(10);

/// What came of a worker that was asked to end.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// The steps as far as it went, the last one with what it gave after the signal.
    pub(crate) run: Run,
    /// Whether the signal came while the worker had the whole request, and had not answered it.
    pub(crate) was_at_work: bool,
    /// How the worker ended; `None` if it was still there after [`LEAVE_MAX`].
    pub(crate) ended: Option<String>,
}

impl Stage {
    /// Plays the steps up to `at`, from 1, at one fresh worker, which gets SIGTERM when it has read all of that step's request. Ends
    /// sooner where `ends` says so of a step before.
    pub(crate) fn play_leaving(
        &self,
        journey: &Arc<Journey>,
        at: usize,
        ends: Ends<'_>,
    ) -> Result<Leaving, Error> {
        self.empty_what_is_beside()?;
        let actor = Cast { stage: self, entropy: None, workers: Vec::new() }.fresh()?;
        let mut player = self.player(journey)?;
        let mut leaving = Leaving::default();
        for step in 1..at {
            let outcome = outcome(self.runtime.block_on(player.step(step, &actor.destination)));
            let has_ended = ends(step, &outcome);
            leaving.run.outcomes.push(outcome);
            if has_ended {
                return Ok(leaving);
            }
        }
        // A kept connection that is idle may be closed at once by who drains, and the request would be lost on it.
        player.hang_up();
        let (last, was_at_work) = self.runtime.block_on(interrupted(&mut player, at, &actor))?;
        leaving.run.outcomes.push(last);
        leaving.was_at_work = was_at_work;
        if was_at_work {
            // Who waits for the end of all connections waits for this one too.
            player.hang_up();
            leaving.ended = until_ended(&actor.worker)?;
        }
        Ok(leaving)
    }

    /// How a fresh worker ends that is asked to while it has nothing to do; `None` if it is still there after [`LEAVE_MAX`].
    pub(crate) fn dismiss(&self) -> Result<Option<String>, Error> {
        self.empty_what_is_beside()?;
        let actor = actor(self.pool.fresh()?);
        actor.worker.terminate()?;
        Ok(until_ended(&actor.worker)?)
    }
}

/// Plays a step at a worker that is asked to end as soon as it has read all of the request. Gives what came, and whether it had not come
/// before that.
async fn interrupted(player: &mut Player, step: usize, actor: &Actor) -> io::Result<(Outcome, bool)> {
    let (destination, sent) = tap::tapped(&actor.destination, Event::Sent);
    let mut playing = pin!(player.step(step, &destination));
    let mut sent = pin!(sent);
    let answered = poll_fn(|cx| match playing.as_mut().poll(cx) {
        Poll::Ready(answered) => Poll::Ready(Some(answered)),
        Poll::Pending => sent.as_mut().poll(cx).map(|_| None),
    });
    if let Some(answered) = answered.await {
        return Ok((outcome(answered), false));
    }
    while !actor.worker.has_read_all()? {
        if let Some(answered) = for_a_moment(playing.as_mut()).await {
            return Ok((outcome(answered), false));
        }
    }
    actor.worker.terminate()?;
    Ok((outcome(playing.await), true))
}

/// Goes on for as long as it takes until it is worth looking again; what came, if it did.
async fn for_a_moment<T>(what: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    tokio::time::timeout(LOOK_EVERY, what).await.ok()
}

fn until_ended(worker: &Worker) -> io::Result<Option<String>> {
    let began = Instant::now();
    loop {
        match worker.ended()? {
            None if began.elapsed() < LEAVE_MAX => thread::sleep(LOOK_EVERY),
            ended => return Ok(ended),
        }
    }
}
