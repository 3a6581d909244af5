//! The socket under an HTTP/2 connection, and what passes through it: how many frames that carry nothing a client sends,
//! whether a header block is left half-sent, whether the client still reads. The protocol's own state is the `h2` crate's;
//! here is what it does not bound.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant},
};

use super::{
    frame::{Head, Kind, Part, Parts},
    trailers::Trailers,
};

/// Frames that carry nothing (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, unknown ones) that a client may send at once.
const IDLE_FRAMES_BURST: u32 = 4096;
/// And for each second that passes.
const IDLE_FRAMES_PER_SECOND: u32 = 256;
/// And for each so many bytes that it is sent: whoever takes a large response says so in many window updates.
const BYTES_PER_IDLE_FRAME: usize = 1024;
/// And for each frame of a response that it is sent, however small: gRPC clients answer each with a PING, by which they
/// measure the way, and with window updates. Answers to what carries nothing earn nothing.
const IDLE_FRAMES_PER_ANSWER: u32 = 8;
/// A SETTINGS frame may touch every stream, so it counts as so many.
const SETTINGS_COST: u32 = 16;
/// Requests that a client may take back (RST_STREAM; CVE-2023-44487), or make so that they are none, at once.
const RESETS_BURST: u32 = 512;
/// And for each second that passes. A client may have that many requests at once, and take all of them back when it has
/// waited for them for a second.
const RESETS_PER_SECOND: u32 = 128;
/// And for each response that it was sent to its end: of what it asks, a client may take half back.
const RESETS_PER_RESPONSE: u32 = 1;
/// A request that is refused without the engine takes this much of them, since its answer earns one.
const REFUSED_COST: u32 = 2;

/// What the socket saw.
pub(super) struct Pulse {
    frames: Bucket,
    resets: Bucket,
    /// What is written, taken apart.
    written: RefCell<Parts>,
    /// Why the client is to be told to calm down.
    excess: Cell<Option<&'static str>>,
    /// Since when a header block is begun and not ended.
    block_since: Cell<Option<Instant>>,
    /// Since when the kernel takes nothing more.
    blocked_since: Cell<Option<Instant>>,
    /// When the kernel last took something.
    written_at: Cell<Instant>,
    /// Bytes written that were not yet counted towards idle frames.
    uncredited: Cell<usize>,
    trailers: RefCell<Trailers>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            frames: Bucket::new(IDLE_FRAMES_BURST, IDLE_FRAMES_PER_SECOND, now),
            resets: Bucket::new(RESETS_BURST, RESETS_PER_SECOND, now),
            written: RefCell::new(Parts::new()),
            excess: Cell::new(None),
            block_since: Cell::new(None),
            blocked_since: Cell::new(None),
            written_at: Cell::new(now),
            uncredited: Cell::new(0),
            trailers: RefCell::default(),
        }
    }

    /// What the client did too much of, if anything.
    pub(super) fn excess(&self) -> Option<&'static str> {
        self.excess.get()
    }

    /// Since when a header block is begun and not ended.
    pub(super) fn block_since(&self) -> Option<Instant> {
        self.block_since.get()
    }

    /// Since when the client reads nothing although there is something for it.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since.get()
    }

    /// When the client last took something.
    pub(super) fn written_at(&self) -> Instant {
        self.written_at.get()
    }

    /// Whether the trailers of this stream's request are malformed. Tells once.
    pub(super) fn has_malformed_trailers(&self, stream: u32) -> bool {
        self.trailers.borrow_mut().take_malformed(stream)
    }

    /// A request was refused without the engine. It costs little, and so do those that are taken back.
    pub(super) fn refused(&self) {
        if !self.resets.take(REFUSED_COST, Instant::now) {
            self.excess.set(Some("more requests that are none than are allowed"));
        }
    }

    fn count(&self, head: Head) {
        let (bucket, cost, excess) = match head.kind {
            Kind::Data | Kind::Headers | Kind::Continuation | Kind::GoAway | Kind::PushPromise => return,
            Kind::Reset => (&self.resets, 1, "more requests taken back than is allowed"),
            Kind::Settings => (&self.frames, SETTINGS_COST, "more SETTINGS frames than are allowed"),
            Kind::Ping | Kind::Priority | Kind::WindowUpdate | Kind::Unknown => {
                (&self.frames, 1, "more frames that carry nothing than are allowed")
            }
        };
        if !bucket.take(cost, Instant::now) {
            self.excess.set(Some(excess));
        }
    }

    fn wrote(&self, bytes: &[u8]) {
        self.written.borrow_mut().feed(bytes, |part| {
            if let Part::Head(head) = part
                && matches!(head.kind, Kind::Data | Kind::Headers)
            {
                self.frames.add(IDLE_FRAMES_PER_ANSWER);
                if head.ends_stream() {
                    self.resets.add(RESETS_PER_RESPONSE);
                }
            }
        });
    }

    fn progressed(&self, bytes: usize) {
        self.blocked_since.set(None);
        let bytes = self.uncredited.get() + bytes;
        self.frames.add((bytes / BYTES_PER_IDLE_FRAME) as u32);
        self.uncredited.set(bytes % BYTES_PER_IDLE_FRAME);
        self.written_at.set(Instant::now());
    }

    fn blocked(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(Instant::now()));
        }
    }
}

