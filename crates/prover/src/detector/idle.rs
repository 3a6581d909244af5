//! Schedules that fire in each worker: workers are left alone for a while, and what they do beside them by themselves is counted
//! ([`effect`](super::effect)). What one worker does so often that three do it three times as often should have been done once.
//!
//! A lock beside keeps that from happening, and shows: what is done under it comes to as much with three workers as with one.

use std::{collections::BTreeSet, thread, time::Duration};

use lethe_journey::journey::Journey;

use super::effect::{Effects, effects};
use crate::{
    finding::{Confidence, Finding, Kind, Place, Replay},
    proof::{Progress, Row},
    repetition::TIMES,
    stage::Stage,
    worker::Error,
};

/// What is done just after a start belongs to the start.
const SETTLE: Duration = Duration::from_secs(1);

/// Workers that are left alone together.
pub(super) const WORKERS: usize = 3;

/// What is said where workers were not left alone.
pub(super) const NOT_WAITED: &str = "schedules were not looked for, since no step used a service beside (or --idle is 0): --idle SECONDS leaves \
    workers alone all the same";

/// What each worker did, with one of them, and with more.
pub(super) type Round = Vec<Vec<Effects>>;

/// What came of leaving workers alone.
#[derive(Default)]
pub(crate) struct Idle {
    /// What each worker does that only one should do.
    pub(crate) finding: Option<Finding>,
    /// What was looked at.
    pub(crate) rows: Vec<Row>,
    /// All that any worker did by itself.
    pub(crate) seen: BTreeSet<String>,
}

