//! What is in a bucket is named, to be moved.

use crate::{
    engine::engine,
    names::{names_every_blob, there_are_blobs_alone},
    server::new_folder,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_names_every_blob() {
    names_every_blob(engine(&new_folder("")).engines()).await;
}

#[tokio::test]
async fn gcs_has_blobs_alone() {
    there_are_blobs_alone("gcs", engine(&new_folder("")).engines()).await;
}
