//! Bodies of requests on their way in: held whole up to a limit, or passed on piece by piece. A body that is
//! cut short, stalls or is too large ends in an error, never in half a value.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header;
use hyper::body::{Frame, SizeHint};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Sleep, sleep, timeout},
};

use crate::{blobs::ByteStream, error::Error};

/// Most bytes of bodies held in memory at one time, over all requests; smaller ones than
/// [`SMALL_BODY_BYTES`] are not counted.
const BUFFERED_BYTES_MAX: usize = 128 << 20;
/// Up to this size a body is held without asking for room.
const SMALL_BODY_BYTES: u64 = 16 << 10;
/// How many bytes one permit of the room stands for.
const PERMIT_BYTES: u64 = 1 << 10;
/// How long a request waits for room.
const BUFFER_WAIT: Duration = Duration::from_secs(5);
/// How long a body may bring nothing before it is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a refused body is read and thrown away, so that a client that sends first and listens then
/// reads the reason instead of a broken pipe.
const DISCARD_BYTES_MAX: u64 = 64 << 20;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// The room for bodies that are held in memory.
pub(super) struct Buffers(Semaphore);

impl Buffers {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(BUFFERED_BYTES_MAX / PERMIT_BYTES as usize))
    }

    async fn reserve(&self, bytes: u64) -> Result<Option<SemaphorePermit<'_>>, Error> {
        if bytes <= SMALL_BODY_BYTES {
            return Ok(None);
        }
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        match timeout(BUFFER_WAIT, self.0.acquire_many(permits)).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable(format!(
                "too many large requests at once: no room for {bytes} bytes within {} s",
                BUFFER_WAIT.as_secs()
            ))),
        }
    }
}

/// A body that is held whole, and the room it takes.
pub(super) struct Buffered<'a> {
    pub(super) bytes: Bytes,
    _room: Option<SemaphorePermit<'a>>,
}

impl Buffered<'_> {
    /// Reads it as JSON; nothing at all stands for `{}`. The error says what is wrong, and at which line and column.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let text = if self.bytes.is_empty() { b"{}" } else { &self.bytes[..] };
        serde_json::from_slice(text).map_err(|error| {
            Error::Invalid(format!("the body is not the JSON that is expected here: {error}"))
        })
    }
}

/// The body of a request that was not read yet.
pub(super) struct Upload(Body);

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(Self(request.into_body()))
    }
}

impl Upload {
    /// How long the body says it is.
    pub(super) fn declared(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }

    /// Its pieces, one by one.
    pub(super) fn into_stream(self) -> ByteStream {
        self.0.into_data_stream().map(|chunk| chunk.map_err(io::Error::other)).boxed()
    }

    /// Reads the whole body, of at most `max` bytes; `what` names it in the error if it is larger.
    pub(super) async fn buffer<'a>(
        self,
        room: &'a Buffers,
        what: &'static str,
        max: u64,
    ) -> Result<Buffered<'a>, Error> {
        let declared = self.declared();
        if let Some(size) = declared.filter(|size| *size > max) {
            return Err(Error::TooLarge { what, size, max });
        }
        let room = room.reserve(declared.unwrap_or(max)).await?;
        let mut chunks = self.0.into_data_stream();
        let cut = |error| Error::Invalid(format!("the body did not come whole: {error}"));
        let Some(first) = chunks.next().await.transpose().map_err(cut)? else {
            return Ok(Buffered { bytes: Bytes::new(), _room: room });
        };
        if declared == Some(first.len() as u64) {
            return Ok(Buffered { bytes: first, _room: room });
        }
        let mut bytes = BytesMut::with_capacity(declared.unwrap_or(first.len() as u64) as usize);
        let mut next = Some(first);
        while let Some(chunk) = next {
            let size = (bytes.len() + chunk.len()) as u64;
            if size > max {
                return Err(Error::TooLarge { what, size, max });
            }
            bytes.extend_from_slice(&chunk);
            next = chunks.next().await.transpose().map_err(cut)?;
        }
        Ok(Buffered { bytes: bytes.freeze(), _room: room })
    }
}

/// Stands before all routes that take a body: gives one up that stalls, and throws away the rest of one that the
/// handler has refused.
///
/// A body that the client holds back (RFC 9110, section 10.1.1), or one that is too long for that, is left alone: the
/// connection ends after the answer.
pub(super) async fn guard<F>(request: Request, handler: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    if request.body().is_end_stream() {
        return handler(request).await;
    }
    let held_back = request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let mut guarded = Guarded(Arc::new(Mutex::new(Watched { body, stalled: None })));
    let response = handler(Request::from_parts(head, Body::new(guarded.clone()))).await;
    let left = guarded.size_hint().lower();
    if !response.status().is_success() && !held_back && left <= DISCARD_BYTES_MAX {
        // Whether it comes to its end makes no difference to the answer.
        let _ = timeout(DISCARD_TIMEOUT, guarded.discard()).await;
    }
    response
}

/// A body that the handler reads, and that [`guard`] still holds when the handler is done with it.
#[derive(Clone)]
struct Guarded(Arc<Mutex<Watched>>);

struct Watched {
    body: Body,
    /// Runs while nothing comes.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn discard(&mut self) {
        let mut size = 0;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
            size += frame.data_ref().map_or(0, Bytes::len) as u64;
            if size > DISCARD_BYTES_MAX {
                break;
            }
        }
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut watched = self.watched();
        if let Poll::Ready(frame) = Pin::new(&mut watched.body).poll_frame(cx) {
            watched.stalled = None;
            return Poll::Ready(frame);
        }
        let stalled = watched.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
        ready!(stalled.as_mut().poll(cx));
        let text = format!("nothing came for {} s", STALL_TIMEOUT.as_secs());
        Poll::Ready(Some(Err(axum::Error::new(io::Error::new(io::ErrorKind::TimedOut, text)))))
    }

    fn is_end_stream(&self) -> bool {
        self.watched().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.watched().body.size_hint()
    }
}
