//! The index of a user's sessions: listing and revoking them. An entry is believed only after its session was looked at.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    Store,
    keys::Hash,
    reply::{Reply, unexpected},
    script,
    sessions::MARK_KEPT_MS,
};
use crate::{
    error::Error,
    realm::Realm,
    sessions::{LIST_MAX, SessionInfo},
};

/// Entries of an index that are read at once.
const PAGE: usize = 500;
/// Sessions that are looked at or ended at once; the connection is shared, so this is no number of connections.
const AT_ONCE: usize = 64;
/// Most renewals that a revocation follows in one step: the server does nothing else for as long, up to 20 µs for each.
const FOLLOWED_IN_ONE_STEP_MAX: usize = 100;
/// Most steps that a revocation takes for one session. One is enough unless somebody renews faster than that.
const STEPS_MAX: usize = 64;

/// An entry: `<handle> <hash> <absolute end>`.
struct Entry {
    member: Bytes,
    handle: String,
    hash: Hash,
}

/// What an entry is of.
enum Looked {
    Live(SessionInfo),
    Ended,
    /// It is just being created or renewed, or that was given up.
    NotYet,
}

impl Entry {
    fn parse(member: Bytes) -> Result<Self, Error> {
        let text = std::str::from_utf8(&member).map_err(|_| unexpected("an entry of an index"))?;
        let mut parts = text.split(' ');
        let (Some(handle), Some(hash)) = (parts.next(), parts.next().and_then(Hash::parse)) else {
            return Err(unexpected("an entry of an index"));
        };
        Ok(Self { handle: handle.to_owned(), hash, member })
    }
}

impl Store {
    /// The live sessions of a user, newest first.
    pub(super) async fn list_of(&self, realm: &Realm, owner: &str) -> Result<Vec<SessionInfo>, Error> {
        let (mut infos, mut seen, mut passed) = (Vec::new(), HashSet::new(), 0);
        loop {
            let entries = self.entries(owner, passed, None).await?;
            let is_last = entries.len() < PAGE;
            let looks: Vec<_> = entries.iter().map(|entry| self.look(realm, entry)).collect();
            let looked: Vec<_> = stream::iter(looks).buffered(AT_ONCE).collect().await;
            let mut ended = Vec::new();
            for (entry, looked) in entries.into_iter().zip(looked) {
                match looked? {
                    Looked::Live(info) => {
                        // An entry that was put in meanwhile moves others to where they are met again.
                        if seen.insert(info.handle.clone()) {
                            infos.push(info);
                        }
                        passed += 1;
                    }
                    Looked::NotYet => passed += 1,
                    Looked::Ended => ended.push(entry.member),
                }
            }
            passed += self.strike(owner, ended).await;
            if is_last || infos.len() >= LIST_MAX {
                infos.truncate(LIST_MAX);
                return Ok(infos);
            }
        }
    }

    /// Ends the sessions of a user, or the one with this handle; how many were live. Fails when one may live on. When an answer
    /// is lost and the server is asked again, what the first time ended is not counted.
    pub(super) async fn revoke_of(&self, owner: &str, handle: Option<&str>) -> Result<u64, Error> {
        let (mut live, mut passed) = (0, 0);
        loop {
            let entries = self.entries(owner, passed, handle).await?;
            let is_last = entries.len() < PAGE;
            let ends: Vec<_> = entries.iter().map(|entry| self.end_followed(entry, owner)).collect();
            let ended: Vec<_> = stream::iter(ends).buffered(AT_ONCE).collect().await;
            let mut struck = Vec::new();
            for (entry, ended) in entries.into_iter().zip(ended) {
                match ended? {
                    Some(was_live) => {
                        live += u64::from(was_live);
                        struck.push(entry.member);
                    }
                    None => passed += 1,
                }
            }
            passed += self.strike(owner, struck).await;
            if is_last {
                return Ok(live);
            }
        }
    }

    /// Ends the session of an entry, or what it was renewed to meanwhile, if that is still the user's. Returns whether it was
    /// live; `None` when there is no session yet. The server follows the renewals in one step, and no renewal comes in between;
    /// on a cluster, as long as they stay in one slot, which only those do not that were made before the session moved in.
    async fn end_followed(&self, entry: &Entry, owner: &str) -> Result<Option<bool>, Error> {
        let mut hash = entry.hash.clone();
        for _ in 0..STEPS_MAX {
            let mut reply = self.end(&hash, Some(owner), FOLLOWED_IN_ONE_STEP_MAX).await?;
            match reply.text()?.as_str() {
                "ended" => return Ok(Some(reply.number()? == 1)),
                "moved" => hash = Hash::parse(&reply.text()?).ok_or_else(|| unexpected("a hash"))?,
                "missing" => return Ok(None),
                _ => return Ok(Some(false)),
            }
        }
        let text =
            "a session was renewed all the time while it was to be revoked, and may live on; revoke it again";
        Err(Error::Unavailable(text.into()))
    }

    async fn look(&self, realm: &Realm, entry: &Entry) -> Result<Looked, Error> {
        let request = self.request(&script::INFO, self.keys.session(&entry.hash)).number(MARK_KEPT_MS);
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        Ok(match reply.text()?.as_str() {
            "live" => Looked::Live(SessionInfo {
                created_at: reply.number()? / 1000,
                idle_expires_at: reply.number()?,
                absolute_expires_at: reply.number()?,
                handle: entry.handle.clone(),
                realm: realm.clone(),
            }),
            "gone" => Looked::Ended,
            _ => Looked::NotYet,
        })
    }

    /// A page of a user's index from an offset on, newest first, or only what has a handle.
    async fn entries(&self, owner: &str, offset: usize, handle: Option<&str>) -> Result<Vec<Entry>, Error> {
        let request = self
            .request(&script::SESSION_ENTRIES, [self.keys.user(owner)])
            .text(handle)
            .number(offset)
            .number(PAGE);
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        let mut entries = Vec::with_capacity(reply.len());
        while reply.len() > 0 {
            entries.push(Entry::parse(reply.bytes()?)?);
        }
        Ok(entries)
    }

    /// Takes entries out of a user's index; how many may be left. They harm nobody, so a failure is no more than noted.
    pub(super) async fn strike(&self, owner: &str, members: impl IntoIterator<Item = Bytes>) -> usize {
        let mut request = self.request(&script::SESSION_STRIKE, [self.keys.user(owner)]);
        let others = request.args.len();
        request.args.extend(members);
        let count = request.args.len() - others;
        if count > 0
            && let Err(error) = self.router.run(&request).await
        {
            tracing::debug!(%error, "ended sessions stay in a user's index until they are met again");
            return count;
        }
        0
    }
}
