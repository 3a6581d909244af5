//! Workers that are killed in the middle of a step. Its user has no answer, and does it again, at another worker; what comes then and in
//! all later steps must be as if it had been done once, or twice. Anything else was left behind by a step that was half done: a lock that
//! nobody opens any more, or one of two writes.
//!
//! That holds for any method: who has no answer to a POST sends it again by hand, and finds one order or two, but no broken one.

use std::collections::BTreeMap;

use lethe_journey::channel::Act;

use crate::{
    failure::Failure,
    finding::{Finding, Kind, Replay},
    noise::NotRepeatable,
    proof::Progress,
    repetition::{Retake, TIMES},
    schedule::{Moment, Schedule},
    stage::{Outcome, Run, Watch},
    trial::{Found, Trial},
    worker::Error,
};

/// Most answers of something beside after which a worker is killed, in each step.
const ANSWERS_MAX: u32 = 3;

/// What a step gives that is sent twice, by its number: two runs of it.
pub(crate) type Twice = BTreeMap<usize, [Run; 2]>;

impl Trial<'_> {
    /// Plays all of them, and adds what is found.
    pub(crate) fn middles(&mut self, found: &mut Found) -> Result<(), Error> {
        let steps = self.journey.steps.len();
        // What a fresh worker lacks is known from the cut before the step, and says nothing here.
        let says_nothing = |at: usize| self.has_failed_cut(at - 1) || self.is_lost_before(at);
        let (left_out, all): (Vec<_>, Vec<_>) =
            (1..=steps).filter(|at| steps > 1 && self.has_request(*at)).partition(|at| says_nothing(*at));
        if !left_out.is_empty() {
            let steps = left_out.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.notices.push(format!(
                "{}: no worker was killed in the middle of step {steps}: what earlier steps left is lost with it as it is",
                self.journey.name,
            ));
        }
        for at in all {
            match self.middle(at)? {
                None => {}
                Some(Ok(finding)) => found.findings.push(finding),
                Some(Err(doubt)) => found.doubts.push(doubt),
            }
        }
        Ok(())
    }

    /// Whether a step is something that can be sent elsewhere; what is said over a connection goes where that leads.
    fn has_request(&self, at: usize) -> bool {
        self.journey.step(at).is_some_and(|step| !matches!(step.act, Act::Say(_)))
    }

    /// Kills the worker of one step at one moment after the other, until something is found.
    fn middle(&mut self, at: usize) -> Result<Option<Result<Finding, NotRepeatable>>, Error> {
        let has_beside = !self.noise.reference().beside.is_empty();
        let answers = (1..=ANSWERS_MAX).filter(|_| has_beside).map(Moment::Exchange);
        let (mut was_too_late, mut doubt) = (false, None);
        for moment in [Moment::Delivered, Moment::Answered].into_iter().chain(answers) {
            // There is no second answer where there was no first one.
            if was_too_late && matches!(moment, Moment::Exchange(_)) {
                break;
            }
            let schedule = Schedule::kill_in(self.journey.steps.len(), at, moment);
            (self.progress)(Progress::Begins { title: &schedule.title });
            let run = self.torn(&schedule)?;
            was_too_late = run.was_too_late;
            if was_too_late {
                continue;
            }
            let mut failure = self.half_done(at, &run)?;
            if let Some(step) = failure.as_ref().map(|failure| failure.step) {
                let again = |trial: &mut Self| trial.tears_again(at, &schedule, Some(step));
                if self.is_chance(step, &run, &schedule.control(), &again)? {
                    failure = self.half_done(at, &run)?;
                }
            }
            self.row(&schedule, failure.as_ref());
            let Some(failure) = failure else { continue };
            match self.half_done_finding(at, &schedule.until(failure.step), &failure)? {
                Ok(finding) => return Ok(Some(Ok(finding))),
                // How far a quick worker comes before it is killed is chance; after a certain answer it is not.
                Err(not) => doubt = doubt.or(Some(not)),
            }
        }
        Ok(doubt.map(Err))
    }

    fn half_done_finding(
        &mut self,
        at: usize,
        schedule: &Schedule,
        failure: &Failure,
    ) -> Result<Result<Finding, NotRepeatable>, Error> {
        let (step, control) = (failure.step, schedule.control());
        let again = |trial: &mut Self| trial.tears_again(at, schedule, Some(step));
        let repetition = self.repeat(step, 1, &control, &again)?;
        let confidence = match repetition.confidence() {
            Ok(confidence) => confidence,
            Err(doubt) => return Ok(Err(doubt)),
        };
        let failed = repetition.failed;
        self.contrast(step, schedule, repetition);
        Ok(Ok(Finding {
            producer: self.place(at),
            ..Finding::new(
                Kind::HalfDone,
                confidence,
                self.place(step),
                format!(
                    "with workers {}, step {step} gave {} ({failed} of {TIMES} times): neither what it gives when step {at} is sent once, \
                 nor when it is sent twice to a worker that lives",
                    schedule.text(),
                    failure.differences.first().map_or("something else", String::as_str),
                ),
                Replay { journey: self.journey.name.clone(), workers: schedule.text(), fails_at: step },
            )
        }))
    }

    /// Plays a schedule once more in which step `at` was torn, and a step failed; with `only`, it must be that one.
    pub(crate) fn tears_again(
        &mut self,
        at: usize,
        schedule: &Schedule,
        only: Option<usize>,
    ) -> Result<Retake, Error> {
        let run = self.torn(schedule)?;
        let failed_at = self.half_done(at, &run)?.map(|failure| failure.step);
        Ok(if run.was_too_late { Retake::CutShort } else { Retake::of(&run, failed_at, only) })
    }

    /// Plays on though steps differ from what one worker gives: they may be as if one had been sent twice.
    fn torn(&self, schedule: &Schedule) -> Result<Run, Error> {
        let is_lost = |_: usize, outcome: &Outcome| matches!(outcome, Outcome::Lost(_));
        self.stage.play(&self.journey, schedule, &Watch { ends: Some(&is_lost), ..Watch::default() })
    }

    /// The first step of a run that is neither as if step `at` had been sent once, nor as if twice.
    fn half_done(&mut self, at: usize, run: &Run) -> Result<Option<Failure>, Error> {
        for (step, outcome) in (1..).zip(&run.outcomes) {
            if outcome.is_flooded() || self.noise.differences(step, outcome, false).is_empty() {
                continue;
            }
            let [first, second] = match self.twice.remove(&at) {
                Some(twice) => twice,
                None => {
                    let twice = Schedule::twice(self.journey.steps.len(), at);
                    [self.torn(&twice)?, self.torn(&twice)?]
                }
            };
            let controls = first.outcomes.get(step - 1).zip(second.outcomes.get(step - 1));
            let differences = controls.map_or(Vec::new(), |(first, second)| {
                self.noise.differences_from(step, [first, second], outcome)
            });
            self.twice.insert(at, [first, second]);
            if !differences.is_empty() {
                return Ok(Some(Failure { step, differences, is_limit: false, is_flooded: false }));
            }
        }
        Ok(None)
    }
}
