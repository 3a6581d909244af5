//! What blobs promise when they are read and written at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::StreamExt;

use super::{Fixture, bytes, pieces, put, read, when, whole};
use crate::{blobs::Condition, error::Error};

/// Larger than any buffer on the way, so that a reader who has the first piece does not have them all.
const SIZE: usize = 6 << 20;

/// A reader who has begun reads the version it began with to its end, when the blob is overwritten or deleted
/// meanwhile.
pub async fn a_reader_sees_one_version(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let (old, new) = (bytes(1, SIZE), bytes(2, SIZE));
    put(blobs, "k", old.clone()).await;
    for end in [Some(new.clone()), None] {
        let expected = read(blobs, "k").await.unwrap();
        let mut reading = blobs.get("b", "k", None).await.unwrap().unwrap();
        let mut found = reading.body.next().await.unwrap().unwrap().to_vec();
        match end {
            Some(body) => {
                let info = put(blobs, "k", body).await;
                assert_ne!(info.etag, reading.info.etag);
            }
            None => assert!(blobs.delete("b", "k", Condition::Any, None).await.unwrap()),
        }
        while let Some(piece) = reading.body.next().await {
            found.extend_from_slice(&piece.unwrap());
        }
        assert!(found == expected, "the reader got something else than the version it began with");
    }
    assert_eq!(blobs.head("b", "k").await.unwrap(), None);
}

/// Readers of a blob that is overwritten all the time always get one whole version, the one that they are told of.
pub async fn readers_and_writers_at_once(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let size = 300_000;
    put(blobs, "k", bytes(0, size)).await;
    let writing = Arc::new(AtomicBool::new(true));
    let readers = (0..3).map(|_| {
        let (blobs, writing) = (blobs.clone(), writing.clone());
        tokio::spawn(async move {
            let mut reads = 0;
            while writing.load(Ordering::SeqCst) || reads == 0 {
                let blob = blobs.get("b", "k", None).await.unwrap().unwrap();
                let info = blob.info.clone();
                let body = whole(blob).await.unwrap();
                assert_eq!(body.len() as u64, info.size);
                // Put again under its own key, the same bytes have the same tag.
                if reads % 8 == 0 {
                    assert_eq!(put(&blobs, "copy", body).await.etag, info.etag);
                }
                reads += 1;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let writers = (0..3_u64).map(|writer| {
        let blobs = blobs.clone();
        tokio::spawn(async move {
            for round in 0..8 {
                put(&blobs, "k", bytes(1 + writer * 100 + round, size + round as usize)).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    writing.store(false, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}

/// Of many who create the same blob at once, one succeeds, and its bytes are there.
pub async fn one_of_many_creations_wins(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    let creations = (0..8_u64).map(|n| {
        let blobs = blobs.clone();
        tokio::spawn(async move {
            let body = bytes(n, 100_000);
            (n, blobs.put("b", "k", pieces(&body, 9_000), when(Condition::Absent)).await)
        })
    });
    let mut winners = Vec::new();
    for creation in creations.collect::<Vec<_>>() {
        match creation.await.unwrap() {
            (n, Ok(_)) => winners.push(n),
            (_, Err(Error::Conflict { .. })) => {}
            (_, Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert!(read(blobs, "k").await.unwrap() == bytes(winners[0], 100_000));
}
