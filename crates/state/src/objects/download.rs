//! Gets: one request for a blob, and another for what is left of it when the connection is lost on the way.

use std::{io, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use object_store::{GetOptions, GetRange, GetResult, path::Path};

use super::{
    failure::Failure,
    object::Found,
    shelf::{Place, Shelf},
};
use crate::{
    blobs::{BLOB_BYTES_MAX, Blob, ByteRange, ByteStream},
    clock::jittered,
    error::Error,
    rules::resolve,
};

/// How often in a row a body is gone on with of which nothing has come.
const RESUMES_MAX: u32 = 5;
/// The pause before.
const RESUME_PAUSE: Duration = Duration::from_millis(100);
/// How often a read begins again because the blob was overwritten between the question for its size and that for its bytes.
const READS_MAX: usize = 16;

/// Reads a blob, or a part of it.
pub(super) async fn get(place: &Place<'_>, range: Option<ByteRange>) -> Result<Option<Blob>, Error> {
    for _ in 0..READS_MAX {
        let mut options = GetOptions::new();
        match range {
            None => {}
            // Larger numbers are not understood by all servers.
            Some(ByteRange::From(first)) if first < BLOB_BYTES_MAX => {
                options.range = Some(GetRange::Offset(first));
            }
            Some(ByteRange::Inclusive(first, last)) if first <= last && first < BLOB_BYTES_MAX => {
                options.range = Some(GetRange::Bounded(first..last.min(BLOB_BYTES_MAX) + 1));
            }
            // What else there is depends on the size.
            Some(range) => {
                let Some(found) = place.look().await? else { return Ok(None) };
                options.range = Some(GetRange::Bounded(resolve(Some(range), found.info.size)?));
                options.if_match = found.version.e_tag;
            }
        }
        match place.shelf.reads.get_opts(&place.path, options).await {
            Ok(found) => return Ok(Some(blob(place, found))),
            Err(error) => match Failure::of(&error) {
                failure if failure.is_absence() => {
                    place.shelf.expect_bucket().await?;
                    return Ok(None);
                }
                failure if failure.is_empty_range() => {
                    let Some(found) = place.look().await? else { return Ok(None) };
                    resolve(range, found.info.size)?;
                }
                failure if failure.is_contest() => {}
                _ => return Err(place.shelf.explained(&error).await),
            },
        }
    }
    Err(Error::Unavailable(format!(
        "{}: `{}` is written by others all the time",
        place.shelf.server, place.key
    )))
}

fn blob(place: &Place<'_>, found: GetResult) -> Blob {
    let Found { info, version, .. } = Found::new(place.key, &found.meta, &found.attributes);
    let range = found.range.clone();
    let body = Reading {
        shelf: place.shelf.clone(),
        path: place.path.clone(),
        e_tag: version.e_tag,
        left: range.clone(),
        body: found.into_stream(),
        resumes: 0,
    };
    Blob { info, range, body: body.stream() }
}

/// A body on its way.
struct Reading {
    shelf: Arc<Shelf>,
    path: Path,
    /// Which version it is of.
    e_tag: Option<String>,
    /// What has not come yet.
    left: Range<u64>,
    body: BoxStream<'static, object_store::Result<Bytes>>,
    /// How often in a row it was gone on with.
    resumes: u32,
}

impl Reading {
    fn stream(self) -> ByteStream {
        futures_util::stream::try_unfold(self, |mut reading| async move {
            Ok(reading.next().await?.map(|piece| (piece, reading)))
        })
        .boxed()
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.left.is_empty() {
            let failure = match self.body.next().await {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => {
                    self.left.start += piece.len() as u64;
                    self.resumes = 0;
                    return Ok(Some(piece));
                }
                Some(Err(error)) => Failure::of(&error),
                None => Failure::Away(format!("{}: the answer ended too early", self.shelf.server)),
            };
            self.resume(failure).await?;
        }
        Ok(None)
    }

    /// Asks for what is left of the same version.
    async fn resume(&mut self, failure: Failure) -> io::Result<()> {
        self.resumes += 1;
        if self.resumes > RESUMES_MAX || self.e_tag.is_none() {
            return Err(io::Error::other(failure));
        }
        tokio::time::sleep(jittered(RESUME_PAUSE)).await;
        let options = GetOptions::new().with_range(Some(self.left.clone())).with_if_match(self.e_tag.clone());
        let changed = || io::Error::other("the blob was overwritten or deleted while it was read");
        match self.shelf.reads.get_opts(&self.path, options).await {
            Ok(found) if found.meta.e_tag == self.e_tag && found.range == self.left => {
                self.body = found.into_stream();
                Ok(())
            }
            Ok(_) => Err(changed()),
            Err(error) => match Failure::of(&error) {
                // The range is one of the blob that was begun.
                failure if failure.is_contest() || failure.is_empty_range() => Err(changed()),
                failure => Err(io::Error::other(failure)),
            },
        }
    }
}
