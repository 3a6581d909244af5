//! How two responses to one step differ, and which differences say nothing since runs that should be alike have them too.
//!
//! A response is taken apart into its smallest pieces ([`leaves`]): words of a page's text, attributes, leaves of JSON, header fields. Two
//! responses differ at the places whose pieces differ. [`Masks`] learn such places from control runs; the status and where a redirect
//! leads are never masked.

mod leaves;
mod place;
mod shape;

use std::{collections::BTreeSet, fmt};

pub use place::Place;

use crate::observed::Observed;

/// Most differences of two responses that are told.
pub const DIFFERENCES_MAX: usize = 200;

/// Most characters of a piece that are kept in a difference.
const SHOWN_CHARS_MAX: usize = 200;

/// One place at which two responses differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// What the first has there; `None` if nothing.
    pub first: Option<String>,
    /// What the second has there; `None` if nothing.
    pub second: Option<String>,
}

/// The places that say nothing, of each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    places: BTreeSet<(usize, Place)>,
}

impl Masks {
    /// Takes in the places at which two control runs of one step differ; gives the differences that are never masked, by which the
    /// journey is not repeatable.
    pub fn learn(&mut self, first: &Observed, second: &Observed) -> Vec<Difference> {
        let mut unmaskable = Vec::new();
        for difference in differences(first, second, usize::MAX) {
            if difference.place.is_maskable() {
                self.places.insert((first.step, difference.place));
            } else {
                unmaskable.push(difference);
            }
        }
        unmaskable
    }

    /// Whether a place of a step says nothing, by itself or as part of one that does.
    pub fn has(&self, step: usize, place: &Place) -> bool {
        self.places.contains(&(step, place.clone()))
            || place.whole().is_some_and(|whole| self.places.contains(&(step, whole)))
    }

    /// The places, by step.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Place)> {
        self.places.iter().map(|(step, place)| (*step, place))
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// How two responses to the same step differ, in the order of their parts, but for what is masked and what differs by nature: the time
/// that they were given at, and the identities of their runs. At most [`DIFFERENCES_MAX`].
pub fn compare(first: &Observed, second: &Observed, masks: &Masks) -> Vec<Difference> {
    let mut differences = differences(first, second, usize::MAX);
    differences
        .retain(|difference| !difference.place.is_maskable() || !masks.has(first.step, &difference.place));
    differences.truncate(DIFFERENCES_MAX);
    differences
}

/// All pieces of a response, in their order, each at its place; moments and the identity of its run are replaced by names.
pub fn pieces(observed: &Observed) -> Vec<(Place, String)> {
    leaves::of(observed).all
}

fn differences(first: &Observed, second: &Observed, most: usize) -> Vec<Difference> {
    let (first, second) = (leaves::of(first), leaves::of(second));
    let mut differences = Vec::new();
    for (place, text) in &first.all {
        let other = second.get(place);
        if other != Some(text.as_str()) {
            place.differences(Some(text), other, &mut differences);
        }
    }
    for (place, text) in &second.all {
        if first.get(place).is_none() {
            place.differences(None, Some(text), &mut differences);
        }
    }
    differences.truncate(most);
    differences
}

impl Difference {
    fn new(place: Place, first: Option<&str>, second: Option<&str>) -> Self {
        let cut = |text: &str| match text.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.to_owned(),
        };
        Self { place, first: first.map(cut), second: second.map(cut) }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.first, &self.second) {
            (Some(first), Some(second)) => write!(f, "{}: {first:?} and {second:?}", self.place),
            (Some(first), None) => write!(f, "{}: {first:?} and nothing", self.place),
            (None, Some(second)) => write!(f, "{}: nothing and {second:?}", self.place),
            (None, None) => write!(f, "{}", self.place),
        }
    }
}

#[cfg(test)]
mod tests;
