//! The contract of [`Blobs`].

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Fixture;
use crate::{
    blobs::{
        BUCKET_NAME_BYTES_MAX, Blob, BlobInfo, Blobs, ByteRange, ByteStream, Condition, KEY_BYTES_MAX,
        KEY_BYTES_SURE, Put,
    },
    error::Error,
};

mod concurrent;
mod fences;
mod lists;

pub use concurrent::*;
pub use fences::*;
pub use lists::*;

/// Makes a test of each case of [`crate::contract::blobs`].
#[macro_export]
macro_rules! contract_blobs {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            blobs,
            [
                a_blob_is_what_was_put,
                large_blobs_are_streamed,
                blobs_have_keys_of_every_kind,
                blob_names_out_of_bounds_are_refused,
                buckets_are_apart,
                etags_are_equal_exactly_when_the_bytes_are,
                ranges_are_read,
                puts_have_conditions,
                deletes_have_conditions,
                a_put_has_a_limit,
                a_cut_stream_leaves_the_blob_as_it_was,
                a_cancelled_put_leaves_the_blob_as_it_was,
                blobs_are_modified_later,
                lists_are_in_the_order_of_bytes,
                lists_have_pages,
                lists_stay_within_their_prefix,
                an_older_token_changes_no_blob,
                a_put_without_a_token_keeps_the_fence,
                an_older_token_brings_no_blob_back,
                a_reader_sees_one_version,
                readers_and_writers_at_once,
                one_of_many_creations_wins,
            ]
        );
    };
}

/// Bytes that differ for each seed, and are not the same after any short period.
fn bytes(seed: u64, size: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(size);
    bytes.into()
}

/// A body in pieces of this size.
fn pieces(body: &Bytes, size: usize) -> ByteStream {
    let pieces: Vec<_> = (0..body.len())
        .step_by(size)
        .map(|start| Ok(body.slice(start..body.len().min(start + size))))
        .collect();
    stream::iter(pieces).boxed()
}

async fn put(blobs: &Arc<dyn Blobs>, key: &str, body: impl Into<Bytes>) -> BlobInfo {
    blobs.put("b", key, pieces(&body.into(), 64 << 10), Put::default()).await.unwrap()
}

async fn whole(blob: Blob) -> io::Result<Bytes> {
    let pieces: Vec<Bytes> = blob.body.try_collect().await?;
    Ok(pieces.concat().into())
}

async fn read(blobs: &Arc<dyn Blobs>, key: &str) -> Option<Bytes> {
    let blob = blobs.get("b", key, None).await.unwrap()?;
    Some(whole(blob).await.unwrap())
}

/// A blob is read as it was put, with its type; an absent one is none.
pub async fn a_blob_is_what_was_put(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    assert_eq!(blobs.head("b", "k").await.unwrap(), None);
    assert!(blobs.get("b", "k", None).await.unwrap().is_none());
    assert!(!blobs.delete("b", "k", Condition::Any, None).await.unwrap());

    let options = Put { content_type: "text/plain; charset=utf-8".into(), ..Put::default() };
    let info = blobs.put("b", "k", pieces(&"hello".into(), 2), options).await.unwrap();
    assert_eq!((info.key.as_str(), info.size), ("k", 5));
    assert_eq!(info.content_type, "text/plain; charset=utf-8");
    assert!(!info.etag.is_empty() && !info.etag.contains('"'), "{:?}", info.etag);
    assert_eq!(blobs.head("b", "k").await.unwrap().as_ref(), Some(&info));
    let blob = blobs.get("b", "k", None).await.unwrap().unwrap();
    assert_eq!((&blob.info, blob.range.clone()), (&info, 0..5));
    assert_eq!(whole(blob).await.unwrap(), "hello");

    let info = put(blobs, "k", "").await;
    assert_eq!((info.size, info.content_type.as_str()), (0, "application/octet-stream"));
    assert_eq!(read(blobs, "k").await.unwrap(), "");
    assert!(blobs.delete("b", "k", Condition::Any, None).await.unwrap());
    assert_eq!(blobs.head("b", "k").await.unwrap(), None);
    assert!(!blobs.delete("b", "k", Condition::Any, None).await.unwrap());

    for content_type in ["", "text/plain\r\nX: y", "é"] {
        let options = Put { content_type: content_type.into(), ..Put::default() };
        let refused = blobs.put("b", "k", pieces(&"x".into(), 1), options).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{content_type:?}: {refused:?}");
    }
}

