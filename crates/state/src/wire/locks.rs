//! The JSON of locks. A lease and a page of them are as the kind itself has them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::locks::Token;

/// The code of the problem that a lock is held by somebody.
pub(crate) const HELD: &str = "held";
/// The code of the problem that a lease is over, or somebody else's.
pub(crate) const LOST: &str = "lost";
/// Names the header with a fencing token.
pub(crate) const FENCE: &str = "lethe-fence";

/// The body that takes a lock.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acquire<'a> {
    pub(crate) holder: Cow<'a, str>,
    pub(crate) lease_ms: u64,
}

/// The body that renews a lease.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Renew {
    pub(crate) token: Token,
    pub(crate) lease_ms: u64,
}

/// The body that lets a lock go.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Release {
    pub(crate) token: Token,
}

/// The answer to that.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Released {
    pub(crate) released: bool,
}
