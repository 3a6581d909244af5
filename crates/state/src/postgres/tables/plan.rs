//! What a batch does to its rows, decided in memory while they are held: no I/O, and so easy to test.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    Millis, Revision,
    clock::after,
    error::Error,
    locks::Token,
    tables::{Action, Condition, Outcome, Write},
};

/// The table and key of a row. Their order is the one in which rows are held.
pub(super) type Key<'a> = (&'a str, &'a str);

/// A row that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// What is in it; `None` when it does not exist, or has expired.
    pub(super) content: Option<Content>,
    /// The first of a block of revisions that is larger than any that the row ever had, one for each write of a batch.
    pub(super) block: Revision,
}

/// What is in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) value: Bytes,
    pub(super) revision: Revision,
    pub(super) expires_at: Option<Millis>,
}

/// Does the batch to the rows, which are all that it names, in its order.
pub(super) fn plan<'a>(
    batch: &'a [Write],
    rows: &mut BTreeMap<Key<'a>, Held>,
    now: Millis,
) -> Result<Vec<Outcome>, Error> {
    let each = batch.iter().enumerate().map(|(index, write)| {
        let Some(row) = rows.get_mut(&(write.table.as_str(), write.key.as_str())) else {
            return Err(Error::Invalid(format!("the row of write {index} is not held")));
        };
        check_condition(index, write, row)?;
        let revision = row.block + index as Revision;
        Ok(match &write.action {
            Action::Check => Outcome::Checked,
            Action::Put { value, ttl } => {
                let expires_at = ttl.map(|ttl| after(now, ttl));
                row.content = Some(Content { value: value.clone(), revision, expires_at });
                Outcome::Put { revision }
            }
            Action::Delete => Outcome::Deleted { existed: row.content.take().is_some() },
            Action::Increment { by, ttl } => {
                let (old, expires_at) = match &row.content {
                    Some(content) => (integer(&content.value), content.expires_at),
                    None => (Some(0), ttl.map(|ttl| after(now, ttl))),
                };
                let value = old
                    .and_then(|old| old.checked_add(*by))
                    .ok_or_else(|| Error::NotAnInteger { key: write.key.clone() })?;
                row.content = Some(Content { value: value.to_string().into(), revision, expires_at });
                Outcome::Incremented { value, revision }
            }
            Action::Fence { token } => {
                fence(index, write, row, *token, revision)?;
                Outcome::Fenced
            }
        })
    });
    each.collect()
}

fn check_condition(index: usize, write: &Write, row: &Held) -> Result<(), Error> {
    let found = row.content.as_ref().map(|content| content.revision);
    let holds = match write.condition {
        Condition::Any => true,
        Condition::Absent => found.is_none(),
        Condition::Present => found.is_some(),
        Condition::Revision(expected) => found == Some(expected),
    };
    if holds { Ok(()) } else { Err(Error::Conflict { index, key: write.key.clone(), found }) }
}

fn fence(index: usize, write: &Write, row: &mut Held, token: Token, revision: Revision) -> Result<(), Error> {
    if let Some(content) = &row.content {
        let newest = integer(&content.value).and_then(|newest| Token::try_from(newest).ok());
        let newest = newest.ok_or_else(|| Error::NotAnInteger { key: write.key.clone() })?;
        if token < newest {
            return Err(Error::Fenced { index, key: write.key.clone(), token, newest });
        }
        // The usual case, a holder that goes on, changes nothing.
        if token == newest && content.expires_at.is_none() {
            return Ok(());
        }
    }
    row.content = Some(Content { value: token.to_string().into(), revision, expires_at: None });
    Ok(())
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, condition: Condition, action: Action) -> Write {
        Write { table: "t".into(), key: key.into(), condition, action }
    }

    fn rows() -> BTreeMap<Key<'static>, Held> {
        let there = Content { value: "5".into(), revision: 128, expires_at: Some(2000) };
        [
            (("t", "a"), Held { content: Some(there), block: 256 }),
            (("t", "b"), Held { content: None, block: 384 }),
        ]
        .into()
    }

    #[test]
    fn revisions_of_a_row_grow_within_a_batch() {
        let count = |key| write(key, Condition::Any, Action::Increment { by: 1, ttl: None });
        let batch = [count("a"), count("b"), count("a")];
        let mut held = rows();
        let outcomes = plan(&batch, &mut held, 1000).unwrap();
        assert_eq!(
            outcomes,
            [
                Outcome::Incremented { value: 6, revision: 256 },
                Outcome::Incremented { value: 1, revision: 385 },
                Outcome::Incremented { value: 7, revision: 258 },
            ]
        );
        let content = held[&("t", "a")].content.clone().unwrap();
        assert_eq!((&content.value[..], content.revision, content.expires_at), (&b"7"[..], 258, Some(2000)));
    }

    #[test]
    fn a_write_that_is_refused_says_which_and_why() {
        let delete = |condition| write("a", condition, Action::Delete);
        let batch = [write("b", Condition::Absent, Action::Check), delete(Condition::Revision(7))];
        let refused = plan(&batch, &mut rows(), 0);
        assert!(matches!(&refused, Err(Error::Conflict { index: 1, key, found: Some(128) }) if key == "a"));
        let batch = [delete(Condition::Any), delete(Condition::Present)];
        assert!(matches!(plan(&batch, &mut rows(), 0), Err(Error::Conflict { index: 1, found: None, .. })));
    }
}
