//! State moves from the embedded engine to PostgreSQL, and back.

use std::sync::Arc;

use lethe_state::{clock::ManualClock, contract::Fixture, embedded::Embedded};

use crate::contract::engine as postgres;

async fn embedded() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(&directory.path().join("state"), Arc::new(clock.clone())).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping((engine, directory))
}

lethe_state::contract_moving!(
    into_postgres,
    embedded,
    postgres,
    [
        rows_move,
        sessions_move,
        answers_move,
        tokens_go_on,
        what_is_newer_stays,
        what_comes_is_told,
        pages_are_bounded,
    ]
);
lethe_state::contract_moving!(
    out_of_postgres,
    postgres,
    embedded,
    [
        rows_move,
        sessions_move,
        answers_move,
        tokens_go_on,
        what_is_newer_stays,
        what_comes_is_told,
        pages_are_bounded,
    ]
);
