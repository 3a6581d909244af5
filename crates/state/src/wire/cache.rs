//! The JSON and the header fields of caches. Times are whole milliseconds, rounded up.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Encoding;

/// Names the header that says how a key stands.
pub(crate) const STANDING: &str = "lethe-cache";
/// Its values.
pub(crate) const FRESH: &str = "fresh";
pub(crate) const STALE: &str = "stale";
pub(crate) const MISSING: &str = "missing";
pub(crate) const BUSY: &str = "busy";
/// Names the header with the token of the claim that was given.
pub(crate) const CLAIM: &str = "lethe-claim";
/// Names the header that says how often in a row a claim on the key has failed.
pub(crate) const FAILURES: &str = "lethe-failures";
/// Names the header that says for how long an entry is still fresh.
pub(crate) const FRESH_MS: &str = "lethe-fresh-ms";
/// Names the header that says for how long an entry may still be used.
pub(crate) const LEFT_MS: &str = "lethe-left-ms";
/// Names the header that says after how long the lease of somebody else's claim ends.
pub(crate) const BUSY_MS: &str = "lethe-busy-ms";

/// The body that begins.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Begin {
    pub(crate) lease_ms: u64,
}

/// The body that extends a claim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extend {
    pub(crate) token: u64,
    pub(crate) lease_ms: u64,
}

/// The body that gives a claim back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Abandon {
    pub(crate) token: u64,
    #[serde(default)]
    pub(crate) pause_ms: u64,
}

/// The answer to what needs a claim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) held: bool,
}

/// The body that reads several keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read<'a> {
    pub(crate) keys: Cow<'a, [String]>,
}

/// The answer to that, for as many of the keys as have fitted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entries<'a> {
    pub(crate) entries: Vec<Option<Entry<'a>>>,
}

/// An entry; without a value it says that there is none.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry<'a> {
    pub(crate) value: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) encoding: Encoding,
    pub(crate) fresh_ms: u64,
    pub(crate) left_ms: u64,
}
