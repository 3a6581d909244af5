//! What is kept, as records that any engine can give and take: how state moves from one engine to another. A record has
//! all that its kind knows of a thing (revisions, the hash of a session's id, expiries), so that whoever has a revision, a cookie or an
//! idempotency key from before the move goes on with it. Operators use it (`lethe state export`, `import`); services do not.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use crate::{Engines, Millis, Revision, error::Error, locks::Token};

/// Most records in one page.
pub const PAGE_RECORDS_MAX: usize = 500;
/// A page ends behind the record with which it reaches so many bytes of values. The bytes of blobs count, though they are not in it:
/// whoever copies them page by page and is interrupted does little twice.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// A part of all that is kept. They are moved in this order: counters first, so that nothing that is given out anew looks older
/// than what is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// One record: the largest revision and fencing token that was given out.
    Counters,
    /// Rows of tables.
    Rows,
    /// Ids of sessions that have ended, and are known as such.
    Ended,
    /// Live sessions.
    Sessions,
    /// Answers under idempotency keys, and keys whose request was begun and of whose end nothing is known.
    Answers,
    /// Blobs by their names, and the fences of blobs; not their bytes, which [`crate::blobs::Blobs`] reads and writes.
    Blobs,
}

impl Part {
    /// All there are, in their order.
    pub const ALL: [Self; 6] =
        [Self::Counters, Self::Rows, Self::Ended, Self::Sessions, Self::Answers, Self::Blobs];

    /// Its name, as in paths and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counters => "counters",
            Self::Rows => "rows",
            Self::Ended => "ended",
            Self::Sessions => "sessions",
            Self::Answers => "answers",
            Self::Blobs => "blobs",
        }
    }

    /// The part with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// Bytes: a string in JSON where they are UTF-8, else `{"base64": "…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data(pub Bytes);

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_map([("base64", BASE64_STANDARD.encode(&self.0))]),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Binary { base64: String },
        }
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Self(text.into())),
            Written::Binary { base64 } => {
                BASE64_STANDARD.decode(base64).map(|bytes| Self(bytes.into())).map_err(D::Error::custom)
            }
        }
    }
}

/// The SHA-256 of a session's secret id and its realm, as URL-safe base64: [`crate::sessions::SessionId::hash`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Its text, of 43 characters.
    pub fn to_text(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Reads its text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(Self(bytes))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("a hash is 43 characters of URL-safe base64"))
    }
}

/// One thing that is kept, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// Of [`Part::Counters`].
    Counter(Counter),
    /// Of [`Part::Rows`].
    Row(Row),
    /// Of [`Part::Ended`].
    Ended(Ended),
    /// Of [`Part::Sessions`].
    Session(Session),
    /// Of [`Part::Answers`].
    Answer(Answer),
    /// Of [`Part::Blobs`].
    Blob(Blob),
}

/// What was given out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// Every revision and fencing token that was given out is this or less.
    pub last: u64,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `tables::Row`")]
pub struct Row {
    pub table: String,
    pub key: String,
    pub value: Data,
    pub revision: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Millis>,
}

/// An id that is not used again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Of the id.
    pub hash: Hash,
    /// Of the id that it was renewed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Hash>,
    /// Whose session it became by that, as engines keep it: with the [realm](crate::realm).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it ended.
    pub ended_at: Millis,
    /// Until when it is remembered.
    pub forget_at: Millis,
}

/// A session that has not expired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `sessions::Session`")]
pub struct Session {
    pub hash: Hash,
    pub handle: String,
    /// As engines keep it: with the [realm](crate::realm).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Each with its revision.
    pub fields: BTreeMap<String, (Value, Revision)>,
    /// No field of it ever had a larger revision.
    pub version: Revision,
    pub created_at: Millis,
    /// How long it lasts unused.
    pub idle_ms: Millis,
    pub idle_expires_at: Millis,
    pub absolute_expires_at: Millis,
}

