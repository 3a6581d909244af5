//! What a response must be like, and how one is not like it.

use std::{fmt, ops::RangeInclusive, time::Duration};

use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;

use crate::{
    body::Json,
    channel::{MESSAGES_BYTES_MAX, MESSAGES_MAX},
    template::{Missing, Template, Variables},
};

/// Most characters of a value that are repeated in a message.
const SHOWN_CHARS_MAX: usize = 80;

/// What a response must be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expectation {
    /// Its status is within one of these; without any, below 400.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// Texts that its body has.
    pub contains: Vec<Template>,
    /// Texts that its body does not have.
    pub lacks: Vec<Template>,
    /// Values at pointers in its JSON (RFC 6901).
    pub json: Vec<(String, Json)>,
    /// Values of header fields.
    pub headers: Vec<(HeaderName, Template)>,
}

/// One thing that was not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The status.
    Status {
        /// What would have been right.
        expected: Vec<RangeInclusive<u16>>,
        /// What came.
        found: u16,
    },
    /// A text is missing in the body.
    Contains(String),
    /// A text is in the body.
    Lacks(String),
    /// A value of the JSON.
    Json {
        /// Where.
        pointer: String,
        /// What would have been right, as JSON.
        expected: String,
        /// What came, as JSON; `None` if there was nothing.
        found: Option<String>,
    },
    /// A header field.
    Header {
        /// Which.
        name: HeaderName,
        /// What would have been right.
        expected: String,
        /// What came; `None` if there was none.
        found: Option<String>,
    },
    /// A message did not come.
    Arrives {
        /// The channel.
        on: String,
        /// What would have been in it.
        text: String,
        /// For how long it was waited for.
        within: Duration,
        /// Why nothing comes any more, if the channel has ended.
        ended: Option<String>,
    },
    /// A message may have come or not, among more than are kept.
    Flooded {
        /// The channel.
        on: String,
        /// What would have been in it.
        text: String,
    },
    /// There was nothing where a variable was to be taken from.
    Capture {
        /// The variable.
        variable: String,
        /// Where it was looked for.
        place: String,
    },
}

impl Expectation {
    /// The variables that it uses.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let json = self.json.iter().flat_map(|(_, value)| value.templates());
        let headers = self.headers.iter().map(|(_, value)| value);
        self.contains.iter().chain(&self.lacks).chain(json).chain(headers).flat_map(Template::names)
    }

    /// All that is not as expected, in the order of the fields above.
    ///
    /// # Errors
    /// The first variable that has no value.
    pub fn check(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        variables: &Variables,
    ) -> Result<Vec<Unmet>, Missing> {
        let mut unmet = Vec::new();
        let found = status.as_u16();
        let is_right = match self.statuses.as_slice() {
            [] => found < 400,
            statuses => statuses.iter().any(|statuses| statuses.contains(&found)),
        };
        if !is_right {
            unmet.push(Unmet::Status { expected: self.statuses.clone(), found });
        }
        if !(self.contains.is_empty() && self.lacks.is_empty()) {
            self.check_text(&String::from_utf8_lossy(body), variables, &mut unmet)?;
        }
        if !self.json.is_empty() {
            self.check_json(body, variables, &mut unmet)?;
        }
        for (name, expected) in &self.headers {
            let expected = expected.fill(variables)?;
            let is_there = |value: &http::HeaderValue| value.as_bytes() == expected.as_bytes();
            if !headers.get_all(name).iter().any(is_there) {
                let found =
                    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
                unmet.push(Unmet::Header { name: name.clone(), expected, found });
            }
        }
        Ok(unmet)
    }

    fn check_text(&self, text: &str, variables: &Variables, unmet: &mut Vec<Unmet>) -> Result<(), Missing> {
        for expected in &self.contains {
            let expected = expected.fill(variables)?;
            if !text.contains(&expected) {
                unmet.push(Unmet::Contains(expected));
            }
        }
        for unwanted in &self.lacks {
            let unwanted = unwanted.fill(variables)?;
            if text.contains(&unwanted) {
                unmet.push(Unmet::Lacks(unwanted));
            }
        }
        Ok(())
    }

    fn check_json(&self, body: &[u8], variables: &Variables, unmet: &mut Vec<Unmet>) -> Result<(), Missing> {
        let whole: Option<Value> = serde_json::from_slice(body).ok();
        for (pointer, expected) in &self.json {
            let expected = expected.fill(variables)?;
            let found = whole.as_ref().and_then(|whole| whole.pointer(pointer));
            if found != Some(&expected) {
                let found = found.map(Value::to_string);
                unmet.push(Unmet::Json { pointer: pointer.clone(), expected: expected.to_string(), found });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { expected, found } => write!(f, "status {found} instead of {}", statuses(expected)),
            Self::Contains(text) => write!(f, "{} is not in the body", quoted(text)),
            Self::Lacks(text) => write!(f, "{} is in the body", quoted(text)),
            Self::Json { pointer, expected, found: Some(found) } => {
                write!(f, "{} at {pointer:?} instead of {}", cut(found), cut(expected))
            }
            Self::Json { pointer, expected, found: None } => {
                write!(f, "nothing at {pointer:?} instead of {}", cut(expected))
            }
            Self::Header { name, expected, found: Some(found) } => {
                write!(f, "{name} is {} instead of {}", quoted(found), quoted(expected))
            }
            Self::Header { name, expected, found: None } => {
                write!(f, "{name} is missing; it should be {}", quoted(expected))
            }
            Self::Arrives { on, text, within, ended: None } => {
                write!(f, "{} did not arrive at {on} within {} ms", quoted(text), within.as_millis())
            }
            Self::Arrives { on, text, ended: Some(why), .. } => {
                write!(f, "{} did not arrive at {on}, which {why}", quoted(text))
            }
            Self::Flooded { on, text } => write!(
                f,
                "whether {} arrived at {on} is not known: more messages came than the {} ({} MiB) that are kept",
                quoted(text),
                MESSAGES_MAX,
                MESSAGES_BYTES_MAX >> 20
            ),
            Self::Capture { variable, place } => {
                write!(f, "there is no {place}, which {variable} was to be taken from")
            }
        }
    }
}

