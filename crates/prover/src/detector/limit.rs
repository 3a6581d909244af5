//! Rate limits that each worker counts for itself, also those that a journey does not reach: one step is sent until it is refused, at one
//! worker, at two and at three of them in turn. A limit of ten lets ten through each time, or ten, twenty and thirty.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use lethe_journey::journey::{Journey, Step};

use crate::{
    finding::{Confidence, Finding, Kind, Place, Replay},
    proof::{Progress, Row},
    repetition::TIMES,
    stage::{Outcome, Stage, probe::Probe},
    trial::Trial,
    worker::Error,
};

/// Workers that are asked in turn, in the last probe.
const WORKERS: usize = 3;

/// Requests to one worker that no response told a limit of.
const MOST: usize = 120;

/// The highest limit that is looked for where responses tell it.
const TOLD_MAX: usize = 1000;

/// How long a worker may be busy with that, by how long the step took. A step that can be sent less often is left out …
const TIME_MAX: Duration = Duration::from_secs(3);
/// … if it is less often than this.
const LEAST: usize = 20;

/// Steps of a journey that are probed, those first whose responses tell a limit.
const STEPS_MAX: usize = 2;

/// A step that is sent again and again.
#[derive(Clone, Debug)]
pub(crate) struct Suspect {
    journey: Arc<Journey>,
    place: Place,
    /// Requests to one worker.
    most: usize,
}

impl Trial<'_> {
    /// Steps that may be under a limit: those whose response tells one, and those that only read.
    pub(crate) fn limited_steps(&self) -> Vec<Suspect> {
        let suspect = |step: &Step| {
            // What is played until it is done is sent many times anyway.
            let Some(Outcome::Answered(observed)) = self.noise.reference().outcomes.get(step.number - 1)
            else {
                return None;
            };
            let told = told(&observed.headers);
            let most = told.map_or(MOST, |limit| limit.min(TOLD_MAX) + WORKERS).min(often(observed.took));
            let is_meant =
                step.within.is_none() && step.is_plain() && (told.is_some() || step.method.is_safe());
            let is_meant = is_meant && !observed.is_cut && most >= LEAST.min(told.unwrap_or(LEAST));
            let suspect =
                Suspect { journey: Arc::clone(&self.journey), place: self.place(step.number), most };
            is_meant.then_some((told.is_none(), suspect))
        };
        let mut suspects: Vec<_> = self.journey.steps.iter().filter_map(suspect).collect();
        suspects.sort_by_key(|(is_untold, _)| *is_untold);
        suspects.into_iter().take(STEPS_MAX).map(|(_, suspect)| suspect).collect()
    }
}

/// How often a step can be sent that takes so long.
fn often(took: Duration) -> usize {
    usize::try_from(TIME_MAX.as_micros() / took.as_micros().max(1)).unwrap_or(usize::MAX)
}

/// The highest limit that fields of a response tell: `RateLimit-Limit` and the like, or the quota of `RateLimit-Policy`
/// (draft-ietf-httpapi-ratelimit-headers). Zero is none.
fn told(headers: &HeaderMap) -> Option<usize> {
    let is_of_limit = |name: &str| {
        let name = name.replace("rate-limit", "ratelimit");
        name.contains("ratelimit") && !name.ends_with("remaining") && !name.ends_with("reset")
    };
    let texts = headers.iter().filter(|(name, _)| is_of_limit(name.as_str()));
    // The first number that is no window: `100`, `100;w=60`, `"default";q=100;w=60`, `limit=100, remaining=99`.
    let number = |text: &str| {
        let mut words = text.split([';', ',']).map(str::trim);
        words.find_map(|word| {
            let (name, value) = word.split_once('=').unwrap_or(("limit", word));
            ["q", "limit"].contains(&name).then(|| value.parse::<usize>().ok())?
        })
    };
    texts.filter_map(|(_, text)| number(text.to_str().ok()?)).filter(|limit| *limit > 0).max()
}

