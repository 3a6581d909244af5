//! YAML as plain values. The parser gives events; what they come to is put together here, with bounds on how deep and
//! how large that may be, since an alias can make a short text long.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// No value is nested deeper.
const DEPTH_MAX: usize = 64;

/// No text holds more values, those that aliases stand for included.
const VALUES_MAX: usize = 1_000_000;

/// Why a text is no YAML, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct Error {
    line: usize,
    column: usize,
    what: String,
}

/// The documents of a text, those that are empty left out.
pub fn documents(text: &str) -> Result<Vec<Value>, Error> {
    let mut composer = Composer::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| at(*error.marker(), error.info()))?;
        composer.take(event).map_err(|what| at(span.start, &what))?;
    }
    Ok(composer.documents)
}

fn at(marker: Marker, what: &str) -> Error {
    Error { line: marker.line(), column: marker.col() + 1, what: what.into() }
}

/// A value that is not whole yet, and the number of its anchor, which is 0 for none.
enum Open {
    List(Vec<Value>, usize),
    Map(Map<String, Value>, Option<String>, usize),
}

#[derive(Default)]
struct Composer {
    documents: Vec<Value>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, usize)>,
    values: usize,
}

impl Composer {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
                let value = if is_text { Value::String(text.into_owned()) } else { plain(&text) };
                self.count(1)?;
                self.finish(value, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::List(Vec::new(), anchor)),
            Event::MappingStart(anchor, _) => self.begin(Open::Map(Map::new(), None, anchor)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(list, anchor)) => self.finish(Value::Array(list), anchor, 0),
                Some(Open::Map(map, _, anchor)) => self.finish(Value::Object(map), anchor, 0),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let (value, size) =
                    self.anchors.get(&anchor).cloned().ok_or("an alias to what is not whole yet")?;
                self.count(size)?;
                self.finish(value, 0, size)
            }
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(values);
        if self.values > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values, aliases included"));
        }
        Ok(())
    }

    fn begin(&mut self, open: Open) -> Result<(), String> {
        if self.open.len() == DEPTH_MAX {
            return Err(format!("nested more than {DEPTH_MAX} deep"));
        }
        self.count(1)?;
        self.open.push(open);
        Ok(())
    }

    /// Puts a whole value where it belongs.
    fn finish(&mut self, value: Value, anchor: usize, size: usize) -> Result<(), String> {
        if anchor > 0 {
            let size = if size > 0 { size } else { count(&value) };
            self.anchors.insert(anchor, (value.clone(), size));
        }
        match self.open.last_mut() {
            None if value.is_null() => {}
            None => self.documents.push(value),
            Some(Open::List(list, _)) => list.push(value),
            Some(Open::Map(map, key, _)) => match key.take() {
                None => *key = Some(text(value)?),
                Some(key) if map.contains_key(&key) => return Err(format!("{key} is here twice")),
                Some(key) => drop(map.insert(key, value)),
            },
        }
        Ok(())
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn text(key: Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("a key that is no text".into()),
        Value::Bool(_) | Value::Number(_) => Ok(key.to_string()),
    }
}

/// A scalar without quotes, by the core schema (YAML 1.2.2, section 10.3.2), without numbers that JSON has not.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.into()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_plain_values() {
        let text = "a: 1\nb: [x, 1.5, 500m, '2', \"3\", ~, true, -7, 1e3, .inf, !!str 4]\nc:\n  - d: &d {e: f}\n  - *d\n";
        let values = json!([{
            "a": 1,
            "b": ["x", 1.5, "500m", "2", "3", null, true, -7, 1000.0, ".inf", "4"],
            "c": [{ "d": { "e": "f" } }, { "e": "f" }],
        }]);
        assert_eq!(json!(documents(text).unwrap()), values);
        assert_eq!(
            documents("--- 1\n---\n# nothing\n---\n{\"json\": [2]}\n...\n").unwrap(),
            [json!(1), json!({ "json": [2] })]
        );
        assert_eq!(documents("").unwrap(), [] as [Value; 0]);
    }

    #[test]
    fn refused_with_its_place() {
        let laughs: String = (1..9)
            .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(",")))
            .collect();
        for (text, place) in [
            ("a: 1\na: 2", "line 2, column 4: a is here twice"),
            ("a: [1", "line "),
            ("a: *b", "line 1, column 4"),
            ("? [a]\n: b", "line 1, column 5: a key that is no text"),
            ("a: &a [*a]", "line 1, column 8: an alias to what is not whole yet"),
            (&"[".repeat(65), "line 1, column 65: nested more than 64 deep"),
            (&format!("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n{laughs}"), "more than 1000000 values"),
        ] {
            let error = documents(text).unwrap_err().to_string();
            assert!(error.contains(place), "{text}: {error}");
        }
    }
}
