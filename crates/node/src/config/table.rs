//! A table of the file, read key by key: what it does not know and what is of the wrong type is reported with its
//! place, and reading goes on.

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::{
    duration, file, limits,
    problem::{Report, listed, nearest},
    route, service, size, state, tls,
};

/// Most characters of a value that are repeated in a message.
const SHOWN_CHARS_MAX: usize = 40;

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A table and what it is called.
pub(super) struct Table<'v, 't> {
    /// As in `[services.shop] has no …`; empty for the file as a whole.
    pub title: String,
    /// Where a message about the whole of it points.
    pub span: Range<usize>,
    entries: &'v DeTable<'t>,
    /// The known keys that unknown ones were probably meant to be.
    misspelt: Vec<&'static str>,
}

/// A text of the file and where it stands.
pub(super) struct Text<'v> {
    pub text: &'v str,
    pub span: Range<usize>,
}

impl<'v, 't> Table<'v, 't> {
    /// Takes `entries` and reports each key that is not `known`.
    pub(super) fn open(
        title: String,
        span: Range<usize>,
        entries: &'v DeTable<'t>,
        known: &[&'static str],
        report: &mut Report<'_>,
    ) -> Self {
        let mut table = Self { title, span, entries, misspelt: Vec::new() };
        for (key, value) in entries {
            let word = key.get_ref();
            if known.contains(&word.as_ref()) {
                continue;
            }
            let near = nearest(word, known.iter().copied());
            // One letter off is a slip, whatever else it could be; then one that stands in the wrong table.
            let slip = near.is_some_and(|near| strsim::damerau_levenshtein(word, near) == 1);
            let home = home(word, known).filter(|_| !slip && !value.get_ref().is_table());
            table.misspelt.extend(near.filter(|_| home.is_none()));
            let next = match (home, near) {
                (Some(home), _) => format!("it belongs {home}"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("known there: {}", listed(known.iter().copied())),
            };
            report.at(key.span(), format!("unknown key `{word}`{}; {next}", table.inside()));
        }
        table
    }

    /// As in `unknown key … in [services.shop]`.
    pub(super) fn inside(&self) -> String {
        if self.title.is_empty() { String::new() } else { format!(" in {}", self.title) }
    }

    /// Whether `key` is there, if only misspelt: then it must not be said to be missing.
    pub(super) fn was_tried(&self, key: &str) -> bool {
        self.entries.contains_key(key) || self.misspelt.contains(&key)
    }

    /// The value of `key`.
    pub(super) fn value(&self, key: &str) -> Option<&'v Value<'t>> {
        self.entries.get(key)
    }

    /// Reports that the value of `key` is not what is `expected`, which names an example.
    pub(super) fn wrong_type(&self, key: &str, expected: &str, value: &Value<'_>, report: &mut Report<'_>) {
        wrong_type(&format!("`{key}`{}", self.inside()), expected, value, report);
    }

    /// The text of `key`, if it is there and a text.
    pub(super) fn text(&self, key: &str, expected: &str, report: &mut Report<'_>) -> Option<Text<'v>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Text { text, span: value.span() }),
            _ => {
                self.wrong_type(key, expected, value, report);
                None
            }
        }
    }

