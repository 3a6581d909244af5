//! Writes YAML that every reader understands alike: block maps and lists, and each text either plain, if nobody could take it
//! for anything else, or in double quotes (YAML 1.2.2, section 7.3.1). Whoever reads it by YAML 1.1, as Kubernetes does, must not
//! find a truth in `no` or a number in `12e3`.

use std::fmt::Write;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Yaml {
    Map(Map),
    List(Vec<Yaml>),
    Text(String),
    Number(i64),
    Truth(bool),
}

/// A map in the order in which it was filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Lines that are written before it.
    comment: Vec<String>,
    key: String,
    value: Yaml,
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Yaml {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Yaml {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Yaml {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

impl From<Map> for Yaml {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl<T: Into<Yaml>> From<Vec<T>> for Yaml {
    fn from(list: Vec<T>) -> Self {
        Self::List(list.into_iter().map(Into::into).collect())
    }
}

impl Map {
    /// With one entry.
    pub(crate) fn of(key: &str, value: impl Into<Yaml>) -> Self {
        Self::default().with(key, value)
    }

    /// With one entry more.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Yaml>) -> Self {
        self.0.push(Entry { comment: Vec::new(), key: key.into(), value: value.into() });
        self
    }

    /// With one entry more, if there is a value.
    pub(crate) fn maybe(self, key: &str, value: Option<impl Into<Yaml>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// The last entry has this said before it, a line each.
    pub(crate) fn saying(mut self, comment: &str) -> Self {
        if let Some(last) = self.0.last_mut() {
            last.comment.extend(comment.lines().map(Into::into));
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a document, without the line that separates it from others.
    pub(crate) fn document(&self) -> String {
        let mut text = String::new();
        write_map(&mut text, self, 0, false);
        text
    }
}

/// `inline`: the first line goes on where a `- ` stands.
fn write_map(text: &mut String, map: &Map, indent: usize, inline: bool) {
    for (index, entry) in map.0.iter().enumerate() {
        let is_begun = inline && index == 0;
        if !is_begun {
            for line in &entry.comment {
                let _ = writeln!(text, "{:indent$}# {line}", "");
            }
            let _ = write!(text, "{:indent$}", "");
        }
        let _ = write!(text, "{}:", scalar(&entry.key));
        write_value(text, &entry.value, indent);
    }
}

/// What stands after a key.
fn write_value(text: &mut String, value: &Yaml, indent: usize) {
    match value {
        Yaml::Map(map) if map.is_empty() => text.push_str(" {}\n"),
        Yaml::List(list) if list.is_empty() => text.push_str(" []\n"),
        Yaml::Map(map) => {
            text.push('\n');
            write_map(text, map, indent + 2, false);
        }
        Yaml::List(list) => {
            text.push('\n');
            write_list(text, list, indent + 2);
        }
        single => {
            let _ = writeln!(text, " {}", single.single());
        }
    }
}

fn write_list(text: &mut String, list: &[Yaml], indent: usize) {
    for item in list {
        match item {
            Yaml::Map(map) if !map.is_empty() => {
                for line in &map.0[0].comment {
                    let _ = writeln!(text, "{:indent$}# {line}", "");
                }
                let _ = write!(text, "{:indent$}- ", "");
                write_map(text, map, indent + 2, true);
            }
            Yaml::List(inner) if !inner.is_empty() => {
                let _ = writeln!(text, "{:indent$}-", "");
                write_list(text, inner, indent + 2);
            }
            single => {
                let _ = writeln!(text, "{:indent$}- {}", "", single.single());
            }
        }
    }
}

impl Yaml {
    /// What fits on a line.
    fn single(&self) -> String {
        match self {
            Self::Map(_) => "{}".into(),
            Self::List(_) => "[]".into(),
            Self::Text(text) => scalar(text),
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }
}

/// What is nothing but a text to YAML 1.1 too, nor could look so (yaml.org/type/bool, null, float).
const TAKEN: [&str; 9] = ["y", "yes", "n", "no", "true", "false", "on", "off", "null"];

/// A text, plain or quoted.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        && !TAKEN.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.into() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            // What is not printable by the standard, and what some readers take for the end of a line or swallow.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use lethe_yaml::documents;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn expected(yaml: &Yaml) -> Value {
        match yaml {
            Yaml::Map(map) => {
                Value::Object(map.0.iter().map(|it| (it.key.clone(), expected(&it.value))).collect())
            }
            Yaml::List(list) => list.iter().map(expected).collect(),
            Yaml::Text(text) => json!(text),
            Yaml::Number(number) => json!(number),
            Yaml::Truth(truth) => json!(truth),
        }
    }

    fn check(map: &Map) {
        let text = map.document();
        let read = documents(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, [expected(&Yaml::Map(map.clone()))], "{text}");
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_quoted() {
        for text in [
            "",
            " ",
            "no",
            "NO",
            "Off",
            "y",
            "~",
            "null",
            "true",
            "12",
            "1e3",
            "0x1f",
            "1_000",
            ".inf",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#",
            "@x",
            "`x`",
            "!tag",
            "&a",
            "*a",
            "a\nb",
            "a\"b",
            "a\\b",
            "\u{85}",
            "\u{2028}",
            "2026-01-01",
            "12:30",
            "a ",
            "{a}",
            "[a]",
            "a,b",
            "%",
            "|",
            ">",
            "'",
            "é",
            "\u{feff}",
            "\0",
        ] {
            assert!(scalar(text).starts_with('"'), "{text:?}");
            check(&Map::of("key", text).with(if text.is_empty() { "k" } else { text }, 1_i64));
        }
        for text in ["shop", "/healthz", "apps/v1", "autoscaling/v2", "RollingUpdate", "e3"] {
            assert_eq!(scalar(text), text);
        }
    }

    #[test]
    fn how_it_looks() {
        let map = Map::of("kind", "Service")
            .with("list", vec![Yaml::from(Map::of("a", 1_i64).saying("Why.").with("b", "no")), "x".into()])
            .with("empty", Map::default())
            .saying("Two\nlines.")
            .with("deep", Map::of("none", Vec::<Yaml>::new()).with("well", true));
        let expected = "kind: Service\nlist:\n  # Why.\n  - a: 1\n    b: \"no\"\n  - x\n# Two\n# lines.\nempty: {}\n\
                        deep:\n  none: []\n  well: true\n";
        assert_eq!(map.document(), expected);
        check(&map);
    }

    fn any_yaml() -> impl Strategy<Value = Yaml> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Yaml::Text),
            "[a-zA-Z0-9:#&*!|>%@` \\-\\.~\n\t\"'\\\\]{0,12}".prop_map(Yaml::Text),
            any::<i64>().prop_map(Yaml::Number),
            any::<bool>().prop_map(Yaml::Truth),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Yaml::List),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|entries| {
                    Yaml::Map(
                        entries.into_iter().fold(Map::default(), |map, (key, value)| map.with(&key, value)),
                    )
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(value in any_yaml()) {
            check(&Map::of("value", value));
        }
    }
}