/// Several MiB go in and come out, whatever the size of the pieces.
pub async fn large_blobs_are_streamed(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    for (size, piece) in [(5 << 20, 1 << 20), ((3 << 20) + 17, 8191), (70_000, 7), (256 << 10, 64 << 10)] {
        let body = bytes(size as u64, size);
        let info = blobs.put("b", "large", pieces(&body, piece), Put::default()).await.unwrap();
        assert_eq!(info.size, size as u64);
        assert!(read(blobs, "large").await.unwrap() == body, "{size} bytes in pieces of {piece}");
    }
}

/// Keys with every kind of character are told apart, read, listed and deleted.
pub async fn blobs_have_keys_of_every_kind(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let mut keys = Vec::new();
    for key in super::odd_keys() {
        let body = pieces(&key.clone().into_bytes().into(), 64 << 10);
        match blobs.put("b", &key, body, Put::default()).await {
            // Not every engine has room for each.
            Err(Error::TooLarge { .. }) if key.len() > KEY_BYTES_SURE => continue,
            put => assert_eq!(put.unwrap().key, key),
        }
        keys.push(key);
    }
    for key in &keys {
        assert_eq!(read(blobs, key).await.as_deref(), Some(key.as_bytes()), "{key:?}");
        assert_eq!(blobs.head("b", key).await.unwrap().map(|info| info.key), Some(key.clone()));
    }
    keys.sort();
    let listed = blobs.list("b", "", None, 0).await.unwrap();
    assert_eq!(listed.blobs.into_iter().map(|info| info.key).collect::<Vec<_>>(), keys);
    for key in &keys {
        assert!(blobs.delete("b", key, Condition::Any, None).await.unwrap(), "{key:?}");
    }
}

/// Names and keys that break the rules are refused by every method.
pub async fn blob_names_out_of_bounds_are_refused(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let body = || pieces(&"x".into(), 1);
    let long_name = "n".repeat(BUCKET_NAME_BYTES_MAX + 1);
    for bucket in ["", "B", "a/b", "..", "a b", "é", &long_name] {
        let put = blobs.put(bucket, "k", body(), Put::default()).await;
        assert!(matches!(put, Err(Error::Invalid(_))), "put {bucket:?}: {put:?}");
        assert!(matches!(blobs.get(bucket, "k", None).await, Err(Error::Invalid(_))), "get {bucket:?}");
        assert!(matches!(blobs.list(bucket, "", None, 0).await, Err(Error::Invalid(_))), "list {bucket:?}");
        let deleted = blobs.delete(bucket, "k", Condition::Any, None).await;
        assert!(matches!(deleted, Err(Error::Invalid(_))), "delete {bucket:?}: {deleted:?}");
    }
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    for key in ["", "a\0b", &long_key] {
        let refused = |error: &Error| matches!(error, Error::Invalid(_) | Error::TooLarge { .. });
        assert!(blobs.put("b", key, body(), Put::default()).await.is_err_and(|error| refused(&error)));
        assert!(blobs.head("b", key).await.is_err_and(|error| refused(&error)));
        assert!(blobs.get("b", key, None).await.is_err_and(|error| refused(&error)));
        assert!(blobs.delete("b", key, Condition::Any, None).await.is_err_and(|error| refused(&error)));
    }
}

