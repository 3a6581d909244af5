//! A new configuration while `lethe` runs: read and checked whole, compared with the one that runs, and brought about in
//! an order in which no request fails. New workers are ready before routes lead to them, old ones leave when none does.
//! Whatever fails before the routes are changed is undone, so that a bad file leaves all as it was.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{FutureExt, future::join_all};
use lethe_admin::{
    api,
    handles::{Ranges, Reload},
    stop::{Stop, Wish},
};
use lethe_gateway::gateway::{self, Gateway};
use lethe_model::service::ServiceName;
use lethe_state::{blobs::Blobs, grant::Grant};
use lethe_supervisor::{
    service::Spec,
    supervisor::{self, Supervisor},
};
use tokio::sync::Mutex;

use crate::{
    build,
    config::{self, Config, Instances, ServiceConfig, Source},
    doors::Doors,
    plan::{Plan, Refused, plan},
    source,
};

/// How the folder of a source begins that a reload has fetched, among the sources of its service.
const FETCHED: &str = "reload-";

/// Why the configuration was not changed. Nothing is different then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no file.
    #[error(
        "lethe was started without a file, so there is none to read again; `lethe restart` replaces workers"
    )]
    NoFile,
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] config::Errors),
    /// It asks for what needs a restart.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A source was not fetched.
    #[error("service `{0}`")]
    Source(ServiceName, #[source] source::Error),
    /// A program was not built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// A new service's way to its state was not opened.
    #[error("service `{0}`: its socket of the state API")]
    Door(ServiceName, #[source] io::Error),
    /// Workers did not start.
    #[error(transparent)]
    Supervisor(#[from] supervisor::Error),
    /// The gateway did not take it.
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    /// A task was cut off, as when `lethe` ends.
    #[error("lethe is stopping")]
    Stopping,
}

/// What a reload works on.
pub(crate) struct Reloader {
    pub(crate) supervisor: Supervisor,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) blobs: Arc<dyn Blobs>,
    /// The folder of fetched sources.
    pub(crate) sources: PathBuf,
    pub(crate) stop: Stop,
    /// Held by the reload that runs.
    pub(crate) running: Mutex<Running>,
}

/// What runs.
pub(crate) struct Running {
    /// As it was read.
    pub(crate) config: Config,
    /// As they were started, with the folders that they were fetched into.
    pub(crate) specs: BTreeMap<ServiceName, Spec>,
    /// How many reloads there were.
    pub(crate) count: u64,
    /// Another process has taken over.
    pub(crate) is_over: bool,
}

impl Reloader {
    /// The hook for the control API.
    pub(crate) fn hook(self: Arc<Self>) -> Reload {
        Arc::new(move || {
            let reloader = Arc::clone(&self);
            // In a task of its own: whoever asked may go away, and half of a reload would be worse than all or none.
            let task = tokio::spawn(async move { reloader.reload().await });
            async move { task.await.unwrap_or(Err(Error::Stopping)).map_err(|error| problem(&error)) }.boxed()
        })
    }

    /// What the file says of how many workers a service has, where that is a range; nothing while a reload is under way.
    pub(crate) fn ranges(self: Arc<Self>) -> Ranges {
        Arc::new(move |name| {
            let running = self.running.try_lock().ok()?;
            let service =
                running.config.services.iter().find(|service| service.spec.name.as_str() == name)?;
            let Instances { min, max } = service.instances;
            (min < max).then_some((min, max))
        })
    }

    async fn reload(&self) -> Result<api::Reloaded, Error> {
        let mut running = self.running.lock().await;
        let outcome = self.change(&mut running).await;
        match &outcome {
            Ok(reloaded) if reloaded.changes.is_empty() => tracing::info!("reloaded: nothing has changed"),
            Ok(reloaded) => reloaded.changes.iter().for_each(|change| tracing::info!("reloaded: {change}")),
            Err(error) => in_full(error).lines().for_each(|line| tracing::error!("not reloaded: {line}")),
        }
        outcome
    }

    async fn change(&self, running: &mut Running) -> Result<api::Reloaded, Error> {
        if self.stop.wish() != Wish::Run || running.is_over {
            return Err(Error::Stopping);
        }
        let origin = running.config.origin.clone();
        if let Source::Command { .. } = origin.source {
            return Err(Error::NoFile);
        }
        let read = tokio::task::spawn_blocking(move || config::load(origin.source, origin.overrides));
        let new = read.await.map_err(|_| Error::Stopping)??;
        let plan = plan(&running.config, &new)?;
        running.count += 1;
        let specs = match self.make(&plan, running).await {
            Ok(specs) => specs,
            Err(error) => {
                self.forget_fetched(&plan, running.count);
                return Err(error);
            }
        };
        let mut done = Vec::new();
        if let Err(error) = self.begin(&plan, &new, &specs, running, &mut done).await {
            self.undo(done).await;
            self.forget_fetched(&plan, running.count);
            return Err(error);
        }
        self.end(&plan, &new).await;
        let reloaded = api::Reloaded { changes: plan.changes, notices: new.notices.clone() };
        let mut now = running.specs.clone();
        now.extend(specs);
        now.retain(|name, _| !plan.removed.contains(name));
        let before = std::mem::replace(&mut running.specs, now);
        self.forget_left(&before, &running.specs);
        running.config = new;
        Ok(reloaded)
    }

    /// Fetches and builds what is new. Gives the specs as they are to be started.
    async fn make(&self, plan: &Plan, running: &Running) -> Result<BTreeMap<ServiceName, Spec>, Error> {
        let mut specs = BTreeMap::new();
        for service in &plan.added {
            specs.insert(service.spec.name.clone(), self.make_one(service.clone(), running.count).await?);
        }
        for changed in plan.changed.iter().filter(|changed| changed.is_replaced) {
            let name = &changed.new.spec.name;
            let spec = match running.specs.get(name) {
                // Where the program is stays as it is.
                Some(old) if !changed.is_made => {
                    Spec { directory: old.directory.clone(), ..changed.new.spec.clone() }
                }
                _ => self.make_one(changed.new.clone(), running.count).await?,
            };
            specs.insert(name.clone(), spec);
        }
        Ok(specs)
    }

    /// Fetches into a folder of its own: workers of the old version may still read from theirs.
    async fn make_one(&self, mut service: ServiceConfig, number: u64) -> Result<Spec, Error> {
        let name = service.spec.name.clone();
        if let Some(source) = service.source.clone() {
            tracing::info!("{name}: fetching {source}");
            let folder = source.fetch(&self.fetched(&name, number), &*self.blobs).await;
            service.fetched(&folder.map_err(|error| Error::Source(name.clone(), error))?);
        }
        if let Some(order) = &service.build {
            tracing::info!("{name}: building: {}", order.text);
            build::run(&name, order, &self.stop, |line| tracing::debug!("{name}: {line}")).await?;
        }
        service.check_command()?;
        Ok(service.spec)
    }

    /// All that can fail, up to the new routes. What was done is noted in `done`.
    async fn begin(
        &self,
        plan: &Plan,
        new: &Config,
        specs: &BTreeMap<ServiceName, Spec>,
        running: &Running,
        done: &mut Vec<Step>,
    ) -> Result<(), Error> {
        let spec = |service: &ServiceConfig| specs.get(&service.spec.name).unwrap_or(&service.spec).clone();
        self.open_doors(plan, new, running, done)?;
        let added = join_all(plan.added.iter().map(|service| self.supervisor.add(spec(service)))).await;
        for (service, added) in plan.added.iter().zip(&added) {
            if added.is_ok() {
                done.push(Step::Added(service.spec.name.clone()));
            }
        }
        added.into_iter().collect::<Result<(), _>>()?;
        for changed in &plan.changed {
            let name = &changed.new.spec.name;
            if changed.is_replaced {
                self.supervisor.update(spec(&changed.new)).await?;
                let old = running.specs.get(name).unwrap_or(&changed.old.spec).clone();
                done.push(Step::Updated(old));
            }
            let now = self.supervisor.wanted().get(name).copied().unwrap_or_default();
            if let Some(more) = changed.scale.filter(|count| *count > now) {
                done.push(Step::Scaled(name.clone(), now));
                self.supervisor.scale(name.as_str(), more).await?;
            }
        }
        Ok(self.gateway.reload(new.gateway.clone()).await?)
    }

    /// Opens the state to new services. As long as it is not sure that the reload comes about, and workers of both versions
    /// are there, the others may use what either version may.
    fn open_doors(
        &self,
        plan: &Plan,
        new: &Config,
        running: &Running,
        done: &mut Vec<Step>,
    ) -> Result<(), Error> {
        for service in &plan.added {
            let name = &service.spec.name;
            let opened = self.doors.open(name, service.grant.clone());
            opened.map_err(|error| Error::Door(name.clone(), error))?;
            done.push(Step::Opened(name.clone()));
        }
        for old in &running.config.services {
            let name = &old.spec.name;
            let Some(new) = new.services.iter().find(|new| new.spec.name == *name) else { continue };
            if new.grant != old.grant {
                self.doors.grant(name, Grant::either(old.grant.as_ref(), new.grant.as_ref()));
                done.push(Step::Granted(name.clone(), old.grant.clone()));
            }
        }
        Ok(())
    }

    /// What is left to do once the new routes are there. It fails only if `lethe` stops meanwhile, which does the rest.
    async fn end(&self, plan: &Plan, new: &Config) {
        for service in &new.services {
            self.doors.grant(&service.spec.name, service.grant.clone());
        }
        let scaled = plan.changed.iter().filter_map(|changed| Some((&changed.new.spec.name, changed.scale?)));
        let fewer = scaled.map(|(name, count)| self.supervisor.scale(name.as_str(), count));
        let removed = plan.removed.iter().map(|name| self.supervisor.remove(name.as_str()));
        let ((), ()) = tokio::join!(join_all(fewer).map(drop), join_all(removed).map(drop));
        plan.removed.iter().for_each(|name| self.doors.close(name));
    }

    /// Takes back what was done, the last step first. A step that cannot be taken back is told, and the others are.
    async fn undo(&self, done: Vec<Step>) {
        for step in done.into_iter().rev() {
            let undone = match step {
                Step::Opened(name) => {
                    self.doors.close(&name);
                    Ok(())
                }
                Step::Granted(name, grant) => {
                    self.doors.grant(&name, grant);
                    Ok(())
                }
                Step::Added(name) => self.supervisor.remove(name.as_str()).await,
                Step::Updated(old) => self.supervisor.update(old).await.map(drop),
                Step::Scaled(name, count) => self.supervisor.scale(name.as_str(), count).await,
            };
            if let Err(error) = undone {
                tracing::error!("a part of the refused configuration stays: {error}");
            }
        }
    }

    /// Removes what a reload has fetched that did not come about.
    fn forget_fetched(&self, plan: &Plan, number: u64) {
        let changed = plan.changed.iter().map(|changed| &changed.new);
        for service in plan.added.iter().chain(changed) {
            let _ = fs::remove_dir_all(self.fetched(&service.spec.name, number));
        }
    }

    /// Where the reload with this number fetches the source of a service into.
    fn fetched(&self, service: &ServiceName, number: u64) -> PathBuf {
        self.sources.join(service.as_str()).join(fetched(number))
    }

    /// Removes all fetched sources that workers of this process ran in. Another process has its own.
    pub(crate) async fn forget_all(&self) {
        let running = self.running.lock().await;
        self.forget_left(&running.specs, &BTreeMap::new());
    }

    /// Removes the fetched sources that ran before and in which nothing runs now.
    fn forget_left(&self, before: &BTreeMap<ServiceName, Spec>, now: &BTreeMap<ServiceName, Spec>) {
        for (name, spec) in before {
            let folder = self.sources.join(name.as_str());
            let Ok(inside) = spec.directory.strip_prefix(&folder) else { continue };
            let Some(version) = inside.components().next().map(|part| folder.join(part)) else { continue };
            if !now.values().any(|spec| spec.directory.starts_with(&version)) {
                let _ = fs::remove_dir_all(version);
            }
        }
    }
}

/// The folder of what is fetched for the reload of this number. Another process that has the state folder for a while
/// has other ones.
pub(crate) fn fetched(number: u64) -> String {
    format!("{FETCHED}{}-{number}", std::process::id())
}

/// A step that can be taken back.
enum Step {
    Opened(ServiceName),
    /// What it had.
    Granted(ServiceName, Option<Grant>),
    Added(ServiceName),
    /// How it was.
    Updated(Spec),
    /// How many there were.
    Scaled(ServiceName, u32),
}

/// Removes what reloads of an earlier `lethe` have fetched for a service.
pub(crate) fn forget_reloads(sources_of_service: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(sources_of_service) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(FETCHED) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The error and its causes.
fn in_full(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // What is transparent has its cause's text.
    texts.dedup();
    texts.join(": ")
}

fn problem(error: &Error) -> api::Problem {
    let (status, title) = match error {
        Error::NoFile => (409, "No file"),
        Error::File(_) => (422, "Wrong configuration"),
        Error::Refused(_) => (409, "Needs a restart"),
        Error::Stopping | Error::Build(build::Error::Stopped) => (503, "Stopping"),
        Error::Supervisor(supervisor::Error::Stopping) => (503, "Stopping"),
        _ => (500, "Not reloaded"),
    };
    let detail = format!("{}\nnothing was changed; lethe goes on as it was", in_full(error));
    api::Problem { status, title: title.into(), detail }
}
