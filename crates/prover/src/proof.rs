//! The proof: all journeys on trial, and the verdict.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use lethe_journey::journey::Journey;
use serde::Serialize;

use crate::{
    contrast::Contrast,
    detector, disk,
    finding::{Finding, Kind, Place},
    stage::{Run, Stage},
    trace::{self, Trace},
    trial::{Trial, Unusable},
    worker::Error,
    world::WatchMethod,
};

/// The form of the report.
pub const VERSION: u32 = 1;

/// What no proof looks at.
const NOT_LOOKED_AT: [&str; 5] = [
    "rate limits above 120 requests that no response tells of, and those that do not answer with 429",
    "files that are mapped into memory rather than read and written",
    "WebSocket and server-sent events of which no step says what must arrive (`arrives`), and messages in the middle of which a worker is killed",
    "SIGTERM in the middle of steps that take less than 250 ms",
    "services beside on other machines (only those at this machine's loopback are carried), and what schedules change over TLS or a unix socket",
];

/// What is said while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'p> {
    /// A journey begins.
    Journey {
        /// Its name.
        name: &'p str,
        /// How many steps it has.
        steps: usize,
    },
    /// A schedule begins.
    Begins {
        /// What it is called.
        title: &'p str,
    },
    /// A step of it was played.
    Step {
        /// Its number, from 1.
        step: usize,
        /// How many there are.
        of: usize,
    },
    /// A schedule was played.
    Row(&'p Row),
}

/// A schedule that was played.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The journey's name.
    pub journey: String,
    /// What the schedule is called.
    pub schedule: String,
    /// The worker of each step.
    pub workers: String,
    /// The first step that was not as on one worker, from 1.
    pub failed_at: Option<usize>,
    /// How it was not; without a step, what came of all of it.
    pub why: Option<String>,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing was found in the steps covered.
    Stateless,
    /// Something was found.
    Violation,
    /// Nothing was found, but not all that was asked could be looked at.
    Inconclusive,
}

/// A journey or step that was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uncovered {
    /// The journey's name.
    pub journey: String,
    /// The step at which it ended, from 1.
    pub step: usize,
    /// Why.
    pub why: String,
    /// The response, for people; empty if there was none.
    pub response: String,
}

/// Which workers' users hear of what a step tells over channels, by the worker to which the step was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deliveries {
    /// The journey's name.
    pub journey: String,
    /// The step, from 1.
    pub step: usize,
    /// The channel that was listened at.
    pub channel: String,
    /// A row for each worker to which the step was sent, A first, and in it for each worker, A first, whether it arrived at who was
    /// connected there.
    pub delivered: Vec<Vec<bool>>,
}

/// A place in the responses to a step that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Masked {
    /// The journey's name.
    pub journey: String,
    /// The step, from 1.
    pub step: usize,
    /// Where.
    pub place: String,
}

/// What was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    /// Steps of all journeys.
    pub steps: usize,
    /// Steps that were played in all schedules: a schedule ends at the first step that differs.
    pub steps_covered: usize,
    /// Where journeys ended that say nothing, and steps that differed by chance or by what is beside.
    pub uncovered: Vec<Uncovered>,
    /// How well workers were kept apart.
    pub isolation: &'static str,
    /// Workers of a round robin.
    pub workers: usize,
    /// What identities and pinned random numbers are drawn from.
    pub seed: u64,
    /// Places that differ between runs on one worker.
    pub masked: Vec<Masked>,
    /// All schedules that were played.
    pub schedules: Vec<Row>,
    /// Which worker's messages reach which.
    pub deliveries: Vec<Deliveries>,
    /// How often a journey was played.
    pub runs: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Services beside that workers used.
    pub beside: Vec<String>,
    /// Files that a worker wrote during a journey: no harm, unless a finding names them.
    pub written: Vec<String>,
    /// The same, and those that are gone by its end, with the steps that wrote and read them; first those that a later step reads again.
    pub files: Vec<Trace>,
    /// What could not be done as it should.
    pub notices: Vec<String>,
    /// What this proof did not look at.
    pub not_looked_at: Vec<String>,
}

/// A proof.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// [`VERSION`].
    pub version: u32,
    /// What it comes to.
    pub verdict: Verdict,
    /// What was looked at.
    pub coverage: Coverage,
    /// What was found.
    pub findings: Vec<Finding>,
    /// The responses that the findings are about.
    pub responses: Vec<Contrast>,
}

