//! What a request says in its path and query. Both are decoded strictly: an escape that is none, text that
//! is not UTF-8, and a parameter that the endpoint does not know are errors, so that nothing is misread in silence.

use std::{borrow::Cow, str::FromStr};

use axum::extract::{FromRequestParts, Path};
use http::{request::Parts, uri::Uri};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::error::Error;

/// The variable segments of the path, percent-decoded one by one: `%2F` is part of a segment. The request must have
/// no query; [`SegmentsAndUri`] is for those that may.
pub(super) struct Segments<T>(pub(super) T);

/// The variable segments of the path, and the URI whose query [`Query::parse`] reads.
pub(super) struct SegmentsAndUri<T>(pub(super) T, pub(super) Uri);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let SegmentsAndUri(segments, uri) = SegmentsAndUri::from_request_parts(parts, state).await?;
        Query::parse(&uri, &[])?;
        Ok(Self(segments))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for SegmentsAndUri<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        check_escapes(parts.uri.path(), "the path")?;
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments, parts.uri.clone())),
            Err(rejection) => Err(Error::Invalid(format!("the path is not understood: {rejection}")).into()),
        }
    }
}

/// The parameters of the query. A `+` is a space, as in HTML forms.
pub(super) struct Query<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Reads the query of `uri`, which may have the parameters `known`, each once.
    pub(super) fn parse(uri: &'a Uri, known: &[&str]) -> Result<Self, Error> {
        let mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&&*name) {
                return Err(Error::Invalid(match known {
                    [] => format!("the query parameter `{name}` is not known: this takes none"),
                    _ => {
                        format!("the query parameter `{name}` is not known: this takes {}", known.join(", "))
                    }
                }));
            }
            if parameters.iter().any(|(given, _)| *given == name) {
                return Err(Error::Invalid(format!("the query parameter `{name}` is given twice")));
            }
            parameters.push((name, value));
        }
        Ok(Self { parameters })
    }

    /// The text of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(given, _)| given == name).map(|(_, value)| &**value)
    }

    /// The whole number that a parameter holds.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| {
            Error::Invalid(format!(
                "the query parameter `{name}` is `{text}`, expected a whole number, not negative"
            ))
        })?;
        Ok(Some(number))
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, Error> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    check_escapes(text, "the query")?;
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => digit(bytes.next()).unwrap_or(0) << 4 | digit(bytes.next()).unwrap_or(0),
            other => other,
        });
    }
    let decoded = String::from_utf8(decoded)
        .map_err(|_| Error::Invalid(format!("the query is not UTF-8 after percent-decoding: `{text}`")))?;
    Ok(Cow::Owned(decoded))
}

/// Refuses a `%` without two hexadecimal digits after it (RFC 3986, section 2.1).
fn check_escapes(text: &str, place: &str) -> Result<(), Error> {
    for (at, _) in text.match_indices('%') {
        let mut digits = text.as_bytes()[at + 1..].iter().copied();
        if digit(digits.next()).and(digit(digits.next())).is_none() {
            return Err(Error::Invalid(format!(
                "{place} has a `%` at byte {at} that no two hexadecimal digits follow; a `%` itself is written `%25`"
            )));
        }
    }
    Ok(())
}

fn digit(byte: Option<u8>) -> Option<u8> {
    char::from(byte?).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: Result<Option<&str>, &str>) {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        let text =
            Query::parse(&uri, &["prefix", "limit"]).map(|query| query.text("prefix").map(str::to_owned));
        match (text, expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text.as_deref(), expected, "{query}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{query}: {error}"),
            (text, expected) => panic!("{query}: {text:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn queries_are_decoded_strictly() {
        check("", Ok(None));
        check("limit=3", Ok(None));
        check("prefix=", Ok(Some("")));
        check("prefix", Ok(Some("")));
        check("prefix=a%2Fb+c%2B%25&limit=1", Ok(Some("a/b c+%")));
        check("prefix=%C3%BC", Ok(Some("ü")));
        check("prefix=a=b", Ok(Some("a=b")));
        check("prefix=%FF", Err("not UTF-8"));
        check("prefix=%", Err("two hexadecimal digits"));
        check("prefix=%1", Err("two hexadecimal digits"));
        check("prefix=%C3%ü", Err("two hexadecimal digits"));
        check("prefx=a", Err("takes prefix, limit"));
        check("prefix=a&prefix=b", Err("twice"));
    }

    #[test]
    fn numbers_say_what_is_wrong() {
        let uri: Uri = "/x?limit=-1".parse().unwrap();
        let query = Query::parse(&uri, &["limit"]).unwrap();
        assert!(query.number::<u64>("limit").unwrap_err().to_string().contains("`-1`"));
    }
}
