//! The response's body on its way to the client: made here, held until it was whole, or streamed from the worker.
//! A streamed one that ends early fails, so that hyper cuts the client's connection instead of ending it as if the
//! body were whole.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use lethe_model::gate::Pass;

use crate::{
    client::{Client, Phase},
    core::Core,
    link::Link,
    record::{AttemptResult, Outcome, Record},
    replay::SharedUpload,
    service::Upstream,
};

/// The body of a response to a client.
pub(crate) struct Body {
    kind: Kind,
    client: Rc<Client>,
    record: Option<Rc<Record>>,
}

enum Kind {
    Empty,
    Whole(Bytes),
    Held(Held),
    Stream(Box<Stream>),
}

/// A body that came whole from a worker, in order.
#[derive(Default)]
pub(crate) struct Held {
    first: Bytes,
    rest: std::collections::VecDeque<Bytes>,
    bytes: usize,
}

impl Held {
    /// Adds the next piece; most bodies have only one.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push_back(piece);
        }
    }

    fn pop(&mut self) -> Bytes {
        let next = self.rest.pop_front().unwrap_or_default();
        let piece = std::mem::replace(&mut self.first, next);
        self.bytes -= piece.len();
        piece
    }
}

/// A body that is passed on as it comes.
pub(crate) struct Stream {
    pub(crate) core: Rc<Core>,
    pub(crate) upstream: Rc<Upstream>,
    pub(crate) incoming: Incoming,
    /// `None` once the body has ended.
    pub(crate) link: Option<Box<Link>>,
    pub(crate) upload: Option<SharedUpload>,
    /// Keeps the worker from being stopped meanwhile.
    pub(crate) _pass: Pass,
}

/// A streamed response ended before it was whole.
#[derive(Debug, thiserror::Error)]
#[error("the worker was lost in the middle of its response")]
pub(crate) struct Cut(#[source] hyper::Error);

impl Body {
    pub(crate) fn empty(client: &Rc<Client>) -> Self {
        Self::new(Kind::Empty, client)
    }

    pub(crate) fn whole(bytes: Bytes, client: &Rc<Client>) -> Self {
        Self::new(Kind::Whole(bytes), client)
    }

    pub(crate) fn held(held: Held, client: &Rc<Client>) -> Self {
        Self::new(Kind::Held(held), client)
    }

    pub(crate) fn stream(stream: Stream, client: &Rc<Client>) -> Self {
        Self::new(Kind::Stream(Box::new(stream)), client)
    }

    fn new(kind: Kind, client: &Rc<Client>) -> Self {
        Self { kind, client: Rc::clone(client), record: None }
    }
}

impl Body {
    /// What is noted of the request, which ends with this body.
    pub(crate) fn with(mut self, record: Rc<Record>) -> Self {
        self.record = Some(record);
        self
    }

    fn end(&self, result: AttemptResult, outcome: Outcome) {
        if let Some(record) = &self.record {
            record.attempt_ended(result);
            record.end(outcome);
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // hyper drops the body when it needs no more of it: the response is over.
        if self.client.phase() != Phase::Tunnel {
            self.client.enter(Phase::Idle);
        }
    }
}

impl Stream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(link) = &mut self.link else { return Poll::Ready(None) };
        let frame = std::task::ready!(link.poll_body(&mut self.incoming, cx));
        match frame {
            Some(Err(error)) => {
                self.link = None;
                // A request that the client cut short ends the exchange as well; that is not the worker's doing.
                if !self.upload.as_ref().is_some_and(|upload| upload.borrow().is_broken()) {
                    tracing::warn!(worker = %self.upstream.instance, "response cut: the worker was lost half-way");
                }
                Poll::Ready(Some(Err(Cut(error))))
            }
            frame => {
                if frame.is_none() || http_body::Body::is_end_stream(&self.incoming) {
                    self.finish(cx);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Cut)))
            }
        }
    }

    /// The response is whole: the connection may serve others.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if let Some(mut link) = self.link.take()
            && link.settle(cx)
        {
            self.upstream.put_idle(link, self.core.config.limits.pool_idle_max);
        }
        if let Some(upload) = self.upload.take() {
            upload.borrow_mut().linger();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let piece = match &mut self.kind {
            Kind::Empty => return Poll::Ready(None),
            Kind::Stream(stream) => {
                let frame = std::task::ready!(stream.poll_frame(cx));
                let ended = stream.link.is_none();
                match &frame {
                    Some(Err(_)) => self.end(AttemptResult::Cut, Outcome::Cut),
                    Some(Ok(frame)) => {
                        if let (Some(record), Some(data)) = (&self.record, frame.data_ref()) {
                            record.sent(data.len());
                        }
                        if ended {
                            self.end(AttemptResult::Answered, Outcome::Answered);
                        }
                    }
                    None => self.end(AttemptResult::Answered, Outcome::Answered),
                }
                return Poll::Ready(frame);
            }
            Kind::Whole(bytes) => std::mem::take(bytes),
            Kind::Held(held) => held.pop(),
        };
        if let Some(record) = &self.record {
            record.sent(piece.len());
            // What the gateway says itself has its outcome already.
            if matches!(&self.kind, Kind::Held(held) if held.bytes == 0) {
                record.end(Outcome::Answered);
            }
        }
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Held(held) => held.bytes == 0,
            Kind::Stream(stream) => stream.link.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Held(held) => SizeHint::with_exact(held.bytes as u64),
            Kind::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}
