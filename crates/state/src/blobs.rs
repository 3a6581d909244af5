//! Blobs: byte streams of any size under a bucket and a key, written whole or not at all, read whole or
//! by range.

use std::{io, ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{Millis, error::Error, locks::Token};

/// Longest bucket name, in bytes: lower-case ASCII letters, digits, `-` and `_`.
pub const BUCKET_NAME_BYTES_MAX: usize = 64;
/// Longest key, in bytes of UTF-8. A key is any text but the empty one, without NUL; `/` is a character like any.
pub const KEY_BYTES_MAX: usize = 1024;
/// What every engine takes of it: some refuse longer keys, with [`Error::TooLarge`].
pub const KEY_BYTES_SURE: usize = 256;
/// Longest media type, in bytes of visible ASCII and spaces, so that it can stand in a header field.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Largest blob unless a put says less: 5 TiB, as in S3.
pub const BLOB_BYTES_MAX: u64 = 5 << 40;
/// Most entries in one page of a list.
pub const LIST_MAX: usize = 1000;
/// How long the fencing token of a blob is remembered after the blob was deleted.
pub const FENCE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The bytes of a blob, in pieces. An error ends it; what came before is not the whole.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// A strong entity tag (RFC 9110, section 8.8.3) without quotes: equal exactly when the bytes are.
    pub etag: String,
    /// Its media type, as the writer gave it.
    pub content_type: String,
    /// When it was written.
    pub modified_at: Millis,
}

/// What must hold for a put or delete to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// The blob does not exist.
    Absent,
    /// The blob exists with this entity tag.
    Etag(String),
}

/// How to write a blob.
#[derive(Clone, Debug)]
pub struct Put {
    /// Its media type; `application/octet-stream` when nothing better is known.
    pub content_type: String,
    /// What must hold when the last byte has come.
    pub condition: Condition,
    /// Most bytes to take.
    pub bytes_max: u64,
    /// The fencing token of the lock under which it is written ([`crate::locks::Lease::token`]), kept with the blob: writes
    /// and deletes with an older one are refused from then on. Those without one are not judged, and leave it as it is.
    pub fence: Option<Token>,
}

impl Default for Put {
    fn default() -> Self {
        Self {
            content_type: "application/octet-stream".into(),
            condition: Condition::Any,
            bytes_max: BLOB_BYTES_MAX,
            fence: None,
        }
    }
}

/// A part of a blob to read (RFC 9110, section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From this byte on.
    From(u64),
    /// From the first to the second byte, both included.
    Inclusive(u64, u64),
    /// The last so many bytes.
    Last(u64),
}

/// A blob to read.
pub struct Blob {
    /// What is known of it.
    pub info: BlobInfo,
    /// Which bytes the body has; the whole blob when no range was asked for.
    pub range: Range<u64>,
    /// The bytes.
    pub body: ByteStream,
}

/// Some entries of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The blobs, in the order of their keys' bytes.
    pub blobs: Vec<BlobInfo>,
    /// Where the next page begins: the `after` to ask for. `None` when there are no more.
    pub next: Option<String>,
}

/// An engine that keeps blobs.
///
/// A put that is cancelled, cut short or fails leaves the blob as it was. What was acknowledged survives
/// `kill -9` of any process. A reader sees one version of a blob from its first byte to its last, whatever writers do.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Writes a blob from a stream, without holding it in memory. Fails with [`Error::Conflict`] when the condition
    /// does not hold, with [`Error::Fenced`] when the blob has a newer token when the last byte has come, and with
    /// [`Error::Invalid`] when the stream ends with an error.
    async fn put(&self, bucket: &str, key: &str, body: ByteStream, put: Put) -> Result<BlobInfo, Error>;

    /// What is known of a blob, or `None`.
    async fn head(&self, bucket: &str, key: &str) -> Result<Option<BlobInfo>, Error>;

    /// Reads a blob, or `None`. A range that begins past its end is [`Error::Invalid`]; one that ends there is cut.
    async fn get(&self, bucket: &str, key: &str, range: Option<ByteRange>) -> Result<Option<Blob>, Error>;

    /// Some blobs whose key begins with `prefix`, after the key `after`; at most `limit`, where 0 and what is
    /// over [`LIST_MAX`] mean [`LIST_MAX`].
    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, Error>;

    /// Removes a blob; returns whether it was there. Its fencing token, or `fence` if that is newer, is remembered for
    /// [`FENCE_KEPT`], so that an earlier holder does not bring it back. Fails as [`put`](Self::put) does.
    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
        fence: Option<Token>,
    ) -> Result<bool, Error>;

    /// Gives what is kept as records, to move it; `None` if this engine cannot.
    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        None
    }
}
