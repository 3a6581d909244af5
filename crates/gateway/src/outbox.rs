//! Bytes on their way out: heads and framing that were made here, written together with the data that belongs behind
//! them in one system call.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

/// What is to be written before anything else.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// To append to.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    /// Gives memory beyond `bytes` back, if it is empty.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if self.is_empty() {
            self.clear();
            if self.bytes.capacity() > bytes {
                self.bytes = Vec::new();
            }
        }
    }

    /// Writes what is here and then `data`: how many bytes of `data` were taken. Ready once at least one was, or `data` is
    /// empty and so is the box. `wrote` is told how many bytes each system call took.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
        data: &[u8],
        mut wrote: impl FnMut(usize),
    ) -> Poll<io::Result<usize>> {
        loop {
            let first = &self.bytes[self.sent..];
            let count = match (first.is_empty(), data.is_empty()) {
                (true, true) => return Poll::Ready(Ok(0)),
                (true, false) => ready!(Pin::new(&mut *io).poll_write(cx, data))?,
                (false, true) => ready!(Pin::new(&mut *io).poll_write(cx, first))?,
                (false, false) => {
                    let both = [IoSlice::new(first), IoSlice::new(data)];
                    ready!(Pin::new(&mut *io).poll_write_vectored(cx, &both))?
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            wrote(count);
            let of_first = count.min(first.len());
            self.sent += of_first;
            if self.is_empty() {
                self.clear();
            }
            if count > of_first {
                return Poll::Ready(Ok(count - of_first));
            }
        }
    }
}