/// The same key in two buckets is two blobs.
pub async fn buckets_are_apart(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    for bucket in ["a", "b", "a-b"] {
        blobs.put(bucket, "k", pieces(&bucket.into(), 1), Put::default()).await.unwrap();
    }
    for bucket in ["a", "b", "a-b"] {
        let blob = blobs.get(bucket, "k", None).await.unwrap().unwrap();
        assert_eq!(whole(blob).await.unwrap(), bucket);
        assert_eq!(blobs.list(bucket, "", None, 0).await.unwrap().blobs.len(), 1);
    }
    assert!(blobs.delete("a", "k", Condition::Any, None).await.unwrap());
    assert!(blobs.head("b", "k").await.unwrap().is_some());
}

/// A strong entity tag.
pub async fn etags_are_equal_exactly_when_the_bytes_are(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let body = bytes(1, 100_000);
    let first = blobs.put("b", "first", pieces(&body, 999), Put::default()).await.unwrap();
    let second = blobs.put("b", "second", pieces(&body, 70_000), Put::default()).await.unwrap();
    assert_eq!(first.etag, second.etag);
    let mut other = body.to_vec();
    other[99_999] ^= 1;
    assert_ne!(put(blobs, "first", other).await.etag, first.etag);
    assert_eq!(put(blobs, "first", body).await.etag, first.etag);
}

/// Ranges are those of RFC 9110; what begins past the end is refused.
pub async fn ranges_are_read(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let size = 200_000_u64;
    let body = bytes(2, size as usize);
    let info = put(blobs, "k", body.clone()).await;
    let cases = [
        (ByteRange::From(0), 0..size),
        (ByteRange::From(size - 1), size - 1..size),
        (ByteRange::From(70_000), 70_000..size),
        (ByteRange::Inclusive(0, 0), 0..1),
        (ByteRange::Inclusive(65_535, 131_072), 65_535..131_073),
        (ByteRange::Inclusive(10, size), 10..size),
        (ByteRange::Inclusive(10, u64::MAX), 10..size),
        (ByteRange::Last(1), size - 1..size),
        (ByteRange::Last(size), 0..size),
        (ByteRange::Last(u64::MAX), 0..size),
    ];
    for (range, expected) in cases {
        let blob = blobs.get("b", "k", Some(range)).await.unwrap().unwrap();
        assert_eq!((&blob.info, &blob.range), (&info, &expected), "{range:?}");
        let slice = body.slice(expected.start as usize..expected.end as usize);
        assert!(whole(blob).await.unwrap() == slice, "{range:?}");
    }
    for range in [
        ByteRange::From(size),
        ByteRange::From(u64::MAX),
        ByteRange::Inclusive(size, size + 1),
        ByteRange::Last(0),
    ] {
        let result = blobs.get("b", "k", Some(range)).await;
        assert!(matches!(result, Err(Error::Invalid(_))), "{range:?}");
    }
    assert!(blobs.get("b", "absent", Some(ByteRange::From(0))).await.unwrap().is_none());
    put(blobs, "empty", "").await;
    assert!(matches!(blobs.get("b", "empty", Some(ByteRange::From(0))).await, Err(Error::Invalid(_))));
}

fn when(condition: Condition) -> Put {
    Put { condition, ..Put::default() }
}

/// A put is done only if its condition holds, and leaves the blob as it was otherwise.
pub async fn puts_have_conditions(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let attempt = |key: &'static str, body: &'static str, condition| async move {
        blobs.put("b", key, pieces(&body.into(), 3), when(condition)).await
    };
    let absent = attempt("k", "zero", Condition::Etag("none".into())).await;
    assert!(
        matches!(&absent, Err(Error::Conflict { index: 0, key, found: None }) if key == "k"),
        "{absent:?}"
    );
    let first = attempt("k", "one", Condition::Absent).await.unwrap();
    for condition in [Condition::Absent, Condition::Etag("other".into())] {
        let refused = attempt("k", "lost", condition).await;
        assert!(matches!(&refused, Err(Error::Conflict { found: Some(_), .. })), "{refused:?}");
        assert_eq!(read(blobs, "k").await.unwrap(), "one");
    }
    let second = attempt("k", "two", Condition::Etag(first.etag.clone())).await.unwrap();
    let stale = attempt("k", "three", Condition::Etag(first.etag)).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "{stale:?}");
    assert_eq!(blobs.head("b", "k").await.unwrap(), Some(second));
}