/// What is said where events of files were lost.
const MISSED: &str =
    "not all that its worker did with files was seen: there was too much of it, or it could not be watched";

/// Most files that are named which no finding is about.
const WRITTEN_MAX: usize = 50;

/// Plays `journeys` on `stage`, with `workers` at a time in a round robin.
///
/// # Errors
/// When a worker does not start, or what is beside cannot be reset.
pub fn prove(
    stage: &Stage,
    journeys: &[Arc<Journey>],
    workers: usize,
    seed: u64,
    progress: &dyn Fn(Progress<'_>),
) -> Result<Proof, Error> {
    let began = Instant::now();
    let yard = stage.pool().yard();
    let mut coverage = Coverage {
        steps: journeys.iter().map(|journey| journey.steps.len()).sum(),
        steps_covered: 0,
        uncovered: Vec::new(),
        isolation: yard.level().text(yard.watch_method()),
        workers,
        seed,
        masked: Vec::new(),
        schedules: Vec::new(),
        deliveries: Vec::new(),
        runs: 0,
        duration_ms: 0,
        beside: Vec::new(),
        written: Vec::new(),
        files: Vec::new(),
        notices: Vec::new(),
        not_looked_at: NOT_LOOKED_AT.map(String::from).into(),
    };
    let mut is_played = false;
    let (mut findings, mut responses, mut beside) = (Vec::new(), Vec::new(), BTreeSet::new());
    let (mut limited, mut all_covered) = (Vec::new(), Vec::new());
    for journey in journeys {
        let (mut trial, control) = Trial::open(stage, journey, workers, progress)?;
        match control {
            Ok(control) => {
                is_played = true;
                match trial.run(workers)? {
                    Ok(mut found) => {
                        // It is of the service, and one journey that depends on it shows it.
                        if !found
                            .findings
                            .iter()
                            .chain(&findings)
                            .any(|known| known.kind == Kind::Configuration)
                        {
                            trial.configuration(&mut found)?;
                        }
                        // One that was found says it of all.
                        if !found.findings.iter().any(|known| known.kind == Kind::RateLimit) {
                            limited.extend(trial.limited_steps());
                        }
                        let doubts = found.doubts.iter().chain(&found.unseen);
                        let doubted = doubts.map(|doubt| doubt.step.saturating_sub(1));
                        let covered = covered(journey.steps.len(), &trial.rows);
                        all_covered.push((&journey.name, doubted.fold(covered, usize::min)));
                        findings.extend(found.findings);
                        let doubts = found.doubts.into_iter().map(Unusable::NotRepeatable);
                        let doubts = doubts.chain(found.unseen.into_iter().map(Unusable::NotLookedAt));
                        coverage.uncovered.extend(doubts.map(|doubt| uncovered(journey, doubt)));
                    }
                    Err(unusable) => coverage.uncovered.push(uncovered(journey, unusable)),
                }
                coverage.written.extend(written(&control));
                let files = control.traces.by_name(&journey.name, &control.written, &control.canaries);
                coverage.files.extend(files);
                if control.traces.is_cut {
                    coverage.notices.push(format!("{}: {MISSED}", journey.name));
                }
                beside.extend(control.beside);
            }
            Err(unusable) => coverage.uncovered.push(uncovered(journey, unusable)),
        }
        coverage.notices.append(&mut trial.notices);
        responses.append(&mut trial.contrasts);
        let masked = trial.noise.masked().into_iter();
        coverage.masked.extend(masked.map(|(step, place)| Masked {
            journey: journey.name.clone(),
            step,
            place,
        }));
        coverage.schedules.append(&mut trial.rows);
        coverage.deliveries.append(&mut trial.deliveries);
    }
    if !coverage.uncovered.is_empty() {
        coverage.notices.extend(stage.want_of_room());
    }
    // Also what came up while workers were started.
    coverage.notices.splice(0..0, yard.notices());
    coverage.beside = beside.iter().map(ToString::to_string).collect();
    coverage.not_looked_at.extend(not_allowed(stage));
    // Where no journey can be played there is something else to mend first.
    if let Some(journey) = journeys.first().filter(|_| is_played) {
        findings.extend(detector::look_once(stage, journey, &mut coverage, progress)?);
    }
    findings.extend(detector::limit::look(stage, &limited, &mut coverage.schedules, progress)?);
    number(&mut findings);
    coverage.written.sort();
    coverage.written.dedup();
    coverage.written.truncate(WRITTEN_MAX);
    trace::settle(&mut coverage.files, &findings);
    let doubts = coverage.files.iter().filter_map(|trace| {
        let (step, why) = trace.doubt()?;
        Some(Uncovered { journey: trace.journey.clone(), step, why, response: String::new() })
    });
    for doubt in doubts {
        for (_, covered) in all_covered.iter_mut().filter(|(journey, _)| **journey == doubt.journey) {
            *covered = doubt.step.saturating_sub(1).min(*covered);
        }
        coverage.uncovered.push(doubt);
    }
    coverage.steps_covered = all_covered.iter().map(|(_, covered)| covered).sum();
    coverage.runs = stage.runs();
    coverage.duration_ms = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    for journey in journeys {
        coverage.notices.extend(journey.notes.iter().map(|note| format!("{}: {note}", journey.name)));
        if journey.steps.len() < 2 {
            coverage
                .notices
                .push(format!("{}: one step alone cannot show what a worker keeps", journey.name));
        }
    }
    let is_whole = !journeys.is_empty() && coverage.is_whole() && yard.level().has_own_files();
    let is_violated = findings.iter().any(Finding::is_violation);
    let verdict = match (is_violated, is_whole) {
        (true, _) => Verdict::Violation,
        (false, true) => Verdict::Stateless,
        (false, false) => Verdict::Inconclusive,
    };
    Ok(Proof { version: VERSION, verdict, coverage, findings, responses })
}

/// What was not looked at as it stands, and what would allow it.
fn not_allowed(stage: &Stage) -> Vec<String> {
    let mut not_allowed = Vec::new();
    if stage.pool().yard().watch_method() == WatchMethod::None {
        not_allowed.push("which files are read again: workers are not watched at this level".to_owned());
    }
    if !stage.has_reset() {
        not_allowed
            .push("starts at the same moment: --reset, which empties what is beside, allows it".into());
    }
    if !stage.may_be_without_configuration() {
        not_allowed.push(
            "configuration that is read only at start, since workers without it might use something else beside: --reset allows it".into(),
        );
    }
    not_allowed
}

/// How many steps of a journey all its schedules came to: each ends where it differs. One step alone is not covered by any.
pub(crate) fn covered<'r>(steps: usize, rows: impl IntoIterator<Item = &'r Row>) -> usize {
    let all = if steps < 2 { 0 } else { steps };
    rows.into_iter().filter_map(|row| row.failed_at).fold(all, usize::min)
}

