//! What happens when the network fails, or when writers meet.

use lethe_state::{
    blobs::{Condition, Put},
    error::Error,
};

use crate::{
    calls::{LARGE, body, ends, halting, pieces, read, when},
    engine::engine,
    faults::{self, At},
    server::{self, shared},
};

fn at() -> At {
    let open =
        |port, folder: &str, options: &str| engine(&server::url(port, folder, options)).engines().blobs;
    At { port: shared().port, folder: shared().folder(), open }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_has_conditions() {
    faults::a_large_blob_has_conditions(at()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_given_up_leaves_nothing() {
    faults::an_upload_that_is_given_up_leaves_nothing(at()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_not_noticed() {
    faults::a_lost_answer_is_not_noticed(at()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_outlives_a_cut() {
    faults::a_download_outlives_a_cut(at()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_is_not_absent() {
    faults::away_is_not_absent(at()).await;
}

/// An upload's condition is said at its beginning and holds at its end: what was written in between stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_overtaken_fails() {
    let blobs = at().direct("&part_mib=5");
    let old = blobs.put("b", "old", pieces(&"old".into()), Put::default()).await.unwrap();
    for (key, condition) in [("new", Condition::Absent), ("old", Condition::Etag(old.etag))] {
        let (large, is_near, go_on) = halting(&body(1, LARGE), LARGE);
        let upload = tokio::spawn({
            let blobs = blobs.clone();
            async move { ends(blobs.put("b", key, large, when(condition))).await }
        });
        is_near.await.unwrap();
        let second = blobs.put("b", key, pieces(&"second".into()), Put::default()).await.unwrap();
        go_on.send(()).unwrap();
        let failed = upload.await.unwrap().unwrap_err();
        assert!(matches!(failed, Error::Conflict { found: Some(_), .. }), "{failed:?}");
        assert_eq!(blobs.head("b", key).await.unwrap(), Some(second));
        assert_eq!(read(&blobs, key).await.unwrap(), "second");
    }
}

/// The store may end an upload by itself. That is no word about the blob or its bucket, and no condition that did not hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_store_gave_up_may_come_again() {
    let blobs = at().direct("&part_mib=5");
    for (key, condition) in
        [("missing", Condition::Absent), ("missing", Condition::Any), ("gone", Condition::Any)]
    {
        let put = blobs.put("b", key, pieces(&body(1, LARGE)), when(condition));
        let failed = ends(put).await.unwrap_err();
        let is_told = |text: &str| text.contains("given up an upload") && text.contains("send it again");
        assert!(matches!(&failed, Error::Unavailable(text) if is_told(text)), "{key}: {failed:?}");
        assert_eq!(blobs.head("b", key).await.unwrap(), None);
    }
}
