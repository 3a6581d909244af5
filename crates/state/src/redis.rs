//! The redis engine: Redis 7 or newer, or Valkey; one server, a master that sentinels know, or a cluster. Each operation is a
//! Lua script, which the server runs in one step and by its own clock.
//!
//! What is acknowledged survives `kill -9` of any worker and of `lethe`. Whether it survives that of Redis is up to Redis:
//! with `appendfsync always` all of it does, with `everysec` all but the last second, without a log nothing. A failover loses
//! what had not reached the replica. `docs/engines.md` has the table.
//!
//! A call goes kind (`tables`, `sessions`) → `request` → `router` → `node` → `script`; `failure` decides what may be sent
//! again, and [`crate::breaker`] when a server is left alone.

mod cache;
mod cluster;
mod failure;
mod feeds;
mod idempotency;
mod keys;
mod limits;
mod locks;
mod node;
mod portable;
mod reply;
mod request;
mod router;
mod script;
mod sentinel;
mod server;
mod session_index;
mod session_reply;
mod sessions;
mod sweeper;
mod tables;
mod url;
mod walk;

use std::{sync::Arc, time::Duration};

pub use self::{
    failure::Refusal,
    url::{CONNECT_TIMEOUT, NAMESPACE, NAMESPACE_BYTES_MAX, RESPONSE_TIMEOUT, Url, UrlError},
};
use self::{keys::Keys, request::Request, router::Router, server::Servers};
use crate::{
    Engines,
    clock::{Clock, millis},
    error::Error,
    feed::source::Source,
};

/// The longest time that is told apart from for ever, in milliseconds: what is longer counts as that, 140,000 years. Scripts
/// compute with doubles, which are exact up to twice as much.
const SPAN_MS_MAX: i64 = 1 << 52;

/// An engine that keeps its state in Redis. It lives for as long as this or any of its [`Engines`].
pub struct Redis {
    store: Store,
}

/// What the kinds of state work with. Clones are the same.
#[derive(Clone)]
struct Store {
    router: Arc<Router>,
    keys: Arc<Keys>,
    feeds: Arc<Source>,
    /// Whose time it is instead of the server's.
    clock: Option<Arc<dyn Clock>>,
}

impl Redis {
    /// An engine at this URL. No server is asked before the first call: one that is away now is an error then, and none any
    /// more once it is back. To be called within a tokio runtime.
    ///
    /// Fails with [`Error::Engine`] when the file of certificates that the URL names cannot be read.
    pub fn open(url: Url) -> Result<Self, Error> {
        Self::open_as(url, None)
    }

    /// The same with another clock than the server's, for tests: the state is not to be used with the server's afterwards.
    pub fn open_with(url: Url, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::open_as(url, Some(clock))
    }

    fn open_as(url: Url, clock: Option<Arc<dyn Clock>>) -> Result<Self, Error> {
        let keys = Arc::new(Keys::new(url.namespace.clone()));
        let router = Arc::new(Router::new(Servers::new(url)?));
        let store = Store { router, keys, feeds: Arc::default(), clock };
        sweeper::start(&store);
        Ok(Self { store })
    }

    /// The engine, by kind of state.
    pub fn engines(&self) -> Engines {
        let store = Arc::new(self.store.clone());
        Engines {
            sessions: store.clone(),
            tables: store.clone(),
            limits: store.clone(),
            locks: store.clone(),
            idempotency: store.clone(),
            cache: store,
            ..Engines::absent("redis")
        }
    }

    /// What it is doing, for who watches.
    pub fn watch(&self, figures: &mut crate::figures::Figures) {
        self.store.router.watch(figures);
    }

    /// Removes rows that have expired by now; how many it did. The engine does so by itself every few seconds; nobody sees an
    /// expired row in between.
    pub async fn sweep(&self) -> Result<usize, Error> {
        sweeper::sweep(&self.store).await
    }
}

impl Store {
    /// A request whose first argument is the time, if it is not the server's.
    fn request(&self, script: &'static script::Script, keys: impl Into<Vec<String>>) -> Request {
        let now = self.clock.as_ref().map(|clock| clock.now_us().to_string());
        Request::new(script, keys).text(now.as_deref())
    }
}

/// A span of time in milliseconds, as scripts take it.
fn span_ms(span: Duration) -> i64 {
    millis(span).min(SPAN_MS_MAX)
}

/// A number that no other call has, by which a server knows one that comes again. It is below 2^53, for readers of JSON whose
/// numbers are doubles.
fn nonce() -> Result<u64, Error> {
    let random = getrandom::u64()
        .map_err(|error| Error::Unavailable(format!("the system gives no random numbers: {error}")))?;
    Ok(random >> 11 | 1)
}
