//! Reads what scripts return: lists that begin with a word which says what the rest is.

use bytes::Bytes;
use redis::Value;

use crate::error::Error;

/// What a script returned, read from its beginning.
pub(super) struct Reply(std::vec::IntoIter<Value>);

/// A script of this engine returned what it never does: the keys are not its own, or a proxy stands between.
#[derive(Debug, thiserror::Error)]
#[error(
    "redis holds or answers what this engine does not write: {0} was expected; choose another `namespace` in the URL"
)]
struct Unexpected(&'static str);

/// The error for what cannot be read.
pub(super) fn unexpected(what: &'static str) -> Error {
    Error::Engine(Box::new(Unexpected(what)))
}

impl Reply {
    /// Reads a list.
    pub(super) fn list(value: Value) -> Result<Self, Error> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(unexpected("a list")),
        }
    }

    /// Reads a list within the list.
    pub(super) fn next_list(&mut self) -> Result<Self, Error> {
        Self::list(self.0.next().unwrap_or_default())
    }

    /// Reads bytes.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Error> {
        self.next_bytes().ok_or_else(|| unexpected("a string"))
    }

    /// Reads bytes, if there is something left.
    pub(super) fn next_bytes(&mut self) -> Option<Bytes> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(Bytes::from(bytes)),
            _ => None,
        }
    }

    /// Reads text.
    pub(super) fn text(&mut self) -> Result<String, Error> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| unexpected("text"))
    }

    /// Reads a number, also one in decimal text.
    pub(super) fn number(&mut self) -> Result<i64, Error> {
        number(&self.0.next().unwrap_or_default())
    }

    /// Reads a revision; `None` where there is none.
    pub(super) fn revision(&mut self) -> Result<Option<u64>, Error> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| unexpected("a revision"))
    }

    /// How much is left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A number, also in decimal text.
pub(super) fn number(value: &Value) -> Result<i64, Error> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
        _ => None,
    }
    .ok_or_else(|| unexpected("a number"))
}
