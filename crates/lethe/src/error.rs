//! What can go wrong in a service that runs under Lethe, in words that say what to do next.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use lethe_http::{
    limit::Refusal,
    problem::{Problem, chain},
    session,
};
use lethe_state::{Revision, error::Error as StateError, locks::Token};

use crate::cache::Cause;

/// An error of the SDK. A handler may return it: clients see a problem document (RFC 9457) without internal text.
///
/// `Debug` shows the same as `Display` and then the causes, since that is what Rust prints when `main` returns it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no state to connect to.
    #[error(
        "LETHE_STATE is not set, so there is no state to keep anything in; run it under `lethe up`, or use \
         State::ephemeral() in a test"
    )]
    NoState,
    /// The address of the state API cannot be used.
    #[error("there is no way to the state that LETHE_STATE names")]
    StateUrl(#[source] StateError),
    /// `State::ephemeral()` could not make its folder or open it.
    #[error("no ephemeral state can be kept in {folder}")]
    Ephemeral {
        /// The folder.
        folder: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The URL of a database cannot be used.
    #[cfg(feature = "sql")]
    #[error("there is no way to the database of this URL")]
    DatabaseUrl(#[source] StateError),
    /// `PORT` is not a port.
    #[error("PORT is `{0}`, which is not a number from 0 to 65535")]
    Port(String),
    /// The address is taken, or may not be used.
    #[error("cannot listen on {address}; set PORT to another port, or stop what listens there")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The unix socket cannot be made.
    #[error("cannot listen on the unix socket {} that SOCKET names; remove that file if nobody serves it, or set \
             SOCKET to another path", path.display())]
    ListenUnix {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was inherited as a listener is none.
    #[error("LISTEN_FDS promises a listening TCP socket as file descriptor 3, but {0}")]
    Inherited(String),
    /// The signals that ask the service to leave cannot be received.
    #[error("cannot wait for SIGTERM and SIGINT")]
    Signals(#[source] io::Error),
    /// A row was not as the write expected it: another request was there first. Nothing of the batch was done.
    #[error("write {index}, to `{key}`, was overtaken by another request; read it again and repeat")]
    Conflict {
        /// Which write of the batch, from 0.
        index: usize,
        /// The row's key.
        key: String,
        /// The revision that it has; `None` when it does not exist.
        found: Option<Revision>,
    },
    /// A later holder of the lock has written already, so this one has lost it. Nothing of the batch was done.
    #[error(
        "write {index}, to `{key}`, came from an earlier holder of the lock: token {token}, after {newest}"
    )]
    Fenced {
        /// Which write of the batch, from 0.
        index: usize,
        /// The lock's name, or the blob's key.
        key: String,
        /// The token of this holder.
        token: Token,
        /// The newest that was seen.
        newest: Token,
    },
    /// The lock was lost while work was done under it.
    #[error(
        "the lock `{name}` was lost, so what was done under it was broken off; acquire it and begin anew"
    )]
    LockLost {
        /// The lock's name.
        name: String,
    },
    /// Other requests changed the row again and again.
    #[error("row `{key}` of the table `{table}` was changed by other requests at each try")]
    Contended {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
    },
    /// A value does not become JSON.
    #[error("the value for row `{key}` of the table `{table}` cannot be stored as JSON")]
    Encode {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// A row is of another shape, perhaps from an older version of the service.
    #[error("row `{key}` of the table `{table}` does not hold what was expected")]
    Decode {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// A value that is not cached could not be computed, for this request or the one that it waited for.
    #[error("the value of `{key}` for the cache `{cache}` could not be computed")]
    Compute {
        /// The cache.
        cache: String,
        /// The key.
        key: String,
        /// What the computation said.
        #[source]
        cause: Cause,
    },
    /// It was asked for too often.
    #[error("it was asked for too often: refused by the limit {}", names(.0))]
    Limited(Refusal),
    /// The session could not be read or written.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The state engine refused or failed.
    #[error("the state could not be read or written")]
    State(#[source] StateError),
}

/// The names of the limits that refuse.
fn names(refusal: &Refusal) -> String {
    let names: Vec<String> = refusal.limits().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Conflict { index, key, found } => Self::Conflict { index, key, found },
            StateError::Fenced { index, key, token, newest } => Self::Fenced { index, key, token, newest },
            other => Self::State(other),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        match error {
            Error::Conflict { .. }
            | Error::Contended { .. }
            | Error::Fenced { .. }
            | Error::LockLost { .. } => Self::new(
                StatusCode::CONFLICT,
                "conflict",
                "Somebody was faster",
                "This was changed by another request at the same time. Load it again and repeat the change.",
            ),
            // What clients may see of it, the error within knows best.
            Error::Compute { cause, .. } if let Some(within) = cause.downcast_ref::<Error>() => {
                Self::from(within)
            }
            Error::Limited(refusal) => refusal.problem(),
            Error::Session(error) => Self::from(error),
            Error::State(error) => Self::from(error),
            other => {
                tracing::error!(error = chain(other), "a request failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match self {
            // It has fields of its own beside the problem.
            Self::Limited(refusal) => refusal.into_response(),
            error => Problem::from(&error).into_response(),
        }
    }
}
