//! Where a worker runs: the directory of its service, or a copy that is its own, as whoever knows how services are released
//! decides. Asked for before each start, so that a worker never starts in what is not there any more.

use std::{
    any::Any,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use lethe_model::service::InstanceId;

/// The directory of one worker.
pub struct Home {
    /// It exists.
    pub directory: PathBuf,
    /// Dropped when the worker has ended and all that it printed is read.
    pub hold: Box<dyn Any + Send + Sync>,
}

/// The answer to a question for a home; an error says why there is none, and what to do.
pub type Asked = Pin<Box<dyn Future<Output = Result<Home, String>> + Send>>;

/// Gives workers their homes: asked with the directory of the service and the worker's name. An answer that takes its time
/// delays the start, and is given up when the worker is not wanted any more.
#[derive(Clone)]
pub struct Homes(Arc<dyn Fn(PathBuf, InstanceId) -> Asked + Send + Sync>);

impl Homes {
    /// Those that `of` gives.
    pub fn new(of: impl Fn(PathBuf, InstanceId) -> Asked + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    pub(crate) fn of(&self, directory: &Path, worker: &InstanceId) -> Asked {
        self.0(directory.to_owned(), worker.clone())
    }
}

impl fmt::Debug for Homes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Homes(…)")
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Home({})", self.directory.display())
    }
}
