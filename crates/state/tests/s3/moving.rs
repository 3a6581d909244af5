//! What is in a bucket is named, to be moved.

use futures_util::{StreamExt, stream};
use lethe_state::{blobs::Put, portable::PAGE_RECORDS_MAX, s3::S3};

use crate::{
    moto,
    names::{body, named, names_every_blob, there_are_blobs_alone},
    server::Server,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3s_names_every_blob() {
    let server = Server::start().await;
    names_every_blob(server.engine("").engines()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moto_names_every_blob() {
    names_every_blob(S3::open(&moto::shared().url("").parse().unwrap()).unwrap().engines()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_come_in_pages() {
    let server = Server::start().await;
    let engines = server.engine("").engines();
    let put = |n: usize| {
        let blobs = engines.blobs.clone();
        async move { blobs.put("many", &format!("{n:04}"), body("x"), Put::default()).await.map(drop) }
    };
    let count = PAGE_RECORDS_MAX + 10;
    let done: Vec<_> = stream::iter(0..count).map(put).buffer_unordered(16).collect().await;
    assert!(done.into_iter().all(|done| done.is_ok()));
    let (names, pages) = named(&engines).await;
    assert_eq!((names.len(), pages), (count, 2));
}

#[tokio::test]
async fn s3_has_blobs_alone() {
    there_are_blobs_alone("s3", Server::start().await.engine("").engines()).await;
}
