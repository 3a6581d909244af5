//! One journey on trial: controls, schedules, and the search for the smallest pair of steps that shows what a worker keeps.

use std::{collections::BTreeSet, sync::Arc};

use lethe_journey::journey::{Journey, Step};

use crate::{
    contrast::Contrast,
    failure::{Failure, Halt},
    finding::{Finding, Kind, Place},
    middle::Twice,
    noise::{Noise, NotRepeatable},
    proof::{Deliveries, Progress, Row},
    repetition::Retake,
    schedule::{Restart, Schedule},
    stage::{Outcome, Run, Stage, Watch},
    worker::Error,
};

/// Characters of a response that are shown.
const SHOWN_CHARS_MAX: usize = 200;
/// Controls that are played because something differs, at most.
const RECHECKS_MAX: u32 = 5;

/// How often in a journey it is looked whether a cookie comes and goes, where nothing else differs, and how often the same, and one
/// worker, are played again for that at most.
const CHANCES_MAX: u32 = 10;
const CHANCE_PLAYS: u32 = 5;

/// Why a journey says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It fails on one worker already.
    Fails {
        /// The step, from 1.
        step: usize,
        /// What is wrong.
        why: String,
        /// What came, for people.
        response: String,
    },
    /// Two runs on one worker each are not alike.
    NotRepeatable(NotRepeatable),
    /// A step cannot be looked at in a way that it should.
    NotLookedAt(NotRepeatable),
}

/// What came of a journey.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What its workers keep.
    pub(crate) findings: Vec<Finding>,
    /// What differed, and may be chance or the work of something beside.
    pub(crate) doubts: Vec<NotRepeatable>,
    /// What could not be looked at.
    pub(crate) unseen: Vec<NotRepeatable>,
}

/// A step that leaves something in its worker, and one that needs it.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) producer: usize,
    pub(crate) consumer: usize,
    /// Further steps that need it.
    pub(crate) also: BTreeSet<usize>,
    /// The smallest schedule that fails.
    pub(crate) schedule: Schedule,
    /// How the consumer's response differs.
    pub(crate) differences: Vec<String>,
    /// Whether it differs by a count of requests.
    pub(crate) is_limit: bool,
    /// Whether it could be reduced to the one step.
    pub(crate) is_reduced: bool,
    /// Whether what fails has old values rather than none.
    pub(crate) is_stale: bool,
}

impl Pair {
    /// A pair of which no more is known.
    pub(crate) fn new(producer: usize, consumer: usize, schedule: Schedule) -> Self {
        Self {
            producer,
            consumer,
            also: BTreeSet::new(),
            schedule,
            differences: Vec::new(),
            is_limit: false,
            is_reduced: true,
            is_stale: false,
        }
    }
}

/// A journey on trial.
pub(crate) struct Trial<'s> {
    pub(crate) stage: &'s Stage,
    pub(crate) journey: Arc<Journey>,
    pub(crate) noise: Noise,
    pub(crate) rows: Vec<Row>,
    /// The responses that findings are about.
    pub(crate) contrasts: Vec<Contrast>,
    /// Which worker's messages reach which.
    pub(crate) deliveries: Vec<Deliveries>,
    pub(crate) twice: Twice,
    pairs: Vec<Pair>,
    /// The step at which each cut failed; the first is the cut after step 1.
    cuts: Vec<Option<usize>>,
    /// The step whose traces are lost when its worker is killed, though living ones have them.
    lost_after: Option<usize>,
    /// How many controls were looked at before something was called a failure.
    rechecks: u32,
    /// How often it was looked whether a cookie came by chance.
    chances: u32,
    /// What could not be done as it should.
    pub(crate) notices: Vec<String>,
    pub(crate) progress: &'s dyn Fn(Progress<'_>),
}

