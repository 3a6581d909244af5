//! Puts: a blob that fits into one part is one request, which is done or not; a larger one is uploaded in parts and appears when
//! all are there. What does not get so far leaves nothing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::try_join};
use object_store::{MultipartUpload, PutMode, PutOptions, PutPayload, PutPayloadMut};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::{
    dialect::Versions,
    failure::Failure,
    link::under,
    object::{PutId, unquoted},
    shelf::Place,
};
use crate::{
    blobs::{BlobInfo, ByteStream, Condition, Put},
    clock::jittered,
    error::Error,
};

/// Most parts of an upload, in S3; in Azure there may be more.
pub(super) const PARTS_MAX: u64 = 10_000;
/// How often a put with a condition is tried that others keep from being decided.
const CONTESTS_MAX: usize = 16;
/// A part is gathered in pieces of this size, whatever those are that come.
const BLOCK_BYTES: usize = 256 << 10;
/// How often it is tried to take back an upload: for ten minutes, should the store be away.
const ABORTS_MAX: u32 = 30;
/// The longest pause between two of these.
const ABORT_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Writes a blob from a stream.
pub(super) async fn put(place: &Place<'_>, body: ByteStream, put: &Put) -> Result<BlobInfo, Error> {
    if put.condition != Condition::Any {
        place.shelf.expect_conditional_puts().await?;
    }
    let mut source = Source::new(body, put.bytes_max, place.shelf.part_bytes);
    let first = source.part().await?;
    if source.is_ended {
        put_whole(place, source, first, put).await
    } else {
        put_parts(place, source, first, put).await
    }
}

/// Writes a blob by one request.
async fn put_whole(
    place: &Place<'_>,
    source: Source,
    payload: PutPayload,
    put: &Put,
) -> Result<BlobInfo, Error> {
    let id = PutId::new()?;
    let info = BlobInfo {
        key: place.key.to_owned(),
        size: source.size,
        etag: format!("{:x}", Bytes::copy_from_slice(&source.hash.finalize())),
        content_type: put.content_type.clone(),
        modified_at: place.shelf.clock.now(),
    };
    for _ in 0..CONTESTS_MAX {
        let mode = match &put.condition {
            Condition::Any => PutMode::Overwrite,
            Condition::Absent => PutMode::Create,
            Condition::Etag(_) => mode(place, &put.condition).await?,
        };
        let options = PutOptions { mode, attributes: id.of_whole(&info), ..PutOptions::default() };
        let Err(error) = place.shelf.writes.put(&place.path, payload.clone(), options).await else {
            return Ok(info);
        };
        let failure = Failure::of(&error);
        if matches!(failure, Failure::Doubtful(_)) {
            // What somebody else has put there since must stay, so it is not put again.
            let is_done = place.look().await?.is_some_and(|found| found.is_of(&id));
            return if is_done { Ok(info) } else { Err(failure.into()) };
        }
        if put.condition == Condition::Any || !failure.is_contest() {
            return Err(place.shelf.explained(&error).await);
        }
        if is_settled(place, &id, &put.condition).await? {
            return Ok(info);
        }
    }
    Err(contested(place))
}

/// Writes a blob by an upload of several parts.
async fn put_parts(
    place: &Place<'_>,
    mut source: Source,
    first: PutPayload,
    put: &Put,
) -> Result<BlobInfo, Error> {
    let shelf = place.shelf;
    let id = PutId::new()?;
    // What will be refused is not sent first.
    let mode = mode(place, &put.condition).await?;
    let upload = match shelf.writes.begin(&place.path, id.of_parts(&put.content_type), mode).await {
        Ok(upload) => upload,
        // Somebody has written since it was looked at.
        Err(error) if put.condition != Condition::Any && Failure::of(&error).is_refused_condition() => {
            return Err(place.expect(&put.condition).await.err().unwrap_or_else(|| contested(place)));
        }
        Err(error) => return Err(shelf.explained(&error).await),
    };
    let upload = Upload {
        inner: Arc::new(Mutex::new(upload)),
        is_done: false,
        server: shelf.server.clone(),
        on_left_parts: shelf.dialect.on_left_parts,
    };
    let mut part = first;
    loop {
        let sending = upload.send(part);
        if source.is_ended {
            sending.await?;
            break;
        }
        // One part is on its way while the next one comes.
        ((), part) = try_join(sending, source.part()).await?;
    }
    complete(place, upload, &id, source.size, put).await
}