/// An answer that is given again to whoever has its key; or only that the request was begun. To who asks for at most once
/// that one is lost, wherever it has been brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `idempotency::Beginning` and `idempotency::Answer`")]
pub struct Answer {
    pub scope: String,
    pub key: String,
    /// 64 hexadecimal digits.
    pub fingerprint: String,
    /// `None` for a request of whose end nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default)]
    pub fields: Vec<(String, Data)>,
    #[serde(default)]
    pub body: Data,
    pub expires_at: Millis,
}

/// A blob, or the fence of one that was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `blobs::BlobInfo`")]
pub struct Blob {
    pub bucket: String,
    pub key: String,
    /// `None` for one that was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The newest fencing token that it was written or deleted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Token>,
    /// The SHA-256 of its bytes, in hexadecimal digits. Engines do not give it; who copies the bytes does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Record {
    /// The part that it is of.
    pub fn part(&self) -> Part {
        match self {
            Self::Counter(_) => Part::Counters,
            Self::Row(_) => Part::Rows,
            Self::Ended(_) => Part::Ended,
            Self::Session(_) => Part::Sessions,
            Self::Answer(_) => Part::Answers,
            Self::Blob(_) => Part::Blobs,
        }
    }

    /// How many bytes of values it has, about: what counts for [`PAGE_BYTES_MAX`].
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Row(row) => row.value.0.len(),
            Self::Session(session) => session.fields.values().map(|(value, _)| value.to_string().len()).sum(),
            Self::Answer(answer) => {
                let fields: usize = answer.fields.iter().map(|(_, value)| value.0.len()).sum();
                fields + answer.body.0.len()
            }
            Self::Blob(blob) => usize::try_from(blob.size.unwrap_or(0)).unwrap_or(usize::MAX),
            Self::Counter(_) | Self::Ended(_) => 0,
        }
    }

    /// From when on it is not there any more; `None` for never.
    pub fn expires_at(&self) -> Option<Millis> {
        match self {
            Self::Row(row) => row.expires_at,
            Self::Ended(ended) => Some(ended.forget_at),
            Self::Session(session) => Some(session.idle_expires_at),
            Self::Answer(answer) => Some(answer.expires_at),
            Self::Counter(_) | Self::Blob(_) => None,
        }
    }
}

/// Some records of a part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// They, in an order that stays.
    pub records: Vec<Record>,
    /// Where the next page begins: the `after` to ask for. `None` when there are no more.
    pub next: Option<String>,
    /// How many there are in all, in the first page, where the engine can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Whether a record may come in another page again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeats: bool,
}

/// An engine whose state can be moved.
///
/// Reading is a walk, not a picture of one moment: what is there from the walk's beginning to its end is in it, each record as it was at one
/// moment; what comes, goes or changes meanwhile may be or not. Both methods are cancellation safe as those of the kinds are.
#[async_trait]
pub trait Portable: Send + Sync {
    /// Records of `part` behind `after`, at most [`PAGE_RECORDS_MAX`]. What has expired is left out.
    async fn dump(&self, part: Part, after: Option<&str>) -> Result<Page, Error>;

    /// Puts records of one part where nothing newer is under the same names; twice is as once. What stays is a row with a larger revision,
    /// that a session has ended, a session that lives, and an idempotency key with its answer or the request that runs under it.
    ///
    /// [`Part::Counters`] makes all that is given out from then on larger. [`Part::Blobs`] takes no part in it.
    async fn restore(&self, records: Vec<Record>) -> Result<(), Error>;
}

/// Several engines, each of which keeps some kinds, as one.
pub struct Whole(pub Engines);

impl Whole {
    /// The engine that keeps a part.
    fn keeper(&self, part: Part) -> Result<&dyn Portable, Error> {
        let Engines { sessions, tables, blobs, locks, idempotency, .. } = &self.0;
        let keeper = match part {
            Part::Counters => locks.portable(),
            Part::Rows => tables.portable(),
            Part::Ended | Part::Sessions => sessions.portable(),
            Part::Answers => idempotency.portable(),
            Part::Blobs => blobs.portable(),
        };
        keeper.ok_or(Error::Unsupported { engine: "an", what: "moving what it keeps to another one" })
    }

