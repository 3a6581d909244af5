//! A state tier for the time of a proof: what services keep there is kept beside their workers, and is gone afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use lethe_state::{embedded::Embedded, server};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};

/// A state API with an empty engine. Ends when dropped.
pub(in crate::verb) struct Tier {
    socket: PathBuf,
    url: String,
    end: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

impl Tier {
    /// Opens one in `folder`.
    pub(in crate::verb) fn open(folder: &Path) -> anyhow::Result<Self> {
        let (kept, socket) = (folder.join("state"), folder.join("state.sock"));
        fs::create_dir(&kept)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let _inside = runtime.enter();
        let engine = Embedded::open(&kept).context("cannot open a state tier")?;
        let listener = server::socket::bind(&socket)?;
        let (end, ended) = oneshot::channel::<()>();
        let engines = engine.engines();
        let served = runtime.spawn(async move {
            let _engine = engine;
            server::serve(listener, engines, async { drop(ended.await) }).await;
        });
        let url = server::socket::url(&socket);
        Ok(Self { socket, url, end: Some(end), served: Some(served), runtime: Some(runtime) })
    }

    /// What workers get as `LETHE_STATE`.
    pub(in crate::verb) fn url(&self) -> &str {
        &self.url
    }

    /// Its socket.
    pub(in crate::verb) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Tier {
    fn drop(&mut self) {
        drop(self.end.take());
        if let (Some(runtime), Some(served)) = (self.runtime.take(), self.served.take()) {
            let _ = runtime.block_on(served);
        }
    }
}
