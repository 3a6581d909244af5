//! Results of jobs that stay in the worker that did them. A step that is asked until it is done (`within`) waits for a job, and which of
//! several workers does that may be chance, where they take jobs from a queue: so it is asked more often than what fails each time. Polling
//! waits in the same way, and what it needs may be of another step; that is no job.

use crate::{
    finding::{Confidence, Finding, Kind, Replay},
    noise::NotRepeatable,
    proof::Progress,
    repetition::{Repetition, Retake},
    schedule::Schedule,
    trial::{Pair, Trial},
    whereabouts::{self, Whereabouts},
    worker::Error,
};

/// How often a job is begun at one worker and asked for at another one. Where two workers take turns by chance, one of 64 proofs sees no
/// failure, and seven see one alone.
const TRIES: usize = 6;

impl Trial<'_> {
    /// Whether a step is asked until it is done.
    pub(crate) fn waits_for_a_job(&self, step: usize) -> bool {
        self.journey.step(step).is_some_and(|step| step.within.is_some())
    }

    /// The step that begins what this one waits for, and this one: the last before it that changes something.
    pub(crate) fn job(&self, consumer: usize) -> Pair {
        let changes = |step: &usize| self.journey.step(*step).is_some_and(|step| !step.method.is_safe());
        let producer = (1..consumer).rev().find(changes).unwrap_or_else(|| consumer.saturating_sub(1).max(1));
        Pair::new(producer, consumer, Schedule::pair(producer, consumer))
    }

    /// Whether what is waited for comes wherever it is begun, so that a pair is about another step that must be at the same worker: the one
    /// that noted how far its user has read, for one.
    pub(crate) fn is_no_job(&self, pair: &Pair) -> Result<bool, Error> {
        let job = self.job(pair.consumer);
        if !pair.is_reduced || pair.producer == job.producer {
            return Ok(false);
        }
        for _ in 0..TRIES {
            if self.fails_in(&job.schedule, Some(pair.consumer))? != Retake::Passed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Repeats it, and says what comes of it; or why nothing can be said.
    pub(crate) fn job_finding(&mut self, pair: &Pair) -> Result<Result<Finding, NotRepeatable>, Error> {
        (self.progress)(Progress::Begins { title: "asking others for the result of a job" });
        let step = pair.consumer;
        let control = Schedule::single(step);
        let mut repetition = Repetition::new(step, 0);
        for _ in 0..TRIES {
            if let Retake::Failed(given) = self.fails_in(&pair.schedule, Some(step))? {
                repetition.failed += 1;
                repetition.given = Some(given);
            }
            let alone = self.play(&control, None)?;
            if let Some(failure) = self.failure(&control, &alone) {
                let given = failure.differences.first().map_or("something else", String::as_str);
                let why = format!("what it waits for is not always done on one worker either: {given}");
                return Ok(Err(NotRepeatable { step, why }));
            }
        }
        let failed = repetition.failed;
        let confidence = match failed {
            3.. => Confidence::Proven,
            2 => Confidence::Likely,
            _ => {
                let why = format!("step {step} failed between workers {failed} of {TRIES} times more");
                return Ok(Err(NotRepeatable { step, why }));
            }
        };
        let Whereabouts { kind, file, evidence } = match failed {
            TRIES => whereabouts::find(self, pair)?,
            _ => Whereabouts {
                kind: Kind::Job,
                file: None,
                evidence: "which worker does it is chance, and the others do not know of it".into(),
            },
        };
        // What else is known of it says more.
        let kind = match kind {
            Kind::File | Kind::BootSecret | Kind::RateLimit => kind,
            _ => Kind::Job,
        };
        let given = repetition.given.clone().unwrap_or_default();
        let given = given.lines().next().unwrap_or("something else").to_owned();
        self.contrast(step, &pair.schedule, repetition);
        Ok(Ok(Finding {
            producer: self.place(pair.producer),
            file,
            ..Finding::new(
                kind,
                confidence,
                self.place(step),
                format!(
                    "with workers {}, step {step} gave {given:?} in the end ({failed} of {TRIES} times, never on one worker); {evidence}",
                    pair.schedule.text(),
                ),
                Replay { journey: self.journey.name.clone(), workers: pair.schedule.text(), fails_at: step },
            )
        }))
    }
}