/// Makes an upload the blob.
async fn complete(
    place: &Place<'_>,
    mut upload: Upload,
    id: &PutId,
    size: u64,
    put: &Put,
) -> Result<BlobInfo, Error> {
    let versions = place.shelf.dialect.versions;
    let condition = match versions {
        Versions::Generations => None,
        Versions::Tags => match mode(place, &put.condition).await? {
            PutMode::Overwrite => None,
            PutMode::Create => Some(versions.is_absent()),
            PutMode::Update(version) => versions.is(&version),
        },
    };
    let e_tag = match under(condition, upload.inner.lock().await.complete()).await {
        Ok(done) => done.e_tag.unwrap_or_default(),
        Err(error) if !Failure::of(&error).is_contest() => return Err(place.shelf.explained(&error).await),
        // An earlier copy of the request may have been answered, and its answer lost.
        Err(_) if is_settled(place, id, &put.condition).await? => String::new(),
        Err(_) => return Err(contested(place)),
    };
    upload.is_done = true;
    match place.look().await? {
        Some(found) if found.is_of(id) => Ok(found.info),
        // Somebody has overwritten or deleted it since.
        found => Ok(BlobInfo {
            key: place.key.to_owned(),
            size,
            etag: unquoted(&e_tag),
            content_type: put.content_type.clone(),
            modified_at: found.map_or_else(|| place.shelf.clock.now(), |found| found.info.modified_at),
        }),
    }
}

/// What the store is to expect; an error if it is not so now.
async fn mode(place: &Place<'_>, condition: &Condition) -> Result<PutMode, Error> {
    if *condition == Condition::Any {
        return Ok(PutMode::Overwrite);
    }
    Ok(place.expect(condition).await?.map_or(PutMode::Create, |found| PutMode::Update(found.version)))
}

/// Whether a put that was refused for its condition has been done all the same, by an earlier copy of the request. If not, and if
/// the condition does not hold, that is the error; else it may be tried again.
async fn is_settled(place: &Place<'_>, id: &PutId, condition: &Condition) -> Result<bool, Error> {
    let found = place.look().await?;
    if found.as_ref().is_some_and(|found| found.is_of(id)) {
        return Ok(true);
    }
    let holds = match (condition, &found) {
        (Condition::Any, _) | (Condition::Absent, None) => true,
        (Condition::Etag(etag), Some(found)) => found.info.etag == *etag,
        _ => false,
    };
    if holds { Ok(false) } else { Err(place.conflict(found.as_ref())) }
}

fn contested(place: &Place<'_>) -> Error {
    Error::Unavailable(format!("{}: `{}` is written by others all the time", place.shelf.server, place.key))
}

/// An upload that is taken back when it is dropped before it is done.
struct Upload {
    inner: Arc<Mutex<Box<dyn MultipartUpload>>>,
    is_done: bool,
    /// Which server and bucket, for messages.
    server: String,
    /// What removes parts that were left, if they can be removed at all.
    on_left_parts: Option<&'static str>,
}

impl Upload {
    /// Sends the next part.
    async fn send(&self, part: PutPayload) -> Result<(), Error> {
        let sending = self.inner.lock().await.put_part(part);
        sending.await.map_err(|error| Failure::of(&error).into())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Without a runtime, the process ends.
        if !self.is_done
            && let Some(on_left_parts) = self.on_left_parts
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let server = std::mem::take(&mut self.server);
            runtime.spawn(take_back(self.inner.clone(), server, on_left_parts));
        }
    }
}

