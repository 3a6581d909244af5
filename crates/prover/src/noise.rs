//! What differs between runs that should be alike, and so says nothing; and how a run differs from them beyond that.

use std::collections::BTreeSet;

use lethe_journey::{
    compare::{Difference, Masks, Place, compare},
    observed::Observed,
};

use crate::stage::{Outcome, Run};

/// Most differences of a step that are told.
const TOLD_MAX: usize = 5;

/// What stands for any number in the shape of a place.
const ANY_NUMBER: char = '#';

/// What is known of the journey on one worker.
#[derive(Debug)]
pub struct Noise {
    /// The first run, which all others are compared with.
    reference: Run,
    masks: Masks,
    /// Steps and shapes of places that come and go, as rows of a list that grows from run to run.
    growing: BTreeSet<(usize, String)>,
}

/// Why the controls are no ground to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRepeatable {
    /// The first step that differs, from 1.
    pub step: usize,
    /// How.
    pub why: String,
}

impl Noise {
    /// Begins with the first control run.
    pub fn new(reference: Run) -> Self {
        Self { reference, masks: Masks::default(), growing: BTreeSet::new() }
    }

    /// The first control run.
    pub fn reference(&self) -> &Run {
        &self.reference
    }

    /// Takes in another control run. Status and redirects must be the same in all.
    pub fn learn(&mut self, control: &Run) -> Result<(), NotRepeatable> {
        for (step, pair) in (1..).zip(self.reference.outcomes.iter_mut().zip(&control.outcomes)) {
            let (Outcome::Answered(first), Outcome::Answered(second)) = pair else {
                let Some(Outcome::Lost(why)) = control.outcomes.get(step - 1) else { continue };
                return Err(NotRepeatable { step, why: format!("the second time {why}") });
            };
            for difference in compare(first, second, &Masks::default()) {
                if difference.first.is_none() || difference.second.is_none() {
                    self.growing.insert((step, shape(&difference.place)));
                }
            }
            if let Some(difference) = self.masks.learn(first, second).first() {
                return Err(NotRepeatable { step, why: difference.to_string() });
            }
            if let Some(unmet) = second.unmet.first() {
                return Err(NotRepeatable { step, why: format!("the second time {unmet}") });
            }
            // A step takes as long as it does when nothing else is in its way; how soon another answer came says nothing of it.
            first.took = first.took.min(second.took);
        }
        Ok(())
    }

    /// How the outcome of a step differs from what one worker gives, in words; empty if it does not. With `is_coarse`, only what
    /// is never masked counts.
    pub fn differences(&self, step: usize, outcome: &Outcome, is_coarse: bool) -> Vec<String> {
        let (first, second) = match (self.reference.outcomes.get(step - 1), outcome) {
            (Some(Outcome::Answered(first)), Outcome::Answered(second)) => (first, second),
            (_, Outcome::Lost(why)) => return vec![why.clone()],
            _ => return vec!["there is nothing to compare it with".into()],
        };
        let told = self.told(step, first, second, is_coarse);
        let unmet = second.unmet.iter().map(ToString::to_string);
        told.iter().map(ToString::to_string).chain(unmet).take(TOLD_MAX).collect()
    }

    /// Whether what differs is a count of requests: a status of 429, or fields of a rate limit and nothing else.
    pub fn is_limit(&self, step: usize, outcome: &Outcome) -> bool {
        let (Some(Outcome::Answered(first)), Outcome::Answered(second)) =
            (self.reference.outcomes.get(step - 1), outcome)
        else {
            return false;
        };
        is_limit(&self.told(step, first, second, false))
    }

    /// Whether what differs is nothing but counts that are one more, as of visits.
    pub fn is_one_more(&self, step: usize, outcome: &Outcome) -> bool {
        let (Some(Outcome::Answered(first)), Outcome::Answered(second)) =
            (self.reference.outcomes.get(step - 1), outcome)
        else {
            return false;
        };
        is_one_more(&self.told(step, first, second, false))
    }

    /// Whether what differs is nothing but cookies that are set or are not: some are set when it is time for it.
    pub fn is_of_cookies(&self, step: usize, outcome: &Outcome, is_coarse: bool) -> bool {
        let (Some(Outcome::Answered(first)), Outcome::Answered(second)) =
            (self.reference.outcomes.get(step - 1), outcome)
        else {
            return false;
        };
        let told = self.told(step, first, second, is_coarse);
        second.unmet.is_empty() && !told.is_empty() && told.iter().all(|each| each.place.is_cookie())
    }

    /// Masks what of a step differs now and is maskable: it was seen that it comes and goes.
    pub fn excuse(&mut self, step: usize, outcome: &Outcome) {
        if let (Some(Outcome::Answered(first)), Outcome::Answered(second)) =
            (self.reference.outcomes.get(step - 1), outcome)
        {
            self.masks.learn(first, second);
        }
    }

    /// How an outcome of a step differs from both of `controls`, in words, beyond what differs between those; empty if it does not, and
    /// where these differ themselves in what is never masked, since then nothing can be said.
    pub fn differences_from(&self, step: usize, controls: [&Outcome; 2], outcome: &Outcome) -> Vec<String> {
        let [Outcome::Answered(first), Outcome::Answered(second)] = controls else { return Vec::new() };
        let Outcome::Answered(observed) = outcome else {
            let Outcome::Lost(why) = outcome else { return Vec::new() };
            return vec![why.clone()];
        };
        let by_chance = self.told(step, first, second, false);
        if by_chance.iter().any(|difference| !difference.place.is_maskable()) {
            return Vec::new();
        }
        let is_by_chance =
            |place: &Place| by_chance.iter().any(|difference| shape(&difference.place) == shape(place));
        let mut told = self.told(step, first, observed, false);
        told.retain(|difference| !is_by_chance(&difference.place));
        told.iter().map(ToString::to_string).take(TOLD_MAX).collect()
    }

