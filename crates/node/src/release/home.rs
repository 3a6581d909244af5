//! Where workers run: each in a copy of its release that is its own, so that none can change what others run. A release that
//! is not there any more, or damaged, is made again as it was.

use std::{
    any::Any,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use lethe_admin::stop::Wish;
use lethe_model::service::InstanceId;
use lethe_supervisor::home::{Home, Homes};
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{Error, Maker, Recipe, Step, in_full, log, shown};
use crate::store::claim::Fresh;

impl Maker {
    /// What the supervisor asks before it starts a worker.
    pub(crate) fn homes(self: &Arc<Self>) -> Homes {
        let maker = Arc::clone(self);
        Homes::new(move |directory, worker| {
            let maker = Arc::clone(&maker);
            Box::pin(async move { maker.home(&directory, &worker).await })
        })
    }

    /// A copy of a release for one worker, whose service runs in `directory`. A release that is not there any more, or
    /// damaged, is made again.
    pub(super) async fn home(&self, directory: &Path, worker: &InstanceId) -> Result<Home, String> {
        let Some(key) = self.store.key_of(directory) else {
            return Ok(Home { directory: directory.into(), hold: Box::new(()) });
        };
        let inside = directory.strip_prefix(self.store.tree(key)).map_err(|error| error.to_string())?;
        let damage = match self.copy(key, worker).await {
            Ok((folder, hold)) => return Ok(Home { directory: folder.join(inside), hold }),
            Err(Refusal::Damaged(damage)) => damage,
            Err(Refusal::NotWritten(why)) => return Err(why),
        };
        let repair = async {
            let _repairing = self.repairing.lock().await;
            if !self.is_sound(key).await {
                tracing::warn!("{worker}: its release is fetched again: {damage}");
                self.repair(key).await.map_err(|error| in_full(&error))?;
            }
            self.copy(key, worker).await.map_err(|refusal| match refusal {
                Refusal::Damaged(why) | Refusal::NotWritten(why) => why,
            })
        };
        let (folder, hold) = tokio::select! {
            repaired = repair => repaired?,
            () = self.stop.asked(Wish::Drain) => return Err("lethe is stopping".into()),
        };
        Ok(Home { directory: folder.join(inside), hold })
    }

    async fn copy(&self, key: &str, worker: &InstanceId) -> Result<(PathBuf, Hold), Refusal> {
        let (store, key, worker) = (Arc::clone(&self.store), key.to_owned(), worker.to_string());
        let copied = spawn_blocking(move || {
            let gone = || Refusal::Damaged(format!("{} is not there", store.tree(&key).display()));
            store.open(&key).ok().flatten().ok_or_else(gone)?;
            let manifest = store.manifest(&key).map_err(Refusal::Damaged)?;
            let not_written = |error: io::Error| {
                Refusal::NotWritten(format!(
                    "its folder cannot be written in {}: {error}",
                    store.state().display()
                ))
            };
            let folder = store.worker_folder(&worker).map_err(not_written)?;
            match manifest.copy(&store.tree(&key), folder.path()) {
                Err(error) if matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::NotFound) => {
                    Err(Refusal::Damaged(error.to_string()))
                }
                Err(error) => Err(not_written(error)),
                Ok(()) => Ok((folder.path().to_owned(), Box::new(Own(Some(folder))) as Hold)),
            }
        });
        copied.await.unwrap_or_else(|error| Err(Refusal::NotWritten(error.to_string())))
    }

    /// Makes a release again as it was.
    async fn repair(&self, key: &str) -> Result<(), Error> {
        let recipe = self.recipes().get(key).cloned();
        let Some(Recipe { service, source, revision, tree }) = recipe else {
            let why = "it is not known any more how it was made; deploy it anew";
            return Err(Error::Store(self.store.tree(key), io::Error::other(why)));
        };
        let fetched = source.fetch(Some(&revision), &self.store, &*self.blobs).await?;
        if fetched.digest != tree {
            return Err(Error::Changed { source_name: source.to_string(), revision: shown(&revision) });
        }
        let name = service.spec.name.clone();
        let mut tell = |step: Step<'_>| log(&name, step);
        self.build_once(&service, &source, fetched, key, &mut tell).await
    }
}

type Hold = Box<dyn Any + Send + Sync>;

/// A worker's own folder. Dropped, it is removed beside whatever else is going on: that may be many files.
struct Own(Option<Fresh>);

impl Drop for Own {
    fn drop(&mut self) {
        if let (Some(folder), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(folder));
        }
    }
}

/// Why a worker has no copy.
enum Refusal {
    /// The release is not as it was.
    Damaged(String),
    /// The copy cannot be written.
    NotWritten(String),
}
