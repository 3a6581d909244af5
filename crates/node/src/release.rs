//! Makes what workers are started from: a service's source, fetched and built once and kept in the store; and for each worker
//! a copy of its own, so that none can change what others run. What cannot be made new leaves what there is as it was.

mod home;

use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts::ARCH,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lethe_admin::stop::{Stop, Wish};
use lethe_model::service::ServiceName;
use lethe_state::blobs::Blobs;
use tokio::task::spawn_blocking;

use crate::{
    build, config,
    config::ServiceConfig,
    secrets::Secrets,
    source::{self, Fetched, Source},
    store::{
        self, Found, Making, Release, Store,
        book::{self, Failure, Record},
    },
};

/// How often a release that turns out to be damaged is made again before that is an error.
const REPAIRS_MAX: usize = 2;
/// Characters of a revision that are shown.
const SHOWN_CHARS: usize = 12;

/// Why a service's program was not made. What ran before goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its source was not fetched.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// It was not built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// It has no program that could be started.
    #[error(transparent)]
    Command(#[from] config::Errors),
    /// The store cannot be read or written.
    #[error("the releases in {} cannot be read or written", .0.display())]
    Store(PathBuf, #[source] io::Error),
    /// There is no such folder in it.
    #[error("{source_name} has no folder `{}`, which `directory` names", .folder.display())]
    NoFolder {
        /// The source, without credentials.
        source_name: String,
        /// The folder.
        folder: PathBuf,
    },
    /// It was to be made again, and is something else now.
    #[error(
        "{source_name} does not give what it gave before as {revision}: it has changed there; deploy it anew"
    )]
    Changed {
        /// The source, without credentials.
        source_name: String,
        /// The version that was asked for.
        revision: String,
    },
    /// It failed before.
    #[error(
        "{source_name} is at {revision}, which failed when it was tried; it is tried again when it has moved on, or by `lethe reload`"
    )]
    FailedBefore {
        /// The source, without credentials.
        source_name: String,
        /// The version.
        revision: String,
    },
}

