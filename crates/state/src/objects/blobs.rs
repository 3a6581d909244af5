//! The kind `blobs` on a store.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    download,
    failure::Failure,
    link::under,
    list,
    object::Found,
    shelf::{Place, Shelf},
    upload,
};
use crate::{
    blobs::{
        BUCKET_NAME_BYTES_MAX, Blob, BlobInfo, Blobs, ByteRange, ByteStream, Condition, KEY_BYTES_MAX, Page,
        Put,
    },
    error::Error,
    locks::Token,
    rules::{check_content_type, check_key, check_name, check_token},
};

/// How often a delete with a condition is tried that others keep from being decided.
const CONTESTS_MAX: usize = 16;

/// The store of an engine. Clones are the same.
#[derive(Clone)]
pub(super) struct Bucket(pub(super) Arc<Shelf>);

impl Bucket {
    fn check(&self, bucket: &str, key: &str, fence: Option<Token>) -> Result<(), Error> {
        check_name("bucket", bucket, BUCKET_NAME_BYTES_MAX)?;
        check_key(key, KEY_BYTES_MAX)?;
        match fence {
            None => Ok(()),
            // A store has nothing that could be compared with and written in one step.
            Some(token) => check_token(token).and_then(|()| self.0.cannot("fencing tokens on blobs")),
        }
    }

    /// Finds out what became of a delete that was sent without a condition and not answered. What somebody has put there since must
    /// stay; what was there before goes, if the store can be told that it is that which is meant.
    async fn settle(&self, place: &Place<'_>, found: &Found, failure: Failure) -> Result<bool, Error> {
        match place.look().await? {
            None => return Ok(true),
            Some(now) if now.is_still(found) && self.0.heeds_conditional_deletes().await? => {}
            Some(_) => return Err(failure.into()),
        }
        match under(self.0.is(found), self.0.writes.remove(&place.path)).await {
            Ok(()) => Ok(true),
            Err(error) => match Failure::of(&error) {
                gone if gone.is_absence() => Ok(true),
                taken if taken.is_contest() => Err(failure.into()),
                _ => Err(self.0.explained(&error).await),
            },
        }
    }
}

#[async_trait]
impl Blobs for Bucket {
    async fn put(&self, bucket: &str, key: &str, body: ByteStream, put: Put) -> Result<BlobInfo, Error> {
        self.check(bucket, key, put.fence)?;
        check_content_type(&put.content_type)?;
        upload::put(&self.0.place(bucket, key)?, body, &put).await
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<BlobInfo>, Error> {
        self.check(bucket, key, None)?;
        Ok(self.0.place(bucket, key)?.look().await?.map(|found| found.info))
    }

    async fn get(&self, bucket: &str, key: &str, range: Option<ByteRange>) -> Result<Option<Blob>, Error> {
        self.check(bucket, key, None)?;
        download::get(&self.0.place(bucket, key)?, range).await
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, Error> {
        check_name("bucket", bucket, BUCKET_NAME_BYTES_MAX)?;
        list::list(&self.0, bucket, prefix, after, limit).await
    }

    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
        fence: Option<Token>,
    ) -> Result<bool, Error> {
        self.check(bucket, key, fence)?;
        let place = self.0.place(bucket, key)?;
        for _ in 0..CONTESTS_MAX {
            let Some(found) = place.expect(&condition).await? else {
                return if matches!(condition, Condition::Etag(_)) {
                    Err(place.conflict(None))
                } else {
                    Ok(false)
                };
            };
            let must_be = match condition {
                Condition::Etag(_) => {
                    self.0.expect_conditional_deletes().await?;
                    self.0.is(&found)
                }
                _ => None,
            };
            match under(must_be, self.0.writes.remove(&place.path)).await {
                Ok(()) => return Ok(true),
                Err(error) => match Failure::of(&error) {
                    // It has gone since, perhaps by an earlier copy of the request.
                    failure if failure.is_absence() => return Ok(true),
                    failure if failure.is_contest() => {}
                    failure @ Failure::Doubtful(_) => return self.settle(&place, &found, failure).await,
                    _ => return Err(self.0.explained(&error).await),
                },
            }
        }
        Err(Error::Unavailable(format!("{}: `{key}` is written by others all the time", self.0.server)))
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}