    /// The differences that say something.
    fn told(&self, step: usize, first: &Observed, second: &Observed, is_coarse: bool) -> Vec<Difference> {
        let is_told = |difference: &Difference| {
            let place = &difference.place;
            !place.is_maskable() || !(is_coarse || self.growing.contains(&(step, shape(place))))
        };
        let mut differences = compare(first, second, &self.masks);
        differences.retain(is_told);
        differences
    }

    /// The places that say nothing, for people; `#` in them stands for any number.
    pub fn masked(&self) -> Vec<(usize, String)> {
        let masks = self.masks.iter().map(|(step, place)| (step, place.to_string()));
        // A shape without a number is the place itself.
        let growing = self.growing.iter().filter(|(_, shape)| shape.contains(ANY_NUMBER)).cloned();
        masks.chain(growing).collect()
    }
}

fn is_limit(differences: &[Difference]) -> bool {
    let is_429 = |difference: &Difference| {
        let is = |status: &Option<String>| status.as_deref() == Some("429");
        difference.place == Place::Status && (is(&difference.first) || is(&difference.second))
    };
    let is_field = |difference: &Difference| {
        let Place::Header(name) = &difference.place else { return false };
        name == "retry-after" || name.contains("ratelimit") || name.contains("rate-limit")
    };
    differences.iter().any(is_429) || (!differences.is_empty() && differences.iter().all(is_field))
}

fn is_one_more(differences: &[Difference]) -> bool {
    let is_next = |difference: &Difference| {
        let (Some(first), Some(second)) = (&difference.first, &difference.second) else { return false };
        let next = |text: &str| Some(text.parse::<u64>().ok()?.checked_add(1)?.to_string());
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (first, second) = (words(first), words(second));
        first.len() == second.len()
            && first.iter().zip(&second).all(|(a, b)| a == b || next(a).as_ref() == Some(b))
    };
    let is_maskable = |difference: &Difference| difference.place.is_maskable();
    !differences.is_empty() && differences.iter().all(|each| is_maskable(each) && is_next(each))
}

/// A place without its numbers: all rows of a list have one shape.
fn shape(place: &Place) -> String {
    let mut shape = String::new();
    for char in place.to_string().chars() {
        match char.is_ascii_digit() {
            true if shape.ends_with(ANY_NUMBER) => {}
            true => shape.push(ANY_NUMBER),
            false => shape.push(char),
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differs(place: Place, first: &str, second: &str) -> Difference {
        Difference { place, first: Some(first.into()), second: Some(second.into()) }
    }

    #[test]
    fn a_count_of_requests_is_known_by_its_status_and_fields() {
        let header = |name: &str| differs(Place::Header(name.into()), "2", "1");
        let text = |second| differs(Place::Text("html/body".into()), "429 books", second);
        for (differences, expected) in [
            (vec![differs(Place::Status, "429", "200"), text("other")], true),
            (vec![header("x-ratelimit-remaining"), header("retry-after")], true),
            (vec![], false),
            // Neither a text with such a number nor a field beside something else is one.
            (vec![text("429 in all")], false),
            (vec![differs(Place::Status, "200", "401"), header("ratelimit")], false),
            (vec![header("x-ratelimit-remaining"), text("no books")], false),
        ] {
            assert_eq!(is_limit(&differences), expected, "{differences:?}");
        }
    }

    #[test]
    fn a_count_that_is_one_more_is_told_from_other_changes() {
        let text = |first, second| differs(Place::Text("html/body".into()), first, second);
        for (differences, expected) in [
            (vec![text("3", "4")], true),
            (vec![text("seen 9 times by 2", "seen 10 times by 3")], true),
            (vec![], false),
            (vec![text("90", "80")], false),
            (vec![text("seen 3 times", "seen 4 times today")], false),
            (vec![text("3", "4"), text("ink", "no ink")], false),
            (vec![differs(Place::Status, "200", "201")], false),
        ] {
            assert_eq!(is_one_more(&differences), expected, "{differences:?}");
        }
    }

    /// A machine that was busy for a moment makes no step a long one.
    #[test]
    fn a_step_takes_what_it_takes_at_least() {
        use crate::stage::tests::answered;
        use std::time::Duration;
        let run = |ms: u64| Run { outcomes: vec![answered(1, Duration::from_millis(ms))], ..Run::default() };
        let mut noise = Noise::new(run(400));
        for (ms, expected) in [(9, 9), (300, 9)] {
            noise.learn(&run(ms)).unwrap();
            let Outcome::Answered(first) = &noise.reference().outcomes[0] else { panic!("it is answered") };
            assert_eq!(first.took, Duration::from_millis(expected));
        }
        let mut refused = run(1);
        let Outcome::Answered(answer) = &mut refused.outcomes[0] else { panic!("it is answered") };
        answer.status = http::StatusCode::SERVICE_UNAVAILABLE;
        noise.learn(&refused).unwrap_err();
        let Outcome::Answered(first) = &noise.reference().outcomes[0] else { panic!("it is answered") };
        assert_eq!(first.took, Duration::from_millis(9), "another answer is another step");
    }

    #[test]
    fn rows_that_come_and_go_are_told() {
        let mut noise = Noise::new(Run::default());
        noise.growing.insert((2, shape(&Place::Json("/rows/12/id".into()))));
        noise.growing.insert((3, shape(&Place::Json("/total".into()))));
        assert_eq!(noise.masked(), [(2, "JSON /rows/#/id".to_owned())]);
    }
}
