//! Bodies, and calls that must end, of blobs on an object store.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lethe_state::{
    blobs::{Blob, Blobs, ByteStream, Condition, Put},
    error::Error,
};
use tokio::sync::oneshot;

/// No call may take so long: far more than its timeouts and retries together.
const NEVER: Duration = Duration::from_secs(60);
/// More than one part, in pieces.
pub const LARGE: usize = 13 << 20;
const PIECE: usize = 64 << 10;

/// Bytes that differ for each seed.
pub fn body(seed: usize, size: usize) -> Bytes {
    (0..size).map(|n| (n / 251 + n + seed) as u8).collect()
}

/// A body as a stream.
pub fn pieces(body: &Bytes) -> ByteStream {
    let pieces: Vec<_> = (0..body.len())
        .step_by(PIECE)
        .map(|start| Ok(body.slice(start..body.len().min(start + PIECE))))
        .collect();
    stream::iter(pieces).boxed()
}

/// A body that says when so much of it has been taken, and then waits for a word.
pub fn halting(body: &Bytes, at: usize) -> (ByteStream, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (told, is_there) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let (before, behind) = (pieces(&body.slice(..at)), pieces(&body.slice(at..)));
    let halt = stream::once(async move {
        told.send(()).unwrap();
        may_go_on.await.unwrap();
        Ok(Bytes::new())
    });
    (before.chain(halt).chain(behind).boxed(), is_there, go_on)
}

/// All of a blob.
pub async fn whole(blob: Blob) -> std::io::Result<Bytes> {
    Ok(blob.body.try_collect::<Vec<_>>().await?.concat().into())
}

/// All of the blob of this key, if there is one.
pub async fn read(blobs: &Arc<dyn Blobs>, key: &str) -> Option<Bytes> {
    Some(whole(ends(blobs.get("b", key, None)).await.unwrap()?).await.unwrap())
}

/// A put under a condition.
pub fn when(condition: Condition) -> Put {
    Put { condition, ..Put::default() }
}

/// Does what must end.
pub async fn ends<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(NEVER, call).await.expect("a call hangs")
}

/// Asks until the store answers again.
pub async fn recovery(blobs: &Arc<dyn Blobs>) {
    let answered = async {
        while let Err(error) = blobs.head("b", "k").await {
            assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    ends(answered).await;
}
