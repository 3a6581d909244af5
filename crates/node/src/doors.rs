//! The sockets of the state API: one for each service, which is all that its workers are told, and one for whoever runs
//! `lethe`. What a service may use through its own is its grant.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::future::join_all;
use lethe_model::service::ServiceName;
use lethe_state::{
    Engines,
    grant::Grant,
    server::{
        self, Api,
        access::{Door, Grants, Peer, Peers},
    },
};
use lethe_supervisor::{kin::Kin, supervisor::Supervisor};
use tokio::{
    net::UnixListener,
    sync::{oneshot, watch},
    task::{JoinError, JoinHandle},
};

/// All of them. Dropped, they are closed.
pub(crate) struct Doors {
    api: Api,
    /// The folder with the services' sockets.
    folder: PathBuf,
    grants: Arc<Grants>,
    known: Arc<Known>,
    /// That of whoever runs `lethe`, under no name, and those of the services.
    served: Mutex<BTreeMap<Option<ServiceName>, Served>>,
}

/// A server task, and the way to end it.
struct Served {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Who knows the workers, once there may be any.
#[derive(Default)]
struct Known(watch::Sender<Option<Supervisor>>);

#[async_trait]
impl Peers for Known {
    async fn peer(&self, pid: Option<i32>) -> Peer {
        let Some(pid) = pid else { return Peer::Other };
        let mut known = self.0.subscribe();
        // A start that fails ends the sockets too, and with them who waits here.
        let supervisor = known.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
        let Some(supervisor) = supervisor else { return Peer::Stray };
        match supervisor.kin(pid).await {
            Kin::Worker(service) => Peer::Worker(service.as_str().to_owned()),
            Kin::Stray => Peer::Stray,
            Kin::Other => Peer::Other,
        }
    }
}

/// The socket of a service, in the folder of such sockets.
pub(crate) fn socket(folder: &Path, service: &ServiceName) -> PathBuf {
    folder.join(format!("{service}.sock"))
}

impl Doors {
    /// Serves `operator`; services follow.
    pub(crate) fn new(engines: Engines, operator: UnixListener, folder: PathBuf) -> Self {
        let doors = Self {
            api: Api::new(engines),
            folder,
            grants: Arc::default(),
            known: Arc::default(),
            served: Mutex::default(),
        };
        let door = Door::of_operator(Arc::clone(&doors.grants), doors.peers());
        doors.serve(None, operator, door);
        doors
    }

    /// From now on it is known whose workers callers are; they wait until then.
    pub(crate) fn know(&self, supervisor: Supervisor) {
        self.known.0.send_replace(Some(supervisor));
    }

    /// Opens the socket of a service, with this grant; `None` is all there is.
    pub(crate) fn open(&self, service: &ServiceName, grant: Option<Grant>) -> io::Result<()> {
        let listener = server::socket::bind(&socket(&self.folder, service))?;
        self.grants.set(service.as_str(), grant);
        let door = Door::of_service(service.as_str(), Arc::clone(&self.grants), self.peers());
        self.serve(Some(service.clone()), listener, door);
        Ok(())
    }

    /// From now on the service has this grant.
    pub(crate) fn grant(&self, service: &ServiceName, grant: Option<Grant>) {
        self.grants.set(service.as_str(), grant);
    }

    /// Closes the socket of a service whose workers have ended.
    pub(crate) fn close(&self, service: &ServiceName) {
        // The path is free again before anybody could want it for a service of the same name.
        let _ = fs::remove_file(socket(&self.folder, service));
        self.grants.remove(service.as_str());
        if let Some(served) = self.served().remove(&Some(service.clone())) {
            let _ = served.end.send(());
        }
    }

    /// Lets the requests that run end, and closes all. Cancelled, it cuts them.
    pub(crate) async fn end(&self) -> Result<(), JoinError> {
        let served = std::mem::take(&mut *self.served());
        let tasks = served.into_values().map(|Served { end, task }| {
            let _ = end.send(());
            AbortOnDrop(task)
        });
        let ended = join_all(tasks.map(async |mut task| (&mut task.0).await)).await;
        ended.into_iter().collect()
    }

    fn serve(&self, service: Option<ServiceName>, listener: UnixListener, door: Door) {
        let (end, ended) = oneshot::channel::<()>();
        let shutdown = async move { drop(ended.await) };
        let task = tokio::spawn(self.api.clone().serve(listener, door, shutdown));
        self.served().insert(service, Served { end, task });
    }

    fn peers(&self) -> Arc<dyn Peers> {
        Arc::<Known>::clone(&self.known)
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<Option<ServiceName>, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that ends with its handle.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
