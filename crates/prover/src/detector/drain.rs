//! Workers that are asked to end while they are at work. Each rollout, each smaller number of workers and each machine that is taken away
//! sends SIGTERM, and what a worker has begun by then is to be answered.
//!
//! Only steps that take long are played: a worker that answers within a moment has mostly answered before the signal, so that it would be
//! chance what is found. The signal comes when the worker has read the whole request, which its sockets show: what nobody has
//! accepted yet, nobody can be asked to answer.

use std::time::Duration;

use crate::{
    failure::Failure,
    finding::{Finding, Kind, Replay},
    proof::Progress,
    repetition::{Retake, TIMES},
    schedule::Schedule,
    stage::{
        Outcome, Run, Stage,
        leave::{LEAVE_MAX, Leaving},
    },
    trial::{Found, Trial},
    worker::Error,
};

/// What a step must take on one worker, so that the signal comes long before its answer does.
const LONG: Duration = Duration::from_millis(250);

/// Most steps that are played, those that take longest. A worker that drains for one drains for all.
const STEPS_MAX: usize = 3;

impl Trial<'_> {
    /// Asks a worker to end in the middle of each step that takes long, until something is found.
    pub(crate) fn drains(&mut self, found: &mut Found) -> Result<(), Error> {
        for at in long_steps(self.noise.reference(), |step| self.is_asked_once(step)) {
            let schedule = Schedule { title: format!("SIGTERM in {at}"), ..Schedule::single(at) };
            (self.progress)(Progress::Begins { title: &schedule.title });
            let leaving = self.leave(at)?;
            if !leaving.was_at_work {
                continue;
            }
            let failure = self.failure(&schedule, &leaving.run).filter(|failure| failure.step == at);
            self.row_apart(&schedule, failure.as_ref().map(Failure::told));
            if let Some(failure) = failure {
                found.findings.extend(self.drain_finding(at, &schedule, &failure, &leaving)?);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a step is one request, so that its worker is asked nothing more after the signal.
    fn is_asked_once(&self, step: usize) -> bool {
        self.journey.step(step).is_some_and(|step| step.within.is_none() && !step.follow && step.is_plain())
    }

    fn leave(&self, at: usize) -> Result<Leaving, Error> {
        let ends = |step: usize, outcome: &Outcome| !self.noise.differences(step, outcome, false).is_empty();
        self.stage.play_leaving(&self.journey, at, &ends)
    }

    /// `None`, and a notice, if it was not seen again.
    fn drain_finding(
        &mut self,
        at: usize,
        schedule: &Schedule,
        failure: &Failure,
        leaving: &Leaving,
    ) -> Result<Option<Finding>, Error> {
        let again = |trial: &mut Self| {
            let leaving = trial.leave(at)?;
            let failed_at = trial.fails_at(schedule, &leaving.run).filter(|_| leaving.was_at_work);
            Ok(Retake::of(&leaving.run, failed_at, Some(at)))
        };
        let repetition = self.repeat(at, 1, schedule, &again)?;
        let given = failure.differences.first().map_or("something else", String::as_str);
        let confidence = match repetition.confidence() {
            Ok(confidence) => confidence,
            Err(doubt) => {
                self.notices.push(format!(
                    "{}: with SIGTERM in step {at} it gave {given}, and nothing can be said of it: {}",
                    self.journey.name, doubt.why
                ));
                return Ok(None);
            }
        };
        let failed = repetition.failed;
        let workers = format!("{}, SIGTERM in {at}", schedule.text());
        self.contrast_in(at, &workers, repetition);
        let ended = match &leaving.ended {
            Some(ended) => ended.clone(),
            None => format!("it was still there {} s later", LEAVE_MAX.as_secs()),
        };
        Ok(Some(Finding::new(
            Kind::Drain,
            confidence,
            self.place(at),
            format!(
                "a worker that had read the request of step {at} and was asked to end with SIGTERM gave {given} ({failed} of {TIMES} \
                 times, never without the signal); {ended}"
            ),
            Replay { journey: self.journey.name.clone(), workers, fails_at: at },
        )))
    }
}

/// What is said of a worker that has nothing to do and does not end at SIGTERM.
///
/// # Errors
/// When a worker does not start, or what is beside cannot be reset.
pub(crate) fn dismissal(stage: &Stage, progress: &dyn Fn(Progress<'_>)) -> Result<Option<String>, Error> {
    progress(Progress::Begins { title: "SIGTERM without work" });
    let stays = stage.dismiss()?.is_none();
    Ok(stays.then(|| {
        format!(
            "a worker that has nothing to do is still there {} s after SIGTERM: each rollout, and each smaller number of workers, \
             waits for that long and then kills it",
            LEAVE_MAX.as_secs()
        )
    }))
}

/// The steps that take long and are `asked_once`, the longest first.
fn long_steps(reference: &Run, asked_once: impl Fn(usize) -> bool) -> Vec<usize> {
    let took = (1..).zip(&reference.outcomes).filter_map(|(step, outcome)| match outcome {
        // A stream that has no end is no answer that anybody waits for.
        Outcome::Answered(observed) if !observed.is_cut && observed.redirects.is_empty() => {
            Some((observed.took, step))
        }
        _ => None,
    });
    let mut long: Vec<_> = took.filter(|(took, step)| *took >= LONG && asked_once(*step)).collect();
    long.sort_by_key(|(took, step)| (std::cmp::Reverse(*took), *step));
    long.into_iter().take(STEPS_MAX).map(|(_, step)| step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::tests::answered;

    #[test]
    fn only_what_takes_long_is_played_and_the_longest_first() {
        let took = [10, 300, 5000, 250, 900, 700];
        let outcomes = (1..).zip(took).map(|(step, ms)| answered(step, Duration::from_millis(ms)));
        let reference = Run { outcomes: outcomes.collect(), ..Run::default() };
        assert_eq!(long_steps(&reference, |step| step != 3), [5, 6, 2]);
        assert!(long_steps(&reference, |step| step == 1).is_empty());
    }
}
