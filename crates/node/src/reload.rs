//! A new configuration while `lethe` runs: read and checked whole, compared with the one that runs, and brought about in
//! an order in which no request fails. New workers are ready before routes lead to them, old ones leave when none does.
//! Whatever fails before the routes are changed is undone, so that a bad file leaves all as it was.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use lethe_admin::{
    api,
    handles::Reload,
    releases::{Cause, Operator, Outcome},
    stop::{Stop, Wish},
};
use lethe_gateway::gateway::{self, Gateway};
use lethe_model::service::ServiceName;
use lethe_state::grant::Grant;
use lethe_supervisor::{
    rollout::rolling::Phase,
    service::Spec,
    supervisor::{self, Rollout, Supervisor},
};
use tokio::{
    sync::{Mutex, MutexGuard, Notify},
    time::timeout,
};

use crate::{
    build,
    config::{self, Config, ServiceConfig, Source},
    deploy::{Deploys, Job, Made, Wanted},
    doors::Doors,
    plan::{Changed, Plan, Refused, plan},
    release::{self, Maker},
    scaling::Scaling,
    source,
};

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
    /// A release was not kept.
    #[error("service `{0}`")]
    Release(ServiceName, #[source] release::Error),
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
    pub(crate) maker: Arc<Maker>,
    pub(crate) scaling: Arc<Scaling>,
    pub(crate) stop: Stop,
    pub(crate) deploys: Deploys,
    /// Held by the reload that runs.
    pub(crate) running: Mutex<Running>,
    /// Told when there is another configuration.
    pub(crate) changed: Notify,
}

/// What runs.
pub(crate) struct Running {
    /// As it was read.
    pub(crate) config: Config,
    /// As they were started, with the folders that they were fetched into.
    pub(crate) specs: BTreeMap<ServiceName, Spec>,
    /// Another process has taken over.
    pub(crate) is_over: bool,
}

/// Who is no reload has what runs for a moment only; a reload may have it for hours.
const OTHERS_MAX: Duration = Duration::from_secs(2);

