//! What an object store refuses is told as its refusal.

use std::error::Error as _;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lethe_state::{
    blobs::{Blobs, ByteStream, Condition, Put},
    error::Error,
    s3::Refusal,
};

/// A body of one piece.
pub fn one(text: &'static str) -> ByteStream {
    stream::iter([Ok(Bytes::from_static(text.as_bytes()))]).boxed()
}

/// What each operation is refused with.
pub async fn refusals(blobs: &dyn Blobs) -> Vec<String> {
    let large = stream::iter((0..7).map(|_| Ok(Bytes::from_static(&[7; 1 << 20])))).boxed();
    let results = [
        blobs.head("b", "k").await.map(drop),
        blobs.get("b", "k", None).await.map(drop),
        blobs.list("b", "", None, 0).await.map(drop),
        blobs.put("b", "k", one("x"), Put::default()).await.map(drop),
        blobs.put("b", "k", one("x"), Put { condition: Condition::Absent, ..Put::default() }).await.map(drop),
        blobs.put("b", "k", large, Put::default()).await.map(drop),
        blobs.delete("b", "k", Condition::Any, None).await.map(drop),
    ];
    let told = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        let source = error.source().unwrap_or_else(|| panic!("not refused: {error:?}"));
        assert!(source.is::<Refusal>(), "{source:?}");
        source.to_string()
    };
    results.into_iter().map(told).collect()
}
