//! The JSON of the state API, as its two ends, `server` and `remote`, write and read it. Requests refuse
//! members they do not know, so that a misspelt one is an error; answers may gain members.

pub(crate) mod cache;
pub(crate) mod feeds;
pub(crate) mod idempotency;
pub(crate) mod limits;
pub(crate) mod locks;

use std::{borrow::Cow, collections::BTreeMap, str, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Millis, Revision, locks::Token, portable::Record, realm::Realm, sessions, tables};

/// Most bytes of a body with records: JSON may write each byte of a value as six.
#[cfg(feature = "server")]
pub(crate) const RECORDS_BODY_BYTES_MAX: u64 = 48 << 20;

/// Records of one part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Records {
    pub(crate) records: Vec<Record>,
}

/// Most bytes of the body of a batch: values, and what JSON and base64 add to them.
pub(crate) const BATCH_BODY_BYTES_MAX: u64 = 32 << 20;
/// Names the header that says when a row ends, in milliseconds since the Unix epoch.
pub(crate) const EXPIRES_AT: &str = "lethe-expires-at";
/// Names the header that says whether what was deleted was there.
pub(crate) const EXISTED: &str = "lethe-existed";
/// Names the header that says when a blob was written, in milliseconds since the Unix epoch. `Last-Modified` is
/// the same time, cut to seconds.
pub(crate) const MODIFIED_AT: &str = "lethe-modified-at";

/// How the text of a value stands for its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// The text is the bytes, in UTF-8.
    #[default]
    Utf8,
    /// Base64 with padding (RFC 4648, section 4).
    Base64,
}

impl Encoding {
    /// The text for some bytes: themselves when they are UTF-8, which costs no copy, else base64.
    pub(crate) fn of(value: &[u8]) -> (Cow<'_, str>, Self) {
        match str::from_utf8(value) {
            Ok(text) => (Cow::Borrowed(text), Self::Utf8),
            Err(_) => (Cow::Owned(BASE64_STANDARD.encode(value)), Self::Base64),
        }
    }

    /// The bytes a text stands for; the error says what is wrong with the base64.
    pub(crate) fn decode(self, text: String) -> Result<Bytes, base64::DecodeError> {
        match self {
            Self::Utf8 => Ok(text.into()),
            Self::Base64 => BASE64_STANDARD.decode(text).map(Into::into),
        }
    }
}

/// A whole number of milliseconds that is no shorter than `duration`, so that a short one does not become none.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The body of an increment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Increment {
    #[serde(default = "one")]
    pub(crate) by: i64,
    #[serde(default)]
    pub(crate) ttl_ms: Option<u64>,
}

fn one() -> i64 {
    1
}

/// The answer to an increment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Incremented {
    pub(crate) value: i64,
    pub(crate) revision: Revision,
}

/// The body of a batch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch<'a> {
    pub(crate) writes: Vec<Write<'a>>,
}

/// One write of a batch. Which members it may have depends on `action`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write<'a> {
    pub(crate) table: Cow<'a, str>,
    pub(crate) key: Cow<'a, str>,
    pub(crate) action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) encoding: Option<Encoding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl_ms: Option<u64>,
    #[serde(default, rename = "if")]
    pub(crate) condition: Condition,
}

/// What a write of a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Put,
    Delete,
    Increment,
    Check,
    Fence,
}

/// What must hold for a write of a batch: `"any"`, `"absent"`, `"present"` or `{"revision": 7}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    #[default]
    Any,
    Absent,
    Present,
    Revision(Revision),
}

impl From<Condition> for tables::Condition {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Any => Self::Any,
            Condition::Absent => Self::Absent,
            Condition::Present => Self::Present,
            Condition::Revision(revision) => Self::Revision(revision),
        }
    }
}

impl From<tables::Condition> for Condition {
    fn from(condition: tables::Condition) -> Self {
        match condition {
            tables::Condition::Any => Self::Any,
            tables::Condition::Absent => Self::Absent,
            tables::Condition::Present => Self::Present,
            tables::Condition::Revision(revision) => Self::Revision(revision),
        }
    }
}

/// The answer to a batch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcomes {
    pub(crate) outcomes: Vec<Outcome>,
}

/// What one write of a batch did.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub(crate) enum Outcome {
    Checked,
    Put { revision: Revision },
    Deleted { existed: bool },
    Incremented { value: i64, revision: Revision },
    Fenced,
}

impl From<tables::Outcome> for Outcome {
    fn from(outcome: tables::Outcome) -> Self {
        match outcome {
            tables::Outcome::Checked => Self::Checked,
            tables::Outcome::Put { revision } => Self::Put { revision },
            tables::Outcome::Deleted { existed } => Self::Deleted { existed },
            tables::Outcome::Incremented { value, revision } => Self::Incremented { value, revision },
            tables::Outcome::Fenced => Self::Fenced,
        }
    }
}

