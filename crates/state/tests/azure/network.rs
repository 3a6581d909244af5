//! What happens when the network fails, or when writers meet.

use lethe_state::{
    blobs::{Condition, Put},
    error::Error,
};

use crate::{
    azurite::{self, shared},
    calls::{LARGE, body, ends, halting, pieces, read, when},
    engine::engine,
    faults::{self, At},
};

fn at() -> At {
    let open =
        |port, folder: &str, options: &str| engine(&azurite::url(port, folder, options)).engines().blobs;
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

/// Who writes a blob throws away the blocks of an upload to it. The upload fails then, and what was written stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_overtaken_fails() {
    let blobs = at().direct("&part_mib=5");
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
