//! Workers that start at the same moment and get in each other's way: each finds that there is no table yet, and each makes it. Seen only
//! where `--reset` empties what is beside, so that there is something to do at each start.

use crate::{
    contrast,
    finding::{Finding, Kind, Replay},
    proof::Progress,
    repetition::{Retake, TIMES},
    schedule::Schedule,
    stage::{Outcome, Watch},
    trial::{Found, Trial},
    worker::Error,
};

/// What several workers that started at the same moment came to.
struct Fallen {
    /// The step that failed, from 1; `None` if a worker did not start.
    step: Option<usize>,
    /// What happened, in a few words.
    how: String,
    /// What the step gave, or the worker printed.
    given: String,
}

impl Trial<'_> {
    /// Starts so many workers at the same moment, and plays the journey at one of them.
    pub(crate) fn migrations(&mut self, found: &mut Found, workers: usize) -> Result<(), Error> {
        if !self.stage.has_reset() {
            return Ok(());
        }
        let schedule = Schedule {
            title: "started at once".into(),
            ..Schedule::pinned(self.journey.steps.len(), workers)
        };
        (self.progress)(Progress::Begins { title: &schedule.title });
        let fallen = self.start_at_once(&schedule)?;
        self.row_apart(&schedule, fallen.as_ref().map(|fallen| fallen.how.clone()));
        if let Some(fallen) = fallen.filter(|fallen| !self.is_known(found, fallen)) {
            found.findings.extend(self.migration_finding(&schedule, &fallen, workers)?);
        }
        Ok(())
    }

    /// What another worker has done, and keeps, is missed wherever several are alive, however they started.
    fn is_known(&self, found: &Found, fallen: &Fallen) -> bool {
        let Some(place) = fallen.step.map(|step| self.place(step)) else { return false };
        found.findings.iter().any(|known| known.consumer == place || known.also.contains(&place))
    }

    fn start_at_once(&self, schedule: &Schedule) -> Result<Option<Fallen>, Error> {
        let ends = |step: usize, outcome: &Outcome| !self.noise.differences(step, outcome, false).is_empty();
        let watch = Watch { ends: Some(&ends), at_once: true, ..Watch::default() };
        let run = match self.stage.play(&self.journey, schedule, &watch) {
            Ok(run) => run,
            Err(Error::NotListening { why, output }) => {
                let how = format!("one of them did not start: {why}");
                return Ok(Some(Fallen { step: None, how, given: output.join("\n") }));
            }
            Err(error) => return Err(error),
        };
        let failure = self.failure(schedule, &run);
        Ok(failure.map(|failure| {
            let given = failure.differences.first().map_or("something else", String::as_str);
            let outcome = run.outcomes.get(failure.step - 1).map(contrast::text);
            Fallen {
                step: Some(failure.step),
                how: format!("step {} gave {given}", failure.step),
                given: outcome.unwrap_or_default(),
            }
        }))
    }

    /// `None`, and a notice, if it was not seen again.
    fn migration_finding(
        &mut self,
        schedule: &Schedule,
        fallen: &Fallen,
        workers: usize,
    ) -> Result<Option<Finding>, Error> {
        let step = fallen.step.unwrap_or(1);
        let again = |trial: &mut Self| {
            let fallen = trial.start_at_once(schedule)?;
            Ok(fallen.map_or(Retake::Passed, |fallen| Retake::Failed(fallen.given)))
        };
        let repetition = self.repeat(step, 1, &Schedule::single(schedule.workers.len()), &again)?;
        let confidence = match repetition.confidence() {
            Ok(confidence) => confidence,
            Err(doubt) => {
                self.notices.push(format!(
                    "{}: {workers} workers were started at the same moment, and {}; nothing can be said of it: {}",
                    self.journey.name, fallen.how, doubt.why
                ));
                return Ok(None);
            }
        };
        let failed = repetition.failed;
        let workers_text = format!("{}, started at once", schedule.text());
        self.contrast_in(step, &workers_text, repetition);
        let printed = match fallen.step {
            None => fallen.given.lines().last().map(|line| format!("; it printed {:?}", line.trim())),
            Some(_) => None,
        };
        Ok(Some(Finding::new(
            Kind::Migration,
            confidence,
            self.place(step),
            format!(
                "{workers} workers were started at the same moment with nothing beside, and {} ({failed} of {TIMES} times, never with one \
                 worker){}",
                fallen.how,
                printed.unwrap_or_default(),
            ),
            Replay { journey: self.journey.name.clone(), workers: workers_text, fails_at: step },
        )))
    }
}
