//! The contract suite: what each kind of state promises, as tests that every engine runs. A promise that is
//! not tested here is not one.
//!
//! An engine's crate (or test file) gives a factory, an async function without arguments that makes a fresh,
//! empty engine, and one macro call makes a named `#[tokio::test]` of every case:
//!
//! ```ignore
//! use lethe_state::contract::Fixture;
//!
//! async fn engine() -> Fixture {
//!     let directory = tempfile::tempdir().unwrap();
//!     let clock = ManualClock::new(1_700_000_000_000);
//!     let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
//!     Fixture::new(engine.engines())
//!         .with_clock(move |by| clock.advance(by)) // cases on expiry are skipped without it
//!         .keeping((engine, directory))            // dropped after the engine's last use
//! }
//!
//! lethe_state::contract_suite!(engine);            // mods `tables`, `sessions`, … of tests
//! ```
//!
//! One kind alone: `lethe_state::contract_tables!(engine);`, `contract_sessions!`, `contract_blobs!`, `contract_limits!`,
//! `contract_locks!`, `contract_idempotency!`, `contract_cache!`, `contract_feeds!`, `contract_near!`.
//! Each case is also a public function, `contract::tables::increments_add_up(fixture).await`.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{any::Any, time::Duration};

use crate::Engines;

pub mod blobs;
pub mod cache;
mod chance;
pub mod feeds;
pub mod idempotency;
pub mod limits;
pub mod linear;
pub mod locks;
pub mod moving;
pub mod near;
pub mod realms;
mod register;
pub mod sessions;
pub mod tables;

/// A fresh, empty engine to test, and what keeps it alive.
pub struct Fixture {
    /// The engine, by kind.
    pub engines: Engines,
    clock: Option<Box<dyn Fn(Duration) + Send + Sync>>,
    _kept: Vec<Box<dyn Any + Send>>,
}

impl Fixture {
    /// A fixture of these engines.
    pub fn new(engines: Engines) -> Self {
        Self { engines, clock: None, _kept: Vec::new() }
    }

    /// Says how to move the engine's clock forward. Without it, cases that need it print that they are skipped.
    pub fn with_clock(mut self, advance: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.clock = Some(Box::new(advance));
        self
    }

    /// Keeps something (a folder, a server's task) until the test ends.
    pub fn keeping(mut self, kept: impl Any + Send) -> Self {
        self._kept.push(Box::new(kept));
        self
    }

    /// Moves the engine's clock forward; false when it has no such hook, and the case is to be skipped.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) fn advance(&self, by: Duration) -> bool {
        match &self.clock {
            Some(advance) => advance(by),
            None => eprintln!("skipped: this engine's clock cannot be moved"),
        }
        self.clock.is_some()
    }
}

/// Keys that are easily mixed up, cut or decoded once too often on their way to the engine.
fn odd_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "a",
        "A",
        "a/b",
        "/",
        "//",
        "a/",
        "/a",
        ".",
        "..",
        "a/../b",
        "a%2Fb",
        "%",
        "%25",
        "%00",
        "a b",
        " ",
        "+",
        "?a=b",
        "#x",
        "a&b",
        "\"",
        "'",
        "\\",
        ":",
        ";",
        "*",
        "_",
        "\n",
        "\r\n",
        "\t",
        "\u{1}",
        "\u{7f}",
        "é",
        "e\u{301}",
        "日本語",
        "\u{feff}",
        "\u{202e}",
        "🦀",
        "\u{10ffff}",
        "null",
        "batch",
        "{}",
    ]
    .map(String::from)
    .to_vec();
    keys.push("k".repeat(1024));
    keys.push("é".repeat(512));
    keys
}

/// Makes the tests of all kinds; see [`crate::contract`].
#[macro_export]
macro_rules! contract_suite {
    ($engine:ident) => {
        $crate::contract_tables!($engine);
        $crate::contract_sessions!($engine);
        $crate::contract_blobs!($engine);
        $crate::contract_limits!($engine);
        $crate::contract_locks!($engine);
        $crate::contract_idempotency!($engine);
        $crate::contract_cache!($engine);
        $crate::contract_cache_feeds!($engine);
        $crate::contract_feeds!($engine);
        $crate::contract_near!($engine);
    };
}

/// Makes a module of tests from the cases of one kind.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_cases {
    ($engine:ident, $kind:ident, [$($case:ident),+ $(,)?]) => {
        mod $kind {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::contract::$kind::$case(super::$engine().await).await;
                }
            )+
        }
    };
}
