//! The engine on the server of the tests.

use std::sync::Arc;

use lethe_state::{clock::ManualClock, contract::Fixture, gcs::Gcs};

use crate::server::new_folder;

/// An engine at a URL.
pub fn engine(url: &str) -> Gcs {
    Gcs::open(&url.parse().unwrap()).unwrap()
}

/// A fresh engine for the contract, with a clock that can be moved. Parts are as small as they may be, so that larger blobs have
/// several.
pub async fn fixture() -> Fixture {
    let clock = ManualClock::new(1_700_000_000_000);
    let engine =
        Gcs::open_with(&new_folder("&part_mib=5").parse().unwrap(), Arc::new(clock.clone())).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping(engine)
}
