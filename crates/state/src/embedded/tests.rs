//! What only this engine promises: its files, and what becomes of them when things go wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{BLOBS, Embedded, failure::Failure};
use crate::{
    blobs::ByteStream,
    clock::ManualClock,
    contract::Fixture,
    error::Error,
    tables::{Action, Condition, Write},
};

mod alone;
mod beside;
mod caching;
mod counting;
mod crash;
mod disk;
mod life;
#[cfg(feature = "server")]
mod recalled;
mod refusal;
mod steps;

async fn engine() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping((engine, directory))
}

crate::contract_suite!(engine);

fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Write {
    let action = Action::Put { value: value.into(), ttl: None };
    Write { table: "t".into(), key: key.into(), condition: Condition::Any, action }
}

fn body(bytes: impl Into<Bytes>) -> ByteStream {
    Box::pin(futures_util::stream::iter([Ok(bytes.into())]))
}

/// What the engine says is wrong with its files.
fn failure(error: &Error) -> Failure {
    match error {
        Error::Engine(source) => source.downcast_ref::<Failure>().expect("a failure of this engine").clone(),
        other => panic!("not the engine's own failure: {other:?}"),
    }
}

/// The files of blobs in a state folder, without the markers of doubt.
fn blob_files(state: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(state.join(BLOBS)).unwrap().map(|entry| entry.unwrap().path());
    let shards = folders.filter(|folder| !folder.ends_with("doubt"));
    shards.flat_map(|shard| files(&shard)).collect()
}

fn doubts(state: &Path) -> Vec<PathBuf> {
    files(&state.join(BLOBS).join("doubt"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