/// Leaves workers alone for `window`, first three of them; only if they do something beside by themselves that may be one thing done
/// three times, one and two and three of them again, three times in all. `journey` is only for the report.
///
/// # Errors
/// When a worker does not start, or what is beside cannot be reset.
pub(crate) fn look(
    stage: &Stage,
    journey: &Journey,
    window: Duration,
    progress: &dyn Fn(Progress<'_>),
) -> Result<Idle, Error> {
    let title = format!("idle for {} s", window.as_secs());
    progress(Progress::Begins { title: &title });
    let mut idle = Idle::default();
    let first = leave_alone(stage, WORKERS, window)?;
    idle.seen.extend(first.iter().flat_map(Effects::keys).cloned());
    let mut suspects = of_all(&first);
    let mut rounds: Vec<Round> = Vec::new();
    while !suspects.is_empty() && rounds.len() < TIMES {
        let mut round = vec![leave_alone(stage, 1, window)?];
        match rounds.is_empty() {
            true => round.extend([leave_alone(stage, 2, window)?, first.clone()]),
            false => round.push(leave_alone(stage, WORKERS, window)?),
        }
        // Something is done once, however many workers there are: what is done by each is how they agree on that.
        let is_agreed = round.iter().flatten().flat_map(Effects::keys).any(|name| is_shared(&round, name));
        suspects.retain(|name| !is_agreed && grows(&round, name));
        rounds.push(round);
    }
    let row = |failed: Option<&String>| Row {
        journey: journey.name.clone(),
        schedule: title.clone(),
        workers: "no requests".into(),
        failed_at: None,
        why: failed.map(|name| format!("each worker does {name} by itself")),
    };
    idle.rows.push(row(suspects.first()));
    idle.finding = suspects.first().map(|name| {
        let told = format!("that were left alone for {} s", window.as_secs());
        finding(journey, &suspects, &rounds, &told, confidence(&rounds, name))
    });
    for row in &idle.rows {
        progress(Progress::Row(row));
    }
    Ok(idle)
}

/// What each of so many fresh workers does beside, by itself.
fn leave_alone(stage: &Stage, workers: usize, window: Duration) -> Result<Vec<Effects>, Error> {
    let workers = stage.fresh(workers)?;
    thread::sleep(SETTLE);
    workers.iter().for_each(|worker| worker.note());
    thread::sleep(window);
    Ok(workers.iter().map(|worker| effects(&worker.noted())).collect())
}

/// The effects that all workers have.
fn of_all(workers: &[Effects]) -> Vec<String> {
    let Some((first, others)) = workers.split_first() else { return Vec::new() };
    let names = first.keys().filter(|name| others.iter().all(|other| other.contains_key(*name)));
    names.cloned().collect()
}

/// How often all workers together did it, by how many there were.
fn totals(round: &[Vec<Effects>], name: &str) -> Vec<usize> {
    round.iter().map(|workers| workers.iter().filter_map(|effects| effects.get(name)).sum()).collect()
}

/// Whether each worker does it, and all together at least half as often again for each that is more. The window may cut off one time at
/// either end, so that as often as there are workers is too much to ask.
pub(super) fn grows(round: &[Vec<Effects>], name: &str) -> bool {
    let totals = totals(round, name);
    let (Some(&alone), Some(&all)) = (totals.first(), totals.last()) else { return false };
    let is_of_all = round.iter().flatten().all(|effects| effects.contains_key(name));
    let workers = round.last().map_or(0, Vec::len);
    is_of_all && alone > 0 && totals.is_sorted() && 2 * all >= alone * (workers + 1)
}

/// Whether it is done as often by several workers as by one.
pub(super) fn is_shared(round: &[Vec<Effects>], name: &str) -> bool {
    let totals = totals(round, name);
    let (Some(&alone), Some(&all)) = (totals.first(), totals.last()) else { return false };
    alone > 0 && all > 0 && all <= alone + 1
}

/// What one worker does once may belong to its start after all.
fn confidence(rounds: &[Round], name: &str) -> Confidence {
    let is_repeated = |round: &Round| totals(round, name).first() >= Some(&2);
    if rounds.iter().all(is_repeated) { Confidence::Proven } else { Confidence::Hint }
}

/// What is said of `names`, which each worker does; `told` is what is to be known of the workers, and that they did.
pub(super) fn finding(
    journey: &Journey,
    names: &[String],
    rounds: &[Round],
    told: &str,
    confidence: Confidence,
) -> Finding {
    let title = journey.step(1).map(lethe_journey::journey::Step::title).unwrap_or_default();
    let place = Place { journey: journey.name.clone(), step: 1, title };
    let figures = |round: &Round| {
        let counts = totals(round, &names[0]).into_iter().zip(round.iter().map(Vec::len));
        counts.map(|(count, workers)| format!("{count} by {workers}")).collect::<Vec<_>>().join(", ")
    };
    let figures = rounds.iter().map(figures).collect::<Vec<_>>().join("; ");
    let others = match names.len() {
        1 => String::new(),
        more => format!(", and {} more", more - 1),
    };
    Finding::new(
        Kind::Schedule,
        confidence,
        place,
        format!("without any request, workers {told} did {}{others} so many times: {figures}", names[0],),
        // No schedule plays that: it is seen again when all is proven again.
        Replay { journey: journey.name.clone(), workers: "idle".into(), fails_at: 1 },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What 1, 2 and 3 workers did, by how often each did each.
    fn each(counts: [&[&[(&str, usize)]]; WORKERS]) -> Round {
        let effects = |of: &&[(&str, usize)]| of.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        counts.iter().map(|workers| workers.iter().map(effects).collect()).collect()
    }

    #[test]
    fn what_each_worker_does_grows() {
        for (counts, grows_, shared) in [
            ([3, 6, 9], true, false),
            ([3, 5, 7], true, false),
            ([3, 4, 5], false, false),
            ([1, 2, 3], true, false),
            // Under a lock.
            ([3, 3, 3], false, true),
            ([2, 3, 3], false, true),
            ([3, 2, 4], false, true),
            ([0, 2, 3], false, false),
        ] {
            let of = |at: usize| -> Vec<Effects> {
                let each_has = |worker| (counts[at] + worker) / (at + 1);
                (0..=at).map(|worker| Effects::from([("INCR bills".into(), each_has(worker))])).collect()
            };
            let each: Vec<_> = (0..WORKERS).map(of).collect();
            assert_eq!(totals(&each, "INCR bills"), counts);
            assert_eq!(grows(&each, "INCR bills"), grows_, "{counts:?}");
            assert_eq!(is_shared(&each, "INCR bills"), shared, "{counts:?}");
        }
    }

    #[test]
    fn what_one_worker_does_is_of_that_one() {
        let each = each([
            &[&[("INCR a", 3)]],
            &[&[("INCR a", 3)], &[("INCR a", 3)]],
            &[&[("INCR a", 9)], &[("INCR b", 1)], &[("INCR a", 1), ("INCR b", 1)]],
        ]);
        assert!(!grows(&each, "INCR a") && of_all(&each[2]).is_empty());
        assert_eq!(of_all(&each[1]), ["INCR a"]);
        assert!(of_all(&[]).is_empty());
    }
}
