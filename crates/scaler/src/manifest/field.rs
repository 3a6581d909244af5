//! A value of a manifest that knows its path, so that each refusal can say where it is.

use std::time::Duration;

use serde_json::Value;

use crate::{manifest::Problem, quantity::Quantity};

/// A value and its path.
pub struct Field<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Field<'a> {
    /// The value at this path.
    pub fn new(value: &'a Value, path: &str) -> Self {
        Self { value, path: path.into() }
    }

    /// As it was read.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// The field of this name, unless it is not there or null.
    pub fn child(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Self { value, path: self.path_to(key) })
    }

    fn path_to(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// Says what is wrong with it.
    pub fn refuse(&self, problems: &mut Vec<Problem>, what: String) {
        problems.push(Problem { path: self.path.clone(), what });
    }

    /// Says what is wrong with a field of it that is not there.
    pub fn missing(&self, problems: &mut Vec<Problem>, key: &str, what: &str) {
        problems.push(Problem { path: self.path_to(key), what: what.into() });
    }

    /// Whether it is a map that has none but these keys. Says so, if not.
    pub fn is_map(&self, problems: &mut Vec<Problem>, known: &[&str]) -> bool {
        let Value::Object(map) = self.value else {
            self.refuse(problems, format!("must be a map, not {}", self.value));
            return false;
        };
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            let likeness = |name: &&&str| (strsim::jaro_winkler(key, name) * 1_000.0) as u32;
            let nearest = known.iter().max_by_key(likeness).filter(|name| likeness(name) > 700);
            let hint = nearest.map_or_else(
                || format!("known are {}", known.join(", ")),
                |name| format!("did you mean {name}?"),
            );
            self.missing(problems, key, &format!("is no field here; {hint}"));
        }
        true
    }

    /// Its items, if it is a list. Says so, if not.
    pub fn items(&self, problems: &mut Vec<Problem>) -> Vec<Self> {
        let Value::Array(items) = self.value else {
            self.refuse(problems, format!("must be a list, not {}", self.value));
            return Vec::new();
        };
        let item = |(at, value)| Self { value, path: format!("{}[{at}]", self.path) };
        items.iter().enumerate().map(item).collect()
    }

    /// A text that is not empty.
    pub fn text(&self, problems: &mut Vec<Problem>) -> Option<&'a str> {
        let text = self.value.as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            self.refuse(problems, format!("must be a text, not {}", self.value));
        }
        text
    }

    /// The name of a metric, which must be able to stand in a path (`IsValidPathSegmentName`).
    pub fn name(&self, problems: &mut Vec<Problem>) -> Option<&'a str> {
        let name = self.text(problems)?;
        if name == "." || name == ".." || name.contains(['/', '%']) {
            self.refuse(problems, format!("may not be . or .. nor hold / or %, as {name} does"));
            return None;
        }
        Some(name)
    }

    /// Which of these texts it is.
    pub fn one_of<T: Copy>(&self, problems: &mut Vec<Problem>, known: &[(&str, T)]) -> Option<T> {
        let found = known.iter().find(|(text, _)| self.value == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<&str> = known.iter().map(|(text, _)| *text).collect();
            self.refuse(problems, format!("must be one of {}, not {}", known.join(", "), self.value));
        }
        found
    }

    /// A whole number of `min` or more that fits 32 bits with a sign, as all of Kubernetes' do.
    pub fn count(&self, problems: &mut Vec<Problem>, min: u32) -> Option<u32> {
        self.whole(problems, min, i32::MAX.unsigned_abs())
    }

    /// A whole number from `min` to `max`.
    pub fn whole(&self, problems: &mut Vec<Problem>, min: u32, max: u32) -> Option<u32> {
        let number = self
            .value
            .as_i64()
            .or_else(|| self.value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64));
        let count =
            number.and_then(|number| u32::try_from(number).ok()).filter(|count| (min..=max).contains(count));
        if count.is_none() {
            self.refuse(problems, format!("must be a whole number from {min} to {max}, not {}", self.value));
        }
        count
    }

    /// Percent of a request; at least 1.
    pub fn percent(&self, problems: &mut Vec<Problem>) -> Option<i32> {
        self.count(problems, 1).and_then(|percent| i32::try_from(percent).ok())
    }

    /// A whole number of seconds from `min` up to `max`.
    pub fn seconds(&self, problems: &mut Vec<Problem>, min: u32, max: Duration) -> Option<Duration> {
        let max = u32::try_from(max.as_secs()).unwrap_or(u32::MAX);
        self.whole(problems, min, max).map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// A quantity in milli-units, written as a text or as a number.
    pub fn milli(&self, problems: &mut Vec<Problem>) -> Option<i64> {
        let text = match self.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let quantity = text.parse::<Quantity>();
        if let Err(error) = &quantity {
            self.refuse(problems, error.to_string());
        }
        quantity.ok().map(|quantity| quantity.milli)
    }

    /// A quantity above zero, in milli-units.
    pub fn positive(&self, problems: &mut Vec<Problem>) -> Option<i64> {
        let milli = self.milli(problems)?;
        if milli <= 0 {
            self.refuse(problems, format!("must be greater than 0, not {}", self.value));
            return None;
        }
        Some(milli)
    }
}
