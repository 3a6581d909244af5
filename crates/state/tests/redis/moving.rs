//! State moves from the embedded engine to Redis, and back.

use std::sync::Arc;

use lethe_state::{clock::ManualClock, contract::Fixture, embedded::Embedded};

use crate::harness;

async fn redis() -> Fixture {
    harness::fixture(harness::url(harness::shared().port, ""))
}

async fn embedded() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(&directory.path().join("state"), Arc::new(clock.clone())).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping((engine, directory))
}

lethe_state::contract_moving!(
    into_redis,
    embedded,
    redis,
    [rows_move, sessions_move, answers_move, tokens_go_on]
);
lethe_state::contract_moving!(
    out_of_redis,
    redis,
    embedded,
    [rows_move, sessions_move, answers_move, tokens_go_on]
);