/// So many at once and so many a second. The clock is only looked at when it is empty.
struct Bucket {
    level: Cell<u32>,
    max: u32,
    per_second: u32,
    filled_at: Cell<Instant>,
}

impl Bucket {
    fn new(max: u32, per_second: u32, now: Instant) -> Self {
        Self { level: Cell::new(max), max, per_second, filled_at: Cell::new(now) }
    }

    fn take(&self, cost: u32, now: impl FnOnce() -> Instant) -> bool {
        if self.level.get() < cost {
            self.refill(now());
        }
        let enough = self.level.get() >= cost;
        self.level.set(self.level.get().saturating_sub(cost));
        enough
    }

    fn refill(&self, now: Instant) {
        let earned =
            now.duration_since(self.filled_at.get()).as_millis() * u128::from(self.per_second) / 1000;
        if earned > 0 {
            self.filled_at.set(now);
            self.add(u32::try_from(earned).unwrap_or(u32::MAX));
        }
    }

    fn add(&self, more: u32) {
        self.level.set(self.level.get().saturating_add(more).min(self.max));
    }
}

/// A socket that is looked at as it is read and written.
pub(super) struct Guard<'a, S> {
    io: &'a mut S,
    pulse: &'a Pulse,
    parts: Parts,
    /// Something was read or written.
    has_begun: bool,
}

impl<'a, S> Guard<'a, S> {
    /// Around a socket of which nothing was read yet: the connection's preface comes first.
    pub(super) fn new(io: &'a mut S, pulse: &'a Pulse) -> Self {
        Self { io, pulse, parts: Parts::after_preface(), has_begun: false }
    }

    fn saw(&mut self, bytes: &[u8]) {
        let pulse = self.pulse;
        self.parts.feed(bytes, |part| match part {
            Part::Head(head) => {
                pulse.count(head);
                if head.is_of_block() {
                    pulse.trailers.borrow_mut().begin(head);
                }
            }
            Part::Payload(head, payload, left) if head.is_of_block() => {
                pulse.trailers.borrow_mut().payload(head, payload, left);
            }
            Part::Payload(..) => {}
        });
        let begun = self.parts.is_in_block();
        if !begun {
            pulse.block_since.set(None);
        } else if pulse.block_since.get().is_none() {
            pulse.block_since.set(Some(Instant::now()));
        }
    }

    fn wrote<'b>(
        &self,
        result: Poll<io::Result<usize>>,
        bufs: impl Iterator<Item = &'b [u8]>,
    ) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Pending => self.pulse.blocked(),
            Poll::Ready(Ok(bytes)) => {
                self.pulse.progressed(*bytes);
                let mut left = *bytes;
                for buf in bufs {
                    let taken = left.min(buf.len());
                    self.pulse.wrote(&buf[..taken]);
                    left -= taken;
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nothing more is read from a client that did too much; the connection's task looks after each round.
        if self.pulse.excess().is_some() {
            return Poll::Pending;
        }
        self.has_begun = true;
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.io).poll_read(cx, buf))?;
        self.saw(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.has_begun = true;
        let result = Pin::new(&mut *self.io).poll_write(cx, buf);
        self.wrote(result, std::iter::once(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut *self.io).poll_write_vectored(cx, bufs);
        self.wrote(result, bufs.iter().map(|buf| &**buf))
    }

    /// No, when the connection is made: then it lays frames of up to 1 KiB side by side and writes them together, while
    /// otherwise it would write each that is larger than a quarter of that by itself. From then on, as the socket has it, so
    /// that larger frames are written from where they lie.
    fn is_write_vectored(&self) -> bool {
        self.has_begun && self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

/// Reads and forgets what a client still sends after the last frame for it, for a short while, so that closing the
/// socket does not take that frame from it: the kernel answers unread bytes with a reset, which discards.
pub(super) async fn linger<S: AsyncRead + Unpin>(io: &mut S) {
    let mut buf = [0; 4096];
    let drained = async {
        let mut left = LINGER_BYTES_MAX;
        while let Ok(n) = tokio::io::AsyncReadExt::read(io, &mut buf).await
            && n > 0
            && left > n
        {
            left -= n;
        }
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// How long a closed connection is still read.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// And how much of it.
const LINGER_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_time_and_up_to_its_size() {
        let begin = Instant::now();
        let after = |millis| begin + Duration::from_millis(millis);
        let bucket = Bucket::new(3, 2, begin);
        assert!(bucket.take(3, || begin));
        assert!(!bucket.take(1, || after(400)));
        assert!(bucket.take(1, || after(600)));
        assert!(!bucket.take(1, || after(900)));
        assert!(bucket.take(3, || after(60_000)));
        assert!(!bucket.take(1, || after(60_000)));
    }

    #[test]
    fn window_updates_for_what_was_sent_are_free() {
        let pulse = Pulse::new();
        let begin = Instant::now();
        for _ in 0..10 * IDLE_FRAMES_BURST {
            pulse.frames.add(1);
            assert!(pulse.frames.take(1, || begin));
        }
        pulse.progressed(IDLE_FRAMES_BURST as usize * BYTES_PER_IDLE_FRAME);
        for _ in 0..IDLE_FRAMES_BURST {
            assert!(pulse.frames.take(1, || begin));
        }
        assert!(!pulse.frames.take(1, || begin));
    }
}
