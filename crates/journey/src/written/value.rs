//! Values of TOML 1.0 as people write them: keys in a column, tables on one line where they fit, texts in the quotes that need no escapes.

use std::fmt;

/// The longest line on which a table or list stands as a whole, in characters.
const LINE_CHARS_MAX: usize = 110;

/// Keys up to this length are followed by spaces, so that values stand below each other.
const COLUMN_CHARS_MAX: usize = 14;

/// Line breaks of a text that is written over several lines, at least.
const BREAKS_MIN: usize = 2;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A text.
    Text(String),
    /// A number or truth value, as it is written.
    Bare(String),
    /// A list.
    List(Vec<Value>),
    /// A table, in this order. No key is there twice.
    Table(Vec<(String, Value)>),
}

/// Keys and values below a header such as `[[steps]]`, and the tables in it that need lines of their own.
pub(super) struct Section {
    /// As in the headers of tables within it; empty at the top of the file.
    path: String,
    entries: Vec<(String, Value)>,
}

impl Section {
    pub(super) fn new(path: impl Into<String>, entries: Vec<(String, Value)>) -> Self {
        Self { path: path.into(), entries }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not deeper: what has lines of its own comes last, and the order of what is in a table may count.
        let may_be_apart = !self.path.contains('.');
        let is_apart = |(key, value): &(String, Value)| {
            may_be_apart && matches!(value, Value::Table(entries) if !entries.is_empty()) && !fits(key, value)
        };
        let (apart, here): (Vec<_>, Vec<_>) = self.entries.iter().partition(|entry| is_apart(entry));
        let keys = here.iter().map(|(name, _)| key(name).chars().count());
        let column = keys.filter(|length| *length <= COLUMN_CHARS_MAX).max().unwrap_or_default();
        for (name, value) in here {
            writeln!(f, "{:column$} = {}", key(name), Shown(name, value))?;
        }
        for (name, value) in apart {
            let Value::Table(entries) = value else { continue };
            let dot = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{}", self.path, key(name));
            write!(f, "\n[{path}]\n{}", Self::new(path.clone(), entries.clone()))?;
        }
        Ok(())
    }
}

/// A value behind its key.
struct Shown<'v>(&'v str, &'v Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, value) = self;
        match value {
            Value::Text(text) if is_block(text) => write!(f, "'''\n{text}'''"),
            Value::List(values) if !fits(key, value) => {
                f.write_str("[\n")?;
                values.iter().try_for_each(|value| writeln!(f, "  {},", inline(value)))?;
                f.write_str("]")
            }
            value => f.write_str(&inline(value)),
        }
    }
}

/// Whether it stands on one line.
pub(super) fn fits(name: &str, value: &Value) -> bool {
    key(name).chars().count() + 3 + inline(value).chars().count() <= LINE_CHARS_MAX && !has_block(value)
}

fn has_block(value: &Value) -> bool {
    match value {
        Value::Text(text) => is_block(text),
        Value::Bare(_) => false,
        Value::List(values) => values.iter().any(has_block),
        Value::Table(entries) => entries.iter().any(|(_, value)| has_block(value)),
    }
}

/// On one line, whatever its length.
pub(super) fn inline(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Bare(text) => text.clone(),
        Value::List(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Table(entries) if entries.is_empty() => "{}".into(),
        Value::Table(entries) => {
            let entry = |(name, value): &(String, Value)| format!("{} = {}", key(name), inline(value));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

fn key(name: &str) -> String {
    let is_bare =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { name.into() } else { quoted(name) }
}

/// Whether a text is written over several lines, as it is. A carriage return would not be read as it was.
fn is_block(text: &str) -> bool {
    text.matches('\n').count() >= BREAKS_MIN
        && !text.contains("'''")
        && !text.ends_with('\'')
        && text.chars().all(|c| c == '\n' || c == '\t' || !is_escaped(c))
}

/// In the quotes that need no escapes, if there are such.
fn quoted(text: &str) -> String {
    let needs_escape = text.contains(['"', '\\']);
    if needs_escape && !text.contains('\'') && !text.chars().any(is_escaped) {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            char if is_escaped(char) => quoted.push_str(&format!("\\u{:04X}", u32::from(char))),
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

/// What may not stand in a file, or would mislead who reads it (Unicode Standard Annex 9, section 2). All of it has four digits.
fn is_escaped(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
