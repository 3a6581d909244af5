//! The one place that maps what goes wrong in the control API to `application/problem+json` (RFC 9457). Whoever can
//! read the answer may command this `lethe`, so that the supervisor's own text is not hidden.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use lethe_supervisor::supervisor;

use crate::api::Problem;

/// Why a request to the control API was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request is not one of the API's.
    #[error("{0}")]
    BadRequest(String),
    /// No such resource.
    #[error("the control API has no `{0}`")]
    NoRoute(String),
    /// Not with this method.
    #[error("the control API does not take {0} here")]
    Method(http::Method),
    /// The node did not do it.
    #[error("{}", .0.detail)]
    Node(Problem),
    /// The supervisor did not do it.
    #[error(transparent)]
    Supervisor(#[from] supervisor::Error),
}

impl Error {
    fn status_and_title(&self) -> (StatusCode, &str) {
        match self {
            Self::Node(problem) => {
                let status =
                    StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, &problem.title)
            }
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "Bad request"),
            Self::NoRoute(_) => (StatusCode::NOT_FOUND, "No such resource"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::Supervisor(error) => match error {
                supervisor::Error::NoService { .. } => (StatusCode::NOT_FOUND, "No such service"),
                supervisor::Error::NoName { .. } => (StatusCode::NOT_FOUND, "No such service or worker"),
                supervisor::Error::NoWorker { .. } => (StatusCode::NOT_FOUND, "No such worker"),
                supervisor::Error::Rollout { .. } => (StatusCode::CONFLICT, "Rolling restart given up"),
                supervisor::Error::RolledBack { .. } => (StatusCode::CONFLICT, "Rolled back"),
                supervisor::Error::Rolling(_) => (StatusCode::CONFLICT, "A rollout is under way"),
                supervisor::Error::NotRolling(_) => (StatusCode::CONFLICT, "No rollout is under way"),
                supervisor::Error::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "Stopping"),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "Not done"),
            },
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, title) = self.status_and_title();
        let problem = Problem { status: status.as_u16(), title: title.into(), detail: self.to_string() };
        let mut response = (status, axum::Json(problem)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
