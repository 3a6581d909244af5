//! Errors as clients see them: problem documents (RFC 9457), or a plain page for a browser. The one place that
//! maps errors of the state tier to HTTP, and that keeps internal text away from clients.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use lethe_state::error::Error as StateError;
use serde_json::{Map, Value, json};

/// How long a client is asked to wait, in seconds, when a part of the service cannot be reached.
pub const RETRY_AFTER_S: u32 = 1;

/// What went wrong with a request, in words for the client. It is also put into the response's extensions, so
/// that an outer layer can show it in the look of the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    kind: Option<&'static str>,
    members: Map<String, Value>,
    retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem with a `code` for programs, a `title` that is the same for all problems with this code, and a
    /// `detail` that says what is wrong here and what to do next.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        Self { status, code, title, detail, kind: None, members: Map::new(), retry_after_s: None }
    }

    /// Of a type that others know, by its URI, instead of this service's own (RFC 9457, section 3.1.1).
    pub fn of_type(mut self, kind: &'static str) -> Self {
        self.kind = Some(kind);
        self
    }

    /// With another member in the document (RFC 9457, section 3.2).
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    /// Asks the client to come back after so many seconds (RFC 9110, section 10.2.3).
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Names the kind of problem for programs.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The response for the client that sent these request headers: a page when it is a browser that loads one
    /// (`Accept` names `text/html`), else the problem document.
    pub fn response_for(self, request_headers: &HeaderMap) -> Response {
        let wants_page = request_headers
            .get_all(header::ACCEPT)
            .into_iter()
            .filter_map(|line| line.to_str().ok())
            .any(|line| line.to_ascii_lowercase().contains("text/html"));
        match wants_page {
            true => {
                let page = self.page();
                self.respond("text/html; charset=utf-8", page)
            }
            false => self.into_response(),
        }
    }

    /// How long the client is asked to wait.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    pub(crate) fn document(&self) -> String {
        Value::Object(self.members()).to_string()
    }

    /// The members of the problem document.
    pub fn members(&self) -> Map<String, Value> {
        let mut document = self.members.clone();
        let own = || format!("urn:lethe:problem:{}", self.code);
        document.insert("type".into(), self.kind.map_or_else(own, str::to_owned).into());
        document.insert("title".into(), json!(self.title));
        document.insert("status".into(), json!(self.status.as_u16()));
        document.insert("detail".into(), json!(self.detail));
        document.insert("code".into(), json!(self.code));
        document
    }

    /// No styles and no scripts: it is shown under any content security policy.
    fn page(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title></head><body><h1>{title}</h1><p>{detail}</p>\
             </body></html>\n",
            title = escape(self.title),
            detail = escape(&self.detail)
        )
    }

    fn respond(self, media_type: &'static str, body: String) -> Response {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = self.document();
        self.respond("application/problem+json", document)
    }
}

/// The problem a client sees when a state operation fails. Text of engines goes to the log, not to clients.
impl From<&StateError> for Problem {
    fn from(error: &StateError) -> Self {
        match error {
            StateError::Conflict { .. } | StateError::Fenced { .. } => Self::new(
                StatusCode::CONFLICT,
                "conflict",
                "Somebody was faster",
                "This was changed by another request at the same time. Load it again and repeat the change.",
            ),
            StateError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", "This does not exist.")
            }
            StateError::Gone => Self::new(StatusCode::GONE, "gone", "Gone", "This does not exist any more."),
            StateError::Invalid(text) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid", "Invalid request", text.clone())
            }
            StateError::TooLarge { what, size, max } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", error.to_string())
                    .with("what", *what)
                    .with("size", *size)
                    .with("max", *max)
            }
            StateError::NotAnInteger { .. } => {
                Self::new(StatusCode::CONFLICT, "not-an-integer", "Not an integer", error.to_string())
            }
            StateError::Unsupported { .. } => {
                tracing::error!(error = chain(error), "the state engine lacks what a request needs");
                Self::new(
                    StatusCode::NOT_IMPLEMENTED,
                    "unsupported",
                    "Not supported",
                    "This service is not set up for that.",
                )
            }
            StateError::Unavailable(_) => {
                tracing::error!(error = chain(error), "the state engine cannot be reached");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    "Not available right now",
                    "A part of this service cannot be reached right now, so it is not known whether your \
                     change was made. Try again in a moment.",
                )
                .retry_after(RETRY_AFTER_S)
            }
            _ => {
                tracing::error!(error = chain(error), "the state engine failed");
                Self::internal()
            }
        }
    }
}

impl Problem {
    /// The service's own fault, about which the client learns nothing; the log tells more.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong",
            "The service failed to answer this request. The fault is on its side.",
        )
    }
}

/// An error with all its sources, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
