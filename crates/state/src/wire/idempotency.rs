//! The JSON of idempotency keys.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Encoding;

/// The body that claims a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Begin<'a> {
    pub(crate) key: Cow<'a, str>,
    /// 64 hexadecimal digits.
    pub(crate) fingerprint: String,
    pub(crate) owner: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) displaces: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) at_most_once: bool,
    pub(crate) lease_ms: u64,
    pub(crate) kept_ms: u64,
}

/// The answer to that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(crate) enum Begun<'a> {
    Claimed { token: u64 },
    Running { lease_ms: u64 },
    Answered { answer: Answer<'a> },
    Mismatched,
    Lost,
}

/// The body that extends a claim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extend<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) token: u64,
    pub(crate) lease_ms: u64,
}

/// The body that keeps an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finish<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) token: u64,
    pub(crate) answer: Answer<'a>,
}

/// The body that gives a claim back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Abandon<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) token: u64,
}

/// The answer to these three.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) held: bool,
}

/// An answer, as it is given again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) fields: Vec<Field<'a>>,
    #[serde(default)]
    pub(crate) body: Cow<'a, str>,
    #[serde(default)]
    pub(crate) encoding: Encoding,
}

/// A header field of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Field<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) value: Cow<'a, str>,
    #[serde(default)]
    pub(crate) encoding: Encoding,
}

impl<'a> From<&'a crate::idempotency::Answer> for Answer<'a> {
    fn from(answer: &'a crate::idempotency::Answer) -> Self {
        let fields = answer.fields.iter().map(|(name, value)| {
            let (value, encoding) = Encoding::of(value);
            Field { name: Cow::Borrowed(name), value, encoding }
        });
        let (body, encoding) = Encoding::of(&answer.body);
        Self { status: answer.status, fields: fields.collect(), body, encoding }
    }
}

impl TryFrom<Answer<'_>> for crate::idempotency::Answer {
    type Error = base64::DecodeError;

    fn try_from(answer: Answer<'_>) -> Result<Self, base64::DecodeError> {
        let Answer { status, fields, body, encoding } = answer;
        let fields = fields.into_iter().map(|Field { name, value, encoding }| {
            Ok((name.into_owned(), encoding.decode(value.into_owned())?))
        });
        Ok(Self {
            status,
            fields: fields.collect::<Result<_, _>>()?,
            body: encoding.decode(body.into_owned())?,
        })
    }
}
