//! A body that passes by: each piece goes on at once, and up to a bound a copy is kept.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

type Done = Box<dyn FnOnce(Option<Bytes>) + Send>;

/// A body of which a copy is kept.
pub(super) struct Tee {
    inner: Incoming,
    /// `None` when there was more than is kept.
    kept: Option<Vec<u8>>,
    bytes_max: usize,
    /// Called once, with all of the body; or with nothing, if there was too much or it did not come to its end.
    done: Option<Done>,
}

impl Tee {
    pub(super) fn new(
        inner: Incoming,
        bytes_max: usize,
        done: impl FnOnce(Option<Bytes>) + Send + 'static,
    ) -> Self {
        let mut tee = Self { inner, kept: Some(Vec::new()), bytes_max, done: Some(Box::new(done)) };
        tee.look();
        tee
    }

    fn keep(&mut self, piece: &Bytes) {
        match &mut self.kept {
            Some(kept) if kept.len() + piece.len() <= self.bytes_max => kept.extend_from_slice(piece),
            kept => *kept = None,
        }
    }

    /// Who sends it on need not ask again after the last piece.
    fn look(&mut self) {
        if self.inner.is_end_stream() {
            self.end(true);
        }
    }

    fn end(&mut self, is_whole: bool) {
        if let Some(done) = self.done.take() {
            done(self.kept.take().filter(|_| is_whole).map(Bytes::from));
        }
    }
}

impl Body for Tee {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    self.keep(piece);
                }
                self.look();
            }
            Some(Err(_)) => self.end(false),
            None => self.end(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.end(false);
    }
}