impl Reloader {
    /// What runs; `None` if a reload has it. Cancellation safe.
    pub(crate) async fn unless_reloading(&self) -> Option<MutexGuard<'_, Running>> {
        timeout(OTHERS_MAX, self.running.lock()).await.ok()
    }

    /// The hook for the control API.
    pub(crate) fn hook(self: Arc<Self>) -> Reload {
        Arc::new(move |by| {
            let reloader = Arc::clone(&self);
            // In a task of its own: whoever asked may go away, and half of a reload would be worse than all or none.
            let task = tokio::spawn(async move { reloader.reload(by).await });
            async move { task.await.unwrap_or(Err(Error::Stopping)).map_err(|error| problem(&error)) }.boxed()
        })
    }

    async fn reload(self: Arc<Self>, by: Option<Operator>) -> Result<api::Reloaded, Error> {
        let mut running = self.running.lock().await;
        let outcome = self.change(&mut running, by).await;
        match &outcome {
            Ok(reloaded) if reloaded.changes.is_empty() => tracing::info!("reloaded: nothing has changed"),
            Ok(reloaded) => reloaded.changes.iter().for_each(|change| tracing::info!("reloaded: {change}")),
            Err(error) => in_full(error).lines().for_each(|line| tracing::error!("not reloaded: {line}")),
        }
        outcome
    }

    async fn change(
        self: &Arc<Self>,
        running: &mut Running,
        by: Option<Operator>,
    ) -> Result<api::Reloaded, Error> {
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
        let specs = self.make(&plan, running).await?;
        let mut done = Vec::new();
        if let Err(error) = self.begin(&plan, &new, &specs, running, by, &mut done).await {
            self.undo(done).await;
            drop(specs);
            self.keep_needed(running);
            return Err(error);
        }
        // Before numbers are set that load is to decide about no more.
        self.scaling.configure(&new.services);
        self.end(&plan, &new).await;
        plan.removed.iter().for_each(|name| self.deploys.forget(name));
        let specs = self.remember(done, specs);
        let reloaded = api::Reloaded { changes: plan.changes, notices: new.notices.clone() };
        let mut now = running.specs.clone();
        now.extend(specs);
        now.retain(|name, _| !plan.removed.contains(name));
        running.specs = now;
        running.config = new;
        self.keep_needed(running);
        self.changed.notify_waiters();
        Ok(reloaded)
    }

    /// Fetches and builds what is new. Gives the specs as they are to be started.
    async fn make(&self, plan: &Plan, running: &Running) -> Result<BTreeMap<ServiceName, Made>, Error> {
        let mut specs = BTreeMap::new();
        for service in &plan.added {
            let made = self.make_one(service.clone(), release::Wanted::Newest, None).await?;
            specs.insert(service.spec.name.clone(), made);
        }
        for changed in plan.changed.iter().filter(|changed| changed.is_replaced) {
            let name = &changed.new.spec.name;
            let service = self.with_choice(changed);
            let made = match running.specs.get(name) {
                // Where the program is stays as it is.
                Some(old) if !changed.is_made => {
                    let spec = Spec { directory: old.directory.clone(), ..service.spec.clone() };
                    let maker = &self.maker;
                    let (revision, pin) = (maker.revision(&spec.directory), maker.hold(&spec.directory));
                    Made { spec, revision, _pin: pin }
                }
                _ => self.make_one(service, release::Wanted::Newest, None).await?,
            };
            specs.insert(name.clone(), made);
        }
        Ok(specs)
    }

    /// A changed service, with the source that somebody chose by hand as long as the file names the same as before.
    fn with_choice(&self, changed: &Changed) -> ServiceConfig {
        let chosen = self.deploys.source_of(&changed.new.spec.name);
        match chosen.filter(|_| changed.new.source == changed.old.source) {
            Some(source) => changed.new.clone().with_source(source),
            None => changed.new.clone(),
        }
    }

    /// Makes what is wanted of a service, and tells the job, or else the log, what happens meanwhile. Workers of the old
    /// version keep theirs.
    pub(crate) async fn make_one(
        &self,
        service: ServiceConfig,
        wanted: release::Wanted,
        job: Option<&Job>,
    ) -> Result<Made, Error> {
        self.make_known(service, wanted, job, &mut None).await
    }

    /// The same; notes as `fetched` which version it is, also if it cannot be made.
    pub(crate) async fn make_known(
        &self,
        mut service: ServiceConfig,
        wanted: release::Wanted,
        job: Option<&Job>,
        fetched: &mut Option<String>,
    ) -> Result<Made, Error> {
        let name = service.spec.name.clone();
        let mut tell = |step: release::Step<'_>| match (job, step) {
            (_, release::Step::Fetched(revision)) => *fetched = Some(revision.to_owned()),
            (Some(job), release::Step::Fetching(source)) => {
                job.tell("fetching", format!("is fetched: {source}"), None);
            }
            (Some(job), release::Step::Building(command)) => {
                job.tell("building", format!("is built: {command}"), None);
            }
            (Some(job), release::Step::Line(line)) => job.tell("line", line.into(), None),
            // It is looked at again and again.
            (None, release::Step::Fetching(source)) if wanted == release::Wanted::News => {
                tracing::debug!("{name}: fetching {source}");
            }
            (_, step) => release::log(&name, step),
        };
        match self.maker.make(&mut service, wanted, &mut tell).await {
            Ok(release::Made { revision, pin, .. }) => Ok(Made { spec: service.spec, revision, _pin: pin }),
            Err(release::Error::Source(error)) => Err(Error::Source(name, error)),
            Err(release::Error::Build(error)) => Err(error.into()),
            Err(release::Error::Command(errors)) => Err(errors.into()),
            Err(error) => Err(Error::Release(name, error)),
        }
    }

    /// All that can fail, up to the new routes. What was done is noted in `done`.
    async fn begin(
        self: &Arc<Self>,
        plan: &Plan,
        new: &Config,
        specs: &BTreeMap<ServiceName, Made>,
        running: &Running,
        by: Option<Operator>,
        done: &mut Vec<Step>,
    ) -> Result<(), Error> {
        self.open_doors(plan, new, running, done)?;
        // All of them before the first worker is touched: a service that is busy refuses the whole.
        let mut coming = Vec::new();
        for service in &plan.added {
            let job = self.deploys.want(self.asked(service.clone(), service, None, by.clone()))?;
            if let Some(made) = specs.get(job.name()) {
                coming.push(Spec { release: job.release, ..made.spec.clone() });
            }
            done.push(Step::Wanted(job));
        }
        let mut jobs = BTreeMap::new();
        for changed in plan.changed.iter().filter(|changed| specs.contains_key(&changed.new.spec.name)) {
            let name = &changed.new.spec.name;
            let old = running.specs.get(name).unwrap_or(&changed.old.spec).clone();
            let before = Some((changed.old.clone(), old));
            let wanted = self.asked(self.with_choice(changed), &changed.new, before, by.clone());
            let job = self.deploys.want(wanted)?;
            done.push(Step::Wanted(Arc::clone(&job)));
            jobs.insert(name, job);
        }
        let added = join_all(coming.into_iter().map(|spec| self.supervisor.add(spec))).await;
        for (service, added) in plan.added.iter().zip(&added) {
            if added.is_ok() {
                done.push(Step::Added(service.spec.name.clone()));
            }
        }
        added.into_iter().collect::<Result<(), _>>()?;
        for changed in &plan.changed {
            let name = &changed.new.spec.name;
            if let (Some(made), Some(job)) = (specs.get(name), jobs.remove(name)) {
                self.take_over(job, made, done).await?;
            }
            if let Some(count) = changed.scale {
                self.raise(name, count, done).await?;
            }
        }
        for raised in &plan.raised {
            self.raise(&raised.spec.name, raised.instances.min, done).await?;
        }
        // While the last ones came, one of the first may have gone back.
        for step in &*done {
            if let Step::Rolled(_, rollout) = step {
                rollout.stepped().await?;
            }
        }
        Ok(self.gateway.reload(new.gateway.clone()).await?)
    }

    /// Sees to it that a service has so many workers at least.
    async fn raise(&self, name: &ServiceName, to: u32, done: &mut Vec<Step>) -> Result<(), Error> {
        let from = self.wanted(name);
        if from < to {
            done.push(Step::Scaled { name: name.clone(), from, to });
            self.supervisor.scale(name.as_str(), to).await?;
        }
        Ok(())
    }

    /// A release of a service that the file asks for.
    fn asked(
        &self,
        service: ServiceConfig,
        as_read: &ServiceConfig,
        before: Option<(ServiceConfig, Spec)>,
        by: Option<Operator>,
    ) -> Wanted {
        let (cause, as_read) = (Cause::Reload, as_read.clone());
        Wanted { service, as_read, before, release: None, cause, by, message: None }
    }

    /// Lets a release take over; returns when all workers are of it. From there on it is watched, and may still go back.
    async fn take_over(
        self: &Arc<Self>,
        job: Arc<Job>,
        made: &Made,
        done: &mut Vec<Step>,
    ) -> Result<(), Error> {
        let rollout = match self.deploys.roll(&job, made).await {
            Ok(rollout) => rollout,
            Err(error) => {
                self.deploys.end(&job, Outcome::Failed, Some(error.to_string()));
                return Err(error.into());
            }
        };
        let (reloader, settled, watched) = (Arc::clone(self), Arc::clone(&job), rollout.clone());
        let made = made.clone();
        // It ends after the reload, which holds what it needs.
        tokio::spawn(async move { reloader.settle(settled, made, watched).await });
        rollout.stepped().await?;
        done.push(Step::Rolled(job, rollout));
        Ok(())
    }

    /// Remembers what has come. Gives the specs as they were started.
    fn remember(&self, done: Vec<Step>, made: BTreeMap<ServiceName, Made>) -> BTreeMap<ServiceName, Spec> {
        let mut specs: BTreeMap<ServiceName, Spec> =
            made.into_iter().map(|(name, made)| (name, made.spec)).collect();
        for step in done {
            let (Step::Wanted(job) | Step::Rolled(job, _)) = &step else { continue };
            let Some(spec) = specs.get_mut(job.name()) else { continue };
            spec.release = job.release;
            // What has rolled is remembered when it has ended.
            if !job.is_handed() {
                self.deploys.keep(job, spec);
                self.deploys.end(job, Outcome::Promoted, None);
            }
        }
        specs
    }

    /// How many workers a service shall have now.
    fn wanted(&self, name: &ServiceName) -> u32 {
        self.supervisor.wanted().get(name).copied().unwrap_or_default()
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
            let name = &service.spec.name;
            // As long as a release is watched, the one before may come back, and may use what it might.
            let watched = self.deploys.under_way(name).filter(|job| job.is_handed());
            let before = watched.and_then(|job| Some(job.before.as_ref()?.0.grant.clone()));
            let grant = match before {
                Some(before) => Grant::either(before.as_ref(), service.grant.as_ref()),
                None => service.grant.clone(),
            };
            self.doors.grant(name, grant);
        }
        let scaled = plan.changed.iter().filter_map(|changed| Some((&changed.new.spec.name, changed.scale?)));
        // By the numbers from before, load may have taken again what was added.
        let raised = plan.raised.iter().map(|raised| (&raised.spec.name, raised.instances.min));
        let raised = raised.filter(|(name, least)| self.wanted(name) < *least);
        let numbers = scaled.chain(raised).map(|(name, count)| self.supervisor.scale(name.as_str(), count));
        let removed = plan.removed.iter().map(|name| self.supervisor.remove(name.as_str()));
        let ((), ()) = tokio::join!(join_all(numbers).map(drop), join_all(removed).map(drop));
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
                Step::Wanted(job) => {
                    // How one has ended of which there were workers is told by who watches it.
                    if !job.is_handed() {
                        self.deploys.end(&job, Outcome::Failed, Some("the reload was not done".into()));
                    }
                    Ok(())
                }
                Step::Rolled(job, rollout) => self.roll_back(&job, &rollout).await,
                // Somebody else may have said meanwhile how many there shall be.
                Step::Scaled { name, from, to } if self.wanted(&name) == to => {
                    self.supervisor.scale(name.as_str(), from).await
                }
                Step::Scaled { .. } => Ok(()),
            };
            if let Err(error) = undone {
                tracing::error!("a part of the refused configuration stays: {error}");
            }
        }
    }

    /// Has what has taken over go back, though nothing may be wrong with it.
    async fn roll_back(&self, job: &Job, rollout: &Rollout) -> Result<(), supervisor::Error> {
        job.is_undone.send_replace(true);
        rollout.call_off("the reload, which was not done".into());
        match (rollout.phase().await, &job.before) {
            (Phase::Promoted, Some((_, old))) => self.supervisor.update(old.clone()).await.map(drop),
            (Phase::Stuck(..), _) => rollout.ended().await,
            _ => Ok(()),
        }
    }

    /// Gives up the releases that neither run nor may come back at once. What nobody needs then is removed beside
    /// whatever else is going on: that may be many files.
    pub(crate) fn keep_needed(&self, running: &Running) {
        let runs = running.specs.values().map(|spec| spec.directory.clone());
        self.maker.hold_only(runs.chain(self.deploys.directories()));
        let maker = Arc::clone(&self.maker);
        tokio::spawn(async move { maker.sweep().await });
    }
}

/// A step that can be taken back.
enum Step {
    Opened(ServiceName),
    /// What it had.
    Granted(ServiceName, Option<Grant>),
    Added(ServiceName),
    /// A release.
    Wanted(Arc<Job>),
    /// One that has taken over.
    Rolled(Arc<Job>, Rollout),
    /// More workers of a service than before.
    Scaled {
        name: ServiceName,
        from: u32,
        to: u32,
    },
}

/// The error and its causes.
pub(crate) fn in_full(error: &Error) -> String {
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
        Error::Supervisor(supervisor::Error::Rolling(_)) => (409, "A rollout is under way"),
        _ => (500, "Not reloaded"),
    };
    let detail = format!("{}\nnothing was changed; lethe goes on as it was", in_full(error));
    api::Problem { status, title: title.into(), detail }
}
