//! Schedules that fire on the minute, on the hour and at midnight, as those of cron do: nobody waits so long, so workers are left alone
//! with a clock that comes to midnight two seconds after they have started. What each does beside then, and does not do at another
//! time, is compared by how many workers there were, as in [`idle`](super::idle).

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lethe_journey::journey::Journey;

use super::{effect::effects, idle};
use crate::{
    clock::{self, TimeOfDay},
    finding::{Confidence, Finding},
    proof::{Progress, Row},
    repetition::TIMES,
    stage::Stage,
    worker::Worker,
};

/// What is said where nobody has allowed it.
pub(super) const NOT_ALLOWED: &str = "schedules of the hour and of midnight were not looked for, since they would do their work on what \
    is beside: --idle SECONDS, or --reset, allows it";

/// What it is called in the report.
const TITLE: &str = "clock at midnight";

/// How long after they were begun to be started the clock of workers comes to midnight, at first, in seconds.
const LEAD: i64 = 2;

/// How often that is tried with a longer time, where workers take longer to start.
const TRIES: usize = 3;

/// How long it is looked on before that, in which nothing is done any more that belongs to the start, and after it.
const BEFORE: Duration = Duration::from_millis(100);
const AFTER: Duration = Duration::from_millis(2000);

/// What came of it.
#[derive(Default)]
pub(crate) struct Midnight {
    /// What each worker does that only one should do.
    pub(crate) finding: Option<Finding>,
    /// What was looked at.
    pub(crate) rows: Vec<Row>,
    /// Why it could not be looked at.
    pub(crate) notices: Vec<String>,
}

/// Leaves workers alone whose clock comes to midnight. What they do at other times too is `known`. `journey` is only for the report.
pub(crate) fn look(
    stage: &Stage,
    journey: &Journey,
    known: &BTreeSet<String>,
    progress: &dyn Fn(Progress<'_>),
) -> Midnight {
    progress(Progress::Begins { title: TITLE });
    let mut midnight = Midnight::default();
    let mut lead = LEAD;
    let first = match leave_alone(stage, 1, TimeOfDay::Midnight, &mut lead) {
        Ok(first) => first,
        Err(why) => {
            midnight.notices.push(format!("schedules of the hour were not looked for: {why}"));
            return midnight;
        }
    };
    midnight.notices.extend(first.notice);
    let mut suspects: Vec<String> = first
        .effects
        .iter()
        .flat_map(|of| of.keys())
        .filter(|name| !known.contains(*name))
        .cloned()
        .collect();
    let mut alone = Some(first.effects);
    let mut rounds: Vec<idle::Round> = Vec::new();
    while !suspects.is_empty() && rounds.len() < TIMES {
        let mut play = |workers, time_of_day| {
            leave_alone(stage, workers, time_of_day, &mut lead).map(|round| round.effects)
        };
        let played = (|| {
            let round = vec![
                alone.take().map_or_else(|| play(1, TimeOfDay::Midnight), Ok)?,
                play(idle::WORKERS, TimeOfDay::Midnight)?,
            ];
            Ok::<_, String>((round, play(1, TimeOfDay::Between)?))
        })();
        let (round, at_another_time) = match played {
            Ok(played) => played,
            Err(why) => {
                midnight.notices.push(format!("schedules of the hour were not looked for to the end: {why}"));
                return midnight;
            }
        };
        // A lock that all ask for: what comes of it is done once.
        let mut names = round.iter().flatten().flat_map(super::effect::Effects::keys);
        let is_agreed = names.any(|name| idle::is_shared(&round, name));
        suspects.retain(|name| {
            !is_agreed && idle::grows(&round, name) && !at_another_time.iter().any(|of| of.contains_key(name))
        });
        rounds.push(round);
    }
    let row = Row {
        journey: journey.name.clone(),
        schedule: TITLE.into(),
        workers: "no requests".into(),
        failed_at: None,
        why: suspects.first().map(|name| format!("each worker does {name} by itself")),
    };
    progress(Progress::Row(&row));
    midnight.rows.push(row);
    let told = "whose clock came to midnight, and not at another time,";
    midnight.finding =
        (!suspects.is_empty()).then(|| idle::finding(journey, &suspects, &rounds, told, Confidence::Proven));
    midnight
}

struct Alone {
    effects: Vec<super::effect::Effects>,
    notice: Option<String>,
}

/// What each of so many fresh workers does beside when its clock shows that, or why that is not known. Workers that take longer to start
/// than `lead` are started again, with more of it.
fn leave_alone(
    stage: &Stage,
    workers: usize,
    time_of_day: TimeOfDay,
    lead: &mut i64,
) -> Result<Alone, String> {
    for _ in 0..TRIES {
        let (offset, at) = time_of_day.in_seconds(*lead);
        let began = Instant::now();
        let started = stage.with_clock(workers, offset).map_err(|error| error.to_string())?;
        let notice = is_reached(&started)?;
        let Some(left) = until(at).and_then(|left| left.checked_sub(BEFORE)) else {
            *lead = 2 * i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX / 4) + 2 * LEAD;
            continue;
        };
        thread::sleep(left);
        started.iter().for_each(Worker::note);
        thread::sleep(BEFORE + AFTER);
        let effects = started.iter().map(|worker| effects(&worker.noted())).collect();
        return Ok(Alone { effects, notice });
    }
    Err("its workers take too long to start".into())
}

/// How long it is until so many seconds after 1970.
fn until(at: i64) -> Option<Duration> {
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(at).ok()?);
    at.duration_since(SystemTime::now()).ok()
}

/// Whether the clock of a worker was moved at all; what is to be said if that is so for a part of its programs.
fn is_reached(workers: &[Worker]) -> Result<Option<String>, String> {
    if clock::LIBRARY.is_empty() {
        return Err("this lethe was built without what moves the clock".into());
    }
    let Some(worker) = workers.first() else { return Ok(None) };
    match worker.with_moved_clock().map_err(|error| error.to_string())? {
        (0, _) => {
            Err("its clock cannot be moved, as that of a program that is linked statically (Go)".into())
        }
        (_, 0) => Ok(None),
        (with, without) => Ok(Some(format!(
            "schedules of the hour: the clock was moved for {with} of the {} programs of a worker",
            with + without
        ))),
    }
}
