//! Bodies on their way: what is sent tells that it moves, and what is received is given up when it does not.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpRequestBody};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep},
};

use super::failure::Failure;

/// The body of a request, which counts the pieces that were taken of it.
pub(super) struct Sent {
    body: HttpRequestBody,
    moved: Arc<AtomicU64>,
}

impl Sent {
    pub(super) fn new(body: HttpRequestBody, moved: Arc<AtomicU64>) -> Self {
        Self { body, moved }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.moved.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. It ends with an error when nothing has come of it for a while.
pub(super) struct Received {
    body: Incoming,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Whether somebody waits for it, by the deadline. Who takes his time between two pieces is not timed.
    is_awaited: bool,
    /// Which server, for the error.
    server: String,
    /// The answer's place among the requests under way.
    _place: OwnedSemaphorePermit,
}

impl Received {
    pub(super) fn new(
        body: Incoming,
        patience: Duration,
        server: String,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { body, patience, deadline: Box::pin(sleep(patience)), is_awaited: false, server, _place: place }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let broken = |server: &str, why: String| {
            HttpError::new(HttpErrorKind::Interrupted, Failure::Away(format!("{server}: {why}")))
        };
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.is_awaited = false;
            let frame = frame.map(|frame| frame.map_err(|error| broken(&this.server, error.to_string())));
            return Poll::Ready(frame);
        }
        if !std::mem::replace(&mut this.is_awaited, true) {
            this.deadline.as_mut().reset(Instant::now() + this.patience);
        }
        ready!(this.deadline.as_mut().poll(context));
        let why = format!("the answer stopped for {:?}", this.patience);
        Poll::Ready(Some(Err(broken(&this.server, why))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
