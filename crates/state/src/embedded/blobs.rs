//! Blobs: files with a row in SQLite. The row is written last and says which file it is, so that a blob is whole
//! or not there, and a reader who has opened its file reads that version to its end.

use std::{io, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{
    Store, blob_fences,
    command::{Txn, closing},
    failure::{Failure, Stop},
    files::{Files, Incoming},
    tables::text_key,
};
use crate::{
    Revision,
    blobs::{
        BUCKET_NAME_BYTES_MAX, Blob, BlobInfo, Blobs, ByteRange, ByteStream, Condition, KEY_BYTES_MAX,
        LIST_MAX, Page, Put,
    },
    error::Error,
    locks::Token,
    rules::{check_content_type, check_key, check_name, check_token, key_range, resolve},
};

/// How many bytes of a body are gathered before they are written: enough to make the way to a thread for
/// blocking work cheap, little enough for many uploads at once.
const WRITE_BYTES: usize = 256 << 10;
/// How many bytes a reader reads at a time.
const READ_BYTES: usize = 64 << 10;
/// How often a read begins again because the blob was overwritten just as its file was to be opened.
const OPEN_ATTEMPTS_MAX: usize = 16;

#[async_trait]
impl Blobs for Store {
    async fn put(&self, bucket: &str, key: &str, body: ByteStream, put: Put) -> Result<BlobInfo, Error> {
        check_names(bucket, key)?;
        check_content_type(&put.content_type)?;
        put.fence.map_or(Ok(()), check_token)?;
        let (file, size, etag) = receive(&self.files, body, put.bytes_max).await?;
        let (bucket, key, files) = (bucket.to_owned(), key.to_owned(), self.files.clone());
        let written = self.writer.submit(move |txn| {
            let newest = blob_fences::check(txn, &bucket, &key, put.fence)?;
            let old = check_condition(txn, &bucket, &key, &put.condition)?;
            let info = BlobInfo { key, size, etag, content_type: put.content_type, modified_at: txn.now };
            write_row(txn, &bucket, &info, file.name())?;
            blob_fences::written(txn, &bucket, &info.key, put.fence, newest)?;
            txn.bring_in(file);
            if let Some(old) = old {
                txn.throw_out(files.outgoing(old.file)?);
            }
            Ok(info)
        });
        written.await
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<BlobInfo>, Error> {
        check_names(bucket, key)?;
        let stored = self.readers.look_up(|connection| Ok(find(connection, bucket, key)?)).await?;
        Ok(stored.map(|stored| stored.info))
    }

    async fn get(&self, bucket: &str, key: &str, range: Option<ByteRange>) -> Result<Option<Blob>, Error> {
        check_names(bucket, key)?;
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let Some(stored) = self.readers.look_up(|connection| Ok(find(connection, bucket, key)?)).await?
            else {
                return Ok(None);
            };
            let range = resolve(range, stored.info.size)?;
            if let Some(file) = self.open(&stored).await? {
                let body = read(file, range.clone()).await.map_err(|error| {
                    Error::from(Failure::io("read", &self.files.path(&stored.file), &error))
                })?;
                return Ok(Some(Blob { info: stored.info, range, body }));
            }
        }
        Err(Error::Unavailable(format!("the blob `{key}` was overwritten again and again as it was read")))
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, Error> {
        check_name("bucket", bucket, BUCKET_NAME_BYTES_MAX)?;
        let limit = if limit == 0 { LIST_MAX } else { limit.min(LIST_MAX) };
        let (bucket, (first, end)) = (bucket.to_owned(), key_range(prefix, after));
        self.readers.read(move |connection| Ok(read_page(connection, &bucket, &first, &end, limit)?)).await
    }

    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
        fence: Option<Token>,
    ) -> Result<bool, Error> {
        check_names(bucket, key)?;
        fence.map_or(Ok(()), check_token)?;
        let (bucket, key, files) = (bucket.to_owned(), key.to_owned(), self.files.clone());
        self.writer
            .submit(move |txn| {
                let newest = blob_fences::check(txn, &bucket, &key, fence)?;
                let old = check_condition(txn, &bucket, &key, &condition)?;
                blob_fences::deleted(txn, &bucket, &key, fence, newest)?;
                let Some(old) = old else { return Ok(false) };
                txn.prepared("DELETE FROM blobs WHERE bucket = ?1 AND key = ?2")?
                    .execute((&bucket, key.as_bytes()))?;
                txn.throw_out(files.outgoing(old.file)?);
                Ok(true)
            })
            .await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

impl Store {
    /// Opens a blob's file; `None` when it was overwritten or deleted since its row was read.
    async fn open(&self, stored: &Stored) -> Result<Option<tokio::fs::File>, Error> {
        let path = self.files.path(&stored.file);
        let opened = match tokio::fs::File::open(&path).await {
            Ok(file) => file.metadata().await.map(|metadata| (file, metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (bucket, key) = (&stored.bucket, &stored.info.key);
                let now = self.readers.look_up(|connection| Ok(find(connection, bucket, key)?)).await?;
                if now.is_none_or(|now| now.file != stored.file) {
                    return Ok(None);
                }
                Err(error)
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((file, size)) if size == stored.info.size => Ok(Some(file)),
            Ok((_, size)) => {
                let detail = format!("it has {size} bytes instead of {}", stored.info.size);
                Err(Failure::Other { doing: "read", file: path.display().to_string(), detail }.into())
            }
            Err(error) => Err(Failure::io("read", &path, &error).into()),
        }
    }
}

fn check_names(bucket: &str, key: &str) -> Result<(), Error> {
    check_name("bucket", bucket, BUCKET_NAME_BYTES_MAX)?;
    check_key(key, KEY_BYTES_MAX)
}

/// Writes a body to a new file, and makes it durable. Dropped or failed, it leaves no file.
async fn receive(
    files: &Arc<Files>,
    mut body: ByteStream,
    bytes_max: u64,
) -> Result<(Incoming, u64, String), Error> {
    let (mut file, mut total) = (None, 0_u64);
    loop {
        let (mut pieces, mut gathered, mut ended) = (Vec::new(), 0, false);
        while gathered < WRITE_BYTES {
            let Some(piece) = body.next().await else {
                ended = true;
                break;
            };
            let piece: Bytes =
                piece.map_err(|error| Error::Invalid(format!("the body ended with an error: {error}")))?;
            gathered += piece.len();
            total += piece.len() as u64;
            if total > bytes_max {
                return Err(Error::TooLarge { what: "the blob", size: total, max: bytes_max });
            }
            pieces.push(piece);
        }
        let (written, done) = write(files.clone(), file, pieces, ended).await?;
        if let Some((size, etag)) = done {
            return Ok((written, size, etag));
        }
        file = Some(written);
    }
}

/// Adds pieces to the file, which is made for the first ones; after the last ones, finishes it.
async fn write(
    files: Arc<Files>,
    file: Option<Incoming>,
    pieces: Vec<Bytes>,
    last: bool,
) -> Result<(Incoming, Option<(u64, String)>), Error> {
    let work = move || {
        let mut file = file.map_or_else(|| files.create(), Ok)?;
        file.write(&pieces)?;
        let done = if last { Some(file.finish()?) } else { None };
        Ok((file, done))
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(closing()))
}

async fn read(mut file: tokio::fs::File, range: Range<u64>) -> io::Result<ByteStream> {
    if range.start > 0 {
        file.seek(io::SeekFrom::Start(range.start)).await?;
    }
    let length = range.end - range.start;
    Ok(ReaderStream::with_capacity(file.take(length), READ_BYTES).boxed())
}

/// A blob's row.
struct Stored {
    bucket: String,
    info: BlobInfo,
    file: String,
    revision: Revision,
}

const COLUMNS: &str = "key, size, etag, content_type, modified_at, file, revision, bucket";

fn stored(sql: &SqlRow<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        info: BlobInfo {
            key: text_key(sql, 0)?,
            size: sql.get::<_, i64>(1)?.cast_unsigned(),
            etag: sql.get(2)?,
            content_type: sql.get(3)?,
            modified_at: sql.get(4)?,
        },
        file: sql.get(5)?,
        revision: sql.get::<_, i64>(6)?.cast_unsigned(),
        bucket: sql.get(7)?,
    })
}

fn find(connection: &Connection, bucket: &str, key: &str) -> rusqlite::Result<Option<Stored>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM blobs WHERE bucket = ?1 AND key = ?2"))?;
    statement.query_row((bucket, key.as_bytes()), stored).optional()
}

fn read_page(
    connection: &Connection,
    bucket: &str,
    first: &[u8],
    end: &[u8],
    limit: usize,
) -> rusqlite::Result<Page> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM blobs WHERE bucket = ?1 AND key >= ?2 AND key < ?3 ORDER BY key LIMIT ?4"
    ))?;
    // One more than is wanted tells whether there are more.
    let found = statement.query_map((bucket, first, end, limit as i64 + 1), stored)?;
    let mut blobs = found.map(|found| found.map(|found| found.info)).collect::<Result<Vec<_>, _>>()?;
    let more = blobs.len() > limit;
    blobs.truncate(limit);
    let next = blobs.last().filter(|_| more).map(|last| last.key.clone());
    Ok(Page { blobs, next })
}

