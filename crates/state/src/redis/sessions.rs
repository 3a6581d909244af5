//! Sessions in Redis. Only a hash of the secret id is stored. The server forgets the data of a session by itself as soon as
//! its idle time is over; what remains until a day after its absolute end is a mark, by which the id is known never to be used
//! again.
//!
//! On one server, a session and its entry in the user's index change in one step. On a cluster they are on different servers:
//! the entry is made before the session is, so that none lives that its user could not revoke, and an entry without a session
//! is passed over and cleared away when it is met.

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use redis::Value;

use super::{
    Store,
    keys::Hash,
    reply::{Reply, unexpected},
    request::Request,
    script, session_reply, span_ms,
};
use crate::{
    error::Error,
    feed::{Feed, followers::Topic},
    realm::Realm,
    rules::{check_field, check_user},
    sessions::{
        Change, NewSession, Patch, RENEW_GRACE, Renewed, SESSION_BYTES_MAX, Session, SessionId, SessionInfo,
        Sessions,
    },
};

/// How long after a session's absolute end its ids are known to be gone: a day, in milliseconds. Later they are ids that never
/// were.
pub(super) const MARK_KEPT_MS: i64 = 24 * 3600 * 1000;
/// Most renewals that a repeated renewal is followed through.
const RENEWALS_FOLLOWED_MAX: usize = 64;
/// Random bytes in a handle.
const HANDLE_BYTES: usize = 9;
/// Most ids that are drawn for one that stays in its slot of a cluster: one of 256 does, so this fails once in 10^13 times.
const DRAWN_MAX: usize = 256 * 30;

