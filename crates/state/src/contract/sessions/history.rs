//! What compare-and-swap of fields promises when many requests of one visitor come at once, by the checker of histories.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::{Fixture, change, create};
use crate::{
    Revision,
    contract::register::{self, Register, Seen, Wrote},
    error::Error,
    sessions::{Session, SessionId, Sessions},
};

struct Field {
    sessions: Arc<dyn Sessions>,
    id: SessionId,
}

fn seen(session: &Session) -> Seen {
    let field = session.fields.get("n")?;
    Some((field.revision, field.value.as_u64().unwrap()))
}

#[async_trait]
impl Register for Field {
    async fn read(&self) -> Seen {
        seen(&self.sessions.load(&self.id).await.unwrap())
    }

    async fn write(&self, expect: Option<Revision>, value: Option<u64>) -> Wrote {
        let patch = change("n", value.map(|value| json!(value)), Some(expect.unwrap_or(0)));
        match self.sessions.patch(&self.id, patch).await {
            Ok(session) => Wrote::Done(seen(&session).map(|(revision, _)| revision)),
            Err(Error::Conflict { found, .. }) => Wrote::Refused(found.filter(|found| *found > 0)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads of a field, and changes under a condition, come to what they could have come to one after the other.
pub async fn conditional_patches_at_once_have_an_order(fixture: Fixture) {
    let sessions = fixture.engines.sessions.clone();
    let id = create(&sessions, None).await.id;
    register::check(Field { sessions, id }).await;
}
