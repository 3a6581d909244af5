//! What later steps need of a response: a number out of its JSON, a hidden field of its form, the end of its `Location`.

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::{html, jar::Jar};

/// The most bytes of a captured text.
pub const CAPTURED_BYTES_MAX: usize = 64 << 10;

/// A variable that gets its value from a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// The variable.
    pub variable: String,
    /// Where its value stands.
    pub source: Source,
    /// The value begins after the first of this text there.
    pub after: Option<String>,
    /// The value ends before the first of this text from then on. Without it, where `after` is given, a value ends where a word of an
    /// address does: at `/ ? & # " ' < >` or white space.
    pub before: Option<String>,
    /// The value if there is none there; without it, a capture that finds nothing is an expectation that is not met.
    pub fallback: Option<Value>,
}

/// Where a value stands in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// At a pointer in its JSON (RFC 6901).
    Json(String),
    /// In a header field, the first of that name.
    Header(HeaderName),
    /// In a cookie, by this response or an earlier one.
    Cookie(String),
    /// In the field of a form, or a `<meta>`, of that name.
    Input(String),
    /// In the text of its body.
    Body,
}

impl Capture {
    /// A capture of all that stands at `source`.
    pub fn new(variable: impl Into<String>, source: Source) -> Self {
        Self { variable: variable.into(), source, after: None, before: None, fallback: None }
    }

    /// The value, if it is there. The fallback is not used.
    pub fn take(&self, headers: &HeaderMap, body: &[u8], jar: &Jar) -> Option<Value> {
        let found = match &self.source {
            Source::Json(pointer) => serde_json::from_slice::<Value>(body).ok()?.pointer(pointer)?.clone(),
            Source::Header(name) => String::from_utf8_lossy(headers.get(name)?.as_bytes()).into(),
            Source::Cookie(name) => jar.get(name)?.into(),
            Source::Input(name) => html::field(&String::from_utf8_lossy(body), name)?.into(),
            Source::Body => String::from_utf8_lossy(body).into(),
        };
        let found = match (found, &self.after, &self.before) {
            (found, None, None) => found,
            (found, ..) => self.cut(&crate::template::text(&found))?.into(),
        };
        let is_short = found.as_str().is_none_or(|text| text.len() <= CAPTURED_BYTES_MAX);
        is_short.then_some(found)
    }

    fn cut<'t>(&self, text: &'t str) -> Option<&'t str> {
        let from = match &self.after {
            Some(after) => text.find(after.as_str())? + after.len(),
            None => 0,
        };
        let rest = &text[from..];
        let cut = match &self.before {
            Some(before) => &rest[..rest.find(before.as_str())?],
            None => rest.split(|c: char| c.is_whitespace() || "/?&#\"'<>".contains(c)).next()?,
        };
        (!cut.is_empty()).then_some(cut)
    }

    /// Where it looks, as in `no Location to take order from`.
    pub fn place(&self) -> String {
        let place = match &self.source {
            Source::Json(pointer) => format!("JSON value at {pointer:?}"),
            Source::Header(name) => format!("header field {name}"),
            Source::Cookie(name) => format!("cookie {name}"),
            Source::Input(name) => format!("form field {name}"),
            Source::Body => "text".into(),
        };
        match (&self.after, &self.before) {
            (None, None) => place,
            (Some(after), None) => format!("{place} with {after:?} in it"),
            (None, Some(before)) => format!("{place} with {before:?} in it"),
            (Some(after), Some(before)) => format!("{place} with {after:?} and then {before:?} in it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::header;
    use serde_json::json;

    use super::*;

    #[test]
    fn out_of_everything() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, "/orders/7f?notice=welcome".parse().unwrap());
        let mut jar = Jar::default();
        jar.take("token=abc", "/", "shop", SystemTime::UNIX_EPOCH);
        let page = "<input name=csrf value=x1><p>Order no. <b>12</b></p>";
        let json = r#"{"order": {"id": 7, "tags": ["a"]}}"#;
        let location = || Source::Header(header::LOCATION);
        let pointer = |text: &str| Source::Json(text.into());
        for (source, after, before, body, expected) in [
            (pointer("/order/id"), None, None, json, json!(7)),
            (pointer("/order/tags"), None, None, json, json!(["a"])),
            (pointer("/order/none"), None, None, json, Value::Null),
            (pointer("/order"), None, None, page, Value::Null),
            (location(), None, None, page, json!("/orders/7f?notice=welcome")),
            (location(), Some("/orders/"), None, page, json!("7f")),
            (location(), Some("/carts/"), None, page, Value::Null),
            (location(), Some("notice="), None, page, json!("welcome")),
            (location(), Some("/orders/"), Some("notice"), page, json!("7f?")),
            (Source::Cookie("token".into()), None, None, page, json!("abc")),
            (Source::Input("csrf".into()), None, None, page, json!("x1")),
            (Source::Body, Some("Order no. <b>"), None, page, json!("12")),
            (Source::Body, Some("</p>"), None, page, Value::Null),
        ] {
            let capture = Capture {
                after: after.map(Into::into),
                before: before.map(Into::into),
                ..Capture::new("it", source)
            };
            let taken = capture.take(&headers, body.as_bytes(), &jar);
            assert_eq!(taken.unwrap_or_default(), expected, "{}", capture.place());
        }
    }
}
