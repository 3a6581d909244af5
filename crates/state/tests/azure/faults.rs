//! A network that fails, and writers who meet: a blob is there whole or not at all, nothing is done twice, nothing hangs, and all goes
//! on without a restart when the server is back.

use futures_util::{StreamExt, TryStreamExt, stream};
use lethe_state::{
    blobs::{Condition, Put},
    error::Error,
};

use crate::{
    azurite::{self, new_folder, shared},
    calls::{LARGE, body, ends, halting, pieces, read, recovery, when, whole},
    engine::engine,
    proxy::{Proxy, Weather},
};

/// Conditions hold for blobs in several parts, too, at the moment at which they appear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_has_conditions() {
    let blobs = engine(&new_folder("&part_mib=5")).engines().blobs;
    let first = ends(blobs.put("b", "k", pieces(&body(1, LARGE)), when(Condition::Absent))).await.unwrap();
    assert_eq!((first.size, blobs.head("b", "k").await.unwrap()), (LARGE as u64, Some(first.clone())));
    let refused = ends(blobs.put("b", "k", pieces(&body(2, LARGE)), when(Condition::Absent))).await;
    assert!(matches!(refused, Err(Error::Conflict { found: Some(_), .. })), "{refused:?}");
    let second =
        ends(blobs.put("b", "k", pieces(&body(2, LARGE)), when(Condition::Etag(first.etag.clone()))));
    let second = second.await.unwrap();
    let refused = ends(blobs.put("b", "k", pieces(&body(3, LARGE)), when(Condition::Etag(first.etag)))).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    assert!(read(&blobs, "k").await.unwrap() == body(2, LARGE));
    assert!(blobs.delete("b", "k", Condition::Etag(second.etag), None).await.unwrap());
}

/// Who writes a blob throws away the blocks of an upload to it. The upload fails then, and what was written stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_overtaken_fails() {
    let engine = engine(&new_folder("&part_mib=5"));
    let blobs = engine.engines().blobs;
    for condition in [Condition::Any, Condition::Absent] {
        let (large, is_near, go_on) = halting(&body(1, LARGE), LARGE);
        let upload = tokio::spawn({
            let (blobs, put) = (blobs.clone(), when(condition.clone()));
            async move { ends(blobs.put("b", "k", large, put)).await }
        });
        is_near.await.unwrap();
        blobs.put("b", "k", pieces(&body(2, LARGE)), Put::default()).await.unwrap();
        go_on.send(()).unwrap();
        let failed = upload.await.unwrap().unwrap_err();
        match condition {
            Condition::Absent => assert!(matches!(failed, Error::Conflict { .. }), "{failed:?}"),
            _ => assert!(
                matches!(&failed, Error::Unavailable(text) if text.contains("written by others")),
                "{failed:?}"
            ),
        }
        assert!(read(&blobs, "k").await.unwrap() == body(2, LARGE));
        assert!(blobs.delete("b", "k", Condition::Any, None).await.unwrap());
    }
}

/// An upload that ends with an error, or whose caller leaves, leaves no blob, and the one that was there as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let blobs = engine(&new_folder("&part_mib=5")).engines().blobs;
    blobs.put("b", "old", pieces(&"old".into()), Put::default()).await.unwrap();
    for key in ["old", "new"] {
        let cut = pieces(&body(1, LARGE)).chain(stream::iter([Err(std::io::Error::other("cut"))]));
        let refused = ends(blobs.put("b", key, cut.boxed(), Put::default())).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        let (large, is_near, _go_on) = halting(&body(1, LARGE), LARGE);
        let put = tokio::spawn({
            let blobs = blobs.clone();
            async move { blobs.put("b", key, large, Put::default()).await }
        });
        is_near.await.unwrap();
        put.abort();
        assert!(put.await.unwrap_err().is_cancelled());
    }
    assert_eq!(read(&blobs, "old").await.unwrap(), "old");
    assert_eq!(blobs.head("b", "new").await.unwrap(), None);
    assert_eq!(blobs.list("b", "", None, 0).await.unwrap().blobs.len(), 1);
}