/// The blob as it is, if that is as it must be.
fn check_condition(
    txn: &Txn<'_>,
    bucket: &str,
    key: &str,
    condition: &Condition,
) -> Result<Option<Stored>, Stop> {
    let found = find(txn.connection(), bucket, key)?;
    let holds = match condition {
        Condition::Any => true,
        Condition::Absent => found.is_none(),
        Condition::Etag(etag) => found.as_ref().is_some_and(|found| found.info.etag == *etag),
    };
    if holds {
        return Ok(found);
    }
    let found = found.map(|found| found.revision);
    Err(Error::Conflict { index: 0, key: key.to_owned(), found }.into())
}

fn write_row(txn: &mut Txn<'_>, bucket: &str, info: &BlobInfo, file: &str) -> rusqlite::Result<()> {
    let revision = txn.next_revision().cast_signed();
    let mut statement = txn.prepared(
        "INSERT INTO blobs (bucket, key, file, size, etag, content_type, modified_at, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (bucket, key) DO UPDATE
         SET file = excluded.file, size = excluded.size, etag = excluded.etag,
             content_type = excluded.content_type, modified_at = excluded.modified_at,
             revision = excluded.revision",
    )?;
    let size = info.size.cast_signed();
    let (key, content_type) = (info.key.as_bytes(), &info.content_type);
    statement.execute((bucket, key, file, size, &info.etag, content_type, info.modified_at, revision))?;
    Ok(())
}

/// Whether a blob has this file.
pub(super) fn has_row(connection: &Connection, file: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM blobs WHERE file = ?1")?.exists([file])
}
