//! Each kind, metered: what it is asked goes on to its engine as it came.

use std::time::Duration;
#[cfg(feature = "server")]
use std::time::Instant;

use async_trait::async_trait;
#[cfg(feature = "server")]
use bytes::Bytes;

use super::Metered;
use crate::{
    blobs::{self, Blob, BlobInfo, Blobs, ByteRange, ByteStream, Put},
    cache::{self, Cache, Entry, Fill, Usage},
    error::Error,
    feed::Feed,
    idempotency::{self, Answer, Beginning, Idempotency},
    limits::{self, Limits, Quota, Take, Verdict},
    locks::{self, Lease, Locks, Token},
    portable::Portable,
    realm::Realm,
    sessions::{NewSession, Patch, Renewed, Session, SessionId, SessionInfo, Sessions},
    tables::{self, Outcome, Row, Scan, Tables, Write},
};

/// Asks the engine, and notes how long that took.
macro_rules! ask {
    ($self:ident . $operation:ident ( $($argument:expr),* )) => {
        $self.meter.time(stringify!($operation), $self.inner.$operation($($argument),*)).await
    };
}

#[async_trait]
impl Sessions for Metered<dyn Sessions> {
    fn portable(&self) -> Option<&dyn Portable> {
        self.inner.portable()
    }

    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        ask!(self.create(new))
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        ask!(self.load(id))
    }

    async fn load_through(&self, id: &SessionId) -> Result<Session, Error> {
        ask!(self.load_through(id))
    }

    #[cfg(feature = "server")]
    async fn load_json(&self, id: &SessionId) -> Result<Bytes, Error> {
        self.meter.time("load", self.inner.load_json(id)).await
    }

    #[cfg(feature = "server")]
    fn recall_json(&self, id: &SessionId) -> Option<Bytes> {
        let start = Instant::now();
        let json = self.inner.recall_json(id)?;
        self.meter.note("load", start.elapsed(), None);
        Some(json)
    }

    fn lag(&self) -> Duration {
        self.inner.lag()
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        ask!(self.patch(id, patch))
    }

    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        ask!(self.renew(id, user, patch))
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        ask!(self.destroy(id))
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        self.meter.time("list", self.inner.list_in(realm, user)).await
    }

    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        self.meter.time("revoke", self.inner.revoke_in(realm, user, handle)).await
    }

    async fn follow(&self) -> Result<Feed, Error> {
        ask!(self.follow())
    }

    fn tells_of_ends(&self) -> bool {
        self.inner.tells_of_ends()
    }
}

#[async_trait]
impl Tables for Metered<dyn Tables> {
    fn portable(&self) -> Option<&dyn Portable> {
        self.inner.portable()
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error> {
        ask!(self.get(table, key))
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<tables::Page, Error> {
        ask!(self.scan(table, scan))
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        ask!(self.apply(batch))
    }

    async fn follow(&self, table: &str) -> Result<Feed, Error> {
        ask!(self.follow(table))
    }
}

#[async_trait]
impl Blobs for Metered<dyn Blobs> {
    fn portable(&self) -> Option<&dyn Portable> {
        self.inner.portable()
    }

    async fn put(&self, bucket: &str, key: &str, body: ByteStream, put: Put) -> Result<BlobInfo, Error> {
        ask!(self.put(bucket, key, body, put))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<BlobInfo>, Error> {
        ask!(self.head(bucket, key))
    }

    async fn get(&self, bucket: &str, key: &str, range: Option<ByteRange>) -> Result<Option<Blob>, Error> {
        ask!(self.get(bucket, key, range))
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<blobs::Page, Error> {
        ask!(self.list(bucket, prefix, after, limit))
    }

    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: blobs::Condition,
        fence: Option<Token>,
    ) -> Result<bool, Error> {
        ask!(self.delete(bucket, key, condition, fence))
    }
}

#[async_trait]
impl Limits for Metered<dyn Limits> {
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        self.meter.time("take", self.inner.take_all(takes)).await
    }

    async fn take(&self, limit: &str, key: &str, quota: Quota, cost: u32) -> Result<Verdict, Error> {
        ask!(self.take(limit, key, quota, cost))
    }

    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error> {
        ask!(self.reset(limit, key))
    }

    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<limits::Page, Error> {
        ask!(self.list(limit, after, most))
    }
}

#[async_trait]
impl Locks for Metered<dyn Locks> {
    fn portable(&self) -> Option<&dyn Portable> {
        self.inner.portable()
    }

    async fn acquire(&self, name: &str, holder: &str, lease: Duration) -> Result<Option<Lease>, Error> {
        ask!(self.acquire(name, holder, lease))
    }

    async fn renew(&self, name: &str, token: Token, lease: Duration) -> Result<Option<Lease>, Error> {
        ask!(self.renew(name, token, lease))
    }

    async fn release(&self, name: &str, token: Token) -> Result<bool, Error> {
        ask!(self.release(name, token))
    }

    async fn look(&self, name: &str) -> Result<Option<Lease>, Error> {
        ask!(self.look(name))
    }

    async fn list(&self, after: Option<&str>, most: usize) -> Result<locks::Page, Error> {
        ask!(self.list(after, most))
    }
}

#[async_trait]
impl Idempotency for Metered<dyn Idempotency> {
    fn portable(&self) -> Option<&dyn Portable> {
        self.inner.portable()
    }

    async fn begin(&self, beginning: Beginning) -> Result<idempotency::Begun, Error> {
        ask!(self.begin(beginning))
    }

    async fn extend(&self, claim: &idempotency::Claim, lease: Duration) -> Result<bool, Error> {
        ask!(self.extend(claim, lease))
    }

    async fn finish(&self, claim: &idempotency::Claim, answer: Answer) -> Result<bool, Error> {
        ask!(self.finish(claim, answer))
    }

    async fn abandon(&self, claim: &idempotency::Claim) -> Result<bool, Error> {
        ask!(self.abandon(claim))
    }
}

#[async_trait]
impl Cache for Metered<dyn Cache> {
    async fn begin(&self, cache: &str, key: &str, lease: Duration) -> Result<cache::Begun, Error> {
        ask!(self.begin(cache, key, lease))
    }

    async fn extend(&self, claim: &cache::Claim, lease: Duration) -> Result<bool, Error> {
        ask!(self.extend(claim, lease))
    }

    async fn fill(&self, claim: &cache::Claim, fill: Fill) -> Result<bool, Error> {
        ask!(self.fill(claim, fill))
    }

    async fn abandon(&self, claim: &cache::Claim, pause: Duration) -> Result<bool, Error> {
        ask!(self.abandon(claim, pause))
    }

    async fn get_many(&self, cache: &str, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
        self.meter.time("get", self.inner.get_many(cache, keys)).await
    }

    async fn get(&self, cache: &str, key: &str) -> Result<Option<Entry>, Error> {
        ask!(self.get(cache, key))
    }

    async fn remove(&self, cache: &str, key: &str) -> Result<(), Error> {
        ask!(self.remove(cache, key))
    }

    async fn clear(&self, cache: &str) -> Result<(), Error> {
        ask!(self.clear(cache))
    }

    async fn usage(&self, cache: &str) -> Result<Usage, Error> {
        ask!(self.usage(cache))
    }

    async fn follow(&self, cache: &str) -> Result<Feed, Error> {
        ask!(self.follow(cache))
    }
}
