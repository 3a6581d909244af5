//! A state API on a socket of its own, for several workers.

use std::{path::PathBuf, sync::Arc};

use lethe::State;
use lethe_state::{
    clock::{Clock, SystemClock},
    embedded::Embedded,
    remote::Remote,
    server,
};
use tokio::{sync::oneshot, task::JoinHandle};

pub struct Daemon {
    path: PathBuf,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    engine: Embedded,
    _folder: tempfile::TempDir,
}

impl Daemon {
    pub fn start() -> Self {
        Self::with(Arc::new(SystemClock))
    }

    /// One whose leases and lifetimes go by this clock.
    pub fn with(clock: Arc<dyn Clock>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Embedded::open_with(&folder.path().join("state"), clock).unwrap();
        let path = folder.path().join("state.sock");
        let mut daemon = Self { path, running: None, engine, _folder: folder };
        daemon.serve();
        daemon
    }

    pub fn serve(&mut self) {
        let listener = server::socket::bind(&self.path).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = async { _ = stopped.await };
        let task = tokio::spawn(server::serve(listener, self.engine.engines(), ended));
        self.running = Some((stop, task));
    }

    /// Ends the API; what it keeps stays.
    pub async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        drop(stop);
        task.await.unwrap();
    }

    pub fn url(&self) -> String {
        server::socket::url(&self.path)
    }

    pub fn remote(&self) -> Remote {
        Remote::connect(&self.url()).unwrap()
    }

    /// The state as one more worker has it.
    pub fn worker(&self) -> State {
        State::connect(&self.url()).unwrap()
    }
}
