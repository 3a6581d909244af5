//! A server that is killed and a network that fails: a blob is there whole or not at all, nothing is left behind or done twice,
//! nothing hangs, and all goes on without a restart when the server is back.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lethe_state::{
    blobs::{BlobInfo, ByteRange, ByteStream, Condition, Put},
    error::Error,
    s3::S3,
};
use tokio::sync::oneshot;

use crate::{
    calls::{LARGE, body, ends, halting, pieces, read, recovery, when, whole},
    proxy::{Proxy, Weather},
    server::{self, Server},
    vault::Done,
};

/// Where a large body halts: when more than a part of it has been taken.
const HALF: usize = 8 << 20;

/// Waits until no part of an upload is left.
async fn until_nothing_is_left(server: &Server) {
    let gone = async {
        while server.vault.uploads().await != (0, 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    ends(gone).await;
}

/// A put in the background.
fn putting(
    engine: &S3,
    key: &'static str,
    body: ByteStream,
) -> tokio::task::JoinHandle<Result<BlobInfo, Error>> {
    let blobs = engine.engines().blobs;
    tokio::spawn(async move { ends(blobs.put("b", key, body, Put::default())).await })
}

/// A server that is killed in the middle of an upload and started again takes the rest of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_outlives_a_restart() {
    let mut server = Server::start().await;
    let engine = server.engine("&part_mib=5");
    let expected = body(0, LARGE);
    let (body, is_half, go_on) = halting(&expected, HALF);
    let put = putting(&engine, "k", body);
    is_half.await.unwrap();
    server.kill().await;
    server.restart().await;
    go_on.send(()).unwrap();
    let info = put.await.unwrap().unwrap();
    assert_eq!(info.size, LARGE as u64);
    let blobs = engine.engines().blobs;
    assert_eq!(blobs.head("b", "k").await.unwrap().unwrap(), info);
    assert!(read(&blobs, "k").await.unwrap() == expected);
    assert_eq!(server.vault.uploads().await, (0, 0));
}

/// A server that stays away fails the upload, which leaves the blob as it was; its parts are removed when the server is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_upload_leaves_nothing() {
    let mut server = Server::start().await;
    let engine = server.engine("&part_mib=5");
    let blobs = engine.engines().blobs;
    blobs.put("b", "k", pieces(&"old".into()), Put::default()).await.unwrap();
    let (body, is_half, go_on) = halting(&body(0, LARGE), HALF);
    let put = putting(&engine, "k", body);
    is_half.await.unwrap();
    let opened = async {
        while server.vault.uploads().await != (1, 1) {
            tokio::task::yield_now().await;
        }
    };
    ends(opened).await;
    server.kill().await;
    go_on.send(()).unwrap();
    let failed = put.await.unwrap().unwrap_err();
    let port = server.port.to_string();
    assert!(matches!(&failed, Error::Unavailable(text) if text.contains(&port)), "{failed:?}");
    assert_eq!(server.vault.uploads().await, (1, 1));
    server.restart().await;
    recovery(&blobs).await;
    assert_eq!(read(&blobs, "k").await.unwrap(), "old");
    until_nothing_is_left(&server).await;
}

/// An upload that ends with an error, or whose caller leaves, or that is over its limit, leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let server = Server::start().await;
    let engine = server.engine("&part_mib=5");
    let blobs = engine.engines().blobs;
    let cut = pieces(&body(0, LARGE)).chain(stream::iter([Err(std::io::Error::other("cut"))]));
    let refused = blobs.put("b", "k", cut.boxed(), Put::default()).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let limited = Put { bytes_max: 12 << 20, ..Put::default() };
    let refused = blobs.put("b", "k", pieces(&body(0, LARGE)), limited).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let (body, is_half, _go_on) = halting(&body(0, LARGE), HALF);
    let put = putting(&engine, "k", body);
    is_half.await.unwrap();
    put.abort();
    assert!(put.await.unwrap_err().is_cancelled());
    until_nothing_is_left(&server).await;
    assert_eq!(server.vault.names().await, [""; 0]);
}

