//! Requests that say that they may be sent twice, and do more then: PUT, DELETE, GET and HEAD (RFC 9110, section 9.2.2), and whatever has an
//! `Idempotency-Key`. Browsers, clients and gateways send them again when a worker is lost, mostly to another one.
//!
//! Each is sent to B, whose answer nobody reads, and then to A, which plays all else. What B would lack can so do no harm, and each later
//! step must be as if it had been sent once. What the second answer says is not compared: after a DELETE it may well be 404.

use std::collections::BTreeSet;

use http::Method;
use lethe_journey::{expectation::Unmet, journey::Step};

use crate::{
    failure::Failure,
    finding::{Confidence, Finding, Kind, Replay},
    proof::Progress,
    repetition::{Retake, TIMES},
    schedule::Schedule,
    stage::{Outcome, Run, Watch},
    trial::{Found, Trial},
    worker::Error,
};

/// Most steps that are looked at by themselves; methods that change something come first.
const STEPS_MAX: usize = 40;

impl Trial<'_> {
    /// Sends what may be sent twice, and adds what is found.
    pub(crate) fn retries(&mut self, found: &mut Found) -> Result<(), Error> {
        let last = self.journey.steps.len();
        // After the last one there is no step that could show it.
        let repeatable = self.journey.steps.iter().filter(|step| step.number < last && is_sent_again(step));
        let (safe, changing): (Vec<&Step>, Vec<&Step>) = repeatable.partition(|step| step.method.is_safe());
        let numbers = |steps: Vec<&Step>| steps.iter().map(|step| step.number).collect::<Vec<_>>();
        let (safe, mut suspects) = (numbers(safe), numbers(changing));
        // Mostly nothing is found, and one run says so of all that change something. One that only reads shows what others do,
        // and is played by itself.
        if suspects.len() > 1 {
            let all = Schedule::retried(last, &suspects.iter().copied().collect());
            if self.sent_again(&all)?.is_none() {
                suspects.clear();
            }
        }
        for at in suspects.into_iter().chain(safe).take(STEPS_MAX) {
            let schedule = Schedule::retried(last, &BTreeSet::from([at]));
            let failure = self.sent_again(&schedule)?;
            if let Some((failure, is_count)) = failure {
                // What comes of it without a kill too is not half done.
                found.findings.retain(|known| known.kind != Kind::HalfDone || known.producer.step != at);
                found.findings.extend(self.retry_finding(
                    at,
                    schedule.until(failure.step),
                    &failure,
                    is_count,
                )?);
            }
        }
        Ok(())
    }

    /// Plays a schedule and puts it into the report; the first step that differs, and whether by a count of one more.
    fn sent_again(&mut self, schedule: &Schedule) -> Result<Option<(Failure, bool)>, Error> {
        (self.progress)(Progress::Begins { title: &schedule.title });
        let run = self.resent(schedule)?;
        let failure = self.resend_failure(schedule, &run);
        self.row_apart(schedule, failure.as_ref().map(Failure::told));
        Ok(failure.map(|failure| {
            let outcome = run.outcomes.get(failure.step - 1);
            let is_count = outcome.is_some_and(|outcome| self.noise.is_one_more(failure.step, outcome));
            (failure, is_count)
        }))
    }

    fn resent(&self, schedule: &Schedule) -> Result<Run, Error> {
        let ends = |step: usize, outcome: &Outcome| {
            !is_resent(schedule, step) && !self.noise.differences(step, outcome, false).is_empty()
        };
        self.stage.play(&self.journey, schedule, &Watch { ends: Some(&ends), ..Watch::default() })
    }

    /// The first step that differs and was sent once. `None` also where nothing can be said: where a second answer gives later steps
    /// nothing to go on with, and where it was one request too many.
    fn resend_failure(&self, schedule: &Schedule, run: &Run) -> Option<Failure> {
        for (step, outcome) in (1..).zip(&run.outcomes) {
            if is_resent(schedule, step) {
                if is_dead_end(outcome) || self.noise.is_limit(step, outcome) {
                    return None;
                }
                continue;
            }
            if outcome.is_flooded() {
                return None;
            }
            let differences = self.noise.differences(step, outcome, false);
            if differences.is_empty() {
                continue;
            }
            let is_limit = self.noise.is_limit(step, outcome);
            return (!is_limit).then_some(Failure { step, differences, is_limit, is_flooded: false });
        }
        None
    }

    /// Plays a schedule once more in which steps are sent twice, and another one failed; with `only`, it must be that one.
    pub(crate) fn retries_again(
        &mut self,
        schedule: &Schedule,
        only: Option<usize>,
    ) -> Result<Retake, Error> {
        let run = self.resent(schedule)?;
        let failed_at = self.resend_failure(schedule, &run).map(|failure| failure.step);
        Ok(Retake::of(&run, failed_at, only))
    }

    /// `None`, and a notice, if it was not seen again.
    fn retry_finding(
        &mut self,
        at: usize,
        schedule: Schedule,
        failure: &Failure,
        is_count: bool,
    ) -> Result<Option<Finding>, Error> {
        let step = failure.step;
        let again = |trial: &mut Self| trial.retries_again(&schedule, Some(step));
        let repetition = self.repeat(step, 1, &schedule.control(), &again)?;
        let given = failure.differences.first().map_or("something else", String::as_str);
        let mut confidence = match repetition.confidence() {
            Ok(confidence) => confidence,
            Err(doubt) => {
                self.notices.push(format!(
                    "{}: after step {at} was sent twice, step {step} gave {given}, and nothing can be said of it: {}",
                    self.journey.name, doubt.why
                ));
                return Ok(None);
            }
        };
        let is_safe = self.journey.step(at).is_some_and(|step| step.method.is_safe());
        if is_safe && is_count {
            // Who only counts visits does no harm, and which count it is nobody knows.
            confidence = Confidence::Hint;
        }
        let alone = Schedule::twice(self.journey.steps.len(), at).until(step);
        let is_one_enough = matches!(self.retries_again(&alone, Some(step))?, Retake::Failed(_));
        let failed = repetition.failed;
        self.contrast(step, &schedule, repetition);
        Ok(Some(Finding {
            producer: self.place(at),
            ..Finding::new(
                Kind::Retry,
                confidence,
                self.place(step),
                format!(
                    "with workers {}, where step {at} is sent to B, whose answer is lost, and then to A, step {step} gave {given} ({failed} \
                 of {TIMES} times, never when it is sent once); {}",
                    schedule.text(),
                    match is_one_enough {
                        true => "the same when it is sent twice to one worker",
                        false => "not so when it is sent twice to one worker, which remembers the first",
                    },
                ),
                Replay { journey: self.journey.name.clone(), workers: schedule.text(), fails_at: step },
            )
        }))
    }
}