/// A delete is done only if its condition holds.
pub async fn deletes_have_conditions(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let info = put(blobs, "k", "one").await;
    for condition in [Condition::Absent, Condition::Etag("other".into())] {
        let refused = blobs.delete("b", "k", condition, None).await;
        assert!(matches!(refused, Err(Error::Conflict { found: Some(_), .. })), "{refused:?}");
    }
    assert_eq!(read(blobs, "k").await.unwrap(), "one");
    assert!(blobs.delete("b", "k", Condition::Etag(info.etag.clone()), None).await.unwrap());
    let gone = blobs.delete("b", "k", Condition::Etag(info.etag), None).await;
    assert!(matches!(gone, Err(Error::Conflict { found: None, .. })), "{gone:?}");
}

/// A body over the put's limit is refused and leaves nothing.
pub async fn a_put_has_a_limit(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let limit = |bytes_max| Put { bytes_max, ..Put::default() };
    let body = bytes(3, 600_000);
    blobs.put("b", "k", pieces(&body, 50_000), limit(600_000)).await.unwrap();
    for size in [599_999, 100_000, 0] {
        for key in ["k", "new"] {
            let over = blobs.put("b", key, pieces(&body, 50_000), limit(size)).await;
            assert!(matches!(over, Err(Error::TooLarge { max, .. }) if max == size), "{size}: {over:?}");
        }
    }
    assert!(read(blobs, "k").await.unwrap() == body);
    assert_eq!(blobs.head("b", "new").await.unwrap(), None);
}

/// A body that ends with an error is no blob, and does not touch the one that was there.
pub async fn a_cut_stream_leaves_the_blob_as_it_was(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let old = put(blobs, "old", "kept").await;
    for good in [0, 1, 700_000] {
        for key in ["old", "new"] {
            let cut = stream::iter([Err(io::Error::other("cut"))]);
            let body = pieces(&bytes(4, good), 50_000).chain(cut).boxed();
            let result = blobs.put("b", key, body, Put::default()).await;
            assert!(matches!(result, Err(Error::Invalid(_))), "after {good} bytes: {result:?}");
        }
    }
    assert_eq!(blobs.head("b", "old").await.unwrap(), Some(old));
    assert_eq!(read(blobs, "old").await.unwrap(), "kept");
    assert_eq!(blobs.list("b", "", None, 0).await.unwrap().blobs.len(), 1);
}

/// A put whose caller leaves before the body's end is no blob.
pub async fn a_cancelled_put_leaves_the_blob_as_it_was(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    put(blobs, "k", "kept").await;
    let (sent, arrived) = tokio::sync::oneshot::channel();
    let body = pieces(&bytes(5, 700_000), 50_000).chain(stream::once(async move {
        // All of the body but its end has been taken; the end never comes.
        let _ = sent.send(());
        std::future::pending().await
    }));
    let task = tokio::spawn({
        let blobs = blobs.clone();
        async move { blobs.put("b", "k", body.boxed(), Put::default()).await }
    });
    arrived.await.unwrap();
    task.abort();
    assert!(task.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(read(blobs, "k").await.unwrap(), "kept");
    put(blobs, "k", "next").await;
    assert_eq!(read(blobs, "k").await.unwrap(), "next");
}

/// The time of the last write is known, by the engine's clock.
pub async fn blobs_are_modified_later(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let first = put(blobs, "k", "one").await;
    assert!(first.modified_at > 0);
    if !fixture.advance(std::time::Duration::from_secs(5)) {
        return;
    }
    let second = put(blobs, "k", "one").await;
    assert_eq!(second.modified_at, first.modified_at + 5000);
}
