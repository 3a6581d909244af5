//! Engines on real servers, each with keys of its own.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use lethe_state::{
    clock::ManualClock,
    contract::Fixture,
    redis::{Redis, Url},
};

pub use crate::server::{Server, free_port};

impl Server {
    /// An engine on it with keys of its own, and the server's clock.
    pub fn engine(&self, options: &str) -> Redis {
        Redis::open(url(self.port, options)).unwrap()
    }
}

/// A namespace that nothing else uses.
pub fn namespace() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("case-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Limits that only a test which hangs comes to.
pub const PATIENCE: &str = "&connect_timeout_ms=60000&response_timeout_ms=60000";

/// The URL of a server, with keys of its own.
pub fn url(port: u16, options: &str) -> Url {
    format!("redis://127.0.0.1:{port}/?namespace={}{options}", namespace()).parse().unwrap()
}

/// The URL of the server that cases share, however long it takes to answer.
pub fn shared_url() -> Url {
    url(shared().port, PATIENCE)
}

/// The server that cases share which do nothing to it.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

/// A fresh engine for the contract, with a clock that can be moved.
pub fn fixture(url: Url) -> Fixture {
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Redis::open_with(url, Arc::new(clock.clone())).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping(engine)
}