/// `F1`, `F2`, … in the order of what they are about; the same thing found by two journeys stays two.
fn number(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        (a.confidence, &a.producer, &a.consumer, a.kind).cmp(&(
            b.confidence,
            &b.producer,
            &b.consumer,
            b.kind,
        ))
    });
    for (number, finding) in (1..).zip(findings) {
        finding.id = format!("F{number}");
    }
}

fn written(control: &Run) -> Vec<String> {
    let files = control.written.iter().filter(|(_, entry)| entry.kind == disk::Kind::File);
    files.map(|(path, _)| path.display().to_string()).collect()
}

fn uncovered(journey: &Journey, unusable: Unusable) -> Uncovered {
    let journey = journey.name.clone();
    match unusable {
        Unusable::Fails { step, why, response } => {
            Uncovered { journey, step, why: format!("it fails on one worker: {why}"), response }
        }
        Unusable::NotRepeatable(not) => Uncovered {
            journey,
            step: not.step,
            why: format!("the journey is not repeatable: {}", not.why),
            response: String::new(),
        },
        Unusable::NotLookedAt(not) => {
            Uncovered { journey, step: not.step, why: not.why, response: String::new() }
        }
    }
}

impl Proof {
    /// Who hears of what a finding is about, if it is about that.
    pub fn deliveries_of(&self, finding: &Finding) -> Option<&Deliveries> {
        let is_its = |each: &&Deliveries| {
            each.journey == finding.consumer.journey && each.step == finding.consumer.step
        };
        let is_about = matches!(finding.kind, Kind::Websocket | Kind::EventStream);
        self.coverage.deliveries.iter().find(is_its).filter(|_| is_about)
    }

    /// How many findings are no hints.
    pub fn violations(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_violation()).count()
    }
}

impl Deliveries {
    /// What the worker of this row or column is called.
    pub fn worker(at: usize) -> char {
        char::from(b'A' + u8::try_from(at).unwrap_or_default())
    }
}