    /// Those that count.
    fn counting(&self) -> impl Iterator<Item = &dyn Portable> {
        let Engines { sessions, tables, locks, idempotency, .. } = &self.0;
        [tables.portable(), sessions.portable(), locks.portable(), idempotency.portable()]
            .into_iter()
            .flatten()
    }
}

#[async_trait]
impl Portable for Whole {
    async fn dump(&self, part: Part, after: Option<&str>) -> Result<Page, Error> {
        if part != Part::Counters {
            return self.keeper(part)?.dump(part, after).await;
        }
        let mut last = 0;
        for engine in self.counting() {
            for record in engine.dump(part, None).await?.records {
                if let Record::Counter(counter) = record {
                    last = last.max(counter.last);
                }
            }
        }
        let records = vec![Record::Counter(Counter { last })];
        Ok(Page { records, total: Some(1), ..Page::default() })
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), Error> {
        let Some(part) = records.first().map(Record::part) else { return Ok(()) };
        if part != Part::Counters {
            return self.keeper(part)?.restore(records).await;
        }
        for engine in self.counting() {
            engine.restore(records.clone()).await?;
        }
        Ok(())
    }
}

/// Splits a cursor of two names, of which the first has no `/`.
#[cfg(any(feature = "embedded", feature = "postgres", feature = "redis"))]
pub(crate) fn pair(after: Option<&str>) -> Result<(&str, &str), Error> {
    match after {
        None => Ok(("", "")),
        Some(after) => after
            .split_once('/')
            .ok_or_else(|| Error::Invalid(format!("`after` is `{after}`, which no page has given"))),
    }
}

/// Reads a cursor that is a hash; the first page begins behind the empty text.
#[cfg(any(feature = "embedded", feature = "postgres", feature = "redis"))]
pub(crate) fn hash_after(after: Option<&str>) -> Result<Vec<u8>, Error> {
    match after {
        None => Ok(Vec::new()),
        Some(after) => match Hash::parse(after) {
            Some(hash) => Ok(hash.0.to_vec()),
            None => Err(Error::Invalid(format!("`after` is `{after}`, which no page has given"))),
        },
    }
}

/// Refuses records of more than one part.
#[cfg(any(feature = "embedded", feature = "redis", feature = "postgres", feature = "server"))]
pub(crate) fn mixed(record: &Record) -> Error {
    Error::Invalid(format!("a record of `{}` among those of another part", record.part().name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_lines_that_people_can_read() {
        let row = |value: &'static [u8]| {
            Record::Row(Row {
                table: "t".into(),
                key: "k".into(),
                value: Data(Bytes::from_static(value)),
                revision: 7,
                expires_at: None,
            })
        };
        for (record, json) in [
            (row(b"v\n"), r#"{"row":{"table":"t","key":"k","value":"v\n","revision":7}}"#),
            (row(b"\xff"), r#"{"row":{"table":"t","key":"k","value":{"base64":"/w=="},"revision":7}}"#),
            (Record::Counter(Counter { last: 3 }), r#"{"counter":{"last":3}}"#),
        ] {
            assert_eq!(serde_json::to_string(&record).unwrap(), json);
            assert_eq!(serde_json::from_str::<Record>(json).unwrap(), record);
        }
        let hash = Hash([7; 32]);
        assert_eq!(Hash::parse(&hash.to_text()), Some(hash));
        assert_eq!(Hash::parse("AA"), None);
    }

    #[test]
    fn cursors_are_checked() {
        assert_eq!(pair(Some("t/a/b")).unwrap(), ("t", "a/b"));
        assert!(pair(Some("t")).is_err() && hash_after(Some("x")).is_err());
        assert_eq!(hash_after(None).unwrap(), b"");
    }
}
