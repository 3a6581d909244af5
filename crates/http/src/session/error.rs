//! What can go wrong with a session, and how a client sees it.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use lethe_state::error::Error as StateError;

use crate::problem::{Problem, chain};

/// Why a session could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The handler takes a `Session`, but no layer provides it.
    #[error("the route has no session layer; add `.layer(SessionLayer::new(&state))` to the router")]
    NoLayer,
    /// The session ended, or got a new id, after this request had loaded it. Nothing was written.
    #[error("the session ended while the request ran, so nothing was written; the page must be loaded again")]
    Ended,
    /// Other requests changed the field again and again.
    #[error("the session field `{field}` was changed by other requests at each try")]
    Contended {
        /// The field.
        field: String,
    },
    /// The response has gone: nothing can be written any more.
    #[error("the session was used after its response was sent; finish with it before the handler returns")]
    Closed,
    /// The value does not become JSON.
    #[error("the value for the session field `{field}` cannot be stored as JSON")]
    Encode {
        /// The field.
        field: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// What is stored is of another shape, perhaps from an older version of the service.
    #[error(
        "the session field `{field}` does not hold what was expected; remove it, or accept the old shape too"
    )]
    Decode {
        /// The field.
        field: String,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// The engine refused or failed.
    #[error("the session could not be read or written")]
    State(#[from] StateError),
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        match error {
            Error::Ended => Self::new(
                StatusCode::CONFLICT,
                "session-ended",
                "Your session has ended",
                "Your session ended while this was being done, perhaps because you signed in or out in another \
                 tab, so the change was not made. Load the page again and repeat it.",
            ),
            Error::Contended { .. } => Self::new(
                StatusCode::CONFLICT,
                "session-contended",
                "Too many changes at once",
                "The same thing was changed by several requests at once, and this change was not made. Load the \
                 page again and repeat it.",
            ),
            Error::State(error) => Self::from(error),
            Error::NoLayer | Error::Closed | Error::Encode { .. } | Error::Decode { .. } => {
                tracing::error!(error = chain(error), "a handler and its session do not fit");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Problem::from(&self).into_response()
    }
}
