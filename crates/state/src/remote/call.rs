//! One call of the state API: what is asked, and what was answered. A call can be sent more than once.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use serde::{Serialize, de::DeserializeOwned};

use super::{payload::Payload, problem};
use crate::{Revision, error::Error, frames, wire};

/// Longest text that is sent within a path. What is longer breaks the limit of every name many times over.
const SEGMENT_BYTES_MAX: usize = 16 << 10;
/// The bytes that stand for themselves in a path or query: those that RFC 3986, section 2.3, calls unreserved.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// A path under construction.
pub(super) struct Target(String);

impl Target {
    /// Begins with a fixed part, such as `/v1/tables`.
    pub(super) fn new(start: &'static str) -> Self {
        let mut text = String::with_capacity(96);
        text.push_str(start);
        Self(text)
    }

    /// Adds a segment; `what` names it in the error for an empty one, which no path can hold.
    pub(super) fn segment(mut self, what: &'static str, text: &str, max: usize) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Invalid(format!("{what} is empty")));
        }
        if text.len() > SEGMENT_BYTES_MAX.max(max) {
            return Err(Error::TooLarge { what, size: text.len() as u64, max: max as u64 });
        }
        self.0.push('/');
        self.escape(text);
        Ok(self)
    }

    /// Adds a fixed part.
    pub(super) fn then(mut self, part: &'static str) -> Self {
        self.0.push_str(part);
        self
    }

    /// Adds a parameter of the query.
    pub(super) fn parameter(mut self, name: &'static str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        self.escape(value);
        self
    }

    /// Adds a parameter of the query if it has a value.
    pub(super) fn optional(self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.parameter(name, value),
            None => self,
        }
    }

    fn escape(&mut self, text: &str) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        for byte in text.bytes() {
            if is_unreserved(byte) {
                self.0.push(char::from(byte));
            } else {
                self.0.push('%');
                self.0.push(char::from(DIGITS[usize::from(byte >> 4)]));
                self.0.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
}

/// A request that can be sent again.
pub(super) struct Call {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    is_repeatable: bool,
}

impl Call {
    /// A call without a body. Fails with [`Error::Invalid`] when the names in the path are too long for one.
    pub(super) fn new(method: Method, target: Target) -> Result<Self, Error> {
        let uri = Uri::from_maybe_shared(Bytes::from(target.0))
            .map_err(|error| Error::Invalid(format!("the names are too long for a request: {error}")))?;
        let is_repeatable = method.is_safe();
        Ok(Self { method, uri, headers: HeaderMap::new(), body: Bytes::new(), is_repeatable })
    }

    /// One that is the same when it is done twice.
    pub(super) fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    /// With these bytes as its body.
    pub(super) fn bytes(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    /// With a body in JSON.
    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self, Error> {
        self.body = serde_json::to_vec(body).map_err(|error| Error::Invalid(error.to_string()))?.into();
        Ok(self.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json")))
    }

    /// With this header.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With the header `name` of a condition on the entity tag `tag`.
    pub(super) fn tagged(self, name: HeaderName, tag: &str) -> Result<Self, Error> {
        let value = HeaderValue::try_from(format!("\"{tag}\""));
        Ok(self.header(name, value.map_err(|_| Error::Invalid(format!("`{tag}` is not an entity tag")))?))
    }

    /// How many bytes its body has.
    pub(super) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether it may be sent again when its fate is not known: it changes nothing, or nothing more the second time.
    pub(super) fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// Whether it can be sent with others on one connection.
    pub(super) fn has_place_in_a_frame(&self) -> bool {
        frames::has_place(
            self.uri.path_and_query().map_or("", |target| target.as_str()),
            &self.headers,
            &self.body,
        )
    }

    /// Writes it as a frame; `None` where it has no place in one.
    pub(super) fn write(&self, out: &mut BytesMut, number: u64) -> Option<()> {
        let Self { method, uri, headers, body, .. } = self;
        frames::write_call(out, number, method, uri.path_and_query()?.as_str(), headers, body)
    }

    /// The request to send.
    pub(super) fn request(&self) -> Request<Payload> {
        self.request_with(Payload::Whole(self.body.clone()))
    }

    /// The request to send, with another body than its own.
    pub(super) fn request_with(&self, payload: Payload) -> Request<Payload> {
        let mut request = Request::new(payload);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("lethe"));
        request
    }
}

/// What was answered, body and all.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

/// Its headers, by how they came.
pub(super) enum Headers {
    Http(HeaderMap),
    Framed(frames::Headers),
}

impl Answer {
    /// Itself if the call was done, else the error that it tells of.
    pub(super) fn done(self) -> Result<Self, Error> {
        if self.status.is_success() { Ok(self) } else { Err(problem::error(self.status, &self.body)) }
    }

    /// Its body, read as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| problem::misunderstood(format!("an answer that cannot be read: {error}")))
    }

    /// Its body, to be kept.
    pub(super) fn into_value(self) -> Bytes {
        if self.body.len() <= frames::COPIED_BYTES_MAX {
            Bytes::copy_from_slice(&self.body)
        } else {
            self.body
        }
    }

    /// The text of a header.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match &self.headers {
            Headers::Http(headers) => headers.get(name)?.to_str().ok(),
            Headers::Framed(headers) => headers.text(name),
        }
    }

    /// The entity tag, without quotes.
    pub(super) fn etag(&self) -> Result<&str, Error> {
        let quoted = self.text("etag").and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
        quoted.ok_or_else(|| problem::misunderstood("an answer without an ETag".into()))
    }

    /// The revision that the entity tag of a row is.
    pub(super) fn revision(&self) -> Result<Revision, Error> {
        self.etag()?
            .parse()
            .map_err(|_| problem::misunderstood("an ETag that is not the revision of a row".into()))
    }

    /// Whether what was deleted was there.
    pub(super) fn existed(&self) -> bool {
        self.text(wire::EXISTED) == Some("true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_paths() {
        let target = Target::new("/v1/tables").segment("a table", "t-1", 64).unwrap();
        let target = target.segment("a key", "a/b%c ü?#", 1024).unwrap().then("/increment");
        let target = target.parameter("prefix", "a&b=c+").parameter("limit", "3");
        assert_eq!(target.0, "/v1/tables/t-1/a%2Fb%25c%20%C3%BC%3F%23/increment?prefix=a%26b%3Dc%2B&limit=3");
        assert_eq!(
            Call::new(Method::GET, target).unwrap().uri.path(),
            "/v1/tables/t-1/a%2Fb%25c%20%C3%BC%3F%23/increment"
        );
    }

    #[test]
    fn names_that_no_path_can_hold_are_refused() {
        let segment = |text: &str| Target::new("/v1").segment("a key", text, 1024).map(|_| ());
        assert!(matches!(segment(""), Err(Error::Invalid(text)) if text == "a key is empty"));
        assert!(matches!(
            segment(&"x".repeat(1 << 20)),
            Err(Error::TooLarge { what: "a key", max: 1024, .. })
        ));
        assert!(segment(&"x".repeat(1025)).is_ok(), "the other side says what it thinks of it");
    }
}
