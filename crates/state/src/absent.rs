//! What an engine does not offer: each kind of state, refused by name. It stands in [`Engines`] where an engine has no such
//! kind, so that a mistake in a configuration is an error that says what is missing, at the first use at the latest.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    Engines,
    blobs::{self, Blob, BlobInfo, Blobs, ByteRange, ByteStream, Put},
    cache::{self, Begun as BegunKey, Cache},
    error::Error,
    feed::Feed,
    idempotency::{Answer, Beginning, Begun, Claim, Idempotency},
    limits::{self, Limits, Take, Verdict},
    locks::{self, Lease, Locks, Token},
    realm::Realm,
    sessions::{NewSession, Patch, Renewed, Session, SessionId, SessionInfo, Sessions},
    tables::{self, Outcome, Row, Scan, Tables, Write},
};

/// An engine that offers nothing, under the name of the one that does not.
struct Absent(&'static str);

impl Absent {
    fn refuse<T>(&self, what: &'static str) -> Result<T, Error> {
        Err(Error::Unsupported { engine: self.0, what })
    }
}

impl Engines {
    /// Engines that all fail with [`Error::Unsupported`], in the name of `engine`: the ground on which an engine puts the
    /// kinds that it offers.
    pub fn absent(engine: &'static str) -> Self {
        let absent = Arc::new(Absent(engine));
        Self {
            sessions: absent.clone(),
            tables: absent.clone(),
            blobs: absent.clone(),
            limits: absent.clone(),
            locks: absent.clone(),
            idempotency: absent.clone(),
            cache: absent,
        }
    }
}

#[async_trait]
impl Sessions for Absent {
    async fn create(&self, _: NewSession) -> Result<Session, Error> {
        self.refuse("sessions")
    }

    async fn load(&self, _: &SessionId) -> Result<Session, Error> {
        self.refuse("sessions")
    }

    async fn patch(&self, _: &SessionId, _: Patch) -> Result<Session, Error> {
        self.refuse("sessions")
    }

    async fn renew(&self, _: &SessionId, _: Option<&str>, _: Patch) -> Result<Renewed, Error> {
        self.refuse("sessions")
    }

    async fn destroy(&self, _: &SessionId) -> Result<(), Error> {
        self.refuse("sessions")
    }

    async fn list_in(&self, _: Option<&Realm>, _: &str) -> Result<Vec<SessionInfo>, Error> {
        self.refuse("sessions")
    }

    async fn revoke_in(&self, _: Option<&Realm>, _: &str, _: Option<&str>) -> Result<u64, Error> {
        self.refuse("sessions")
    }

    async fn follow(&self) -> Result<Feed, Error> {
        self.refuse("sessions")
    }
}

#[async_trait]
impl Tables for Absent {
    async fn get(&self, _: &str, _: &str) -> Result<Option<Row>, Error> {
        self.refuse("tables")
    }

    async fn scan(&self, _: &str, _: &Scan) -> Result<tables::Page, Error> {
        self.refuse("tables")
    }

    async fn apply(&self, _: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        self.refuse("tables")
    }

    async fn follow(&self, _: &str) -> Result<Feed, Error> {
        self.refuse("tables")
    }
}

#[async_trait]
impl Blobs for Absent {
    async fn put(&self, _: &str, _: &str, _: ByteStream, _: Put) -> Result<BlobInfo, Error> {
        self.refuse("blobs")
    }

    async fn head(&self, _: &str, _: &str) -> Result<Option<BlobInfo>, Error> {
        self.refuse("blobs")
    }

    async fn get(&self, _: &str, _: &str, _: Option<ByteRange>) -> Result<Option<Blob>, Error> {
        self.refuse("blobs")
    }

    async fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize) -> Result<blobs::Page, Error> {
        self.refuse("blobs")
    }

    async fn delete(&self, _: &str, _: &str, _: blobs::Condition, _: Option<Token>) -> Result<bool, Error> {
        self.refuse("blobs")
    }
}