#[async_trait]
impl Sessions for Store {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        let NewSession { realm, user, fields, lifetime } = new;
        check_user(user.as_deref())?;
        let owner = user.map(|user| realm.owner(&user).into_owned());
        let (idle_ms, absolute_ms) = (span_ms(lifetime.idle), span_ms(lifetime.absolute));
        if idle_ms == 0 || absolute_ms == 0 {
            return Err(Error::Invalid("a session's lifetimes are 1 ms at least".into()));
        }
        let change = |value| Change { value: Some(value), expect: None };
        let patch =
            Patch { changes: fields.into_iter().map(|(name, value)| (name, change(value))).collect() };
        let mut random = [0; HANDLE_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| Error::Unavailable(format!("the system gives no random numbers: {error}")))?;
        let (id, handle) = (SessionId::random_in(realm)?, BASE64_URL_SAFE_NO_PAD.encode(random));
        let hash = Hash::of(&id);
        let mut keys = self.keys.session(&hash).to_vec();
        if let Some(owner) = &owner {
            if self.router.has_slots() {
                self.enlist(owner, &handle, &hash, None, absolute_ms).await?;
            } else {
                keys.push(self.keys.user(owner));
            }
        }
        let request = self
            .session_request(&script::CREATE, keys)
            .arg(hash.text)
            .arg(handle)
            .text(owner.as_deref())
            .number(idle_ms)
            .number(absolute_ms)
            .number(SESSION_BYTES_MAX);
        self.session(&with_patch(request, &patch)?, id, &patch).await
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        let request = self.session_request(&script::LOAD, self.keys.session(&Hash::of(id)));
        self.session(&request, id.clone(), &Patch::default()).await
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        let request = self.session_request(&script::PATCH, self.keys.session(&Hash::of(id)));
        let request = with_patch(request.number(SESSION_BYTES_MAX), &patch)?;
        self.session(&request, id.clone(), &patch).await
    }

    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        check_user(user)?;
        let owner = user.map(|user| id.realm().owner(user).into_owned());
        let (store, id) = (self.clone(), id.clone());
        if !self.router.has_slots() {
            return store.renew_followed(&id, owner.as_deref(), &patch).await;
        }
        // Several steps that belong together go on when the caller has gone.
        whole(tokio::spawn(async move { store.renew_followed(&id, owner.as_deref(), &patch).await })).await
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        let hash = Hash::of(id);
        let mut ended = self.end(&hash, None, 0).await?;
        if ended.text()? != "ended" {
            return Ok(());
        }
        let (_, owner, handle, absolute_end) = (ended.number()?, ended.text()?, ended.text()?, ended.text()?);
        if !owner.is_empty() {
            let member = format!("{handle} {} {absolute_end}", hash.text);
            self.strike(&owner, [Bytes::from(member)]).await;
        }
        Ok(())
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        check_user(Some(user))?;
        let realm = realm.cloned().unwrap_or_default();
        self.list_of(&realm, &realm.owner(user)).await
    }

    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        check_user(Some(user))?;
        let realm = realm.cloned().unwrap_or_default();
        let (store, owner, handle) =
            (self.clone(), realm.owner(user).into_owned(), handle.map(str::to_owned));
        // Several steps that belong together go on when the caller has gone.
        whole(tokio::spawn(async move { store.revoke_of(&owner, handle.as_deref()).await })).await
    }

    async fn follow(&self) -> Result<Feed, Error> {
        self.follow_topic(Topic::Sessions).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

/// What a task came to.
async fn whole<T>(task: tokio::task::JoinHandle<Result<T, Error>>) -> Result<T, Error> {
    task.await.unwrap_or_else(|_| Err(Error::Unavailable("the program ends".into())))
}

impl Store {
    /// A request for a session; its keys begin with those of the session.
    pub(super) fn session_request(
        &self,
        script: &'static script::Script,
        keys: impl Into<Vec<String>>,
    ) -> Request {
        self.request(script, keys).number(MARK_KEPT_MS)
    }

    async fn session(&self, request: &Request, id: SessionId, patch: &Patch) -> Result<Session, Error> {
        let mut reply = Reply::list(self.router.run(request).await?)?;
        let status = reply.text()?;
        session_reply::session(&status, &mut reply, id, patch)
    }

    /// Ends a session, or what it has become by so many renewals at most, if it is this owner's.
    pub(super) async fn end(
        &self,
        hash: &Hash,
        owner: Option<&str>,
        followed_max: usize,
    ) -> Result<Reply, Error> {
        let request = self
            .session_request(&script::END, self.keys.session(hash))
            .text(owner)
            .number(followed_max)
            .number(u8::from(self.router.has_slots()));
        Reply::list(self.router.run(&request).await?)
    }

    /// Renews the session with this id, or, when the id was renewed for the same user within the grace, the one it became.
    async fn renew_followed(
        &self,
        id: &SessionId,
        owner: Option<&str>,
        patch: &Patch,
    ) -> Result<Renewed, Error> {
        let mut old = Hash::of(id);
        let (mut new_id, mut new) = self.draw(id.realm(), &old)?;
        let (mut entry, mut between) = (None, Vec::new());
        while between.len() <= RENEWALS_FOLLOWED_MAX {
            if let Some(owner) = owner.filter(|_| self.router.has_slots()) {
                entry = self.enlist_successor(owner, &old, &new).await?.or(entry);
            }
            let mut reply = self.renew_once(&old, &new, owner, !between.is_empty(), patch).await?;
            let status = reply.text()?;
            if status == "moved" {
                old = Hash::parse(&reply.text()?).ok_or_else(|| unexpected("a hash"))?;
                between.push(old.text.clone());
                if !self.is_in_reach(&old, &new) {
                    // It was renewed elsewhere, where ids need not stay in a slot, and moved in.
                    if let (Some(owner), Some(entry)) = (owner, entry.take()) {
                        self.strike(owner, [entry]).await;
                    }
                    (new_id, new) = self.draw(id.realm(), &old)?;
                }
                continue;
            }
            let renewed = session_reply::renewed(&status, reply, new_id, patch);
            match &renewed {
                Ok(renewed) => self.strike_renewed(renewed, owner, &old).await,
                Err(_) => {
                    if let (Some(owner), Some(entry)) = (owner, entry) {
                        self.strike(owner, [entry]).await;
                    }
                }
            }
            return Ok(Renewed { session: renewed?.session, between });
        }
        Err(Error::Gone)
    }

    async fn renew_once(
        &self,
        old: &Hash,
        new: &Hash,
        owner: Option<&str>,
        is_followed: bool,
        patch: &Patch,
    ) -> Result<Reply, Error> {
        let mut keys = [self.keys.session(old), self.keys.session(new)].concat();
        if let Some(owner) = owner.filter(|_| !self.router.has_slots()) {
            keys.push(self.keys.user(owner));
        }
        let request = self
            .session_request(&script::RENEW, keys)
            .arg(old.text.clone())
            .arg(new.text.clone())
            .text(owner)
            .number(u8::from(is_followed))
            .number(RENEW_GRACE.as_millis())
            .number(SESSION_BYTES_MAX);
        Reply::list(self.router.run(&with_patch(request, patch)?).await?)
    }

    /// Takes the old id out of the index of whose session it was.
    async fn strike_renewed(&self, renewed: &session_reply::Renewed, owner: Option<&str>, old: &Hash) {
        let is_struck = !self.router.has_slots() && owner == renewed.owner_before.as_deref();
        if let Some(before) = renewed.owner_before.as_ref().filter(|_| !is_struck) {
            let member = format!("{} {} {}", renewed.handle, old.text, renewed.session.absolute_expires_at);
            self.strike(before, [Bytes::from(member)]).await;
        }
    }

    /// A new id. On a cluster it is in the slot of the old one, so that a renewal is one step: 8 of its 128 bits are known to
    /// who knows the old id.
    fn draw(&self, realm: &Realm, old: &Hash) -> Result<(SessionId, Hash), Error> {
        for _ in 0..DRAWN_MAX {
            let id = SessionId::random_in(realm.clone())?;
            let hash = Hash::of(&id);
            if self.is_in_reach(old, &hash) {
                return Ok((id, hash));
            }
        }
        Err(Error::Unavailable("no session id was found for the slot of the old one; try again".into()))
    }

    /// Whether one step can make the old id the new one.
    fn is_in_reach(&self, old: &Hash, new: &Hash) -> bool {
        !self.router.has_slots() || new.shard == old.shard
    }

    /// Enters a session into its user's index; returns the entry. `times` are when it was created and when it ends; a session
    /// that is yet to be created ends after `absolute_ms`.
    pub(super) async fn enlist(
        &self,
        owner: &str,
        handle: &str,
        hash: &Hash,
        times: Option<(Bytes, Bytes)>,
        absolute_ms: i64,
    ) -> Result<Bytes, Error> {
        let (created, ends_at) = times.unwrap_or_default();
        let request = self
            .request(&script::SESSION_ENLIST, [self.keys.user(owner)])
            .arg(handle.to_owned())
            .arg(hash.text.clone())
            .arg(created)
            .arg(ends_at)
            .number(absolute_ms);
        match self.router.run(&request).await? {
            Value::BulkString(member) => Ok(member.into()),
            _ => Err(unexpected("an entry of an index")),
        }
    }

    /// Enters the session that `old` is about to become.
    async fn enlist_successor(&self, owner: &str, old: &Hash, new: &Hash) -> Result<Option<Bytes>, Error> {
        let request = self.session_request(&script::INFO, self.keys.session(old));
        let mut info = Reply::list(self.router.run(&request).await?)?;
        if info.text()? != "live" {
            return Ok(None);
        }
        let (created, _, ends_at, handle) = (info.bytes()?, info.bytes()?, info.bytes()?, info.text()?);
        self.enlist(owner, &handle, new, Some((created, ends_at)), 0).await.map(Some)
    }
}

/// Adds a patch to a request.
fn with_patch(mut request: Request, patch: &Patch) -> Result<Request, Error> {
    for (name, change) in &patch.changes {
        let json = match &change.value {
            Some(value) => {
                check_field(name, value)?;
                value.to_string()
            }
            None => String::new(),
        };
        let expected = change.expect.map(|revision| revision.to_string()).unwrap_or_default();
        request = request.arg(name.clone()).arg(expected).arg(json);
    }
    Ok(request)
}
