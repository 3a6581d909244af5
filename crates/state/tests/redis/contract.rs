//! The contract of the kinds that the engine offers, by a clock that can be moved and by the server's own.

mod by_hand {
    use lethe_state::contract::Fixture;

    use crate::harness;

    async fn engine() -> Fixture {
        harness::fixture(harness::shared_url())
    }

    lethe_state::contract_tables!(engine);
    lethe_state::contract_sessions!(engine);
    lethe_state::contract_locks!(engine);
    lethe_state::contract_idempotency!(engine);
    lethe_state::contract_limits!(engine);
    lethe_state::contract_feeds!(engine);
    lethe_state::contract_cache!(engine);
    lethe_state::contract_cache_feeds!(engine);
}

mod by_the_server {
    use lethe_state::contract::Fixture;

    use crate::harness;

    async fn engine() -> Fixture {
        let engine = harness::shared().engine("");
        Fixture::new(engine.engines()).keeping(engine)
    }

    lethe_state::contract_tables!(engine);
    lethe_state::contract_sessions!(engine);
    lethe_state::contract_locks!(engine);
    lethe_state::contract_idempotency!(engine);
    lethe_state::contract_limits!(engine);
    lethe_state::contract_feeds!(engine);
    lethe_state::contract_near!(engine);
    lethe_state::contract_cache!(engine);
    lethe_state::contract_cache_feeds!(engine);
}