/// Of a write whose answer is lost, the engine finds out by itself that it was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_not_noticed() {
    let proxy = Proxy::start(shared().port).await;
    let engine = engine(&azurite::url(proxy.port, &shared().folder(), "&part_mib=5"));
    let blobs = engine.engines().blobs;
    let lose = || proxy.set(Weather::LosesAnAnswer);
    let was_lost = || assert_eq!(proxy.weather(), Weather::Fair, "no answer was lost");
    // So that the server's conditions have been tried.
    blobs.put("b", "other", pieces(&"x".into()), when(Condition::Absent)).await.unwrap();
    lose();
    let first = ends(blobs.put("b", "k", pieces(&"one".into()), when(Condition::Absent))).await.unwrap();
    was_lost();
    // Somebody else's put is not taken for one's own.
    lose();
    let refused = ends(blobs.put("b", "k", pieces(&"one".into()), when(Condition::Absent))).await;
    was_lost();
    assert!(matches!(refused, Err(Error::Conflict { found: Some(_), .. })), "{refused:?}");
    assert_eq!(blobs.head("b", "k").await.unwrap().unwrap(), first);
    lose();
    ends(blobs.put("b", "any", pieces(&"one".into()), Put::default())).await.unwrap();
    was_lost();
    assert_eq!(read(&blobs, "any").await.unwrap(), "one");
    for condition in [Condition::Any, Condition::Etag(first.etag)] {
        let key = if condition == Condition::Any { "any" } else { "k" };
        lose();
        assert!(ends(blobs.delete("b", key, condition, None)).await.unwrap());
        was_lost();
        assert_eq!(blobs.head("b", key).await.unwrap(), None);
    }
    // The last answer of an upload is that to its list of blocks, or to the question before it: either may get lost.
    for key in ["large", "larger"] {
        let (large, is_near, go_on) = halting(&body(1, LARGE), LARGE);
        let put = tokio::spawn({
            let blobs = blobs.clone();
            async move { ends(blobs.put("b", key, large, Put::default())).await }
        });
        is_near.await.unwrap();
        lose();
        go_on.send(()).unwrap();
        let info = put.await.unwrap().unwrap();
        was_lost();
        assert_eq!(blobs.head("b", key).await.unwrap().unwrap(), info);
        assert!(read(&blobs, key).await.unwrap() == body(1, LARGE));
    }
}

/// A download goes on where it was cut, as long as it is the same blob.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_outlives_a_cut() {
    let proxy = Proxy::start(shared().port).await;
    let folder = shared().folder();
    let direct = engine(&azurite::url(shared().port, &folder, "&part_mib=5")).engines().blobs;
    let through = engine(&azurite::url(proxy.port, &folder, "&part_mib=5")).engines().blobs;
    let expected = body(1, LARGE);
    direct.put("b", "k", pieces(&expected), Put::default()).await.unwrap();
    let mut blob = ends(through.get("b", "k", None)).await.unwrap().unwrap();
    let mut found = ends(blob.body.next()).await.unwrap().unwrap().to_vec();
    for _ in 0..3 {
        proxy.cut().await;
        found.extend_from_slice(&ends(blob.body.next()).await.unwrap().unwrap());
    }
    found.extend_from_slice(&ends(blob.body.try_collect::<Vec<_>>()).await.unwrap().concat());
    assert!(found == expected);

    let mut blob = ends(through.get("b", "k", None)).await.unwrap().unwrap();
    ends(blob.body.next()).await.unwrap().unwrap();
    direct.put("b", "k", pieces(&"other".into()), Put::default()).await.unwrap();
    proxy.cut().await;
    let Err(error) = ends(whole(blob)).await else { panic!("another blob was taken for it") };
    assert!(error.to_string().contains("overwritten or deleted"), "{error}");
}

/// A network that is cut, or silent, is a failure until it is mended, and what cannot be asked for is not said to be absent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_is_not_absent() {
    let proxy = Proxy::start(shared().port).await;
    let url = azurite::url(proxy.port, &shared().folder(), "&response_timeout_ms=200&connect_timeout_ms=200");
    let blobs = engine(&url).engines().blobs;
    recovery(&blobs).await;
    for weather in [Weather::Cut, Weather::Still] {
        proxy.set(weather);
        for result in [
            ends(blobs.head("b", "k")).await.map(drop),
            ends(blobs.get("b", "k", None)).await.map(drop),
            ends(blobs.list("b", "", None, 0)).await.map(drop),
            ends(blobs.put("b", "k", pieces(&"two".into()), Put::default())).await.map(drop),
            ends(blobs.delete("b", "k", Condition::Any, None)).await.map(drop),
        ] {
            assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
        }
        proxy.set(Weather::Fair);
        recovery(&blobs).await;
    }
}
