//! Read buffers. A connection has one only while it holds bytes, so that an idle connection costs next to nothing; the
//! buffers themselves are kept by each core and used again.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// A buffer's first size: heads and small bodies fit.
const SMALL_BYTES: usize = 16 << 10;
/// What it grows to while large bodies pass: 64 KiB and a head.
pub(crate) const LARGE_BYTES: usize = 80 << 10;
/// The sizes that are kept, each with how many of it a core keeps; the largest is for what is held until it is whole.
const SIZES: [(usize, usize); 3] = [(SMALL_BYTES, 256), (LARGE_BYTES, 64), (272 << 10, 16)];

/// The buffers of one core that nobody uses.
#[derive(Default)]
pub(crate) struct Pool {
    shelves: RefCell<[Vec<Box<[u8]>>; SIZES.len()]>,
}

impl Pool {
    /// A buffer of at least so many bytes.
    fn take(&self, bytes: usize) -> Box<[u8]> {
        let Some(size) = SIZES.iter().position(|size| size.0 >= bytes) else { return vec![0; bytes].into() };
        let kept = self.shelves.borrow_mut()[size].pop();
        kept.unwrap_or_else(|| vec![0; SIZES[size].0].into())
    }

    fn give(&self, bytes: Box<[u8]>) {
        if let Some(size) = SIZES.iter().position(|size| size.0 == bytes.len()) {
            let shelf = &mut self.shelves.borrow_mut()[size];
            if shelf.len() < SIZES[size].1 {
                shelf.push(bytes);
            }
        }
    }
}

/// Bytes that were received and not used yet.
#[derive(Default)]
pub(crate) struct Buffer {
    /// Empty while there is nothing to hold.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read filled it to the brim: more is probably waiting.
    brimmed: bool,
}

impl Buffer {
    /// What it holds.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes were used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads more into it: how many bytes, none at the end of the stream. While it is pending an empty buffer takes no
    /// memory. One that is full grows, so that it holds `bytes_max`; whoever calls makes sure that it does not hold so
    /// much yet.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
        pool: &Pool,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        self.make_room(pool, bytes_max);
        let mut space = ReadBuf::new(&mut self.bytes[self.end..]);
        let room = space.remaining();
        let read = Pin::new(io).poll_read(cx, &mut space);
        let count = space.filled().len();
        if count == 0 && self.is_empty() {
            self.release(pool);
        }
        ready!(read)?;
        self.end += count;
        self.brimmed = count == room;
        Poll::Ready(Ok(count))
    }

    fn make_room(&mut self, pool: &Pool, bytes_max: usize) {
        if self.bytes.is_empty() {
            self.bytes = pool.take(if self.brimmed { bytes_max.min(LARGE_BYTES) } else { SMALL_BYTES });
        } else if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let is_full = self.end == self.bytes.len();
        if is_full || (self.brimmed && self.bytes.len() < bytes_max) {
            let mut larger = pool.take(bytes_max.max(self.end + 1));
            larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
            pool.give(std::mem::replace(&mut self.bytes, larger));
        }
    }

    /// Gives its memory back if it is empty.
    pub(crate) fn release(&mut self, pool: &Pool) {
        if self.is_empty() && !self.bytes.is_empty() {
            pool.give(std::mem::take(&mut self.bytes));
            (self.start, self.end) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn fill(buffer: &mut Buffer, mut from: &[u8], pool: &Pool) -> usize {
        match buffer.poll_fill(&mut Context::from_waker(Waker::noop()), &mut from, pool, 1 << 20) {
            Poll::Ready(Ok(count)) => count,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn holds_what_was_not_used() {
        let (mut buffer, pool) = (Buffer::default(), Pool::default());
        assert_eq!(fill(&mut buffer, b"abcdef", &pool), 6);
        buffer.consume(4);
        assert_eq!(fill(&mut buffer, b"gh", &pool), 2);
        assert_eq!(buffer.data(), b"efgh");
        buffer.consume(4);
        buffer.release(&pool);
        assert_eq!((buffer.bytes.len(), pool.shelves.borrow()[0].len()), (0, 1));
    }

    #[test]
    fn takes_no_memory_while_there_is_nothing() {
        let (mut buffer, pool) = (Buffer::default(), Pool::default());
        assert_eq!(fill(&mut buffer, b"", &pool), 0);
        assert_eq!(buffer.bytes.len(), 0);
    }

    #[test]
    fn grows_when_there_is_much() {
        let (mut buffer, pool) = (Buffer::default(), Pool::default());
        let much = vec![7; 200 << 10];
        let mut read = |bytes_max| {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(buffer.poll_fill(&mut cx, &mut &much[..], &pool, bytes_max).is_ready());
            buffer.data().len()
        };
        assert_eq!(read(LARGE_BYTES), SMALL_BYTES);
        assert_eq!(read(LARGE_BYTES), LARGE_BYTES);
        assert_eq!(read(100 << 10), SIZES[2].0);
    }
}
