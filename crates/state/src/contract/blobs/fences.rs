//! What fences of blobs promise: an earlier holder of a lock neither overwrites a later one's blob nor brings it back. An
//! engine that has no fences says so to whoever asks for one.

use std::{sync::Arc, time::Duration};

use super::{Fixture, pieces, put, read};
use crate::{
    blobs::{BlobInfo, Blobs, Condition, FENCE_KEPT, Put},
    error::Error,
    locks::{TOKEN_MAX, Token},
};

async fn put_under(blobs: &Arc<dyn Blobs>, token: Token, text: &'static str) -> Result<BlobInfo, Error> {
    let put = Put { fence: Some(token), ..Put::default() };
    blobs.put("b", "k", pieces(&text.into(), 3), put).await
}

async fn delete_under(blobs: &Arc<dyn Blobs>, token: Token) -> Result<bool, Error> {
    blobs.delete("b", "k", Condition::Any, Some(token)).await
}

fn is_fenced(result: Result<impl Sized, Error>, token: Token, newest: Token) -> bool {
    let expected = (0, "k".to_owned(), token, newest);
    matches!(result, Err(Error::Fenced { index, key, token, newest }) if (index, key.clone(), token, newest) == expected)
}

/// Whether the engine has fences; if not, it must say so.
async fn has_fences(blobs: &Arc<dyn Blobs>) -> bool {
    let tried =
        blobs.put("b", "tried", pieces(&"x".into(), 1), Put { fence: Some(1), ..Put::default() }).await;
    match tried {
        Ok(_) => true,
        Err(Error::Unsupported { .. }) => {
            assert_eq!(blobs.head("b", "tried").await.unwrap(), None);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// A blob takes the token that it has and newer ones, from puts and deletes alike.
pub async fn an_older_token_changes_no_blob(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    if !has_fences(blobs).await {
        return;
    }
    put(blobs, "k", "before").await;
    put_under(blobs, 5, "five").await.unwrap();
    put_under(blobs, 5, "five again").await.unwrap();
    put_under(blobs, 7, "seven").await.unwrap();
    assert!(is_fenced(put_under(blobs, 6, "six").await, 6, 7));
    assert!(is_fenced(delete_under(blobs, 6).await, 6, 7));
    assert_eq!(read(blobs, "k").await.unwrap(), "seven");
    // A fence is looked at before a condition: who has lost the lock is told that, and not to read again.
    let absent = Put { fence: Some(6), condition: Condition::Absent, ..Put::default() };
    assert!(is_fenced(blobs.put("b", "k", pieces(&"x".into(), 1), absent.clone()).await, 6, 7));
    // A condition that does not hold leaves the fence as it was.
    let refused = blobs.put("b", "k", pieces(&"x".into(), 1), Put { fence: Some(9), ..absent }).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })));
    put_under(blobs, 8, "eight").await.unwrap();
    assert!(delete_under(blobs, 8).await.unwrap());
    for token in [0, TOKEN_MAX + 1, Token::MAX] {
        assert!(matches!(put_under(blobs, token, "x").await, Err(Error::Invalid(_))), "{token}");
        assert!(matches!(delete_under(blobs, token).await, Err(Error::Invalid(_))), "{token}");
    }
    put_under(blobs, TOKEN_MAX, "last").await.unwrap();
}

/// A put without a token is not judged, and the blob keeps its fence.
pub async fn a_put_without_a_token_keeps_the_fence(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    if !has_fences(blobs).await {
        return;
    }
    put_under(blobs, 7, "seven").await.unwrap();
    put(blobs, "k", "by hand").await;
    assert!(is_fenced(put_under(blobs, 6, "six").await, 6, 7));
    assert!(blobs.delete("b", "k", Condition::Any, None).await.unwrap());
    put(blobs, "k", "by hand again").await;
    assert!(is_fenced(put_under(blobs, 6, "six").await, 6, 7));
    // What is written again by hand is fenced for as long as it is there.
    if fixture.advance(2 * FENCE_KEPT) {
        assert!(is_fenced(delete_under(blobs, 6).await, 6, 7));
    }
    assert_eq!(read(blobs, "k").await.unwrap(), "by hand again");
}

/// A deleted blob stays fenced for a while, also one that was not there to delete.
pub async fn an_older_token_brings_no_blob_back(fixture: Fixture) {
    let blobs = &fixture.engines.blobs;
    if !has_fences(blobs).await {
        return;
    }
    put_under(blobs, 5, "five").await.unwrap();
    assert!(delete_under(blobs, 7).await.unwrap());
    assert!(is_fenced(put_under(blobs, 6, "six").await, 6, 7));
    assert!(!delete_under(blobs, 8).await.unwrap());
    assert!(is_fenced(put_under(blobs, 7, "seven").await, 7, 8));
    assert_eq!(read(blobs, "k").await, None);
    if !fixture.advance(FENCE_KEPT - Duration::from_millis(1)) {
        return;
    }
    assert!(is_fenced(put_under(blobs, 7, "seven").await, 7, 8));
    fixture.advance(Duration::from_millis(1));
    put_under(blobs, 7, "seven").await.unwrap();
}
