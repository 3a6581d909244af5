//! Streams as the engine wants them: owned, and with I/O errors.

use std::{io, pin::pin};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use lethe_state::blobs::ByteStream;
use tokio::sync::mpsc;

/// Pieces on their way from a borrowed stream to the engine.
const PIECES_MAX: usize = 4;

enum Piece {
    Bytes(io::Result<Bytes>),
    End,
}

/// An error of the source as one that ends the blob.
pub(super) fn readable<E>(piece: Result<Bytes, E>) -> io::Result<Bytes>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    piece.map_err(io::Error::other)
}

/// Splits a borrowed stream into a pump, to be awaited, and an owned stream of the same bytes. The end is said in
/// so many words: when the pump is dropped, the engine must see a blob cut short, not a whole one.
pub(super) fn owned<S, E>(stream: S) -> (impl Future<Output = ()> + Send, ByteStream)
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let pump = async move {
        let mut stream = pin!(stream.map(readable));
        while let Some(piece) = stream.next().await {
            if sender.send(Piece::Bytes(piece)).await.is_err() {
                return;
            }
        }
        // The engine may have had enough already.
        let _ = sender.send(Piece::End).await;
    };
    let body = stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Bytes(Ok(bytes))) => Some((Ok(bytes), Some(receiver))),
            Some(Piece::Bytes(Err(error))) => Some((Err(error), None)),
            Some(Piece::End) => None,
            None => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
        }
    });
    (pump, body.boxed())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_dropped_pump_is_a_blob_cut_short() {
        let pieces = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"a"))]).chain(stream::pending());
        let (pump, mut body) = owned(pieces);
        let mut pump = Box::pin(pump);
        assert!((&mut pump).now_or_never().is_none());
        assert_eq!(body.next().await.unwrap().unwrap(), "a");
        drop(pump);
        let error = body.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn all_pieces_arrive_and_then_the_end() {
        let text = b"disposable".map(|byte| Bytes::copy_from_slice(&[byte]));
        let pieces = stream::iter(text.clone().map(Ok::<_, io::Error>));
        let (pump, body) = owned(pieces);
        let ((), got) = futures_util::future::join(pump, body.map(Result::unwrap).collect::<Vec<_>>()).await;
        assert_eq!(got, text);
    }
}
