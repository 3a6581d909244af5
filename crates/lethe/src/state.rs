//! The door to what outlives a worker. A [`State`] is made once, at the start, and handed to all handlers.

use std::{
    env,
    ffi::OsString,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use lethe_state::{
    Engines,
    idempotency::Idempotency,
    remote::Remote,
    sessions::{SessionInfo, Sessions},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error,
    batch::Batch,
    bucket::Bucket,
    cache::Registry,
    counter::Counter,
    lock::Lock,
    near::{Kept, Near},
    table::Table,
};

/// The environment variable with the address of the state API: `unix:///path/to/state.sock`.
pub const STATE_ENV: &str = "LETHE_STATE";

/// The caches of the state that was last made from the environment, of which there is one in a process: [`serve`](crate::serve())
/// warms them up.
static OF_ENV: Mutex<Weak<Registry>> = Mutex::new(Weak::new());

/// The state of a service. Cheap to clone; all clones are the same state.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped in this order: first the engines, then their folder.
    engines: Engines,
    /// Without copies.
    behind: Engines,
    caches: Arc<Registry>,
    near: Kept,
    #[cfg(feature = "ephemeral")]
    _folder: Option<Arc<tempfile::TempDir>>,
}

impl State {
    /// The state that `lethe up` gives its workers, by [`STATE_ENV`]. Nothing is sent yet: the state tier may start
    /// later than the worker.
    pub fn from_env() -> Result<Self, Error> {
        let state = match env::var_os(STATE_ENV).map(OsString::into_string) {
            None => return Err(Error::NoState),
            Some(Ok(url)) if url.is_empty() => return Err(Error::NoState),
            Some(Ok(url)) => Self::connect(&url)?,
            Some(Err(raw)) => Self::connect(&raw.to_string_lossy())?,
        };
        *OF_ENV.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&state.inner.caches);
        Ok(state)
    }

    /// The state behind an address, as in [`STATE_ENV`].
    pub fn connect(url: &str) -> Result<Self, Error> {
        Ok(Self::new(Remote::connect(url).map_err(Error::StateUrl)?.engines()))
    }

    /// The state that these engines keep.
    pub fn new(engines: Engines) -> Self {
        let caches = Arc::new(Registry::new(Arc::clone(&engines.cache)));
        Self {
            inner: Arc::new(Inner {
                behind: engines.clone(),
                engines,
                caches,
                near: Kept::default(),
                #[cfg(feature = "ephemeral")]
                _folder: None,
            }),
        }
    }

    /// The same state with copies of what this worker reads in its memory, instead of those it had; see [`Near`]. To be called once, at the
    /// start: what was made from the state before, such as a layer, has none, and what it writes is seen here only once it was told.
    ///
    /// ```no_run
    /// # use lethe::{State, near::Near, session::SessionLayer};
    /// # fn main() -> Result<(), lethe::Error> {
    /// let state = State::from_env()?.near(Near::default());
    /// let sessions = SessionLayer::new(&state);
    /// # Ok(())
    /// # }
    /// ```
    pub fn near(&self, near: Near) -> Self {
        let behind = self.inner.behind.clone();
        let mut engines = behind.clone();
        let near = Kept::put(near, &mut engines);
        let inner = Inner {
            engines,
            behind,
            caches: Arc::clone(&self.inner.caches),
            near,
            #[cfg(feature = "ephemeral")]
            _folder: self.inner._folder.clone(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn caches(&self) -> &Arc<Registry> {
        &self.inner.caches
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.inner.near
    }

    /// State for a test: the embedded engine inside of this process, in a temporary folder that is removed when the
    /// last clone is dropped. Needs the feature `ephemeral`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lethe::Error> {
    /// let state = lethe::State::ephemeral()?;
    /// assert_eq!(state.counter("statistics", "visits").add(1).await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "ephemeral")]
    pub fn ephemeral() -> Result<Self, Error> {
        let failed = |folder: &std::path::Path, source: Box<dyn std::error::Error + Send + Sync>| {
            Error::Ephemeral { folder: folder.display().to_string(), source }
        };
        let folder = tempfile::Builder::new()
            .prefix("lethe-ephemeral-")
            .tempdir()
            .map_err(|error| failed(&env::temp_dir(), error.into()))?;
        let embedded = lethe_state::embedded::Embedded::open(folder.path())
            .map_err(|error| failed(folder.path(), error.into()))?;
        let (engines, folder) = (embedded.engines().with_revocations(), Some(Arc::new(folder)));
        let (behind, near) = (engines.clone(), Kept::default());
        let caches = Arc::new(Registry::new(Arc::clone(&engines.cache)));
        Ok(Self { inner: Arc::new(Inner { engines, behind, caches, near, _folder: folder }) })
    }

    /// A table, whose rows are the JSON of `T`. It exists from its first row on. Names are lower-case
    /// ASCII letters, digits, `-` and `_`.
    pub fn table<T: Serialize + DeserializeOwned>(&self, name: &str) -> Table<T> {
        Table::new(self.clone(), name)
    }

    /// The integer in one row of a table.
    pub fn counter(&self, table: &str, key: &str) -> Counter {
        Counter::new(self.clone(), table, key)
    }

    /// Writes to several rows, of any tables, that are done all or none.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// A bucket of blobs. Names are as for tables.
    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::new(self.clone(), name)
    }

    /// A lock, which one holder has at a time over all workers. Names are any text of at most 256 bytes.
    pub fn lock(&self, name: &str) -> Lock {
        Lock::new(self.clone(), name)
    }

    /// Ends all sessions of a user, as after a new password or when an account is closed, and returns how many were
    /// live. A request that has loaded one of them already is answered, but writes nothing into it any more.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lethe::Error> {
    /// # let state = lethe::State::ephemeral()?;
    /// assert_eq!(state.end_sessions("alice").await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_sessions(&self, user: &str) -> Result<u64, Error> {
        Ok(self.engines().sessions.revoke(user, None).await?)
    }

    /// The live sessions of a user, newest first, at most [`LIST_MAX`](lethe_state::sessions::LIST_MAX): so that users can see
    /// where they are signed in.
    pub async fn sessions(&self, user: &str) -> Result<Vec<SessionInfo>, Error> {
        Ok(self.engines().sessions.list(user).await?)
    }

    /// Ends the one session of a user that has this [handle](SessionInfo::handle); false when there is none.
    pub async fn end_session(&self, user: &str, handle: &str) -> Result<bool, Error> {
        Ok(self.engines().sessions.revoke(user, Some(handle)).await? > 0)
    }

    /// The engines themselves, for what the typed handles do not offer.
    pub fn engines(&self) -> &Engines {
        &self.inner.engines
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State(…)")
    }
}

/// For [`IdempotencyLayer::new`](crate::idempotency::IdempotencyLayer::new).
impl From<&State> for Arc<dyn Idempotency> {
    fn from(state: &State) -> Self {
        Arc::clone(&state.inner.engines.idempotency)
    }
}

/// For [`SessionLayer::new`](crate::session::SessionLayer::new).
impl From<&State> for Arc<dyn Sessions> {
    fn from(state: &State) -> Self {
        Arc::clone(&state.inner.engines.sessions)
    }
}

/// The caches of the state of the environment, if it is in use.
pub(crate) fn caches_of_env() -> Option<Arc<Registry>> {
    OF_ENV.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
}