impl From<Outcome> for tables::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Checked => Self::Checked,
            Outcome::Put { revision } => Self::Put { revision },
            Outcome::Deleted { existed } => Self::Deleted { existed },
            Outcome::Incremented { value, revision } => Self::Incremented { value, revision },
            Outcome::Fenced => Self::Fenced,
        }
    }
}

/// The answer to a scan.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page<'a> {
    pub(crate) rows: Vec<Row<'a>>,
    pub(crate) next: Option<Cow<'a, str>>,
}

/// One row of a scan.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) value: Cow<'a, str>,
    pub(crate) encoding: Encoding,
    pub(crate) revision: Revision,
    pub(crate) expires_at: Option<Millis>,
}

/// The body that creates a session.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSession {
    #[serde(default)]
    pub(crate) user: Option<String>,
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) idle_ms: Option<u64>,
    #[serde(default)]
    pub(crate) absolute_ms: Option<u64>,
    /// That of the socket, if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) realm: Option<Realm>,
}

impl From<NewSession> for sessions::NewSession {
    fn from(new: NewSession) -> Self {
        let default = sessions::Lifetime::default();
        let lifetime = sessions::Lifetime {
            idle: new.idle_ms.map_or(default.idle, Duration::from_millis),
            absolute: new.absolute_ms.map_or(default.absolute, Duration::from_millis),
        };
        Self { realm: new.realm.unwrap_or_default(), user: new.user, fields: new.fields, lifetime }
    }
}

/// The body that changes a session's fields.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    #[serde(default)]
    pub(crate) set: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) remove: Vec<String>,
    #[serde(default, rename = "if")]
    pub(crate) expect: BTreeMap<String, Revision>,
}

/// The body that renews a session: a patch, and the user that it is of from then on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Renew {
    #[serde(default)]
    pub(crate) user: Option<String>,
    #[serde(default)]
    pub(crate) set: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) remove: Vec<String>,
    #[serde(default, rename = "if")]
    pub(crate) expect: BTreeMap<String, Revision>,
}

/// A session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Session<F = BTreeMap<String, sessions::Field>> {
    pub(crate) id: String,
    pub(crate) user: Option<String>,
    pub(crate) fields: F,
    pub(crate) created_at: Millis,
    pub(crate) idle_ms: Millis,
    pub(crate) idle_expires_at: Millis,
    pub(crate) absolute_expires_at: Millis,
}

impl From<sessions::Session> for Session {
    fn from(session: sessions::Session) -> Self {
        Self {
            id: session.id.to_text(),
            user: session.user,
            fields: Arc::unwrap_or_clone(session.fields),
            created_at: session.created_at,
            idle_ms: session.idle_ms,
            idle_expires_at: session.idle_expires_at,
            absolute_expires_at: session.absolute_expires_at,
        }
    }
}

/// The sessions of a user.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionList {
    pub(crate) sessions: Vec<sessions::SessionInfo>,
}

/// How many sessions were ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revoked {
    pub(crate) revoked: u64,
}

/// An error (RFC 9457), with the data of [`crate::error::Error`] as members of their own.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Problem {
    #[serde(rename = "type", default)]
    pub(crate) kind: Cow<'static, str>,
    #[serde(default)]
    pub(crate) title: Cow<'static, str>,
    #[serde(default)]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) detail: String,
    pub(crate) code: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The outer `None` leaves the member out; the inner one says that the thing does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<Option<Revision>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) newest: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) what: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) engine: Option<Cow<'static, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_as_text_or_base64() {
        for value in [&b""[..], b"plain", "gr\u{fc}\u{df}e \u{1f6d2}".as_bytes(), b"\xff\x00\x80"] {
            let (text, encoding) = Encoding::of(value);
            assert_eq!(encoding == Encoding::Utf8, str::from_utf8(value).is_ok());
            assert_eq!(encoding.decode(text.into_owned()).unwrap(), value);
        }
    }

    #[test]
    fn conditions_are_words_or_a_revision() {
        for (json, expected) in [
            (r#""any""#, tables::Condition::Any),
            (r#""absent""#, tables::Condition::Absent),
            (r#""present""#, tables::Condition::Present),
            (r#"{"revision":7}"#, tables::Condition::Revision(7)),
        ] {
            let condition: Condition = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&condition).unwrap(), json);
            assert_eq!(tables::Condition::from(condition), expected);
        }
    }

    #[test]
    fn durations_are_rounded_up() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(1500)), 1500);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
