//! What can go wrong, and what a visitor is told of it. The text for visitors is made here and nowhere else;
//! what only the operator may know goes to the log.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use lethe::problem::chain;

use crate::photo;

/// Why the shop did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting in the environment is wrong; the text names it and what would be right.
    #[error("{0}")]
    Setting(String),
    /// The state tier is not there.
    #[error("the shop needs its state tier")]
    State(#[from] lethe::Error),
    /// The catalogue could not be written.
    #[error("the shop could not fill its shelves")]
    Seed(#[from] Error),
}

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such page, product or order; or an order of somebody else, which is the same to who asks.
    #[error("there is no such page")]
    NotFound,
    /// The page is there, but not for this method.
    #[error("method not allowed")]
    Method,
    /// Only the admin may do this.
    #[error("not the admin")]
    Forbidden,
    /// A form was not as the shop's own pages send it.
    #[error("bad form: {0}")]
    Form(String),
    /// An upload is not a picture of a kind that the shop takes.
    #[error("not a picture")]
    NotAPicture,
    /// A body is over its limit.
    #[error("the body is too large")]
    TooLarge,
    /// A bound was reached; the same request may be sent again later.
    #[error("the shop is busy")]
    Busy,
    /// The session could not be read or written.
    #[error("the session was not available")]
    Session(#[from] lethe::session::Error),
    /// The state tier refused or failed.
    #[error("the state was not available")]
    State(#[from] lethe::Error),
    /// A bug or a broken machine.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Something that should not happen, for the log.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    /// What a visitor may know of it.
    pub fn failure(&self) -> Failure {
        let (status, title, text) = match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "Nothing on this page",
                "It may have been moved, or the address has a slip of the pen in it.".into(),
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "That cannot be done here",
                "This address does not take that kind of request.".into(),
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "For the shopkeeper only",
                "Sign in as the shopkeeper to open the stock room.".into(),
            ),
            Self::Form(what) => (StatusCode::BAD_REQUEST, "That form did not arrive well", what.clone()),
            Self::NotAPicture => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "That is not a picture we can hang",
                "Choose a JPEG, PNG or WebP file. Its content counts, not its name.".into(),
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "That is too large",
                format!("A picture may have up to {} MiB.", photo::PHOTO_BYTES_MAX >> 20),
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "One moment, please",
                "The shop is very busy. Nothing is lost: try again in a few seconds.".into(),
            ),
            Self::Session(lethe::session::Error::Ended | lethe::session::Error::Contended { .. }) => (
                StatusCode::CONFLICT,
                "Something changed meanwhile",
                "You signed in or out, or changed the same thing, in another tab. Go back, load that page again \
                 and repeat it."
                    .into(),
            ),
            Self::State(lethe::Error::Limited(refusal)) => (
                StatusCode::TOO_MANY_REQUESTS,
                "One moment, please",
                refusal.problem().detail().to_owned(),
            ),
            Self::State(_) | Self::Session(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "One moment, please",
                "The shop cannot reach its books right now. Try again: nothing is ever ordered twice.".into(),
            ),
            Self::Internal(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "That is our mistake",
                "Something broke, and it has been written down. Try again: nothing is ever ordered twice.".into(),
            ),
        };
        Failure { status, title, text }
    }
}

/// A failure as visitors see it. It travels as an extension of a response without a body; `pages::dress`
/// turns it into a page.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The status of the response.
    pub status: StatusCode,
    /// The heading.
    pub title: &'static str,
    /// What happened and what to do next.
    pub text: String,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match &self {
            Self::State(lethe::Error::Limited(_)) => {}
            Self::State(_) | Self::Session(_) | Self::Internal(_) => {
                tracing::error!(error = chain(&self), "a request failed");
            }
            _ => {}
        }
        let failure = self.failure();
        let mut response = failure.status.into_response();
        if failure.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if let Self::State(lethe::Error::Limited(refusal)) = &self {
            // Whoever waits for so long is let in.
            let seconds = refusal.problem().retry_after_s();
            response.headers_mut().extend(seconds.map(|seconds| (header::RETRY_AFTER, seconds.into())));
            refusal.put(response.headers_mut());
        }
        response.extensions_mut().insert(failure);
        response
    }
}
