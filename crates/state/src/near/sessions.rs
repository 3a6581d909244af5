//! Sessions with near copies: a load that hits is a look into memory. A copy is asked only while that is the same as asking the engine: past
//! half of a session's idle time a load is more than a read, and goes through.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde_json::Value;

use super::{Bounds, Copied, Copies, Counts};
use crate::{
    Millis,
    clock::{Clock, SystemClock},
    error::Error,
    feed::{Feed, SILENCE_MAX},
    realm::Realm,
    sessions::{NewSession, Patch, Renewed, Session, SessionId, SessionInfo, Sessions},
};

/// Bytes that a field takes besides its name and what its value holds elsewhere.
const FIELD_BYTES: usize = 96;

/// Keeps copies of the sessions that another engine keeps. That a session is not there is never kept.
///
/// Ending sessions of a user drops all copies, for their names are not known then.
pub struct NearSessions {
    engine: Arc<dyn Sessions>,
    copies: Copies<Session>,
}

impl NearSessions {
    /// Copies of what this engine keeps.
    pub fn new(engine: Arc<dyn Sessions>, bounds: Bounds) -> Self {
        Self::with_clock(engine, bounds, Arc::new(SystemClock))
    }

    /// The same, with a clock by which sessions end.
    pub fn with_clock(engine: Arc<dyn Sessions>, bounds: Bounds, clock: Arc<dyn Clock>) -> Self {
        let followed = Arc::clone(&engine);
        let follow = move || {
            let followed = Arc::clone(&followed);
            async move { followed.follow().await }.boxed()
        };
        Self { engine, copies: Copies::with_clock(bounds, clock, follow) }
    }

    /// What the copies have done so far.
    pub fn counts(&self) -> Counts {
        self.copies.counts()
    }

    /// Waits until the engine is followed, from when on copies are kept; see [`Copies::followed`].
    pub async fn followed(&self) -> Result<(), Error> {
        self.copies.followed().await
    }

    /// Asks the engine, and no copy that something before it may have.
    fn read(&self, id: &SessionId) -> impl Future<Output = Result<Session, Error>> + Send + 'static {
        let (engine, id) = (Arc::clone(&self.engine), id.clone());
        async move { engine.load_through(&id).await }
    }
}

#[async_trait]
impl Sessions for NearSessions {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        self.engine.create(new).await
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        self.copies.load(&id.public_name(), || self.read(id)).await
    }

    async fn load_through(&self, id: &SessionId) -> Result<Session, Error> {
        self.copies.load_through(&id.public_name(), || self.read(id)).await
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        let _writing = self.copies.writing(id.public_name());
        self.engine.patch(id, patch).await
    }

    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        let _writing = self.copies.writing(id.public_name());
        self.engine.renew(id, user, patch).await
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        let _writing = self.copies.writing(id.public_name());
        self.engine.destroy(id).await
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        self.engine.list_in(realm, user).await
    }

    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        let _writing = self.copies.writing_any();
        self.engine.revoke_in(realm, user, handle).await
    }

    async fn follow(&self) -> Result<Feed, Error> {
        self.engine.follow().await
    }

    fn lag(&self) -> Duration {
        SILENCE_MAX + self.engine.lag()
    }

    fn tells_of_ends(&self) -> bool {
        self.engine.tells_of_ends()
    }
}

impl Copied for Session {
    fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(name, field)| FIELD_BYTES + name.len() + held(&field.value));
        size_of::<Self>() + self.user.as_ref().map_or(0, String::len) + fields.sum::<usize>()
    }

    fn ends_at(&self) -> Option<Millis> {
        Some(self.idle_expires_at.min(self.absolute_expires_at))
    }

    fn due_at(&self) -> Option<Millis> {
        // At its absolute end, no use moves it on.
        let can_move = self.idle_expires_at < self.absolute_expires_at;
        can_move.then(|| self.idle_expires_at.saturating_sub(self.idle_ms / 2))
    }
}

/// Bytes that a value has elsewhere than in its own place. Values are nested no deeper than
/// [`VALUE_DEPTH_MAX`](crate::sessions::VALUE_DEPTH_MAX).
fn held(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity(),
        Value::Array(items) => items.iter().map(|item| size_of::<Value>() + held(item)).sum(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| FIELD_BYTES + name.len() + held(value)).sum()
        }
    }
}
