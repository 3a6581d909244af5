//! What can go wrong between an engine and its servers, by what may be done about it: whether a request that failed may be
//! sent again depends on whether it may have been done.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::Error;

/// Why a request was not answered as it should be.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent, or the server said that it was not done: it may be sent again.
    NotDone(String),
    /// It was sent, and no answer came: it may have been done.
    Unknown(String),
    /// The server is left alone for a while.
    Resting(String),
    /// The slot is another server's: `address`, or the one asked for this once.
    Elsewhere { address: String, is_for_once: bool },
    /// The server does not know the script.
    NoScript,
    /// Nothing would be better another time.
    Refused(Refusal),
}

impl Failure {
    /// What is said of a server that could not be reached or did not answer; `None` when it has answered.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::NotDone(text) | Self::Unknown(text) | Self::Resting(text) => Some(text),
            Self::Elsewhere { .. } | Self::NoScript | Self::Refused(_) => None,
        }
    }
}

/// What a server said no to. It never says a password.
#[derive(Debug, thiserror::Error)]
#[error("redis at {server} refused: {said}{advice}")]
pub struct Refusal {
    server: String,
    said: String,
    advice: &'static str,
}

impl Refusal {
    /// What a server said, or what is wrong with it.
    pub(super) fn new(server: &str, said: impl Into<String>) -> Self {
        let said = said.into();
        let advice = advice(&said);
        Self { server: server.to_owned(), said, advice }
    }
}

#[cfg(test)]
impl Refusal {
    /// As a server refuses a wrong password.
    pub(crate) fn of_password(server: &str) -> Self {
        Self::new(server, "WRONGPASS invalid username-password pair or user is disabled.")
    }
}

/// What to do about it.
fn advice(said: &str) -> &'static str {
    match said.split_ascii_whitespace().next().unwrap_or_default() {
        "WRONGPASS" | "NOAUTH" => "; check the user and password in the URL",
        "NOPERM" => {
            "; the user needs the commands EVAL, EVALSHA, HELLO and those of hashes, sorted sets and strings"
        }
        "OOM" => "; give it more memory (maxmemory)",
        "MISCONF" => "; it cannot write to its disk: look at its log",
        "WRONGTYPE" => "; something else uses its keys: choose another `namespace` in the URL",
        _ => "",
    }
}

impl Failure {
    /// What became of a request that was sent.
    pub(super) fn of(server: &str, error: &RedisError) -> Self {
        let at = |what: &str| format!("redis at {server}: {what}");
        match error.kind() {
            ErrorKind::Io => Self::Unknown(at(&format!("no answer ({error})"))),
            ErrorKind::Server(kind) => Self::of_server(server, kind, error),
            ErrorKind::Extension if matches!(error.code(), Some("NOREPLICAS" | "BUSY" | "UNBLOCKED")) => {
                Self::NotDone(at(&said(error)))
            }
            ErrorKind::Extension | ErrorKind::AuthenticationFailed => {
                Self::Refused(Refusal::new(server, said(error)))
            }
            _ => Self::Unknown(at(&format!("the answer was not understood ({})", error.category()))),
        }
    }

    fn of_server(server: &str, kind: ServerErrorKind, error: &RedisError) -> Self {
        let redirect = || error.redirect_node().map(|(address, _)| address.to_owned());
        match kind {
            ServerErrorKind::NoScript => Self::NoScript,
            ServerErrorKind::Moved | ServerErrorKind::Ask => match redirect() {
                Some(address) => Self::Elsewhere { address, is_for_once: kind == ServerErrorKind::Ask },
                None => Self::Refused(Refusal::new(server, said(error))),
            },
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly => {
                Self::NotDone(format!("redis at {server} is not ready: {}", said(error)))
            }
            _ => Self::Refused(Refusal::new(server, said(error))),
        }
    }

    /// Whether the request may be sent again; `is_repeatable` when it may be done twice.
    pub(super) fn may_be_repeated(&self, is_repeatable: bool) -> bool {
        match self {
            Self::NotDone(_) | Self::Elsewhere { .. } => true,
            Self::Unknown(_) => is_repeatable,
            Self::Resting(_) | Self::NoScript | Self::Refused(_) => false,
        }
    }
}

/// The words of a server: its error code and text.
fn said(error: &RedisError) -> String {
    format!("{} {}", error.code().unwrap_or("ERR"), error.detail().unwrap_or_default()).trim_end().to_owned()
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotDone(text) | Failure::Resting(text) => Self::Unavailable(text),
            Failure::Unknown(text) => Self::Unavailable(format!("{text}; what was asked may have been done")),
            Failure::Elsewhere { address, .. } => {
                Self::Unavailable(format!("the redis cluster moves slots to {address}"))
            }
            Failure::NoScript => Self::Unavailable("redis forgets scripts as soon as they are sent".into()),
            Failure::Refused(refusal) => Self::Engine(Box::new(refusal)),
        }
    }
}
