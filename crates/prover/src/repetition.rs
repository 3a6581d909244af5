//! What repeating a failure comes to. A failure is something that a worker keeps only if it comes again, and only if the same steps
//! still pass on one worker in between: otherwise what is beside the workers has changed, such as a limit that all of them share.

use lethe_journey::channel::Act;

use crate::{
    content, contrast,
    failure::Failure,
    finding::{Confidence, Finding, Kind, Replay},
    noise::NotRepeatable,
    proof::Progress,
    schedule::Schedule,
    stage::Run,
    trial::{Pair, Trial},
    whereabouts::{self, Whereabouts},
    worker::Error,
};

/// How often a pair must fail to be proven, the time that it was found included.
pub(crate) const TIMES: usize = 3;

/// The times that something was played that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repetition {
    /// The step that fails, from 1.
    step: usize,
    /// How often it did, of [`TIMES`].
    pub(crate) failed: usize,
    /// The first difference of the same steps on one worker in between.
    pub(crate) alone: Option<NotRepeatable>,
    /// What it gave the last time that it failed, for people.
    pub(crate) given: Option<String>,
}

impl Repetition {
    /// A failure that was seen so many times.
    pub(crate) fn new(step: usize, failed: usize) -> Self {
        Self { step, failed, alone: None, given: None }
    }

    /// How sure it is that a worker keeps something; why nothing can be said where it is not sure at all.
    pub(crate) fn confidence(&self) -> Result<Confidence, NotRepeatable> {
        if let Some(alone) = &self.alone {
            let why =
                format!("after step {} differed between workers, one worker gave {}", self.step, alone.why);
            return Err(NotRepeatable { step: alone.step, why });
        }
        match self.failed {
            TIMES.. => Ok(Confidence::Proven),
            2.. => Ok(Confidence::Likely),
            _ => {
                let why = format!("step {} differed between workers once, and not again", self.step);
                Err(NotRepeatable { step: self.step, why })
            }
        }
    }
}

/// What came of it when what had failed at a step was played once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Retake {
    /// The step failed, and what it gave, for people.
    Failed(String),
    /// It did not.
    Passed,
    /// It did not come so far, or not in the same way: that says nothing of the step.
    CutShort,
}

impl Retake {
    /// Of a run that `failed_at` a step, of `only` which it is asked, or of whichever failed.
    pub(crate) fn of(run: &Run, failed_at: Option<usize>, only: Option<usize>) -> Self {
        let Some(asked) = only.or(failed_at) else { return Self::Passed };
        match (run.outcomes.get(asked - 1), failed_at) {
            (Some(outcome), Some(at)) if at == asked => Self::Failed(contrast::text(outcome)),
            (Some(_), failed_at) if failed_at.is_none_or(|at| at > asked) => Self::Passed,
            _ => Self::CutShort,
        }
    }
}

const STALE: &str =
    "a worker that was not asked before gives the new value, one that was asked before gives the old one";

const CONNECTED: &str = "it belongs to the connection that the step keeps open: it passes after kill -9, when its user connects again";

/// What mends requests that only the worker with a connection can carry out.
const CONNECTION: &str = "let any worker take what is meant for a connection, and publish it to a topic that the worker at its other end subscribes to, or send \
     it over the connection itself (a WebSocket); sending all requests of a client to one worker helps until that worker ends";

/// What mends rows in a database that is a file.
const DATABASE: &str = "use a database that all workers reach (PostgreSQL, MySQL, or tables of lethe's state API): a file of SQLite is on one machine, and no \
     two workers on different ones have it";

/// What mends long polling of Engine.IO, which socket.io is made with: no store keeps its sessions.
const ENGINE_IO: &str = "let clients use WebSockets alone (transports: [\"websocket\"]), since a session of Engine.IO's long polling is in the worker that \
     began it; sending all its requests there (a cookie of the balancer) helps until that worker ends";