fn statuses(expected: &[RangeInclusive<u16>]) -> String {
    if expected.is_empty() {
        return "one below 400".into();
    }
    let one = |statuses: &RangeInclusive<u16>| match (*statuses.start(), *statuses.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) if first % 100 == 0 && last == first + 99 => format!("{}xx", first / 100),
        (first, last) => format!("{first} to {last}"),
    };
    expected.iter().map(one).collect::<Vec<_>>().join(" or ")
}

/// What a service sent may be long and may have control characters in it.
fn quoted(text: &str) -> String {
    format!("{:?}", cut(text))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use http::header;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_as_expected_is_said() {
        let template = |text: &str| Template::parse(text).unwrap();
        let expectation = Expectation {
            statuses: vec![200..=299, 303..=303],
            contains: vec![template("{{who}}'s cart")],
            lacks: vec![template("error")],
            json: vec![("/total".into(), Json::Plain(json!(3))), ("/none".into(), Json::Plain(json!(true)))],
            headers: vec![(header::LOCATION, template("/cart")), (header::VARY, template("cookie"))],
        };
        let mut variables = Variables::default();
        variables.set("who", "ada");
        let check = |status: u16, location: &str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            headers.insert(header::VARY, "cookie".parse().unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            let unmet = expectation.check(status, &headers, body.as_bytes(), &variables).unwrap();
            unmet.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let body = r#"{"total": 3, "none": true, "text": "ada's cart"}"#;
        assert_eq!(check(204, "/cart", body), Vec::<String>::new());
        assert_eq!(
            check(302, "/sign-in", r#"{"total": "3", "text": "error"}"#),
            [
                "status 302 instead of 2xx or 303",
                "\"ada's cart\" is not in the body",
                "\"error\" is in the body",
                "\"3\" at \"/total\" instead of 3",
                "nothing at \"/none\" instead of true",
                "location is \"/sign-in\" instead of \"/cart\"",
            ]
        );
        let any =
            Expectation::default().check(StatusCode::NOT_FOUND, &HeaderMap::new(), b"", &variables).unwrap();
        assert_eq!(any[0].to_string(), "status 404 instead of one below 400");
    }
}
