//! Text with variables in it, as `/orders/{{order}}`, and the variables of one run.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde_json::Value;

use crate::address;

/// The variable that is different in each run, so that two runs do not collide.
pub const IDENTITY: &str = "identity";

/// The variable that is the scheme and host that requests are made to, as in `Origin`.
pub const ORIGIN: &str = "origin";

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// What stands for `{{` itself.
const ESCAPED: &str = "\\{{";

/// Text with variables in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Piece {
    Text(String),
    Variable(String),
}

/// A variable without a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable {0} has no value yet")]
pub struct Missing(pub String);

impl Template {
    /// Reads `text`, in which `{{name}}` stands for a variable and `\{{` for two braces.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find(OPEN) {
            if let Some(before) = rest[..at].strip_suffix('\\') {
                template.push_text(before);
                template.push_text(OPEN);
                rest = &rest[at + OPEN.len()..];
                continue;
            }
            template.push_text(&rest[..at]);
            let inner = &rest[at + OPEN.len()..];
            let end = inner.find(CLOSE).ok_or_else(|| {
                format!("`{OPEN}` is not closed: write `{OPEN}name{CLOSE}`, or `{ESCAPED}` for two braces")
            })?;
            let name = inner[..end].trim();
            if !is_name(name) {
                return Err(format!(
                    "`{OPEN}{name}{CLOSE}` is no variable: names are of letters, digits, `_` and `-`; write `{ESCAPED}` for two braces"
                ));
            }
            template.pieces.push(Piece::Variable(name.to_owned()));
            rest = &inner[end + CLOSE.len()..];
        }
        template.push_text(rest);
        Ok(template)
    }

    /// `text` as it is, whatever braces are in it.
    pub fn literal(text: impl Into<String>) -> Self {
        let mut template = Self::default();
        template.push_text(&text.into());
        template
    }

    /// The variable `name` alone.
    pub fn variable(name: impl Into<String>) -> Self {
        Self { pieces: vec![Piece::Variable(name.into())] }
    }

    /// Appends text as it is.
    pub fn push_text(&mut self, text: &str) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    /// Appends a variable.
    pub fn push_variable(&mut self, name: impl Into<String>) {
        self.pieces.push(Piece::Variable(name.into()));
    }

    /// Appends another template.
    pub fn push(&mut self, other: &Self) {
        for piece in &other.pieces {
            match piece {
                Piece::Text(text) => self.push_text(text),
                Piece::Variable(name) => self.push_variable(name.clone()),
            }
        }
    }

    /// Puts the variable `name` wherever `text` is. Gives whether it was anywhere.
    pub(crate) fn replace(&mut self, text: &str, name: &str) -> bool {
        let mut replaced = Self::default();
        for piece in &self.pieces {
            match piece {
                Piece::Variable(other) => replaced.push_variable(other.clone()),
                Piece::Text(piece) => {
                    for (at, part) in piece.split(text).enumerate() {
                        if at > 0 {
                            replaced.push_variable(name);
                        }
                        replaced.push_text(part);
                    }
                }
            }
        }
        let is_there = replaced != *self;
        *self = replaced;
        is_there
    }

    /// Whether `text` is in it, outside of variables.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Text(piece) if piece.contains(text)))
    }

    /// The text, with `stand_in` for each variable.
    pub(crate) fn text_with(&self, stand_in: &str) -> String {
        let mut whole = String::new();
        for piece in &self.pieces {
            whole.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Variable(_) => stand_in,
            });
        }
        whole
    }

    /// The variables in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The variable that it consists of, if it is nothing else.
    pub fn sole_variable(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Variable(name)] => Some(name),
            _ => None,
        }
    }

    /// The text, if there is no variable in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text as it is written in a file. A backslash or a brace right before a variable would be read as part of that, so that it is
    /// written as a variable as well: `stand_in` gives the name of one with that value.
    pub(crate) fn written(&self, mut stand_in: impl FnMut(char) -> String) -> String {
        let mut written = String::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Variable(name) => written.push_str(&format!("{OPEN}{name}{CLOSE}")),
                Piece::Text(text) => {
                    let is_before_variable = matches!(self.pieces.get(at + 1), Some(Piece::Variable(_)));
                    let mut head = text.as_str();
                    while is_before_variable && is_joined(head) {
                        head = &head[..head.len() - 1];
                    }
                    written.push_str(&head.replace(OPEN, ESCAPED));
                    for char in text[head.len()..].chars() {
                        written.push_str(&format!("{OPEN}{}{CLOSE}", stand_in(char)));
                    }
                }
            }
        }
        written
    }

    /// The text with the values of its variables.
    ///
    /// # Errors
    /// The first variable that has none.
    pub fn fill(&self, variables: &Variables) -> Result<String, Missing> {
        self.fill_with(variables, |_, value| value)
    }

    /// The same for a path with its query: values are percent-encoded, but for a value at the very beginning, which may itself be
    /// an address.
    ///
    /// # Errors
    /// The first variable that has none.
    pub fn fill_path(&self, variables: &Variables) -> Result<String, Missing> {
        self.fill_with(variables, |at, value| if at == 0 { value } else { address::encode(&value) })
    }

    fn fill_with(
        &self,
        variables: &Variables,
        shown: impl Fn(usize, String) -> String,
    ) -> Result<String, Missing> {
        let mut filled = String::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Variable(name) => {
                    let value = variables.text(name).ok_or_else(|| Missing(name.clone()))?;
                    filled.push_str(&shown(at, value));
                }
            }
        }
        Ok(filled)
    }
}