/// Whether a response is how Engine.IO says that it does not know a session.
fn is_engine_io(response: &str) -> bool {
    response.starts_with("400") && response.contains(r#"{"code":1,"message":"Session ID unknown"}"#)
}

impl Trial<'_> {
    /// Does again what made a step fail that has `failed` before, [`TIMES`] times in all, and after each time plays the same steps on one
    /// worker, which must still pass. `again` plays it.
    pub(crate) fn repeat(
        &mut self,
        step: usize,
        failed: usize,
        control: &Schedule,
        again: &dyn Fn(&mut Self) -> Result<Retake, Error>,
    ) -> Result<Repetition, Error> {
        let mut repetition = Repetition::new(step, failed);
        let (mut left, mut has_learned) = (TIMES - failed, false);
        while left > 0 {
            left -= 1;
            if let Retake::Failed(given) = again(self)? {
                repetition.failed += 1;
                repetition.given = Some(given);
            }
            let alone = self.play(control, None)?;
            let Some(Failure { step, differences, .. }) = self.failure(control, &alone) else { continue };
            // A page that shows the time, for one: with that masked, it all begins anew.
            if !has_learned && self.noise.learn(&alone).is_ok() {
                (left, has_learned, repetition.failed) = (TIMES, true, 0);
                continue;
            }
            let why = differences.into_iter().next().unwrap_or_default();
            repetition.alone = Some(NotRepeatable { step, why });
            break;
        }
        Ok(repetition)
    }

    /// Plays a schedule once more in which a step failed; with `only`, it must be that one.
    pub(crate) fn fails_in(&self, schedule: &Schedule, only: Option<usize>) -> Result<Retake, Error> {
        let run = self.play(schedule, None)?;
        Ok(Retake::of(&run, self.fails_at(schedule, &run), only))
    }

    /// Finds where a pair's thing is kept, repeats it, and says so; or why nothing can be said.
    pub(crate) fn finding(&mut self, pair: &Pair) -> Result<Result<Finding, NotRepeatable>, Error> {
        if self.waits_for_a_job(pair.consumer) && !self.is_no_job(pair)? {
            return self.job_finding(&self.job(pair.consumer));
        }
        (self.progress)(Progress::Begins { title: "repeating what failed" });
        let mut whereabouts = match pair.is_stale {
            true => Whereabouts { kind: Kind::StaleCache, file: None, evidence: STALE.into() },
            false => whereabouts::find(self, pair)?,
        };
        let producer = self.journey.step(pair.producer);
        let is_of_connection = whereabouts.kind == Kind::Elsewhere
            && producer.is_some_and(|step| matches!(step.act, Act::Open(_)));
        if is_of_connection {
            whereabouts = Whereabouts { kind: Kind::Memory, file: None, evidence: CONNECTED.into() };
        }
        // Last, so that a worker alone is asked after all that might have used up something that workers share.
        let again = |trial: &mut Self| trial.fails_in(&pair.schedule, Some(pair.consumer));
        let repetition = self.repeat(pair.consumer, 1, &pair.schedule.control(), &again)?;
        let mut confidence = match repetition.confidence() {
            Ok(confidence) => confidence,
            Err(doubt) => return Ok(Err(doubt)),
        };
        let is_unsure = match whereabouts.kind {
            Kind::Elsewhere => true,
            Kind::File => !self.stage.pool().yard().level().has_own_files(),
            _ => false,
        };
        if !pair.is_reduced || is_unsure {
            confidence = confidence.max(Confidence::Likely);
        }
        let failed = repetition.failed;
        let fix = match repetition.given.as_deref() {
            Some(given) if is_engine_io(given) => ENGINE_IO,
            _ if is_of_connection => CONNECTION,
            _ if whereabouts.file.as_ref().is_some_and(|file| file.kind == content::SQLITE) => DATABASE,
            _ => whereabouts.kind.fix(),
        };
        self.contrast(pair.consumer, &pair.schedule, repetition);
        Ok(Ok(Finding {
            producer: self.place(pair.producer),
            also: pair
                .also
                .iter()
                .filter(|step| **step != pair.consumer)
                .map(|step| self.place(*step))
                .collect(),
            file: whereabouts.file,
            fix: fix.into(),
            ..Finding::new(
                whereabouts.kind,
                confidence,
                self.place(pair.consumer),
                format!(
                    "with workers {}, step {} gave {} ({failed} of {TIMES} times, never on one worker); {}",
                    pair.schedule.text(),
                    pair.consumer,
                    pair.differences.first().map_or("something else", String::as_str),
                    whereabouts.evidence,
                ),
                Replay {
                    journey: self.journey.name.clone(),
                    workers: pair.schedule.text(),
                    fails_at: pair.consumer,
                },
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_once_says_nothing() {
        for (failed, expected) in [
            (1, None),
            (2, Some(Confidence::Likely)),
            (3, Some(Confidence::Proven)),
            (4, Some(Confidence::Proven)),
        ] {
            let repetition = Repetition::new(4, failed);
            assert_eq!(repetition.confidence().ok(), expected, "{failed} times");
        }
        assert_eq!(Repetition::new(4, 1).confidence().unwrap_err().step, 4);
    }

    /// That a step before it failed, or that it did not come so far, does not excuse a step.
    #[test]
    fn a_retake_that_is_cut_short_says_nothing() {
        let answered = crate::stage::tests::answered;
        let run = |steps| Run {
            outcomes: (1..=steps).map(|step| answered(step, std::time::Duration::ZERO)).collect(),
            ..Run::default()
        };
        let failed = |at: usize| Retake::Failed(contrast::text(&run(at).outcomes[at - 1]));
        for (steps, failed_at, only, expected) in [
            (5, None, Some(3), Retake::Passed),
            (3, Some(3), Some(3), failed(3)),
            (4, Some(4), Some(3), Retake::Passed),
            (2, Some(2), Some(3), Retake::CutShort),
            (2, None, Some(3), Retake::CutShort),
            (5, Some(2), Some(3), Retake::CutShort),
            (5, None, None, Retake::Passed),
            (2, Some(2), None, failed(2)),
        ] {
            assert_eq!(Retake::of(&run(steps), failed_at, only), expected, "{steps} {failed_at:?} {only:?}");
        }
    }

    #[test]
    fn long_polling_is_known_by_its_refusal() {
        let refusal = r#"{"code":1,"message":"Session ID unknown"}"#;
        assert!(is_engine_io(&format!("400 Bad Request\ncontent-type: application/json\n\n{refusal}")));
        assert!(!is_engine_io(&format!("200 OK\n\n{refusal}")) && !is_engine_io("400 Bad Request\n\n"));
    }

    #[test]
    fn what_fails_on_one_worker_too_is_not_what_a_worker_keeps() {
        let alone = NotRepeatable { step: 2, why: "status: \"200\" and \"429\"".into() };
        let repetition = Repetition { alone: Some(alone), ..Repetition::new(4, TIMES) };
        let not = repetition.confidence().unwrap_err();
        assert_eq!(not.step, 2);
        assert!(not.why.contains("429"), "{}", not.why);
    }
}
