//! A network that fails, and writers who meet, of blobs on a store that outlives it: a blob is there whole or not at all, nothing is
//! done twice, nothing hangs, and all goes on without a restart when the server is back.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use lethe_state::{
    blobs::{Blobs, Condition, Put},
    error::Error,
};

use crate::{
    calls::{LARGE, body, ends, halting, pieces, read, recovery, when, whole},
    proxy::{Proxy, Weather},
};

/// A folder of a store that nothing else uses.
pub struct At {
    /// Where the server is.
    pub port: u16,
    pub folder: String,
    /// Opens a folder by a way to the server, with more options in the URL.
    pub open: fn(port: u16, folder: &str, options: &str) -> Arc<dyn Blobs>,
}

impl At {
    pub fn direct(&self, options: &str) -> Arc<dyn Blobs> {
        self.by(self.port, options)
    }

    fn by(&self, port: u16, options: &str) -> Arc<dyn Blobs> {
        (self.open)(port, &self.folder, options)
    }
}

/// Conditions hold for blobs in several parts, too, at the moment at which they appear.
pub async fn a_large_blob_has_conditions(at: At) {
    let blobs = at.direct("&part_mib=5");
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

/// An upload that ends with an error, or whose caller leaves, leaves no blob, and the one that was there as it was.
pub async fn an_upload_that_is_given_up_leaves_nothing(at: At) {
    let blobs = at.direct("&part_mib=5");
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
pub async fn a_lost_answer_is_not_noticed(at: At) {
    let proxy = Proxy::start(at.port).await;
    let blobs = at.by(proxy.port, "&part_mib=5");
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
    // The last answer of an upload is that which completes it, or one beside it: either may get lost.
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
pub async fn a_download_outlives_a_cut(at: At) {
    let proxy = Proxy::start(at.port).await;
    let (direct, through) = (at.direct("&part_mib=5"), at.by(proxy.port, "&part_mib=5"));
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
pub async fn away_is_not_absent(at: At) {
    let proxy = Proxy::start(at.port).await;
    let blobs = at.by(proxy.port, "&response_timeout_ms=200&connect_timeout_ms=200");
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