/// Removes the parts of an upload. The store may be away just now, which may be why the upload is taken back.
async fn take_back(upload: Arc<Mutex<Box<dyn MultipartUpload>>>, server: String, on_left_parts: &str) {
    let mut pause = Duration::from_secs(1);
    for _ in 0..ABORTS_MAX {
        let result = upload.lock().await.abort().await.map_err(|error| Failure::of(&error));
        match result {
            Ok(()) => return,
            // There is no such upload any more.
            Err(failure) if failure.is_absence() => return,
            Err(failure) => tracing::debug!(%failure, "an upload is taken back again later"),
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (2 * pause).min(ABORT_PAUSE_MAX);
    }
    tracing::warn!("{server}: the parts of an upload that failed could not be removed; {on_left_parts}");
}

/// A body that comes in parts.
struct Source {
    body: ByteStream,
    part_bytes: usize,
    bytes_max: u64,
    /// What has come.
    size: u64,
    /// Of what has come while there is one part.
    hash: Sha256,
    /// The beginning of the next part.
    rest: Bytes,
    is_ended: bool,
}

impl Source {
    fn new(body: ByteStream, bytes_max: u64, part_bytes: usize) -> Self {
        let (hash, rest) = (Sha256::new(), Bytes::new());
        Self { body, part_bytes, bytes_max, size: 0, hash, rest, is_ended: false }
    }

    /// The next part. It is known then whether it is the last.
    async fn part(&mut self) -> Result<PutPayload, Error> {
        let mut part = PutPayloadMut::new().with_block_size(BLOCK_BYTES);
        loop {
            let taken = self.rest.split_to(self.rest.len().min(self.part_bytes - part.content_length()));
            // Copied, so that no part keeps more in memory than it is long.
            part.extend_from_slice(&taken);
            if !self.rest.is_empty() {
                return Ok(part.freeze());
            }
            let Some(piece) = self.body.next().await else {
                self.is_ended = true;
                return Ok(part.freeze());
            };
            self.rest =
                piece.map_err(|error| Error::Invalid(format!("the body ended with an error: {error}")))?;
            self.count()?;
        }
    }

    /// Counts what has just come.
    fn count(&mut self) -> Result<(), Error> {
        self.size += self.rest.len() as u64;
        if self.size > self.bytes_max {
            return Err(Error::TooLarge { what: "the blob", size: self.size, max: self.bytes_max });
        }
        let max = PARTS_MAX * self.part_bytes as u64;
        if self.size > max {
            let what = "the blob (10,000 parts of `part_mib` in the URL of the store)";
            return Err(Error::TooLarge { what, size: self.size, max });
        }
        if self.size <= self.part_bytes as u64 {
            self.hash.update(&self.rest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// A body of so many bytes in pieces of this size, as parts of ten bytes.
    async fn parts(size: usize, piece: usize) -> Vec<Vec<u8>> {
        let body: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let pieces: Vec<_> = body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut source = Source::new(stream::iter(pieces).boxed(), u64::MAX, 10);
        let mut parts = Vec::new();
        while !source.is_ended {
            parts.push(Vec::from(Bytes::from(source.part().await.unwrap())));
        }
        assert_eq!(parts.concat(), body);
        assert_eq!(source.size, size as u64);
        parts
    }

    #[tokio::test]
    async fn a_body_comes_in_equal_parts_whatever_its_pieces() {
        for piece in [1, 3, 9, 10, 11, 20, 100] {
            for (size, expected) in [
                (0, &[0][..]),
                (1, &[1]),
                (10, &[10]),
                (11, &[10, 1]),
                (20, &[10, 10]),
                (35, &[10, 10, 10, 5]),
            ] {
                let sizes: Vec<_> = parts(size, piece).await.iter().map(Vec::len).collect();
                assert_eq!(sizes, expected, "{size} bytes in pieces of {piece}");
            }
        }
    }
}
