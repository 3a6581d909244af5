//! What every operation works with: the store, where objects are in it, and how what it says is understood.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use object_store::{
    Attributes, GetOptions, MultipartUpload, ObjectStore, PutMode, PutOptions, PutPayload,
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};
use tokio::sync::OnceCell;

use super::{
    conditions::{self, Heeded},
    dialect::Dialect,
    failure::Failure,
    key::Names,
    object::Found,
};
use crate::{blobs::Condition, clock::Clock, error::Error};

/// How a store is read.
pub(crate) trait Read: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Read for T {}

/// How it is written.
#[async_trait]
pub(crate) trait Write: Send + Sync {
    /// Writes an object by one request.
    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<()>;

    /// Begins to write one in parts. The mode is for a store that wants to know it now; to others it is told when the upload is
    /// completed ([`Versions`](super::dialect::Versions)).
    async fn begin(
        &self,
        path: &Path,
        attributes: Attributes,
        mode: PutMode,
    ) -> object_store::Result<Box<dyn MultipartUpload>>;

    /// Removes one by a request of its own, since one for many has no conditions; this one's is that of [`under`](super::link::under).
    async fn remove(&self, path: &Path) -> object_store::Result<()>;
}

/// A folder of a bucket.
pub(super) struct Shelf {
    pub(super) reads: Arc<dyn Read>,
    pub(super) writes: Arc<dyn Write>,
    pub(super) names: Names,
    pub(super) part_bytes: usize,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) dialect: &'static Dialect,
    /// Which server and bucket, for messages.
    pub(super) server: String,
    /// Whether the bucket was seen to be there.
    pub(super) has_bucket: AtomicBool,
    /// Which conditions the store heeds, once that was tried.
    pub(super) heeded: OnceCell<Heeded>,
}

/// The object of one blob.
pub(super) struct Place<'a> {
    pub(super) shelf: &'a Arc<Shelf>,
    pub(super) key: &'a str,
    pub(super) path: Path,
}

impl Shelf {
    /// Where a blob is, or would be.
    pub(super) fn place<'a>(self: &'a Arc<Self>, bucket: &str, key: &'a str) -> Result<Place<'a>, Error> {
        Ok(Place { shelf: self, key, path: self.names.object(bucket, key)? })
    }

    /// What went wrong, with what the store says of it when it is asked in a way that has it say more: an answer to a HEAD has no
    /// body, and not every one to a write says what it is that is not there.
    pub(super) async fn explained(&self, error: &object_store::Error) -> Error {
        let failure = Failure::of(error);
        if (failure.is_mute() || failure.is_absence())
            && let Err(told) = self.ask_for_the_bucket().await
            && !told.is_mute()
        {
            return told.into();
        }
        failure.into()
    }

    /// Sees that the bucket is there, if nothing has shown that yet: without one, no blob seems to be there.
    pub(super) async fn expect_bucket(&self) -> Result<(), Error> {
        if !self.has_bucket.load(Ordering::Relaxed) {
            self.ask_for_the_bucket().await?;
            self.has_bucket.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ask_for_the_bucket(&self) -> Result<(), Failure> {
        let one = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        match self.reads.list_paginated(self.names.folder(), one).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// The condition that an object is what was found.
    pub(super) fn is(&self, found: &Found) -> Option<(HeaderName, HeaderValue)> {
        self.dialect.versions.is(&found.version)
    }

    /// The refusal of what this kind of store cannot do.
    pub(super) fn cannot<T>(&self, what: &'static str) -> Result<T, Error> {
        Err(Error::Unsupported { engine: self.dialect.engine.name(), what })
    }

    /// Refuses a put with a condition if the store would not heed it.
    pub(super) async fn expect_conditional_puts(&self) -> Result<(), Error> {
        if self.heeded().await?.puts {
            return Ok(());
        }
        self.cannot("conditional puts: this server ignores If-Match and If-None-Match")
    }

    /// Refuses a delete with a condition if the store would not heed it.
    pub(super) async fn expect_conditional_deletes(&self) -> Result<(), Error> {
        if self.heeds_conditional_deletes().await? {
            return Ok(());
        }
        self.cannot("conditional deletes: this server ignores If-Match")
    }

    /// Whether a delete with a condition is done only if that holds.
    pub(super) async fn heeds_conditional_deletes(&self) -> Result<bool, Error> {
        Ok(self.heeded().await?.deletes)
    }

    async fn heeded(&self) -> Result<&Heeded, Error> {
        if self.dialect.has_conditions {
            return Ok(&Heeded { puts: true, deletes: true });
        }
        self.heeded.get_or_try_init(|| conditions::try_out(self)).await
    }
}

impl Place<'_> {
    /// What is there.
    pub(super) async fn look(&self) -> Result<Option<Found>, Error> {
        match self.shelf.reads.get_opts(&self.path, GetOptions::new().with_head(true)).await {
            Ok(found) => Ok(Some(Found::new(self.key, &found.meta, &found.attributes))),
            Err(error) if Failure::of(&error).is_absence() => {
                self.shelf.expect_bucket().await?;
                Ok(None)
            }
            Err(error) => Err(self.shelf.explained(&error).await),
        }
    }

    /// The refusal of a write that expected something else.
    pub(super) fn conflict(&self, found: Option<&Found>) -> Error {
        Error::Conflict { index: 0, key: self.key.to_owned(), found: found.map(Found::revision) }
    }

    /// What is there, if that is as it must be; `None` when nothing is, and may be.
    pub(super) async fn expect(&self, condition: &Condition) -> Result<Option<Found>, Error> {
        let found = self.look().await?;
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => found.is_none(),
            Condition::Etag(etag) => found.as_ref().is_some_and(|found| found.info.etag == *etag),
        };
        if holds { Ok(found) } else { Err(self.conflict(found.as_ref())) }
    }
}