impl<'s> Trial<'s> {
    /// Plays the controls. What the last one wrote is noted in it.
    pub(crate) fn open(
        stage: &'s Stage,
        journey: &Arc<Journey>,
        workers: usize,
        progress: &'s dyn Fn(Progress<'_>),
    ) -> Result<(Self, Result<Run, Unusable>), Error> {
        let steps = journey.steps.len();
        progress(Progress::Journey { name: &journey.name, steps });
        let stop = |_: usize, outcome: &Outcome| failed_alone(outcome).is_some();
        let watch = Watch { ends: Some(&stop), ..Watch::default() };
        let reference = stage.play(journey, &Schedule::single(steps), &watch)?;
        let failed = (1..)
            .zip(&reference.outcomes)
            .find_map(|(step, outcome)| Some((step, failed_alone(outcome)?, shown(outcome))));
        let mut trial = Self {
            stage,
            journey: Arc::clone(journey),
            noise: Noise::new(reference),
            rows: Vec::new(),
            contrasts: Vec::new(),
            deliveries: Vec::new(),
            twice: Twice::new(),
            pairs: Vec::new(),
            cuts: Vec::new(),
            lost_after: None,
            rechecks: 0,
            chances: 0,
            notices: Vec::new(),
            progress,
        };
        if let Some((step, why, response)) = failed {
            return Ok((trial, Err(Unusable::Fails { step, why, response })));
        }
        let mut last = None;
        for schedule in [Schedule::single(steps), Schedule::pinned(steps, workers)] {
            let watch = Watch { noted: Some((1, steps)), ..Watch::default() };
            let run = stage.play(journey, &schedule, &watch)?;
            if let Err(not) = trial.noise.learn(&run) {
                // Workers that nobody asks may do jobs all the same, and it is done on one worker alone.
                if schedule.width == 1 || !trial.waits_for_a_job(not.step) {
                    return Ok((trial, Err(Unusable::NotRepeatable(not))));
                }
                let failure = trial.failure(&schedule, &run);
                trial.row(&schedule, failure.as_ref());
                trial.pairs.push(trial.job(not.step));
                continue;
            }
            trial.row(&schedule, None);
            last = Some(run);
        }
        let last = last.ok_or_else(|| std::io::Error::other("there was no control"))?;
        Ok((trial, Ok(last)))
    }

    /// Plays all schedules and gives what was found.
    pub(crate) fn run(&mut self, workers: usize) -> Result<Result<Found, Unusable>, Error> {
        // Who cannot connect again on one worker cannot after a kill either, which says nothing of what a worker keeps.
        let stuck = self.reconnects()?;
        match self.schedules(workers, stuck.is_none()) {
            Ok(()) => {}
            Err(Halt::Broken(error)) => return Err(error),
            Err(Halt::NotRepeatable(not)) => return Ok(Err(Unusable::NotRepeatable(not))),
        }
        let mut found = Found::default();
        for pair in std::mem::take(&mut self.pairs) {
            match self.finding(&pair)? {
                Ok(finding) => {
                    // Who takes over elsewhere misses nothing.
                    if finding.kind == Kind::LeftBehind {
                        self.lost_after = None;
                    }
                    found.findings.push(finding);
                }
                Err(doubt) => found.doubts.push(doubt),
            }
        }
        // Last: what a step leaves half done may be in the way of all others.
        match stuck {
            None => self.middles(&mut found)?,
            Some(stuck) => found.unseen.push(stuck),
        }
        self.detect(&mut found, workers)?;
        Ok(Ok(found))
    }

    /// Whether what a step before this one left is lost with the worker, as is known: that it is missed when the worker is killed in this
    /// one says nothing of this one.
    pub(crate) fn is_lost_before(&self, at: usize) -> bool {
        self.lost_after.is_some_and(|producer| producer < at)
    }

    /// Whether the cut after this step failed anywhere; before the first step there is none.
    pub(crate) fn has_failed_cut(&self, after: usize) -> bool {
        after.checked_sub(1).and_then(|at| self.cuts.get(at)).is_some_and(Option::is_some)
    }

    /// Where a journey that opens channels ends if its user connects again before each step, all on one worker; `None` if it does not.
    fn reconnects(&mut self) -> Result<Option<NotRepeatable>, Error> {
        if self.journey.steps.iter().all(Step::is_plain) {
            return Ok(None);
        }
        let schedule =
            Schedule { title: "connected again".into(), ..Schedule::single(self.journey.steps.len()) };
        (self.progress)(Progress::Begins { title: &schedule.title });
        let ends = |step: usize, outcome: &Outcome| !self.noise.differences(step, outcome, false).is_empty();
        let watch = Watch { ends: Some(&ends), reconnects: true, ..Watch::default() };
        let run = self.stage.play(&self.journey, &schedule, &watch)?;
        let failure = self.failure(&schedule, &run);
        self.row_apart(&schedule, failure.as_ref().map(Failure::told));
        Ok(failure.map(|failure| NotRepeatable {
            step: failure.step,
            why: format!(
                "when its user connects again on the same worker, {}; workers were not killed. What a client does each time it \
                 connects belongs into the step that opens the connection",
                failure.told()
            ),
        }))
    }

    fn schedules(&mut self, workers: usize, kills: bool) -> Result<(), Halt> {
        let steps = self.journey.steps.len();
        for after in 1..steps {
            self.cut(after)?;
        }
        for at in 2..steps {
            self.detour(at)?;
        }
        for schedule in [Schedule::round_robin(steps, workers), Schedule::warm(steps, workers)] {
            self.several(&schedule)?;
        }
        if kills { self.kills(steps) } else { Ok(()) }
    }

    fn cut(&mut self, after: usize) -> Result<(), Halt> {
        let schedule = Schedule::cut(self.journey.steps.len(), after);
        let failure = self.look(&schedule)?;
        let before = self.cuts.last().copied().flatten();
        self.cuts.push(failure.as_ref().map(|failure| failure.step));
        let Some(failure) = failure else { return Ok(()) };
        // That it fails with one more step at A says no more than that it failed without.
        if before == Some(failure.step)
            || self.is_known_job(failure.step)
            || self.belongs_to_known(after, &failure)?
        {
            return Ok(());
        }
        self.reduce(after, failure, schedule)
    }

    /// Whether what is known may be why a cut failed: B lacks what known pairs leave at A. A step that fails when nothing but their steps
    /// is at A is noted as one more that needs it; where a step before it fails then, nothing can be said of it.
    fn belongs_to_known(&mut self, after: usize, failure: &Failure) -> Result<bool, Halt> {
        let mut is_hidden = false;
        for at in 0..self.pairs.len() {
            let known = &self.pairs[at];
            if known.producer > after || known.is_stale {
                continue;
            }
            let mut kept = known.also.clone();
            kept.extend([known.producer, known.consumer]);
            kept.retain(|step| *step < failure.step);
            let found = self.try_out(&Schedule::only(&kept, failure.step))?;
            match found.map(|found| found.step) {
                Some(step) if step == failure.step => {
                    self.pairs[at].also.insert(step);
                    return Ok(true);
                }
                Some(_) => is_hidden = true,
                None => {}
            }
        }
        Ok(is_hidden)
    }

    /// Whether a step is known to wait for what another worker may do: why it failed this time is chance.
    fn is_known_job(&self, step: usize) -> bool {
        self.waits_for_a_job(step) && self.pairs.iter().any(|pair| pair.consumer == step)
    }

    /// Finds the one step at A, among the first `last`, after which the failing step fails elsewhere.
    fn reduce(&mut self, last: usize, failure: Failure, schedule: Schedule) -> Result<(), Halt> {
        for producer in (1..=last.min(failure.step - 1)).rev() {
            let smaller = Schedule::pair(producer, failure.step);
            match self.try_out(&smaller)? {
                Some(found) if found.step > producer => {
                    self.keep(producer, found, smaller, true);
                    return Ok(());
                }
                _ => {}
            }
        }
        self.keep(last.min(failure.step - 1), failure, schedule, false);
        Ok(())
    }

    fn detour(&mut self, at: usize) -> Result<(), Halt> {
        let schedule = Schedule::detour(self.journey.steps.len(), at);
        let Some(failure) = self.look(&schedule)? else { return Ok(()) };
        let failed_cut = self.cuts.get(at - 1).copied().flatten();
        // What steps until this one leave in their worker is missed by a fresh worker too: no old value is needed for it.
        let is_missed = failed_cut.is_some_and(|step| step <= failure.step);
        if is_missed || self.is_explained(&schedule, failure.step) {
            return Ok(());
        }
        if failure.step <= at {
            return self.reduce(at - 1, failure, schedule);
        }
        // What B wrote reaches a fresh worker, as the cut showed: A has an old value.
        self.keep(at, failure, schedule, true);
        if let Some(pair) = self.pairs.last_mut() {
            pair.is_stale = true;
        }
        Ok(())
    }

    fn several(&mut self, schedule: &Schedule) -> Result<(), Halt> {
        (self.progress)(Progress::Begins { title: &schedule.title });
        let mut failure = self.try_out(schedule)?;
        if failure.is_some() && schedule.warm_ups > 0 {
            // What others have done may change what comes, on one worker too.
            if let Some(alone) = self.try_out(&schedule.control())? {
                self.notices.push(format!(
                    "{}: after other users, step {} differs on one worker too; from there on the {} says nothing",
                    self.journey.name, alone.step, schedule.title
                ));
                failure = None;
            }
        }
        self.row(schedule, failure.as_ref());
        let Some(failure) = failure else { return Ok(()) };
        failure.may_be_kept()?;
        if self.is_explained(schedule, failure.step) {
            return Ok(());
        }
        self.reduce(failure.step - 1, failure, schedule.clone())
    }

    fn kills(&mut self, steps: usize) -> Result<(), Halt> {
        let schedule = Schedule::kill_after_every(steps);
        let Some(failure) = self.look(&schedule)? else { return Ok(()) };
        if self.is_explained(&schedule, failure.step) {
            return Ok(());
        }
        for producer in (1..failure.step).rev() {
            let smaller = Schedule::kill_after(producer, failure.step, Restart::SameDisk);
            if let Some(found) = self.try_out(&smaller)? {
                self.lost_after = Some(producer);
                self.keep(producer, found, smaller, true);
                return Ok(());
            }
        }
        self.lost_after = Some(failure.step - 1);
        self.keep(failure.step - 1, failure, schedule, false);
        Ok(())
    }

    /// Whether a failure at `step` follows from what is known already: a step before it is out of reach for what it needs, or
    /// this one is known to need something.
    fn is_explained(&self, schedule: &Schedule, step: usize) -> bool {
        self.pairs.iter().any(|pair| {
            let mut consumers = std::iter::once(pair.consumer).chain(pair.also.iter().copied());
            let follows = |consumer| consumer < step && schedule.separates(pair.producer, consumer);
            consumers.any(|consumer| consumer == step || follows(consumer))
        })
    }

    fn keep(&mut self, producer: usize, failure: Failure, schedule: Schedule, is_reduced: bool) {
        let Failure { step: consumer, differences, is_limit, .. } = failure;
        if self.is_known_job(consumer) {
            return;
        }
        let known = self.pairs.iter_mut().find(|pair| pair.producer == producer && !pair.is_stale);
        match known {
            Some(known) if known.consumer == consumer => return,
            // That it needs the same was seen.
            Some(known) if is_reduced => {
                known.also.insert(consumer);
                return;
            }
            _ => {}
        }
        let pair = Pair::new(producer, consumer, schedule.until(consumer));
        self.pairs.push(Pair { differences, is_limit, is_reduced, ..pair });
    }

    /// Plays a schedule of the report.
    fn look(&mut self, schedule: &Schedule) -> Result<Option<Failure>, Halt> {
        (self.progress)(Progress::Begins { title: &schedule.title });
        let failure = self.try_out(schedule)?;
        self.row(schedule, failure.as_ref());
        Ok(failure)
    }

    /// Plays a schedule until a step differs from what one worker gives.
    fn try_out(&mut self, schedule: &Schedule) -> Result<Option<Failure>, Halt> {
        let (run, mut failure) = self.settled(schedule)?;
        if failure.is_some() && self.rechecks < RECHECKS_MAX {
            // Before anything is called a failure, chance gets one more try to show itself: the minute may have changed again.
            self.rechecks += 1;
            let steps = self.journey.steps.len();
            let control = self.stage.play(&self.journey, &Schedule::single(steps), &Watch::default())?;
            self.noise.learn(&control)?;
            failure = self.failure(schedule, &run);
            if failure.is_none() {
                // It said nothing, but the run had ended there.
                (_, failure) = self.settled(schedule)?;
            }
        }
        // After other users the first step may differ as well, and there is a control for that.
        if let Some(failure) = failure.as_ref().filter(|_| schedule.warm_ups == 0) {
            failure.may_be_kept()?;
        }
        Ok(failure)
    }

    /// Plays a schedule until a step differs by more than cookies that come and go.
    fn settled(&mut self, schedule: &Schedule) -> Result<(Run, Option<Failure>), Error> {
        let control = schedule.control();
        loop {
            let run = self.play(schedule, None)?;
            let failure = self.failure(schedule, &run);
            let Some(step) = failure.as_ref().map(|failure| failure.step) else { return Ok((run, None)) };
            let again = |trial: &mut Self| trial.fails_in(schedule, Some(step));
            if !self.is_chance(step, &run, &control, &again)? {
                return Ok((run, failure));
            }
        }
    }

    /// Whether nothing but cookies differed at a step, and they come and go: they do on one worker too, or they did not differ once more
    /// when the same was played `again`. What differed is masked then.
    pub(crate) fn is_chance(
        &mut self,
        step: usize,
        run: &Run,
        control: &Schedule,
        again: &dyn Fn(&mut Self) -> Result<Retake, Error>,
    ) -> Result<bool, Error> {
        let Some(outcome) = run.outcomes.get(step - 1) else { return Ok(false) };
        let is_coarse = control.warm_ups > 0;
        if self.chances == CHANCES_MAX || !self.noise.is_of_cookies(step, outcome, is_coarse) {
            return Ok(false);
        }
        self.chances += 1;
        let (mut failed, mut passed) = (0, 0);
        for _ in 0..CHANCE_PLAYS {
            match again(self)? {
                Retake::Failed(_) => failed += 1,
                Retake::Passed => passed += 1,
                Retake::CutShort => {}
            }
            let alone = self.play(control, None)?;
            let given = alone.outcomes.get(step - 1);
            if given.is_some_and(|given| self.noise.is_of_cookies(step, given, is_coarse)) {
                (failed, passed) = (0, 1);
                break;
            }
        }
        let comes_and_goes = failed == 0 && passed > 0;
        if comes_and_goes {
            self.noise.excuse(step, outcome);
        }
        Ok(comes_and_goes)
    }

    /// Plays a schedule until a step differs, without a second thought.
    pub(crate) fn play(&self, schedule: &Schedule, entropy: Option<u64>) -> Result<Run, Error> {
        let ends = |step: usize, outcome: &Outcome| {
            (self.progress)(Progress::Step { step, of: schedule.workers.len() });
            !self.noise.differences(step, outcome, schedule.warm_ups > 0).is_empty()
        };
        self.stage.play(&self.journey, schedule, &Watch { ends: Some(&ends), entropy, ..Watch::default() })
    }

    pub(crate) fn failure(&self, schedule: &Schedule, run: &Run) -> Option<Failure> {
        (1..).zip(&run.outcomes).find_map(|(step, outcome)| {
            let differences = self.noise.differences(step, outcome, schedule.warm_ups > 0);
            let is_limit = self.noise.is_limit(step, outcome);
            let is_flooded = outcome.is_flooded();
            (!differences.is_empty()).then_some(Failure { step, differences, is_limit, is_flooded })
        })
    }

    /// The step at which a run differs, from 1.
    pub(crate) fn fails_at(&self, schedule: &Schedule, run: &Run) -> Option<usize> {
        self.failure(schedule, run).map(|failure| failure.step)
    }

    pub(crate) fn row(&mut self, schedule: &Schedule, failure: Option<&Failure>) {
        let row = Row {
            journey: self.journey.name.clone(),
            schedule: schedule.title.clone(),
            workers: schedule.steps(),
            failed_at: failure.map(|failure| failure.step),
            why: failure.and_then(|failure| failure.differences.first().cloned()),
        };
        (self.progress)(Progress::Row(&row));
        self.rows.push(row);
    }

    /// A row of what is no schedule, and belongs to no step of its own: `why` says what came of it, if it was not as on one worker. Steps
    /// count as covered all the same.
    pub(crate) fn row_apart(&mut self, schedule: &Schedule, why: Option<String>) {
        let row = Row {
            journey: self.journey.name.clone(),
            schedule: schedule.title.clone(),
            workers: schedule.steps(),
            failed_at: None,
            why,
        };
        (self.progress)(Progress::Row(&row));
        self.rows.push(row);
    }

    /// A step, for the report.
    pub(crate) fn place(&self, step: usize) -> Place {
        let title = self.journey.step(step).map(lethe_journey::journey::Step::title).unwrap_or_default();
        Place { journey: self.journey.name.clone(), step, title }
    }
}

/// Why a step fails on one worker.
fn failed_alone(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Lost(why) => Some(why.clone()),
        Outcome::Answered(observed) => observed.unmet.first().map(ToString::to_string),
    }
}

fn shown(outcome: &Outcome) -> String {
    let Outcome::Answered(observed) = outcome else { return String::new() };
    let text: String = observed.text().chars().take(SHOWN_CHARS_MAX).collect();
    format!("{} {text}", observed.status)
}
