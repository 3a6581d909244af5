//! What came back of one step.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use crate::expectation::Unmet;

/// What came back of one step.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The step, from 1.
    pub step: usize,
    /// The status of the last response.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Whether the body was longer than it may be, or was a stream of events, and `body` is its beginning.
    pub is_cut: bool,
    /// The redirects that were followed, in their order; empty for a step that follows none.
    pub redirects: Vec<Hop>,
    /// From the beginning of the request to the end of the last response, with the connection if a new one was needed.
    pub took: Duration,
    /// What was not as expected.
    pub unmet: Vec<Unmet>,
    /// The identity of the run, which texts of the response may have in them.
    pub identity: String,
}

/// A redirect that was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its status.
    pub status: StatusCode,
    /// Where it led, as it was said.
    pub location: String,
}

impl Observed {
    /// Whether all was as expected.
    pub fn is_met(&self) -> bool {
        self.unmet.is_empty()
    }

    /// Whether something that is to arrive may have, among more messages than are kept: nothing can be said of the step then.
    pub fn is_flooded(&self) -> bool {
        self.unmet.iter().any(|unmet| matches!(unmet, Unmet::Flooded { .. }))
    }

    /// Where it redirects to and was not followed.
    pub fn location(&self) -> Option<&str> {
        self.headers.get(header::LOCATION)?.to_str().ok()
    }

    /// The body's type without its parameters, in lower case.
    pub fn content_type(&self) -> Option<String> {
        content_type(&self.headers)
    }

    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `Content-Type` without its parameters, in lower case.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
