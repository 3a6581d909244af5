//! What only this engine promises: its files, and what becomes of them when things go wrong.

use std::sync::Arc;

use super::{Embedded, clock::ManualClock};
use crate::contract::Fixture;

async fn engine() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping((engine, directory))
}

crate::contract_suite!(engine);
