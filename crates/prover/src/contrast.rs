//! The two responses that a finding is about, side by side: what a step gives on one worker, and what it gave.

use serde::Serialize;

use crate::{repetition::Repetition, schedule::Schedule, stage::Outcome, trial::Trial};

/// Most characters of a response that are kept.
const CHARS_MAX: usize = 4000;

/// Header fields that are kept with a response.
const FIELDS: [&str; 4] = ["content-type", "location", "retry-after", "x-ratelimit-remaining"];

/// What a step gives, and what it gave. Both may have anything in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contrast {
    /// The journey's name.
    pub journey: String,
    /// The step, from 1.
    pub step: usize,
    /// The workers of the schedule in which it failed, as a finding's replay has them.
    pub workers: String,
    /// What it gives on one worker.
    pub alone: String,
    /// What it gave.
    pub among: String,
}

impl Trial<'_> {
    /// Notes what a step gave in a schedule that fails, beside what it gives on one worker.
    pub(crate) fn contrast(&mut self, step: usize, schedule: &Schedule, repetition: Repetition) {
        self.contrast_in(step, &schedule.text(), repetition);
    }

    /// The same for what is no schedule; `workers` is as its finding's replay has them.
    pub(crate) fn contrast_in(&mut self, step: usize, workers: &str, repetition: Repetition) {
        let alone = self.noise.reference().outcomes.get(step - 1).map(text);
        let (Some(alone), Some(among)) = (alone, repetition.given) else { return };
        let journey = self.journey.name.clone();
        self.contrasts.push(Contrast { journey, step, workers: workers.into(), alone, among });
    }
}

/// A response for people: status, a few fields, and the beginning of the body.
pub(crate) fn text(outcome: &Outcome) -> String {
    let observed = match outcome {
        Outcome::Answered(observed) => observed,
        Outcome::Lost(why) => return why.clone(),
    };
    let mut text = format!("{}\n", observed.status);
    for (name, value) in &observed.headers {
        if FIELDS.contains(&name.as_str()) {
            text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    text.push('\n');
    text.push_str(&observed.text());
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