impl fmt::Display for Template {
    /// As it is written in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace(OPEN, ESCAPED)),
            Piece::Variable(name) => write!(f, "{OPEN}{name}{CLOSE}"),
        })
    }
}

/// Whether the end of `text` would be read as part of a variable behind it.
fn is_joined(text: &str) -> bool {
    let braces = text.len() - text.trim_end_matches('{').len();
    text.ends_with('\\') || braces % 2 == 1
}

/// Whether a variable may be called so.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// The values of one run's variables. A value of JSON keeps its type where a JSON body uses it alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables {
    values: BTreeMap<String, Value>,
}

impl Variables {
    /// Gives `name` a value, instead of the one that it may have had.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.values.insert(name.into(), value.into());
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The value of `name` as text: a string as it is, anything else as JSON.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(text)
    }

    /// All names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// A value as text: a string as it is, anything else as JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A name for a variable: `name`, or with a number behind it if there is such a one already.
pub(crate) fn unused(name: &str, taken: &HashSet<String>) -> String {
    let numbered = (2_u64..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::default();
        variables.set("order", 7);
        variables.set("user", "ada & co/1");
        variables
    }

    #[test]
    fn filled() {
        for (text, expected) in [
            ("", ""),
            ("plain } text }}", "plain } text }}"),
            ("{{order}}", "7"),
            ("a{{ order }}b{{order}}", "a7b7"),
            (r"\{{order}} {{order}}", "{{order}} 7"),
            ("{{user}}", "ada & co/1"),
            ("{{{order}}}", ""),
        ] {
            match Template::parse(text) {
                Ok(template) => {
                    assert_eq!(template.fill(&variables()).unwrap(), expected, "{text}");
                    assert_eq!(Template::parse(&template.to_string()).unwrap(), template, "{text}");
                }
                Err(why) => assert!(expected.is_empty() && why.contains(r"\{{"), "{text}: {why}"),
            }
        }
        assert_eq!(Template::parse("{{who}}").unwrap().fill(&variables()), Err(Missing("who".into())));
        for text in ["{{", "{{a b}}", "{{}}", "{{ä}}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn text_becomes_a_variable_wherever_it_is() {
        let replaced = |text: &str| {
            let mut template = Template::parse(text).unwrap();
            let is_there = template.replace("ink", "ware");
            assert!(!template.contains("ink"), "{text}");
            (template.to_string(), is_there)
        };
        for (text, expected, is_there) in [
            ("ink", "{{ware}}", true),
            ("ink and ink", "{{ware}} and {{ware}}", true),
            ("pinkink{{ink}}i", "p{{ware}}{{ware}}{{ink}}i", true),
            (r"\{{ink}}", r"\{{{{ware}}}}", true),
            ("{{ink}}", "{{ink}}", false),
            ("in{{a}}k", "in{{a}}k", false),
            ("", "", false),
        ] {
            assert_eq!(replaced(text), (expected.to_owned(), is_there), "{text}");
        }
    }

    #[test]
    fn a_value_in_a_path_is_encoded_unless_it_is_the_path() {
        let path = |text: &str| Template::parse(text).unwrap().fill_path(&variables()).unwrap();
        assert_eq!(path("/users/{{user}}?q={{user}}"), "/users/ada%20%26%20co%2F1?q=ada%20%26%20co%2F1");
        assert_eq!(path("{{user}}"), "ada & co/1");
    }
}
