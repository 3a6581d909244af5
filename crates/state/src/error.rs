//! What can go wrong with state, the same for each kind and engine.

use crate::{Revision, locks::Token};

/// Why a state operation was not done. Nothing of it takes effect, but for [`Error::Unavailable`] and
/// [`Error::Engine`], after which it is not known: a disk that fails may have kept what it did not confirm.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another writer was there first: a condition of write number `index` (from 0) did not hold.
    #[error("write {index}, to `{key}`, expected another revision than {}", found_text(*.found))]
    Conflict {
        /// Which write of the batch, from 0.
        index: usize,
        /// The key, field or blob that was not as expected.
        key: String,
        /// The revision it has; `None` when it does not exist.
        found: Option<Revision>,
    },
    /// A later holder of the lock was there already: the lock was lost, and what is still to be done under it is to be
    /// left. Write number `index` (from 0) came with an older fencing token than has been seen.
    #[error(
        "write {index}, to `{key}`, has the fencing token {token}, and {newest} was seen there: the lock has a later holder"
    )]
    Fenced {
        /// Which write of the batch, from 0.
        index: usize,
        /// The fence's key, or the blob's.
        key: String,
        /// The token that was given.
        token: Token,
        /// The newest that was seen.
        newest: Token,
    },
    /// No such session. (An absent row or blob is `None`, not an error.)
    #[error("no such session")]
    NotFound,
    /// The session was destroyed, expired or renewed; its id never comes back.
    #[error("the session has ended, and its id is not used again")]
    Gone,
    /// The request breaks a rule or a limit; the text says which, and the limit.
    #[error("{0}")]
    Invalid(String),
    /// A value, key or body is over its limit.
    #[error("{what} is {size} bytes, over the limit of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes, as far as it was read.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// An increment or a fence met a value that is not a decimal 64-bit integer, or would leave that range.
    #[error("`{key}` does not hold an integer that this can be done to")]
    NotAnInteger {
        /// The row's key.
        key: String,
    },
    /// The service was not given that: the text says what, and what it was given.
    #[error("{0}")]
    Denied(String),
    /// This engine cannot do that.
    #[error("the {engine} engine does not offer {what}")]
    Unsupported {
        /// The engine's name.
        engine: &'static str,
        /// What it lacks.
        what: &'static str,
    },
    /// The engine cannot be reached, is overloaded or is closing: nothing is known to be wrong with the
    /// request, which may or may not have taken effect.
    #[error("the state engine is not available: {0}")]
    Unavailable(String),
    /// The engine's own failure: disk full, a damaged file.
    #[error("the state engine failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn found_text(found: Option<Revision>) -> String {
    found.map_or_else(|| "the one found: it does not exist".into(), |revision| revision.to_string())
}