impl Coverage {
    /// Whether all steps of all journeys were looked at.
    fn is_whole(&self) -> bool {
        self.uncovered.is_empty() && self.steps_covered == self.steps
    }

    /// The line of a report: `14/16 steps · overlay+fanotify+netns+pidns · 7 fields masked`.
    pub fn line(&self) -> String {
        let fields = if self.masked.len() == 1 { "field" } else { "fields" };
        let seconds = Duration::from_millis(self.duration_ms).as_secs_f64();
        format!(
            "{}/{} steps · {} · {} {fields} masked · {} runs in {seconds:.1} s",
            self.steps_covered,
            self.steps,
            self.isolation,
            self.masked.len(),
            self.runs,
        )
    }
}

impl Place {
    /// As people read it: `step 2 (POST /login)`.
    pub fn text(&self) -> String {
        format!("step {} ({})", self.step, self.title)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::finding::{Confidence, Kind, Replay};

    /// A step of its journey.
    pub(crate) fn place(step: usize) -> Place {
        Place { journey: "a <b>".into(), step, title: "GET /".into() }
    }

    /// A proof with one finding.
    pub(crate) fn proof() -> Proof {
        let finding = Finding {
            id: "F1".into(),
            rule: Kind::Memory.rule(),
            kind: Kind::Memory,
            confidence: Confidence::Proven,
            producer: place(1),
            consumer: place(3),
            also: Vec::new(),
            file: None,
            proof: "\"200\" & <401>".into(),
            fix: Kind::Memory.fix().into(),
            replay: Replay { journey: "a <b>".into(), workers: "B A B".into(), fails_at: 3 },
        };
        Proof {
            version: VERSION,
            verdict: Verdict::Violation,
            coverage: coverage(),
            findings: vec![finding],
            responses: Vec::new(),
        }
    }

    fn coverage() -> Coverage {
        Coverage {
            steps: 3,
            steps_covered: 3,
            uncovered: Vec::new(),
            isolation: "overlay",
            workers: 3,
            seed: 1,
            masked: Vec::new(),
            schedules: Vec::new(),
            deliveries: Vec::new(),
            runs: 9,
            duration_ms: 1500,
            beside: Vec::new(),
            written: Vec::new(),
            files: Vec::new(),
            notices: Vec::new(),
            not_looked_at: Vec::new(),
        }
    }

    #[test]
    fn the_report_has_the_form_that_is_promised() {
        let json = serde_json::to_value(proof()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["verdict"], "violation");
        let finding = &json["findings"][0];
        assert_eq!((&finding["kind"], &finding["confidence"]), (&"memory".into(), &"proven".into()));
        assert_eq!((&finding["producer"]["step"], &finding["consumer"]["step"]), (&1.into(), &3.into()));
        assert_eq!(serde_json::to_value(Kind::BootSecret).unwrap(), "boot-secret");
        assert_eq!(proof().coverage.line(), "3/3 steps · overlay · 0 fields masked · 9 runs in 1.5 s");
    }

    fn row(failed_at: Option<usize>) -> Row {
        let [journey, schedule, workers] = ["a <b>", "cut after 1", "A B B"].map(str::to_owned);
        Row { journey, schedule, workers, failed_at, why: None }
    }

    #[test]
    fn what_was_not_played_everywhere_is_not_covered() {
        for (steps, failed, expected) in [
            (5, vec![None, None], 5),
            (5, vec![Some(4), None, Some(2)], 2),
            (1, vec![None], 0),
            (0, vec![], 0),
        ] {
            let rows: Vec<_> = failed.into_iter().map(row).collect();
            assert_eq!(covered(steps, &rows), expected, "{rows:?}");
        }
        assert!(coverage().is_whole());
        // One journey of one step beside others is one that was not looked at.
        assert!(!Coverage { steps: 4, ..coverage() }.is_whole());
    }

    #[test]
    fn findings_are_numbered_with_what_is_sure_first() {
        let [first, mut second] = [(); 2].map(|()| proof().findings.remove(0));
        second.confidence = Confidence::Likely;
        second.producer.step = 0;
        let mut findings = vec![second, first];
        number(&mut findings);
        let ids: Vec<_> = findings.iter().map(|finding| (finding.id.as_str(), finding.confidence)).collect();
        assert_eq!(ids, [("F1", Confidence::Proven), ("F2", Confidence::Likely)]);
    }
}
