//! A session as scripts return it.

use std::collections::BTreeMap;

use super::reply::{Reply, unexpected};
use crate::{
    Millis,
    error::Error,
    sessions::{Field, Patch, SESSION_BYTES_MAX, Session, SessionId},
};

/// A session that has got another id.
pub(super) struct Renewed {
    pub(super) session: Session,
    pub(super) handle: String,
    /// Whose it was.
    pub(super) owner_before: Option<String>,
}

/// Reads what became of a call: the session, or why not.
pub(super) fn session(
    status: &str,
    reply: &mut Reply,
    id: SessionId,
    patch: &Patch,
) -> Result<Session, Error> {
    Ok(read(status, reply, id, patch)?.0)
}

/// Reads what became of a renewal.
pub(super) fn renewed(
    status: &str,
    mut reply: Reply,
    id: SessionId,
    patch: &Patch,
) -> Result<Renewed, Error> {
    let (session, handle) = read(status, &mut reply, id, patch)?;
    let owner_before = Some(reply.text()?).filter(|owner| !owner.is_empty());
    Ok(Renewed { session, handle, owner_before })
}

fn read(status: &str, reply: &mut Reply, id: SessionId, patch: &Patch) -> Result<(Session, String), Error> {
    match status {
        "live" => fields(reply.next_list()?, id),
        "gone" => Err(Error::Gone),
        "missing" => Err(Error::NotFound),
        "conflict" => {
            let index = usize::try_from(reply.number()?).unwrap_or(usize::MAX);
            let key = patch.changes.keys().nth(index).ok_or_else(|| unexpected("the number of a field"))?;
            Err(Error::Conflict { index, key: key.clone(), found: reply.revision()? })
        }
        "large" => Err(Error::TooLarge {
            what: "the session's fields",
            size: u64::try_from(reply.number()?).unwrap_or(u64::MAX),
            max: SESSION_BYTES_MAX as u64,
        }),
        _ => Err(unexpected("what became of a session")),
    }
}

fn fields(mut flat: Reply, id: SessionId) -> Result<(Session, String), Error> {
    let (mut fields, mut handle) = (BTreeMap::new(), String::new());
    let mut session = Session {
        id,
        user: None,
        fields: Default::default(),
        created_at: 0,
        idle_ms: 0,
        idle_expires_at: 0,
        absolute_expires_at: 0,
    };
    while flat.len() > 0 {
        let (name, value) = (flat.text()?, flat.text()?);
        let number = || value.parse::<Millis>().map_err(|_| unexpected("a time"));
        match name.as_str() {
            "u" => session.user = Some(session.id.realm().user_of(value)),
            "h" => handle = value,
            "c" => session.created_at = number()? / 1000,
            "e" => session.idle_expires_at = number()?,
            "a" => session.absolute_expires_at = number()?,
            "i" => session.idle_ms = number()?,
            "r" => {}
            _ => {
                let name = name.strip_prefix(':').ok_or_else(|| unexpected("a field"))?;
                fields.insert(name.to_owned(), field(&value)?);
            }
        }
    }
    session.fields = fields.into();
    Ok((session, handle))
}

/// Reads `<revision> <JSON>`.
fn field(stored: &str) -> Result<Field, Error> {
    let (revision, json) = stored.split_once(' ').ok_or_else(|| unexpected("a field"))?;
    let revision = revision.parse().map_err(|_| unexpected("a revision"))?;
    let value = serde_json::from_str(json).map_err(|_| unexpected("JSON"))?;
    Ok(Field { value, revision })
}
