//! What is in a container is named, to be moved.

use crate::{
    azurite::new_folder,
    engine::engine,
    names::{names_every_blob, there_are_blobs_alone},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_names_every_blob() {
    names_every_blob(engine(&new_folder("")).engines()).await;
}

#[tokio::test]
async fn azure_has_blobs_alone() {
    there_are_blobs_alone("azure", engine(&new_folder("")).engines()).await;
}
