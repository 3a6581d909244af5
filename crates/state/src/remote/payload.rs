//! The body of a request: whole, or a stream that is counted as it passes and whose failure is kept, since
//! the connection only tells that there was one.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::{blobs::ByteStream, error::Error};

/// The body of a request.
pub(super) enum Payload {
    Whole(Bytes),
    Stream(Upload),
}

/// A stream on its way out.
pub(super) struct Upload {
    stream: ByteStream,
    bytes_max: u64,
    progress: Arc<Progress>,
}

/// How far a stream has come, seen from the call that sends it.
#[derive(Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl Progress {
    /// How many bytes were taken from the stream.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Why the stream ended early, if it did.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: Error) -> io::Error {
        let text = error.to_string();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::other(text)
    }
}

impl Upload {
    /// Sends `stream`, of at most `bytes_max` bytes.
    pub(super) fn new(stream: ByteStream, bytes_max: u64) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        (Self { stream, bytes_max, progress: Arc::clone(&progress) }, progress)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready(match ready!(self.stream.as_mut().poll_next(cx)) {
            None => None,
            Some(Ok(chunk)) => {
                let size =
                    self.progress.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
                if size > self.bytes_max {
                    let error = Error::TooLarge { what: "the blob", size, max: self.bytes_max };
                    Some(Err(self.progress.fail(error)))
                } else {
                    Some(Ok(chunk))
                }
            }
            Some(Err(error)) => {
                Some(Err(self.progress.fail(Error::Invalid(format!("the body did not come whole: {error}")))))
            }
        })
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(upload) => upload.poll_chunk(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::new(),
        }
    }
}
