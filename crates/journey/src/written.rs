//! A journey as a file that people read and change: the opposite of [`crate::document`]. What [`write`] writes is read as the same
//! journey again, but for its notes, which become comments.

mod channel;
mod step;
mod value;

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use http::HeaderName;

use crate::{
    document::DECIDED,
    journey::{Journey, Step},
    template::{self, Template},
    written::value::{Section, Value},
};

/// A journey's file, and the files that it sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The text, in TOML 1.0.
    pub text: String,
    /// What is sent as it is, to be kept beside.
    pub files: Vec<File>,
}

/// A file that a journey sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path from the folder of the journey's file.
    pub path: String,
    /// What is in it.
    pub bytes: Bytes,
}

/// What is being written.
struct Writer<'f> {
    /// Where files are, from the folder of the journey's file.
    folder: &'f str,
    files: Vec<File>,
    /// Variables that stand for one character each.
    stand_ins: BTreeMap<char, String>,
    taken: HashSet<String>,
    /// What cannot be said in a file, for the step that is being written.
    unsaid: Vec<String>,
}

/// Writes `journey`. Bytes that it sends become files in `folder`, which is a path from where the journey's file will be.
///
/// A header field that is there several times stands where its first value does. What the format has no word for, a comment names:
/// of what readers make, there is no such thing.
pub fn write(journey: &Journey, folder: &str) -> Written {
    let variables = journey.variables.iter().map(|(name, _)| name);
    let captured = journey.steps.iter().flat_map(|step| &step.captures).map(|capture| &capture.variable);
    let builtin = [template::IDENTITY, template::ORIGIN].map(String::from);
    let mut writer = Writer {
        folder,
        files: Vec::new(),
        stand_ins: BTreeMap::new(),
        taken: variables.chain(captured).cloned().chain(builtin).collect(),
        unsaid: Vec::new(),
    };
    let common = common_headers(journey);
    let steps: Vec<String> = journey.steps.iter().map(|step| writer.step(journey, step, &common)).collect();
    let head = writer.head(journey, &common);
    let sections: Vec<String> = std::iter::once(head).chain(steps).collect();
    Written { text: sections.join("\n"), files: writer.files }
}

impl Writer<'_> {
    /// What stands above the steps.
    fn head(&mut self, journey: &Journey, common: &[(HeaderName, Template)]) -> String {
        let mut text: String = journey
            .notes
            .iter()
            .filter(|note| step_of(note, journey).is_none())
            .map(|note| comment(note))
            .collect();
        if !text.is_empty() {
            text.push('\n');
        }
        let mut top = vec![("name".to_owned(), Value::Text(journey.name.clone()))];
        top.extend(journey.host.iter().map(|host| ("host".to_owned(), Value::Text(host.clone()))));
        let mut headers = Vec::new();
        for (name, value) in common {
            headers.push((name.to_string(), self.template(value)));
        }
        if !headers.is_empty() {
            top.push(("headers".into(), Value::Table(headers)));
        }
        text.push_str(&Section::new("", top).to_string());
        let own: Vec<_> =
            journey.variables.iter().map(|(name, value)| (name.clone(), self.template(value))).collect();
        // They may be used by those below them.
        let stand_ins =
            self.stand_ins.iter().map(|(char, name)| (name.clone(), Value::Text(char.to_string())));
        let variables: Vec<_> = stand_ins.chain(own).collect();
        if !variables.is_empty() {
            text.push_str(&format!("\n[variables]\n{}", Section::new("variables", variables)));
        }
        text
    }

    fn template(&mut self, template: &Template) -> Value {
        Value::Text(self.text(template))
    }

    /// One value, or a list of several.
    fn templates(&mut self, templates: &[Template]) -> Value {
        match templates {
            [one] => self.template(one),
            several => Value::List(several.iter().map(|template| self.template(template)).collect()),
        }
    }

    fn text(&mut self, template: &Template) -> String {
        let (stand_ins, taken) = (&mut self.stand_ins, &mut self.taken);
        template.written(|char| {
            let name = stand_ins.entry(char).or_insert_with(|| {
                let plain = if char == '{' { "brace" } else { "backslash" };
                let name = template::unused(plain, taken);
                taken.insert(name.clone());
                name
            });
            name.clone()
        })
    }
}

/// A note as lines of a comment.
fn comment(note: &str) -> String {
    let harmless = note.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}");
    harmless.lines().map(|line| format!("# {line}\n")).collect()
}

/// The step that a note is about, as `step 3: …` and `step 3 signs up` are.
fn step_of(note: &str, journey: &Journey) -> Option<usize> {
    let digits = note.strip_prefix("step ")?.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|number| journey.step(*number).is_some())
}

/// Header fields that each step has, with the value that most of them have. They are written once; a step's own value stands for it.
fn common_headers(journey: &Journey) -> Vec<(HeaderName, Template)> {
    let steps = &journey.steps;
    let Some((first, others)) = steps.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Vec::new();
    };
    let one = |step: &Step, name: &HeaderName| {
        let mut values = step.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.clone());
        values.next().filter(|_| values.next().is_none())
    };
    let mut common = Vec::new();
    for (name, _) in first.headers.iter().filter(|(name, _)| !DECIDED.contains(name)) {
        let values: Option<Vec<Template>> = steps.iter().map(|step| one(step, name)).collect();
        // Only what is known from the beginning can be sent by each.
        let is_known = |value: &Template| {
            let is_variable = |name: &str| journey.variables.iter().any(|(known, _)| known == name);
            value
                .names()
                .all(|name| [template::IDENTITY, template::ORIGIN].contains(&name) || is_variable(name))
        };
        let count =
            |values: &[Template], value: &Template| values.iter().filter(|other| *other == value).count();
        let Some(values) = values else { continue };
        let most = values.iter().filter(|value| is_known(value)).max_by_key(|value| count(&values, value));
        if let Some(value) = most.filter(|value| count(&values, value) > others.len() / 2) {
            common.push((name.clone(), value.clone()));
        }
    }
    common
}

#[cfg(test)]
mod tests;