    /// The text of `key` made into what it stands for; `parse` says what is wrong in a sentence that goes after the
    /// value.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        expected: &str,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        read(key, &self.text(key, expected, report)?, report, parse)
    }

    /// A table inside of this one, as the value of `key`.
    pub(super) fn inner<'w, 'u>(
        &self,
        key: &str,
        value: &'w Value<'u>,
        entries: &'w DeTable<'u>,
        known: &[&'static str],
        report: &mut Report<'_>,
    ) -> Table<'w, 'u> {
        let outer = self.title.trim_matches(['[', ']']);
        Table::open(format!("[{outer}.{key}]"), value.span(), entries, known, report)
    }

    /// The address of `key`, which may be a port alone, also one that is written as a number.
    pub(super) fn address<T>(
        &self,
        key: &str,
        expected: &str,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            return self.parsed(key, expected, report, parse);
        };
        read(key, &Text { text: &integer(number).to_string(), span: value.span() }, report, parse)
    }

    /// The whole number of `key`, within bounds.
    pub(super) fn number(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        report: &mut Report<'_>,
    ) -> Option<u64> {
        let value = self.value(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            let example = format!("a whole number from {} to {}", bounds.start(), bounds.end());
            self.wrong_type(key, &example, value, report);
            return None;
        };
        let found = u64::try_from(integer(number)).ok().filter(|number| bounds.contains(number));
        if found.is_none() {
            let why = format!("is out of bounds: write a number from {} to {}", bounds.start(), bounds.end());
            bad_value(key, &Text { text: &number.to_string(), span: value.span() }, &why, report);
        }
        found
    }

    /// The same for what is counted in 32 bits.
    pub(super) fn count(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        report: &mut Report<'_>,
    ) -> Option<u32> {
        self.number(key, bounds, report).and_then(|number| number.try_into().ok())
    }

    /// The size of `key` in bytes, within bounds.
    pub(super) fn size(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        report: &mut Report<'_>,
    ) -> Option<u64> {
        let value = self.value(key)?;
        let (text, parsed) = match value.get_ref() {
            DeValue::Integer(number) => {
                let number = integer(number);
                (number.to_string(), u64::try_from(number).map_err(|_| "is less than nothing".to_owned()))
            }
            DeValue::String(text) => (text.to_string(), size::parse(text)),
            _ => {
                self.wrong_type(key, size::EXPECTED, value, report);
                return None;
            }
        };
        let (least, most) = (size::shown(*bounds.start()), size::shown(*bounds.end()));
        let within = parsed.and_then(|bytes| match bytes {
            bytes if bytes < *bounds.start() => Err(format!("is too small: write at least \"{least}\"")),
            bytes if bytes > *bounds.end() => Err(format!("is too large: write at most \"{most}\"")),
            bytes => Ok(bytes),
        });
        within.map_err(|why| bad_value(key, &Text { text: &text, span: value.span() }, &why, report)).ok()
    }

    /// The duration of `key`, within bounds.
    pub(super) fn duration(
        &self,
        key: &str,
        bounds: RangeInclusive<Duration>,
        report: &mut Report<'_>,
    ) -> Option<Duration> {
        self.parsed(key, duration::EXPECTED, report, |text| match duration::parse(text)? {
            duration if duration < *bounds.start() => {
                Err(format!("is too short: write at least \"{}\"", duration::shown(*bounds.start())))
            }
            duration if duration > *bounds.end() => {
                Err(format!("is too long: write at most \"{}\"", duration::shown(*bounds.end())))
            }
            duration => Ok(duration),
        })
    }

    /// The truth of `key`.
    pub(super) fn boolean(&self, key: &str, report: &mut Report<'_>) -> Option<bool> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Boolean(truth) => Some(*truth),
            _ => {
                self.wrong_type(key, "`true` or `false`", value, report);
                None
            }
        }
    }
}

/// Where a key that is known somewhere should have stood. In TOML each key goes to the table last opened, so that one
/// for the whole file slips into the last service.
fn home(word: &str, known: &[&str]) -> Option<&'static str> {
    let tables: [&[&str]; 5] = [&file::KEYS, service::KEYS, &route::KEYS, &limits::KEYS, &tls::KEYS];
    if !tables.contains(&known) {
        None
    } else if file::KEYS.contains(&word) {
        Some("at the top of the file, before the first [table]")
    } else if service::KEYS.contains(&word) {
        Some("under [services.NAME]")
    } else if route::KEYS.contains(&word) {
        Some("under [[routes]]")
    } else if limits::KEYS.contains(&word) {
        Some("under [limits]")
    } else if tls::KEYS.contains(&word) {
        Some("under [tls]")
    } else if state::KEYS.contains(&word) {
        Some("under [state]")
    } else {
        None
    }
}

/// What `text` stands for, as the value of `key`; `parse` says what is wrong in a sentence that goes after it.
fn read<T>(
    key: &str,
    text: &Text<'_>,
    report: &mut Report<'_>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    parse(text.text).map_err(|why| bad_value(key, text, &why, report)).ok()
}

/// Reports that `text` is no value for `key`.
pub(super) fn bad_value(key: &str, text: &Text<'_>, why: &str, report: &mut Report<'_>) {
    let shown = shorten(text.text);
    report.at(text.span.clone(), format!("`{key}`: `{shown}` {why}"));
}

/// Reports that `what` is not what is `expected`.
pub(super) fn wrong_type(what: &str, expected: &str, value: &Value<'_>, report: &mut Report<'_>) {
    let source = report.text().get(value.span()).unwrap_or_default();
    let got = match value.get_ref() {
        DeValue::Table(_) => "a table".into(),
        DeValue::Array(_) => "an array".into(),
        other => format!("the {} `{}`", other.type_str(), shorten(source)),
    };
    report.at(value.span(), format!("{what} must be {expected}, not {got}"));
}

/// A whole number of the file; one that is too large is the largest there is.
pub(super) fn integer(number: &DeInteger<'_>) -> i64 {
    i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(match number.as_str().starts_with('-') {
        true => i64::MIN,
        false => i64::MAX,
    })
}

/// The value of the file as a message repeats it: one line, and not too much of it.
fn shorten(text: &str) -> String {
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS_MAX).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}
