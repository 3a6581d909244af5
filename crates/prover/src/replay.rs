//! One finding of an earlier proof, repeated: whether it fails again.

use std::sync::Arc;

use lethe_journey::journey::Journey;
use serde::Deserialize;

use crate::{
    finding::{Place, Replay},
    proof::{self, Progress, Verdict},
    repetition::TIMES,
    schedule::{Moment, Schedule},
    stage::Stage,
    trial::{Trial, Unusable},
    worker::Error,
};

/// What the report of an earlier proof says of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// `F1`, `F2`, …
    pub id: String,
    /// Its rule.
    pub rule: String,
    /// The step that leaves something behind.
    pub producer: Place,
    /// The first step that needs it.
    pub consumer: Place,
    /// How to see it again.
    pub replay: Replay,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// It fails again.
    Fails {
        /// How often, and of how many times.
        times: (usize, usize),
        /// What came instead of what one worker gives; may have anything in it.
        given: String,
    },
    /// It does not fail any more.
    Passes {
        /// How often it was played.
        times: usize,
    },
    /// Nothing can be said, and why.
    Unclear(String),
}

impl Found {
    /// The journey that it is about, among `journeys`.
    ///
    /// # Errors
    /// When it is not there, or its steps are others than they were; in words.
    pub fn journey<'j>(&self, journeys: &'j [Arc<Journey>]) -> Result<&'j Arc<Journey>, String> {
        let name = &self.replay.journey;
        let journey = journeys.iter().find(|journey| journey.name == *name).ok_or_else(|| {
            let names: Vec<_> = journeys.iter().map(|journey| journey.name.as_str()).collect();
            format!("{} is about the journey {name}, and there is {}: prove again", self.id, names.join(", "))
        })?;
        for place in [&self.producer, &self.consumer] {
            let now = journey.step(place.step).map(|step| step.title());
            if now.as_ref() != Some(&place.title) {
                let now = now.unwrap_or_else(|| "not there any more".into());
                return Err(format!(
                    "the journey {name} has changed: step {} was {}, and is {now}; prove again",
                    place.step, place.title
                ));
            }
        }
        Ok(journey)
    }

    /// Plays it again, with `workers` at a time where its whole journey is proven again.
    ///
    /// # Errors
    /// When a worker does not start, or what is beside cannot be reset.
    pub fn again(
        &self,
        stage: &Stage,
        journey: &Arc<Journey>,
        workers: usize,
        seed: u64,
        progress: &dyn Fn(Progress<'_>),
    ) -> Result<Again, Error> {
        let title = format!("{} again", self.id);
        let Some(schedule) = Schedule::read(&self.replay.workers, &title) else {
            let proof = proof::prove(stage, &[Arc::clone(journey)], workers, seed, progress)?;
            return Ok(self.in_proof(&proof));
        };
        let (mut trial, control) = Trial::open(stage, journey, workers, progress)?;
        match control {
            Ok(_) => {}
            Err(Unusable::Fails { step, why, response }) => {
                return Ok(Again::Unclear(format!("step {step} fails on one worker: {why} {response}")));
            }
            Err(Unusable::NotRepeatable(not) | Unusable::NotLookedAt(not)) => {
                return Ok(Again::Unclear(not.why));
            }
        }
        progress(Progress::Begins { title: &title });
        let torn = schedule.tears.iter().position(Option::is_some).map(|at| at + 1);
        let is_resent = schedule.tears.iter().flatten().all(|tear| tear.moment == Moment::Unheard);
        let again = |trial: &mut Trial<'_>| match torn {
            Some(_) if is_resent => trial.retries_again(&schedule, None),
            Some(at) => trial.tears_again(at, &schedule, None),
            None => trial.fails_in(&schedule, None),
        };
        let repetition = trial.repeat(self.replay.fails_at, 0, &schedule.control(), &again)?;
        Ok(match (repetition.alone, repetition.given) {
            (Some(alone), _) => Again::Unclear(format!("step {} alone gave {}", alone.step, alone.why)),
            (None, Some(given)) => Again::Fails { times: (repetition.failed, TIMES), given },
            (None, None) => Again::Passes { times: TIMES },
        })
    }

    /// Whether a proof has found the same again.
    fn in_proof(&self, proof: &proof::Proof) -> Again {
        let is_same = |finding: &&crate::finding::Finding| {
            let steps = (finding.producer.step, finding.consumer.step);
            finding.rule == self.rule && steps == (self.producer.step, self.consumer.step)
        };
        match (proof.findings.iter().find(is_same), proof.verdict) {
            (Some(finding), _) => Again::Fails { times: (1, 1), given: finding.proof.clone() },
            (None, Verdict::Inconclusive) => {
                let whys: Vec<_> = proof.coverage.uncovered.iter().map(|each| each.why.as_str()).collect();
                Again::Unclear(whys.join("; "))
            }
            (None, _) => Again::Passes { times: 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::tests::proof;

    fn found() -> Found {
        let json = serde_json::to_value(proof()).unwrap();
        serde_json::from_value(json["findings"][0].clone()).unwrap()
    }

    #[test]
    fn what_is_written_of_a_finding_is_enough_to_find_it_again() {
        let (found, mut proof) = (found(), proof());
        assert!(Schedule::read(&found.replay.workers, "x").is_some());
        assert!(matches!(found.in_proof(&proof), Again::Fails { .. }));
        proof.findings[0].producer.step = 2;
        assert_eq!(found.in_proof(&proof), Again::Passes { times: 1 });
        proof.verdict = Verdict::Inconclusive;
        assert!(matches!(found.in_proof(&proof), Again::Unclear(_)));
    }

    #[test]
    fn a_journey_that_has_changed_is_not_taken_for_the_same() {
        let text = "name = \"a <b>\"\n".to_owned() + &"[[steps]]\nget = \"/\"\n".repeat(3);
        let folder = std::path::Path::new(".");
        let journey =
            |text: &str| Arc::new(lethe_journey::document::read(text, "x.toml", "x", folder).unwrap());
        assert!(found().journey(&[journey(&text)]).is_ok());
        let shorter = text.replacen("[[steps]]\nget = \"/\"\n", "", 1);
        assert!(found().journey(&[journey(&shorter)]).unwrap_err().contains("step 3 was GET /"));
        let other = text.replace("a <b>", "other");
        assert!(found().journey(&[journey(&other)]).unwrap_err().contains("there is other"));
    }
}