/// Whether somebody on the way may send it twice by themselves. What is asked until it is done is sent many times anyway.
fn is_sent_again(step: &Step) -> bool {
    let is_known = step.method.is_safe() || matches!(step.method, Method::PUT | Method::DELETE);
    let has_key = step.headers.iter().any(|(name, _)| name == "idempotency-key");
    (is_known || has_key) && step.within.is_none() && step.act.is_request()
}

fn is_resent(schedule: &Schedule, step: usize) -> bool {
    schedule.tears.get(step - 1).is_some_and(Option::is_some)
}

/// Whether a second answer lacks what later steps need.
fn is_dead_end(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered(observed) => {
            observed.unmet.iter().any(|unmet| matches!(unmet, Unmet::Capture { .. }))
        }
        Outcome::Lost(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};
    use lethe_journey::template::Template;

    use super::*;

    #[test]
    fn what_may_be_sent_twice() {
        let step = |method| Step::new(1, method, Template::literal("/"));
        for (method, expected) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::POST, false),
            (Method::PATCH, false),
        ] {
            assert_eq!(is_sent_again(&step(method.clone())), expected, "{method}");
        }
        let mut keyed = step(Method::POST);
        keyed.headers.push((HeaderName::from_static("idempotency-key"), Template::literal("1")));
        assert!(is_sent_again(&keyed));
        keyed.within = Some(std::time::Duration::from_secs(1));
        assert!(!is_sent_again(&keyed));
    }
}
