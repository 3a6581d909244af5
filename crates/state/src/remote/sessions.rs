//! Sessions over the state API.

use async_trait::async_trait;
use http::Method;

use super::{
    Remote,
    call::{Call, Target},
    problem::misunderstood,
};
use crate::{
    error::Error,
    feed::Feed,
    realm::Realm,
    sessions::{
        ID_TEXT_BYTES_MAX, NAME_BYTES_MAX, NewSession, Patch, Renewed, Session, SessionId, SessionInfo,
        Sessions,
    },
    wire,
};

/// Longest handle that is sent. Engines give shorter ones; a longer one names no session.
const HANDLE_BYTES_MAX: usize = 1024;

#[async_trait]
impl Sessions for Remote {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        let body = wire::NewSession {
            user: new.user,
            fields: new.fields,
            idle_ms: Some(wire::millis(new.lifetime.idle)),
            absolute_ms: Some(wire::millis(new.lifetime.absolute)),
            realm: Some(new.realm).filter(|realm| !realm.is_common()),
        };
        self.session(Call::new(Method::POST, Target::new("/v1/sessions"))?.json(&body)?).await
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        self.session(Call::new(Method::GET, session(id)?)?).await
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        self.session(Call::new(Method::PATCH, session(id)?)?.json(&changes(patch))?).await
    }

    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        let wire::Patch { set, remove, expect } = changes(patch);
        let body = wire::Renew { user: user.map(Into::into), set, remove, expect };
        let session =
            self.session(Call::new(Method::POST, session(id)?.then("/renew"))?.json(&body)?).await?;
        Ok(Renewed { session, between: Vec::new() })
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        self.pool.call(&Call::new(Method::DELETE, session(id)?)?).await?.done()?;
        Ok(())
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        let target = sessions_of(user)?.optional("realm", realm.map(ToString::to_string).as_deref());
        let call = Call::new(Method::GET, target)?;
        let list: wire::SessionList = self.pool.call(&call).await?.done()?.json()?;
        Ok(list.sessions)
    }

    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        let target = match handle {
            None => sessions_of(user)?,
            Some(handle) if handle.is_empty() || handle.len() > HANDLE_BYTES_MAX => return Ok(0),
            Some(handle) => sessions_of(user)?.segment("a handle", handle, HANDLE_BYTES_MAX)?,
        };
        let target = target.optional("realm", realm.map(ToString::to_string).as_deref());
        let answer: wire::Revoked =
            self.pool.call(&Call::new(Method::DELETE, target)?).await?.done()?.json()?;
        Ok(answer.revoked)
    }

    async fn follow(&self) -> Result<Feed, Error> {
        self.follow_at(Target::new("/v1/feeds/sessions")).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }

    /// The server does it.
    fn tells_of_ends(&self) -> bool {
        true
    }
}

impl Remote {
    async fn session(&self, call: Call) -> Result<Session, Error> {
        let session: wire::Session = self.pool.call(&call).await?.done()?.json()?;
        Ok(Session {
            id: SessionId::parse(&session.id).ok_or_else(|| misunderstood("an id that is none".into()))?,
            user: session.user,
            fields: session.fields.into(),
            created_at: session.created_at,
            idle_ms: session.idle_ms,
            idle_expires_at: session.idle_expires_at,
            absolute_expires_at: session.absolute_expires_at,
        })
    }
}

fn session(id: &SessionId) -> Result<Target, Error> {
    Target::new("/v1/sessions").segment("an id", &id.to_text(), ID_TEXT_BYTES_MAX)
}

fn sessions_of(user: &str) -> Result<Target, Error> {
    Ok(Target::new("/v1/users").segment("a user name", user, NAME_BYTES_MAX)?.then("/sessions"))
}

fn changes(patch: Patch) -> wire::Patch {
    let mut changes = wire::Patch::default();
    for (name, change) in patch.changes {
        if let Some(revision) = change.expect {
            changes.expect.insert(name.clone(), revision);
        }
        match change.value {
            Some(value) => _ = changes.set.insert(name, value),
            None => changes.remove.push(name),
        }
    }
    changes
}
