//! A client that a test plays by hand: what it sends is laid out before, and what it gets is thrown away.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
};

use super::{Answer, Broken, Downstream, Piece};

/// The pieces of its request's body that are still to come; after the last one it says nothing more.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) pieces: VecDeque<Vec<u8>>,
}

impl Client {
    pub(crate) fn sends<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self { pieces: pieces.into_iter().map(<[u8]>::to_vec).collect() }
    }
}

impl Downstream for Client {
    fn poll_body(
        &mut self,
        _: &mut Context<'_>,
        into: &mut Vec<u8>,
        room: usize,
    ) -> Poll<Result<Piece, Broken>> {
        let Some(piece) = self.pieces.pop_front() else { return Poll::Pending };
        assert!(piece.len() <= room, "no more than there is room for");
        into.extend_from_slice(&piece);
        Poll::Ready(Ok(Piece::Data(piece.len())))
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn inform(&mut self, _: u16, _: &mut dyn Iterator<Item = (&[u8], &[u8])>) {}

    fn respond(&mut self, _: Answer<'_, '_>) {}

    fn poll_write(&mut self, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn cut(&mut self) {}

    fn tunnel(&mut self) {}
}
