//! Blobs: files of any size, streamed in and out without being held in memory.

mod answer;
mod source;

use std::{pin::pin, sync::Arc};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    future::{self, Either},
};
use http::{HeaderMap, Method};
pub use lethe_state::blobs::{Blob, BlobInfo, ByteRange, Page};
use lethe_state::{
    blobs::{Condition, Put},
    locks::Token,
};

use crate::{Error, State, lock::Held};

/// A bucket of blobs. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lethe::Error> {
/// # let state = lethe::State::ephemeral()?;
/// let photos = state.bucket("photos");
/// let info = photos.put("mug/front", "image/png", "not really a picture", 5 << 20).await?;
/// assert_eq!((info.size, info.content_type.as_str()), (20, "image/png"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Bucket {
    state: State,
    name: Arc<str>,
    fence: Option<Token>,
}

impl Bucket {
    pub(crate) fn new(state: State, name: &str) -> Self {
        Self { state, name: name.into(), fence: None }
    }

    /// The same bucket for the holder of a lock: a blob that was put or deleted so takes no write of an earlier holder any
    /// more, which fails with [`Error::Fenced`]. Writes without a lock are not judged.
    pub fn fenced(&self, held: &Held) -> Self {
        Self { fence: Some(held.token()), ..self.clone() }
    }

    /// Writes a blob, whatever is there: the body of a request, bytes, text, or any stream in a
    /// [`Body::from_stream`]. A blob that is cut short, or larger than `bytes_max`, leaves what was there as it was.
    pub async fn put(
        &self,
        key: &str,
        content_type: &str,
        body: impl Into<Body>,
        bytes_max: u64,
    ) -> Result<BlobInfo, Error> {
        let put = self.wish(content_type, bytes_max);
        let body = body.into().into_data_stream().map(source::readable).boxed();
        Ok(self.state.engines().blobs.put(&self.name, key, body, put).await?)
    }

    /// The same from a stream that is borrowed, such as a field of `axum::extract::Multipart`.
    pub async fn put_stream<S, E>(
        &self,
        key: &str,
        content_type: &str,
        stream: S,
        bytes_max: u64,
    ) -> Result<BlobInfo, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let put = self.wish(content_type, bytes_max);
        let (pump, body) = source::owned(stream);
        let stored = self.state.engines().blobs.put(&self.name, key, body, put);
        // A put that is refused does not wait for a slow client's next piece.
        match future::select(pin!(pump), stored).await {
            Either::Left(((), stored)) => Ok(stored.await?),
            Either::Right((stored, _)) => Ok(stored?),
        }
    }

    fn wish(&self, content_type: &str, bytes_max: u64) -> Put {
        Put { content_type: content_type.to_owned(), condition: Condition::Any, bytes_max, fence: self.fence }
    }

    /// Reads a blob, or a part of it; `None` when there is none.
    pub async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Option<Blob>, Error> {
        Ok(self.state.engines().blobs.get(&self.name, key, range).await?)
    }

    /// What is known of a blob, or `None`.
    pub async fn head(&self, key: &str) -> Result<Option<BlobInfo>, Error> {
        Ok(self.state.engines().blobs.head(&self.name, key).await?)
    }

    /// Some blobs whose key begins with `prefix`, after the key `after`, in the order of their keys; at most `limit`,
    /// and at most 1000.
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        Ok(self.state.engines().blobs.list(&self.name, prefix, after, limit).await?)
    }

    /// Removes a blob; returns whether it was there.
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        Ok(self.state.engines().blobs.delete(&self.name, key, Condition::Any, self.fence).await?)
    }

    /// Answers a `GET` for a blob, with all that RFC 9110 says of conditions (section 13) and of a single
    /// range (section 14): 200, 206, 304, 404, 412 or 416.
    ///
    /// The blob may come from a user, so browsers are told to trust its media type and nothing else of it: it may
    /// not run scripts, even when it is opened by itself. `Cache-Control` is `no-cache`: a copy may be kept, and is
    /// asked about with its entity tag each time. Insert other headers into the response to change that.
    pub async fn response(&self, key: &str, request_headers: &HeaderMap) -> Result<Response, Error> {
        self.response_to(&Method::GET, key, request_headers).await
    }

    /// As [`response`](Self::response), for routes that take `HEAD` apart from `GET`: that has no ranges and
    /// reads nothing. Other methods are answered with 405.
    pub async fn response_to(
        &self,
        method: &Method,
        key: &str,
        request_headers: &HeaderMap,
    ) -> Result<Response, Error> {
        answer::answer(self, method, key, request_headers).await
    }
}
