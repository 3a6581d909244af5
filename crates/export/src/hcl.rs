//! Writes HCL as `terraform fmt` would leave it: two spaces of indentation, and the `=` of attributes that follow each other in
//! one column (HCL native syntax specification, hclwrite).

use std::fmt::Write;

/// What is in a block or a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(Vec<Item>);

#[derive(Clone, Debug)]
enum Item {
    Attribute(String, Value),
    Block(String, Body),
    Comment(String),
    Blank,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Text, in which nothing is interpolated.
    Text(String),
    /// An expression as it stands.
    Raw(String),
    Number(i64),
    Truth(bool),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

/// An expression.
pub(crate) fn raw(expression: &str) -> Value {
    Value::Raw(expression.into())
}

impl Body {
    /// With an attribute more.
    pub(crate) fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.push(Item::Attribute(name.into(), value.into()));
        self
    }

    /// With a block more, after an empty line if anything is before it.
    pub(crate) fn block(mut self, head: &str, body: Self) -> Self {
        if !self.0.is_empty() && !matches!(self.0.last(), Some(Item::Comment(_))) {
            self.0.push(Item::Blank);
        }
        self.0.push(Item::Block(head.into(), body));
        self
    }

    /// With a comment more, which is about what follows; a line each.
    pub(crate) fn saying(mut self, comment: &str) -> Self {
        if matches!(self.0.last(), Some(Item::Block(..))) {
            self.0.push(Item::Blank);
        }
        self.0.extend(comment.lines().map(|line| Item::Comment(line.into())));
        self
    }

    /// As the text of a file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0);
        text
    }

    fn write(&self, text: &mut String, indent: usize) {
        for (index, item) in self.0.iter().enumerate() {
            match item {
                Item::Blank => text.push('\n'),
                Item::Comment(line) => _ = writeln!(text, "{:indent$}# {line}", ""),
                Item::Block(head, body) if body.0.is_empty() => {
                    _ = writeln!(text, "{:indent$}{head} {{}}", "")
                }
                Item::Block(head, body) => {
                    let _ = writeln!(text, "{:indent$}{head} {{", "");
                    body.write(text, indent + 2);
                    let _ = writeln!(text, "{:indent$}}}", "");
                }
                Item::Attribute(name, value) => {
                    let width = self.width(index);
                    let _ = writeln!(text, "{:indent$}{name:width$} = {}", "", value.text(indent));
                }
            }
        }
    }

    /// The length of the longest name in the run of one-line attributes around `index`.
    fn width(&self, index: usize) -> usize {
        let name = |item: &Item| match item {
            Item::Attribute(name, value) if value.is_one_line() => Some(name.chars().count()),
            _ => None,
        };
        if name(&self.0[index]).is_none() {
            return 0;
        }
        let before = self.0[..index].iter().rev().map_while(name);
        let after = self.0[index..].iter().map_while(name);
        before.chain(after).max().unwrap_or(0)
    }
}

impl Value {
    fn is_one_line(&self) -> bool {
        match self {
            Self::Object(entries) => entries.is_empty(),
            Self::List(items) => items.iter().all(Self::is_one_line),
            Self::Raw(expression) => !expression.contains('\n'),
            Self::Text(_) | Self::Number(_) | Self::Truth(_) => true,
        }
    }

    fn text(&self, indent: usize) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Raw(expression) => expression.clone(),
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
            Self::List(items) if self.is_one_line() => {
                let items: Vec<String> = items.iter().map(|item| item.text(indent)).collect();
                format!("[{}]", items.join(", "))
            }
            Self::List(items) => {
                let inner = indent + 2;
                let lines = items.iter().map(|item| format!("{:inner$}{},\n", "", item.text(inner)));
                format!("[\n{}{:indent$}]", lines.collect::<String>(), "")
            }
            Self::Object(entries) if entries.is_empty() => "{}".into(),
            Self::Object(entries) => {
                let body = entries.iter().fold(Body::default(), |body, (key, value)| {
                    let is_name = key.starts_with(|c: char| c.is_ascii_alphabetic())
                        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                    body.set(&if is_name { key.clone() } else { quoted(key) }, value.clone())
                });
                let mut text = String::from("{\n");
                body.write(&mut text, indent + 2);
                let _ = write!(text, "{:indent$}}}", "");
                text
            }
        }
    }
}

/// A text in quotes, without templates.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // `${` and `%{` would begin a template.
            '$' | '%' if rest.peek() == Some(&'{') => quoted.extend([c, c]),
            c if c.is_control() => _ = write!(quoted, "\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The value of `v` as a reader of HCL understands it.
    fn read(text: &str) -> String {
        let file = Body::default().set("v", text).text();
        let body: hcl::Body = hcl::parse(&file).unwrap_or_else(|error| panic!("{error}\n{file}"));
        let expression = body.attributes().next().unwrap().expr().clone();
        let context = hcl::eval::Context::new();
        let value = hcl::eval::Evaluate::evaluate(&expression, &context).unwrap();
        value.as_str().unwrap().to_owned()
    }

    #[test]
    fn templates_are_taken_literally() {
        for text in
            ["${x}", "%{ if a }", "$${x}", "$", "$$", "%", "a\"b\\", "\n\t\r", "$%{", "${", "\u{7f}", "é"]
        {
            assert_eq!(read(text), text, "{}", quoted(text));
        }
    }

    #[test]
    fn how_it_looks() {
        let body = Body::default()
            .saying("About it.")
            .block(
                "resource \"a\" \"b\"",
                Body::default()
                    .set("x", 1_i64)
                    .set("longer", raw("var.name"))
                    .set(
                        "tags",
                        Value::Object(vec![("Name".into(), "n".into()), ("a b".into(), true.into())]),
                    )
                    .set("y", Value::List(vec!["a".into(), 2_i64.into()]))
                    .block("inner", Body::default()),
            )
            .block("locals", Body::default().set("a", "b"));
        let expected = "# About it.\nresource \"a\" \"b\" {\n  x      = 1\n  longer = var.name\n  tags = {\n    Name  = \"n\"\n    \
                        \"a b\" = true\n  }\n  y = [\"a\", 2]\n\n  inner {}\n}\n\nlocals {\n  a = \"b\"\n}\n";
        assert_eq!(body.text(), expected);
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(text in "[\\PC$%{}\"\\\\\n\t]{0,20}") {
            prop_assert_eq!(read(&text), text);
        }
    }
}
