//! The request's body on its way to a worker. It is passed on as it arrives and kept at the same time, so that
//! another worker can be given the same body; past a bound it is passed on only, and the request can no longer be
//! sent again. A body that the client cut short ends with an error here, never as if it were whole.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::{
    client::{Client, Phase},
    record::Record,
};

/// What keeping one piece costs beside its bytes, so that a body of many tiny pieces is bounded too.
const PIECE_BYTES: usize = 64;
/// After an early response, how long the rest of the body is still read and thrown away. Closing at once would
/// reset the connection, and the client might never see the response.
const LINGER_FOR: Duration = Duration::from_secs(5);
/// How much of it is.
const LINGER_BYTES_MAX: usize = 64 << 20;

/// The memory for kept bodies, of all cores together. Each core takes it in chunks, so that requests do not meet at
/// one counter.
pub(crate) struct Budget {
    available: Arc<AtomicUsize>,
    local: Cell<usize>,
}

impl Budget {
    const CHUNK_BYTES: usize = 256 << 10;

    pub(crate) fn new(available: Arc<AtomicUsize>) -> Self {
        Self { available, local: Cell::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let local = self.local.get();
        if local >= bytes {
            self.local.set(local - bytes);
            return true;
        }
        let more = bytes.max(Self::CHUNK_BYTES);
        let granted = |left: usize| left.checked_sub(more);
        if self.available.fetch_update(Relaxed, Relaxed, granted).is_err() {
            return false;
        }
        self.local.set(local + more - bytes);
        true
    }

    fn give(&self, bytes: usize) {
        let local = self.local.get() + bytes;
        let surplus = if local > 2 * Self::CHUNK_BYTES { local - Self::CHUNK_BYTES } else { 0 };
        self.local.set(local - surplus);
        if surplus > 0 {
            self.available.fetch_add(surplus, Relaxed);
        }
    }
}

/// One request's body: the client's end of it, and what is kept of what came so far.
pub(crate) struct Upload {
    /// `None` once it has ended or was given up.
    incoming: Option<Incoming>,
    hint: SizeHint,
    pieces: Vec<Piece>,
    /// The bytes of the body in `pieces`.
    kept_bytes: usize,
    kept_bytes_max: usize,
    /// What `pieces` takes from the budget.
    cost_bytes: usize,
    budget: Rc<Budget>,
    /// All that came so far is in `pieces`.
    replayable: bool,
    /// The client cut it short.
    broken: bool,
    touched: bool,
    client: Rc<Client>,
    /// Not kept from its end by a body that nobody waits for.
    record: Weak<Record>,
}

/// A shared [`Upload`]: one end with the request, one with the attempt that sends it.
pub(crate) type SharedUpload = Rc<RefCell<Upload>>;

enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Upload {
    pub(crate) fn new(
        incoming: Incoming,
        kept_bytes_max: usize,
        budget: Rc<Budget>,
        client: Rc<Client>,
        record: &Rc<Record>,
    ) -> SharedUpload {
        Rc::new(RefCell::new(Self {
            hint: incoming.size_hint(),
            incoming: Some(incoming),
            pieces: Vec::new(),
            kept_bytes: 0,
            kept_bytes_max,
            cost_bytes: 0,
            budget,
            replayable: true,
            broken: false,
            touched: false,
            client,
            record: Rc::downgrade(record),
        }))
    }

    /// Whether another attempt can be given the whole body.
    pub(crate) fn is_replayable(&self) -> bool {
        self.replayable
    }

    /// Whether the client cut it short.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether all of it has come.
    pub(crate) fn has_ended(&self) -> bool {
        self.incoming.is_none() && !self.broken
    }

    /// Nothing more of it is wanted: reads the rest and throws it away, for a while. A body that the client holds
    /// back until it is asked for (`Expect: 100-continue`) is not asked for.
    pub(crate) fn linger(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        if self.touched {
            tokio::task::spawn_local(discard(incoming));
        }
    }

    fn keep(&mut self, piece: impl FnOnce() -> Piece, bytes: usize) {
        if !self.replayable {
            return;
        }
        let cost = bytes + PIECE_BYTES;
        if self.kept_bytes + bytes <= self.kept_bytes_max && self.budget.take(cost) {
            self.kept_bytes += bytes;
            self.cost_bytes += cost;
            self.pieces.push(piece());
        } else {
            self.replayable = false;
            self.pieces = Vec::new();
            self.budget.give(std::mem::take(&mut self.cost_bytes));
        }
    }

    /// The next frame from the client.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        self.touched = true;
        let frame = Pin::new(&mut *incoming).poll_frame(cx);
        self.client.owes.set(frame.is_pending());
        let frame = ready!(frame);
        let ended = frame.is_none() || incoming.is_end_stream();
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if let Some(record) = self.record.upgrade() {
                        record.received(data.len());
                    }
                    self.keep(|| Piece::Data(data.clone()), data.len());
                } else if let Some(trailers) = frame.trailers_ref() {
                    let bytes = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
                    self.keep(|| Piece::Trailers(trailers.clone()), bytes);
                }
            }
            Some(Err(_)) => {
                self.broken = true;
                self.incoming = None;
            }
            None => {}
        }
        if ended {
            self.incoming = None;
        }
        if self.client.phase() == Phase::Uploading {
            self.client.enter(if ended { Phase::Waiting } else { Phase::Uploading });
        }
        Poll::Ready(frame)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.budget.give(self.cost_bytes);
    }
}

/// Reads a body to its end, within bounds. Dropping what is left lets hyper close the connection.
pub(crate) async fn discard(mut incoming: Incoming) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = incoming.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > LINGER_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_FOR, reading).await;
}

/// The body of one attempt: what is kept, then what arrives.
pub(crate) struct RequestBody {
    upload: Option<SharedUpload>,
    position: usize,
}

impl RequestBody {
    /// The body of an attempt; `None` for a request without one.
    pub(crate) fn new(upload: Option<&SharedUpload>) -> Self {
        Self { upload: upload.cloned(), position: 0 }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(upload) = &this.upload else { return Poll::Ready(None) };
        let mut upload = upload.borrow_mut();
        if let Some(piece) = upload.pieces.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(match piece {
                Piece::Data(data) => Frame::data(data.clone()),
                Piece::Trailers(trailers) => Frame::trailers(trailers.clone()),
            })));
        }
        let frame = upload.poll_incoming(cx);
        this.position = upload.pieces.len();
        frame
    }

    fn is_end_stream(&self) -> bool {
        let ended = |upload: &SharedUpload| {
            let upload = upload.borrow();
            upload.has_ended() && self.position >= upload.pieces.len()
        };
        self.upload.as_ref().is_none_or(ended)
    }

    fn size_hint(&self) -> SizeHint {
        // hyper asks before the first frame, and only for the whole length.
        self.upload.as_ref().map_or(SizeHint::with_exact(0), |upload| upload.borrow().hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let available = Arc::new(AtomicUsize::new(1 << 20));
        let (one, two) = (Budget::new(Arc::clone(&available)), Budget::new(Arc::clone(&available)));
        assert!(one.take(700 << 10));
        assert!(two.take(100 << 10));
        assert!(!two.take(300 << 10), "no more than there is");
        one.give(700 << 10);
        assert!(two.take(300 << 10));
        two.give(400 << 10);
        let left = available.load(Relaxed) + one.local.get() + two.local.get();
        assert_eq!(left, 1 << 20, "nothing is lost");
    }
}
