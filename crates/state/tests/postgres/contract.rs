//! The contract of every kind that this engine offers.

use std::sync::Arc;

use lethe_state::{
    clock::ManualClock,
    contract::Fixture,
    postgres::{Postgres, config::Config},
};

use crate::server;

pub async fn engine() -> Fixture {
    let clock = ManualClock::new(1_700_000_000_000);
    let config: Config = server::shared().url(&server::fresh_schema(), "").parse().unwrap();
    let engine = Postgres::with(config, Some(Arc::new(clock.clone()))).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping(engine)
}

lethe_state::contract_tables!(engine);
lethe_state::contract_sessions!(engine);
lethe_state::contract_locks!(engine);
lethe_state::contract_idempotency!(engine);
lethe_state::contract_feeds!(engine);
lethe_state::contract_near!(engine);