#[async_trait]
impl Locks for Absent {
    async fn acquire(&self, _: &str, _: &str, _: Duration) -> Result<Option<Lease>, Error> {
        self.refuse("locks")
    }

    async fn renew(&self, _: &str, _: Token, _: Duration) -> Result<Option<Lease>, Error> {
        self.refuse("locks")
    }

    async fn release(&self, _: &str, _: Token) -> Result<bool, Error> {
        self.refuse("locks")
    }

    async fn look(&self, _: &str) -> Result<Option<Lease>, Error> {
        self.refuse("locks")
    }

    async fn list(&self, _: Option<&str>, _: usize) -> Result<locks::Page, Error> {
        self.refuse("locks")
    }
}

#[async_trait]
impl Idempotency for Absent {
    async fn begin(&self, _: Beginning) -> Result<Begun, Error> {
        self.refuse("idempotency keys")
    }

    async fn extend(&self, _: &Claim, _: Duration) -> Result<bool, Error> {
        self.refuse("idempotency keys")
    }

    async fn finish(&self, _: &Claim, _: Answer) -> Result<bool, Error> {
        self.refuse("idempotency keys")
    }

    async fn abandon(&self, _: &Claim) -> Result<bool, Error> {
        self.refuse("idempotency keys")
    }
}

#[async_trait]
impl Limits for Absent {
    async fn take_all(&self, _: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        self.refuse("limits")
    }

    async fn reset(&self, _: &str, _: &str) -> Result<bool, Error> {
        self.refuse("limits")
    }

    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<limits::Page, Error> {
        self.refuse("limits")
    }
}

#[async_trait]
impl Cache for Absent {
    async fn begin(&self, _: &str, _: &str, _: Duration) -> Result<BegunKey, Error> {
        self.refuse("caches")
    }

    async fn extend(&self, _: &cache::Claim, _: Duration) -> Result<bool, Error> {
        self.refuse("caches")
    }

    async fn fill(&self, _: &cache::Claim, _: cache::Fill) -> Result<bool, Error> {
        self.refuse("caches")
    }

    async fn abandon(&self, _: &cache::Claim, _: Duration) -> Result<bool, Error> {
        self.refuse("caches")
    }

    async fn get_many(&self, _: &str, _: &[String]) -> Result<Vec<Option<cache::Entry>>, Error> {
        self.refuse("caches")
    }

    async fn remove(&self, _: &str, _: &str) -> Result<(), Error> {
        self.refuse("caches")
    }

    async fn clear(&self, _: &str) -> Result<(), Error> {
        self.refuse("caches")
    }

    async fn usage(&self, _: &str) -> Result<cache::Usage, Error> {
        self.refuse("caches")
    }

    async fn follow(&self, _: &str) -> Result<Feed, Error> {
        self.refuse("caches")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_offered_is_said() {
        let engines = Engines::absent("paper");
        let error = engines.tables.get("t", "k").await.unwrap_err();
        assert_eq!(error.to_string(), "the paper engine does not offer tables");
        let error = engines.sessions.list("ada").await.unwrap_err();
        assert_eq!(error.to_string(), "the paper engine does not offer sessions");
        let error = engines.blobs.delete("b", "k", blobs::Condition::Any, None).await.unwrap_err();
        assert_eq!(error.to_string(), "the paper engine does not offer blobs");
        let error = engines.locks.look("l").await.unwrap_err();
        assert_eq!(error.to_string(), "the paper engine does not offer locks");
        let error = engines.idempotency.abandon(&Claim::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "the paper engine does not offer idempotency keys");
        let quota = limits::Quota::per(1, std::time::Duration::from_secs(1));
        let error = engines.limits.take("l", "k", quota, 1).await.unwrap_err();
        assert_eq!(error.to_string(), "the paper engine does not offer limits");
        let error = engines.cache.get("c", "k").await.unwrap_err();
        assert_eq!(error.to_string(), "the paper engine does not offer caches");
    }
}