/// Of a put whose answer is lost, the engine finds out by itself that it was done, with a condition, too.
#[tokio::test]
async fn a_lost_answer_is_not_noticed() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port).await;
    let engine = S3::open(&server::url(proxy.port, "&part_mib=5")).unwrap();
    let blobs = engine.engines().blobs;
    let lose = || proxy.set(Weather::LosesAnAnswer);
    let was_lost = || assert_eq!(proxy.weather(), Weather::Fair, "no answer was lost");
    // So that the server's conditions have been tried.
    blobs.put("b", "other", pieces(&"x".into()), when(Condition::Absent)).await.unwrap();
    lose();
    let first = ends(blobs.put("b", "k", pieces(&"one".into()), when(Condition::Absent))).await.unwrap();
    was_lost();
    // The next one sees the first before its own request, whose answer is lost.
    let (body, sent) = last_piece_tells("two", &proxy);
    let second = ends(blobs.put("b", "k", body, when(Condition::Etag(first.etag.clone())))).await.unwrap();
    sent.await.unwrap();
    assert_ne!(second.etag, first.etag);
    assert_eq!(read(&blobs, "k").await.unwrap(), "two");
    // Somebody else's put is not taken for one's own.
    lose();
    let refused = ends(blobs.put("b", "k", pieces(&"two".into()), when(Condition::Absent))).await;
    was_lost();
    assert!(matches!(refused, Err(Error::Conflict { found: Some(_), .. })), "{refused:?}");
    assert_eq!(blobs.head("b", "k").await.unwrap().unwrap(), second);
    lose();
    ends(blobs.put("b", "any", pieces(&"one".into()), Put::default())).await.unwrap();
    was_lost();
    assert_eq!(read(&blobs, "any").await.unwrap(), "one");
    lose();
    assert!(ends(blobs.delete("b", "k", Condition::Any, None)).await.unwrap());
    was_lost();
    assert_eq!(blobs.head("b", "k").await.unwrap(), None);
    // Neither is that a delete has not come through at all.
    for condition in [Condition::Any, Condition::Etag(blobs.head("b", "any").await.unwrap().unwrap().etag)] {
        blobs.put("b", "any", pieces(&"one".into()), Put::default()).await.unwrap();
        let weather = proxy.handle();
        server.vault.when(Done::Looked, move || _ = weather.send_replace(Weather::LosesAQuestion)).await;
        assert!(ends(blobs.delete("b", "any", condition, None)).await.unwrap());
        was_lost();
        assert_eq!(blobs.head("b", "any").await.unwrap(), None);
    }
}

/// A write without a condition whose answer is lost is not sent again over what somebody else has written since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_undoes_nothing() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port).await;
    let through = S3::open(&server::url(proxy.port, "")).unwrap();
    let direct = server.engine("").engines().blobs;
    for is_delete in [false, true] {
        direct.put("b", "k", pieces(&"old".into()), Put::default()).await.unwrap();
        let (told, is_done) = oneshot::channel();
        let weather = proxy.handle();
        let hold_the_answer = move || {
            weather.send_replace(Weather::Still);
            told.send(()).unwrap();
        };
        server.vault.when(Done::Written, hold_the_answer).await;
        let blobs = through.engines().blobs;
        let write = tokio::spawn(async move {
            match is_delete {
                true => ends(blobs.delete("b", "k", Condition::Any, None)).await.map(drop),
                false => ends(blobs.put("b", "k", pieces(&"first".into()), Put::default())).await.map(drop),
            }
        });
        ends(is_done).await.unwrap();
        direct.put("b", "k", pieces(&"second".into()), Put::default()).await.unwrap();
        proxy.set(Weather::LosesAnAnswer);
        let said = write.await.unwrap();
        assert!(
            matches!(&said, Err(Error::Unavailable(text)) if text.ends_with("the write may have been done")),
            "{said:?}"
        );
        assert_eq!(read(&direct, "k").await.unwrap(), "second", "deleted: {is_delete}");
    }
}

/// A body after which an answer is lost: that to the question what is there, or that to the put.
fn last_piece_tells(text: &'static str, proxy: &Proxy) -> (ByteStream, oneshot::Receiver<()>) {
    let (told, sent) = oneshot::channel();
    let weather = proxy.handle();
    let last = stream::once(async move {
        weather.send_replace(Weather::LosesAnAnswer);
        told.send(()).unwrap();
        Ok(Bytes::new())
    });
    (pieces(&text.into()).chain(last).boxed(), sent)
}

/// The same of an upload that was completed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_completion_is_not_noticed() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port).await;
    let engine = S3::open(&server::url(proxy.port, "&part_mib=5")).unwrap();
    let blobs = engine.engines().blobs;
    let mut etag = None;
    for condition in [Condition::Any, Condition::Absent, Condition::Any] {
        let weather = proxy.handle();
        server.vault.when(Done::Completed, move || _ = weather.send_replace(Weather::LosesAnAnswer)).await;
        let condition = etag.take().map_or(condition, Condition::Etag);
        let key = if condition == Condition::Any { "any" } else { "k" };
        let info = ends(blobs.put("b", key, pieces(&body(0, LARGE)), when(condition))).await.unwrap();
        assert_eq!(proxy.weather(), Weather::Fair, "no answer was lost");
        assert_eq!(blobs.head("b", key).await.unwrap().unwrap(), info);
        etag = (key == "k").then_some(info.etag);
    }
    let refused = ends(blobs.put("b", "k", pieces(&body(0, LARGE)), when(Condition::Absent))).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    until_nothing_is_left(&server).await;
}