/// What is wanted of a service's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What it has now.
    Newest,
    /// The same, unless it has failed before.
    News,
    /// That, or the last that is known, when it cannot be had or has failed: better than nothing.
    NewestOrLast,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    Fetching(&'a Source),
    /// What the source calls the version that was fetched, and is made now.
    Fetched(&'a str),
    Building(&'a str),
    Line(&'a str),
    Built,
    /// Something that a person should know.
    Notice(&'a str),
}

/// A program that was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// What its source calls the version; nothing without a source.
    pub(crate) revision: Option<String>,
    /// Has it stay, though nothing may be started from it yet.
    pub(crate) pin: Option<Arc<Pin>>,
}

/// Keeps a release for as long as somebody has it.
#[derive(Debug)]
pub(crate) struct Pin {
    key: String,
    pinned: Arc<Pinned>,
}

/// How many pins each release has.
type Pinned = Mutex<BTreeMap<String, usize>>;

/// Whoever is told what happens meanwhile.
pub(crate) type Watch<'a> = &'a mut (dyn FnMut(Step<'_>) + Send);

/// Makes releases.
pub(crate) struct Maker {
    store: Arc<Store>,
    blobs: Arc<dyn Blobs>,
    stop: Stop,
    /// How releases that workers may be started from were made, by their names.
    recipes: Mutex<BTreeMap<String, Recipe>>,
    pinned: Arc<Pinned>,
    /// Held while a damaged release is made again.
    repairing: tokio::sync::Mutex<()>,
}

/// How a release can be made again.
#[derive(Clone)]
struct Recipe {
    /// As it was configured, its folders relative to the tree.
    service: ServiceConfig,
    source: Source,
    revision: String,
    /// The digest of what was fetched.
    tree: String,
}

impl Maker {
    /// One that keeps what it makes in a state folder.
    pub(crate) fn new(state: &Path, blobs: Arc<dyn Blobs>, stop: Stop) -> Self {
        Self {
            store: Arc::new(Store::new(state)),
            blobs,
            stop,
            recipes: Mutex::default(),
            pinned: Arc::default(),
            repairing: tokio::sync::Mutex::default(),
        }
    }

    /// Fetches and builds what is not there yet, and puts `service` into it. A service without a source is built where it is.
    /// Dropping the future ends what runs.
    pub(crate) async fn make(
        &self,
        service: &mut ServiceConfig,
        wanted: Wanted,
        watch: Watch<'_>,
    ) -> Result<Made, Error> {
        let Some(source) = service.source.clone() else {
            self.build(service, watch).await?;
            service.check_command()?;
            return Ok(Made { revision: None, pin: None });
        };
        let name = service.spec.name.clone();
        let (record, pin) = match self.newest(service, &source, wanted, watch).await {
            Ok(record) => record,
            Err(error @ Error::Build(build::Error::Stopped)) => return Err(error),
            Err(error) => {
                let last =
                    if wanted == Wanted::NewestOrLast { self.last(service, &source).await } else { None };
                let Some((record, pin)) = last else { return Err(error) };
                let revision = shown(&record.revision);
                watch(Step::Notice(&format!(
                    "goes on with {revision}, the last that was fetched and built: {}",
                    in_full(&error)
                )));
                (record, pin)
            }
        };
        let recipe = Recipe {
            service: service.clone(),
            source,
            revision: record.revision.clone(),
            tree: record.tree.clone(),
        };
        self.recipes().insert(record.key.clone(), recipe);
        service.fetched(&self.store.tree(&record.key));
        let revision = Some(record.revision.clone());
        self.store.note(&name, |book| book.used(Record { used_at: book::now(), ..record }));
        Ok(Made { revision, pin: Some(pin) })
    }

    /// Waits for it, unless `lethe` is to stop; what it has begun is given up then.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            done = work => Ok(done),
            () = self.stop.asked(Wish::Drain) => Err(build::Error::Stopped.into()),
        }
    }

    /// What its source has now, made if it is not there yet.
    async fn newest(
        &self,
        service: &ServiceConfig,
        source: &Source,
        wanted: Wanted,
        watch: Watch<'_>,
    ) -> Result<(Record, Arc<Pin>), Error> {
        let (name, identity, how) = (&service.spec.name, source.identity(), how(service));
        watch(Step::Fetching(source));
        let mark = self.unless_stopped(source.mark()).await??;
        let book = self.store.book(name);
        // Without anything better, what has failed is tried again.
        let may_be_last = wanted == Wanted::NewestOrLast && book.of(&identity, &how).next().is_some();
        if let Some(mark) = &mark {
            let is_bad = book.has_failed(&identity, &how, mark);
            if is_bad && (wanted == Wanted::News || may_be_last) {
                return Err(Error::FailedBefore { source_name: source.to_string(), revision: shown(mark) });
            }
            let place = source.place();
            let mut known = book.releases.iter();
            if let Some(record) = known.find(|record| record.recipe == how && record.is(&place, mark)) {
                let pin = self.pin(&record.key);
                if self.is_sound(&record.key).await {
                    return Ok((Record { source: identity, ..record.clone() }, pin));
                }
            }
        }
        let fetched = self.unless_stopped(source.fetch(None, &self.store, &*self.blobs)).await??;
        let record = Record {
            key: key(&fetched.digest, &how),
            source: identity,
            recipe: how,
            revision: fetched.revision.clone(),
            mark: fetched.mark.clone(),
            tree: fetched.digest.clone(),
            used_at: book::now(),
        };
        let is_bad = book.has_failed(&record.source, &record.recipe, &record.tree);
        if is_bad && (wanted == Wanted::News || may_be_last) {
            let revision = shown(&record.revision);
            tracing::warn!(
                "{name}: {revision} of {source} has the files of one that failed before; it is not tried"
            );
            // So that it is not fetched again to find that out.
            self.note_failure(name, &record);
            return Err(Error::FailedBefore { source_name: source.to_string(), revision });
        }
        watch(Step::Fetched(&record.revision));
        let pin = self.pin(&record.key);
        let built = self.build_once(service, source, fetched, &record.key, watch).await;
        // That the disk is full, or `lethe` is to stop, says nothing of the version.
        if let Err(
            Error::Build(
                build::Error::Start { .. } | build::Error::Failed { .. } | build::Error::Slow { .. },
            )
            | Error::Command(_)
            | Error::NoFolder { .. },
        ) = &built
        {
            self.note_failure(name, &record);
        }
        built.map(|()| (record, pin))
    }

    /// The last that is there and was not bad.
    async fn last(&self, service: &ServiceConfig, source: &Source) -> Option<(Record, Arc<Pin>)> {
        let (identity, how) = (source.identity(), how(service));
        let book = self.store.book(&service.spec.name);
        for record in book.of(&identity, &how) {
            let pin = self.pin(&record.key);
            if self.is_sound(&record.key).await {
                return Some((record.clone(), pin));
            }
        }
        None
    }

    /// Builds what was fetched, or waits until somebody else has, or finds it built.
    async fn build_once(
        &self,
        service: &ServiceConfig,
        source: &Source,
        fetched: Fetched,
        key: &str,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        for _ in 0..=REPAIRS_MAX {
            match self.unless_stopped(self.store.find(key)).await?.map_err(self.failed())? {
                Found::Whole if self.is_sound(key).await => return Ok(()),
                // It was damaged, and is put aside by now.
                Found::Whole => {}
                Found::Absent(making) => {
                    return self.build_now(service, source, &fetched, making, watch).await;
                }
            }
        }
        let why = "a release is damaged each time that it was made; is the disk sound?";
        Err(Error::Store(self.store.folder().into(), io::Error::other(why)))
    }

    async fn build_now(
        &self,
        service: &ServiceConfig,
        source: &Source,
        fetched: &Fetched,
        making: Making,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        // Built where it stays: programs note where they were built.
        fs::rename(fetched.tree(), making.tree()).map_err(self.failed())?;
        let mut service = service.clone();
        let inside = service.spec.directory.clone();
        service.fetched(&making.tree());
        if !service.spec.directory.is_dir() {
            return Err(Error::NoFolder { source_name: source.to_string(), folder: inside });
        }
        self.build(&service, watch).await?;
        service.check_command()?;
        let store = Arc::clone(&self.store);
        let (source, revision, digest) =
            (source.to_string(), fetched.revision.clone(), fetched.digest.clone());
        let finished = spawn_blocking(move || store.finish(making, source, revision, digest)).await;
        let finished = finished.map_err(io::Error::other).and_then(|finished| finished);
        let Release { key, .. } = finished.map_err(self.failed())?;
        tracing::debug!("made release {key}");
        Ok(())
    }

    async fn build(&self, service: &ServiceConfig, watch: Watch<'_>) -> Result<(), Error> {
        let Some(order) = &service.build else { return Ok(()) };
        watch(Step::Building(&order.shown()));
        let secrets = Secrets::of(service);
        let masked = |text: &str| secrets.hidden_in(text);
        let built =
            build::run(&service.spec.name, order, &self.stop, |line| watch(Step::Line(&masked(line)))).await;
        built.map_err(|error| error.shown(masked))?;
        watch(Step::Built);
        Ok(())
    }

    /// Whether a release is there as it was made. One that is damaged is told of and put aside.
    async fn is_sound(&self, key: &str) -> bool {
        let (store, name) = (Arc::clone(&self.store), key.to_owned());
        let checked = spawn_blocking(move || match store.open(&name) {
            Ok(Some(_)) => store.check(&name).inspect_err(|damage| {
                tracing::warn!("release {name} is damaged and made again: {damage}");
                let _ = store.put_aside(&name);
            }),
            _ => Err(String::new()),
        });
        checked.await.is_ok_and(|checked| checked.is_ok())
    }

    /// Whether its source may have something new: a version that is neither what one of `programs` was made of nor
    /// known to have failed. Not knowing, it may.
    pub(crate) async fn has_news(
        &self,
        service: &ServiceConfig,
        programs: &[PathBuf],
    ) -> Result<bool, source::Error> {
        let Some(source) = &service.source else { return Ok(false) };
        let Some(mark) = source.mark().await? else { return Ok(true) };
        let (book, how, place) = (self.store.book(&service.spec.name), how(service), source.place());
        let keys: Vec<&str> = programs.iter().filter_map(|program| self.store.key_of(program)).collect();
        let is_there = |record: &Record| {
            keys.contains(&&*record.key) && record.recipe == how && record.is(&place, &mark)
        };
        Ok(!book.releases.iter().any(is_there) && !book.has_failed(&source.identity(), &how, &mark))
    }

    /// Notes that the release in `directory` was not good for this service, so that it is not deployed again by itself.
    pub(crate) fn was_bad(&self, service: &ServiceName, directory: &Path) {
        let Some(key) = self.store.key_of(directory) else { return };
        let book = self.store.book(service);
        for record in book.releases.iter().filter(|record| record.key == key) {
            self.note_failure(service, record);
        }
    }

    /// What its source calls the version of the release in `directory`.
    pub(crate) fn revision(&self, directory: &Path) -> Option<String> {
        let key = self.store.key_of(directory)?;
        self.recipes().get(key).map(|recipe| recipe.revision.clone())
    }

    /// Has the release in `directory` stay.
    pub(crate) fn hold(&self, directory: &Path) -> Option<Arc<Pin>> {
        self.store.key_of(directory).map(|key| self.pin(key))
    }

    fn pin(&self, key: &str) -> Arc<Pin> {
        *locked(&self.pinned).entry(key.into()).or_default() += 1;
        Arc::new(Pin { key: key.into(), pinned: Arc::clone(&self.pinned) })
    }

    fn note_failure(&self, name: &ServiceName, record: &Record) {
        self.store.note(name, |book| {
            for version in record.versions() {
                let (source, recipe) = (record.source.clone(), record.recipe.clone());
                book.failed(Failure { source, recipe, version: version.into() });
            }
        });
    }

    /// Gives up all releases but those that these folders are in and those that are pinned. What nobody uses then is
    /// removed by [`Maker::sweep`].
    pub(crate) fn hold_only(&self, folders: impl IntoIterator<Item = PathBuf>) {
        let pinned = locked(&self.pinned);
        let mut used: BTreeSet<String> = pinned.keys().cloned().collect();
        used.extend(folders.into_iter().filter_map(|folder| self.store.key_of(&folder).map(str::to_owned)));
        self.recipes().retain(|key, _| used.contains(key));
        self.store.hold_only(&used);
    }

    /// Removes what neither is in use, by whatever process, nor among the last of a service.
    pub(crate) async fn sweep(&self) {
        let store = Arc::clone(&self.store);
        let _ = spawn_blocking(move || store.sweep()).await;
    }

    fn failed(&self) -> impl Fn(io::Error) -> Error {
        let folder = self.store.folder().to_owned();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                source::Error::Folder(folder.clone(), error).into()
            }
            _ => Error::Store(folder.clone(), error),
        }
    }

    fn recipes(&self) -> MutexGuard<'_, BTreeMap<String, Recipe>> {
        locked(&self.recipes)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = locked(&self.pinned);
        if let Some(count) = pinned.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                pinned.remove(&self.key);
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A step in the log, for what nobody watches.
pub(crate) fn log(name: &ServiceName, step: Step<'_>) {
    match step {
        Step::Fetching(source) => tracing::info!("{name}: fetching {source}"),
        Step::Fetched(revision) => tracing::info!("{name}: fetched {}", shown(revision)),
        Step::Building(command) => tracing::info!("{name}: building: {command}"),
        Step::Line(line) => tracing::debug!("{name}: {line}"),
        Step::Built => tracing::info!("{name}: built"),
        Step::Notice(text) => tracing::warn!("{name}: {text}"),
    }
}

/// As much of a revision as tells it apart for people.
pub(crate) fn shown(revision: &str) -> String {
    revision.chars().take(SHOWN_CHARS).collect()
}

/// What a release is called that is made of this tree in this way.
fn key(tree: &str, how: &str) -> String {
    store::key(["release 1", ARCH, tree, how])
}

/// How a service is built, and where: all that the outcome is taken to depend on beside the tree. What a build reads from the
/// environment or fetches from elsewhere is not looked at.
fn how(service: &ServiceConfig) -> String {
    match &service.build {
        None => "as it is".into(),
        Some(build) => {
            let directory = service.spec.directory.to_string_lossy();
            store::key([&*directory].into_iter().chain(build.command.iter().map(String::as_str)))
        }
    }
}

/// The error and its causes.
fn in_full(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // What is transparent has its cause's text.
    texts.dedup();
    texts.join(": ")
}

#[cfg(test)]
mod tests;