/// Probes suspects until one is found to be limited by each worker for itself. What all workers share is used up then, and so this comes
/// last of all.
///
/// # Errors
/// When a worker does not start, or what is beside cannot be reset.
pub(crate) fn look(
    stage: &Stage,
    suspects: &[Suspect],
    rows: &mut Vec<Row>,
    progress: &dyn Fn(Progress<'_>),
) -> Result<Option<Finding>, Error> {
    for suspect in suspects {
        let title = format!("until step {} is refused", suspect.place.step);
        progress(Progress::Begins { title: &title });
        let mut rounds: Vec<Vec<usize>> = Vec::new();
        let mut is_own = true;
        while is_own && rounds.len() < TIMES {
            let counts = round(stage, suspect)?;
            is_own = counts.as_deref().is_some_and(grows);
            rounds.extend(counts);
        }
        let figures = || {
            let round =
                |counts: &Vec<usize>| counts.iter().map(ToString::to_string).collect::<Vec<_>>().join("/");
            rounds.iter().map(round).collect::<Vec<_>>().join(", ")
        };
        let why = is_own.then(|| format!("{} requests were let through at 1/2/3 workers", figures()));
        let row = Row {
            journey: suspect.place.journey.clone(),
            schedule: title,
            workers: "one, two and three in turn".into(),
            failed_at: None,
            why,
        };
        progress(Progress::Row(&row));
        rows.push(row);
        if is_own {
            return Ok(Some(finding(suspect, &figures())));
        }
    }
    Ok(None)
}

/// How many requests were let through at one, two and three workers; `None` where none was refused.
fn round(stage: &Stage, suspect: &Suspect) -> Result<Option<Vec<usize>>, Error> {
    let Suspect { journey, place, most } = suspect;
    let mut counts = Vec::new();
    for workers in 1..=WORKERS {
        let Probe { accepted, is_limited } = stage.probe(journey, place.step, workers, *most)?;
        if !is_limited {
            return Ok(None);
        }
        counts.push(accepted);
    }
    Ok(Some(counts))
}

/// Whether each worker that is more lets at least half as many through as the first alone. The steps before count at the first one only,
/// and a window may end in between.
fn grows(counts: &[usize]) -> bool {
    let alone = counts.first().copied().unwrap_or_default();
    alone > 0 && counts.windows(2).all(|pair| 2 * pair[1] >= 2 * pair[0] + alone)
}

fn finding(suspect: &Suspect, figures: &str) -> Finding {
    let Place { journey, step, .. } = &suspect.place;
    Finding::new(
        Kind::RateLimit,
        Confidence::Proven,
        suspect.place.clone(),
        format!(
            "step {step} was sent until it was refused with 429, at one worker, at two and at three in turn, {TIMES} times: {figures} \
             requests were let through, where a limit that all share lets as many through each time"
        ),
        // No schedule plays that: it is seen again when all is proven again.
        Replay { journey: journey.clone(), workers: "one, two, three in turn".into(), fails_at: *step },
    )
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_limit_of_each_worker_grows_with_them() {
        for (counts, expected) in [
            ([10, 20, 30], true),
            ([8, 18, 28], true),
            ([10, 10, 10], false),
            // Two steps before it, which count at the first one alone.
            ([1, 4, 7], true),
            ([10, 11, 12], false),
            // What is shared was used up by the first probe.
            ([10, 0, 0], false),
            ([0, 0, 0], false),
            ([0, 10, 20], false),
            ([10, 20, 20], false),
        ] {
            assert_eq!(grows(&counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn slow_steps_are_sent_less_often() {
        for (millis, expected) in [(1, 3_000), (25, 120), (1_000, 3), (10_000, 0)] {
            assert_eq!(often(Duration::from_millis(millis)), expected, "{millis} ms");
        }
        assert!(often(Duration::ZERO) >= MOST);
    }

    #[test]
    fn limits_that_responses_tell() {
        for (name, text, expected) in [
            ("x-ratelimit-limit", "100", Some(100)),
            ("x-rate-limit-limit", "7", Some(7)),
            ("ratelimit", "limit=10, remaining=9, reset=60", Some(10)),
            ("ratelimit", "\"default\";r=9;t=60", None),
            ("ratelimit-policy", "10;w=60", Some(10)),
            ("ratelimit-policy", "\"default\";q=5;w=1", Some(5)),
            ("x-ratelimit-remaining", "9", None),
            ("x-ratelimit-reset", "60", None),
            ("ratelimit-limit", "0", None),
            ("content-length", "3", None),
        ] {
            let headers = [(HeaderName::from_static(name), HeaderValue::from_static(text))];
            assert_eq!(told(&headers.into_iter().collect()), expected, "{name}: {text}");
        }
    }
}