/// A download goes on where it was cut, as long as it is the same blob.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_outlives_a_cut() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port).await;
    let direct = server.engine("&part_mib=5").engines().blobs;
    let through = S3::open(&server::url(proxy.port, "&part_mib=5")).unwrap().engines().blobs;
    let expected = body(0, LARGE);
    direct.put("b", "k", pieces(&expected), Put::default()).await.unwrap();
    for range in [None, Some(ByteRange::From(1000))] {
        let mut blob = through.get("b", "k", range).await.unwrap().unwrap();
        let mut found = ends(blob.body.next()).await.unwrap().unwrap().to_vec();
        for _ in 0..3 {
            proxy.cut().await;
            found.extend_from_slice(&ends(blob.body.next()).await.unwrap().unwrap());
        }
        found.extend_from_slice(&ends(blob.body.try_collect::<Vec<_>>()).await.unwrap().concat());
        assert!(found == expected[range.map_or(0, |_| 1000)..]);
    }
    for is_deleted in [false, true] {
        direct.put("b", "k", pieces(&expected), Put::default()).await.unwrap();
        let mut blob = through.get("b", "k", None).await.unwrap().unwrap();
        ends(blob.body.next()).await.unwrap().unwrap();
        if is_deleted {
            direct.delete("b", "k", Condition::Any, None).await.unwrap();
        } else {
            direct.put("b", "k", pieces(&"other".into()), Put::default()).await.unwrap();
        }
        proxy.cut().await;
        let Err(error) = ends(whole(blob)).await else { panic!("another blob was taken for it") };
        assert!(error.to_string().contains("overwritten or deleted"), "{error}");
    }
}

/// A server that takes requests and says nothing is given up, then left alone, then found again.
#[tokio::test]
async fn a_silent_server_is_given_up() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port).await;
    let engine = S3::open(&server::url(proxy.port, "&response_timeout_ms=50&connect_timeout_ms=50")).unwrap();
    let blobs = engine.engines().blobs;
    let patient = S3::open(&server::url(proxy.port, "")).unwrap().engines().blobs;
    patient.put("b", "k", pieces(&"one".into()), Put::default()).await.unwrap();
    let mut reading = patient.get("b", "k", None).await.unwrap().unwrap();
    // Until a connection is there, which may take a busy machine longer than that.
    recovery(&blobs).await;
    proxy.set(Weather::Still);
    let left_alone = async {
        loop {
            match blobs.head("b", "k").await {
                Err(Error::Unavailable(text)) if text.contains("it is tried again in") => return,
                Err(Error::Unavailable(text)) => assert!(text.contains("no answer within"), "{text}"),
                other => panic!("{other:?}"),
            }
        }
    };
    ends(left_alone).await;
    // What had come before may still be read to its end, or not; it does not hang.
    let _ = ends(reading.body.next()).await;
    proxy.set(Weather::Fair);
    recovery(&blobs).await;
    assert_eq!(read(&blobs, "k").await.unwrap(), "one");
}

/// A network that is slow, but fast enough, is no failure; one that is cut is, until it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_is_well_and_cut_is_not() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port).await;
    proxy.set(Weather::Slow(Duration::from_millis(5)));
    let engine = S3::open(&server::url(proxy.port, "&part_mib=5")).unwrap();
    let blobs = engine.engines().blobs;
    let expected = body(0, 6 << 20);
    ends(blobs.put("b", "k", pieces(&expected), Put::default())).await.unwrap();
    assert!(read(&blobs, "k").await.unwrap() == expected);
    proxy.set(Weather::Cut);
    let cut = ends(blobs.head("b", "k")).await.unwrap_err();
    assert!(matches!(cut, Error::Unavailable(_)), "{cut:?}");
    proxy.set(Weather::Fair);
    recovery(&blobs).await;
}

/// What cannot be asked for is not said to be absent.
#[tokio::test]
async fn away_is_not_absent() {
    let mut server = Server::start().await;
    let blobs = server.engine("").engines().blobs;
    blobs.put("b", "k", pieces(&"one".into()), Put::default()).await.unwrap();
    server.kill().await;
    for result in [
        ends(blobs.head("b", "k")).await.map(drop),
        ends(blobs.get("b", "k", None)).await.map(drop),
        ends(blobs.list("b", "", None, 0)).await.map(drop),
        ends(blobs.put("b", "k", pieces(&"two".into()), Put::default())).await.map(drop),
        ends(blobs.delete("b", "k", Condition::Any, None)).await.map(drop),
    ] {
        assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
    }
    server.restart().await;
    recovery(&blobs).await;
    assert_eq!(read(&blobs, "k").await.unwrap(), "one");
}
