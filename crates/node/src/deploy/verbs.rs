//! `lethe deploy`, `lethe rollback` and `lethe history`, as the control API asks for them.

use std::{path::Path, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use lethe_admin::{
    api::Problem,
    releases::{Begun, Cause, Deploy, Events, Operator, Outcome, Release, Releases, Rollback},
    stop::Wish,
};
use lethe_model::service::ServiceName;
use lethe_supervisor::{
    rollout::rolling::Phase,
    service::Spec,
    supervisor::{self, Rollout},
};
use tokio::sync::MutexGuard;

use super::{Job, Made, Wanted, history, outcome, remembered};
use crate::{
    config::{self, ServiceConfig},
    release,
    reload::{Error, Reloader, Running, in_full},
    source::{self, Source},
};

/// What the control API asks of releases.
pub(crate) struct Verbs(pub(crate) Arc<Reloader>);

impl Releases for Verbs {
    fn deploy(&self, service: String, deploy: Deploy, by: Operator) -> BoxFuture<'_, Result<Begun, Problem>> {
        async move { self.begin_deploy(&service, deploy, by).await }.boxed()
    }

    fn rollback(
        &self,
        service: String,
        rollback: Rollback,
        by: Operator,
    ) -> BoxFuture<'_, Result<Begun, Problem>> {
        async move { self.begin_rollback(&service, rollback, by).await }.boxed()
    }

    fn events(&self, service: &str) -> Result<Events, Problem> {
        let name = self.name(service)?;
        self.0.deploys.events(&name).ok_or_else(|| refused(&supervisor::Error::NotRolling(name)))
    }

    fn history(&self, service: &str) -> Result<Vec<Release>, Problem> {
        let name = self.name(service)?;
        self.0.deploys.history.of(&name).map_err(|error| problem(500, "History", error.to_string()))
    }
}

impl Verbs {
    async fn begin_deploy(&self, service: &str, deploy: Deploy, by: Operator) -> Result<Begun, Problem> {
        let name = self.name(service)?;
        let (origin, now) = {
            let running = self.running().await?;
            (running.config.origin.clone(), found(&running, &name)?.0)
        };
        let fresh = match origin.source {
            config::Source::Command { .. } => now,
            config::Source::Path(_) => {
                let read = tokio::task::spawn_blocking(move || config::load(origin.source, origin.overrides));
                let config = read.await.map_err(|_| stopping())?;
                let config =
                    config.map_err(|errors| problem(422, "Wrong configuration", errors.to_string()))?;
                config.services.into_iter().find(|service| service.spec.name == name).ok_or_else(|| {
                    let text = format!("{name} is not in the file any more; `lethe reload` removes it");
                    problem(409, "No such service", text)
                })?
            }
        };
        let as_read = fresh.clone();
        let service = match &deploy.source {
            None => fresh,
            Some(text) => chosen(fresh, text)?,
        };
        let (before, by, message, cause) = (None, Some(by), deploy.message, Cause::Deploy);
        let wanted = Wanted { service, as_read, before, release: None, cause, by, message };
        self.go_on(wanted, None).await
    }

    async fn begin_rollback(
        &self,
        service: &str,
        rollback: Rollback,
        by: Operator,
    ) -> Result<Begun, Problem> {
        let name = self.name(service)?;
        let deploys = &self.0.deploys;
        if let Some(job) = deploys.under_way(&name) {
            // Two who go back at the same time want the same.
            let goes_back = job.cause == Cause::Rollback && !rollback.abort;
            if rollback.to.is_some() || goes_back || !job.call_off(&by.to_string()) {
                return Err(refused(&supervisor::Error::Rolling(name)));
            }
            let from = job.before.as_ref().map(|(_, spec)| spec.release);
            return Ok(Begun { service: name, release: job.release, from, is_called_off: true });
        }
        if rollback.abort {
            return Err(refused(&supervisor::Error::NotRolling(name)));
        }
        let releases = self.history(service)?;
        let target = target(&name, &releases, rollback.to)?;
        let now = found(&*self.running().await?, &name)?.0;
        let (service, made) = match deploys.whole(&name, target.release) {
            Some(whole) if whole.spec.directory.is_dir() => {
                let pin = self.0.maker.hold(&whole.spec.directory);
                let made = Made { spec: whole.spec, revision: target.revision.clone(), _pin: pin };
                (whole.service, Some(made))
            }
            _ => (again(&now, target, &deploys.history)?, None),
        };
        if service.source.is_none() && service.build.is_some() {
            let text = format!(
                "{name}: release {} was built in {}, where what was built since has taken its place; put the folder back as it was and `lethe deploy {name}`, or give {name} a `source`, of which each build is kept",
                target.release,
                service.spec.directory.display()
            );
            return Err(problem(409, "Not kept", text));
        }
        let (as_read, release) = (now, Some(target.release));
        let (before, by, message, cause) = (None, Some(by), rollback.message, Cause::Rollback);
        self.go_on(Wanted { service, as_read, before, release, cause, by, message }, made).await
    }

    /// Makes it, unless it was made before, and lets it take over, whoever has asked for it may go.
    async fn go_on(&self, wanted: Wanted, made: Option<Made>) -> Result<Begun, Problem> {
        // Held until it is under way: meanwhile neither a reload nor another `lethe` comes between.
        let running = self.running().await?;
        let before = Some(found(&running, &wanted.service.spec.name)?);
        let job = self.0.deploys.want(Wanted { before, ..wanted }).map_err(|error| refused(&error))?;
        drop(running);
        let from = job.before.as_ref().map(|(_, spec)| spec.release);
        let service = job.name().clone();
        let begun = Begun { service, release: job.release, from, is_called_off: false };
        let reloader = Arc::clone(&self.0);
        tokio::spawn(async move { reloader.carry_out(job, made).await });
        Ok(begun)
    }

    async fn running(&self) -> Result<MutexGuard<'_, Running>, Problem> {
        let busy = || problem(409, "Busy", "a reload is under way; try again when it has ended".into());
        let running = self.0.unless_reloading().await.ok_or_else(busy)?;
        if self.0.stop.wish() != Wish::Run || running.is_over {
            return Err(stopping());
        }
        Ok(running)
    }

    /// The service of this name, which exists.
    fn name(&self, service: &str) -> Result<ServiceName, Problem> {
        let wanted = self.0.supervisor.wanted();
        let known = || wanted.keys().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
        let unknown = || supervisor::Error::NoService { name: service.into(), known: known() };
        wanted.keys().find(|name| name.as_str() == service).cloned().ok_or_else(|| refused(&unknown()))
    }
}

impl Reloader {
    /// Makes a release and lets it take over.
    pub(super) async fn carry_out(self: Arc<Self>, job: Arc<Job>, made: Option<Made>) {
        let made = match made {
            Some(made) => made,
            None => {
                let mut fetched = None;
                let made = tokio::select! {
                    made = self.make_known(job.service.clone(), release::Wanted::Newest, Some(&job), &mut fetched) => made,
                    by = job.called_off() => {
                        return self.deploys.end(&job, Outcome::RolledBack, Some(format!("called off by {by}")));
                    }
                };
                match made {
                    Ok(made) => made,
                    Err(error) => {
                        self.deploys.was_fetched(&job, fetched);
                        return self.deploys.end(&job, Outcome::Failed, Some(in_full(&error)));
                    }
                }
            }
        };
        match self.deploys.roll(&job, &made).await {
            Ok(rollout) => self.settle(job, made, rollout).await,
            Err(error) => {
                if job.cause == Cause::Auto {
                    self.maker.was_bad(job.name(), &made.spec.directory);
                }
                self.deploys.end(&job, Outcome::Failed, Some(error.to_string()));
            }
        }
    }

    /// Waits for the end of a rollout, and remembers it.
    pub(crate) async fn settle(&self, job: Arc<Job>, made: Made, rollout: Rollout) {
        let phase = rollout.phase().await;
        let (outcome, reason) = outcome(&phase);
        self.note_what_was_bad(&job, &made, &phase);
        let mut running = match self.unless_reloading().await {
            Some(running) => running,
            None => {
                // A reload may pause for hours. What it has brought itself ends with it, and nothing else waits for that.
                if job.cause != Cause::Reload {
                    self.deploys.end(&job, outcome, reason.clone());
                }
                self.running.lock().await
            }
        };
        let name = job.name();
        let (outcome, reason) = match outcome {
            Outcome::Promoted if *job.is_undone.borrow() => {
                (Outcome::RolledBack, Some("the reload that it belonged to was not done".into()))
            }
            outcome => (outcome, reason),
        };
        let is_there = running.config.services.iter().any(|service| service.spec.name == *name);
        let runs = running.specs.get(name).map(|spec| spec.release);
        if outcome == Outcome::Promoted && is_there && !self.deploys.is_superseded(&job, runs) {
            running.specs.insert(name.clone(), Spec { release: job.release, ..made.spec.clone() });
            if job.cause == Cause::Deploy {
                put(&mut running, &job.as_read);
            }
            self.deploys.keep(&job, &made.spec);
        } else if let (Phase::RolledBack(..) | Phase::Stuck(..), Some(before)) = (&phase, &job.before)
            && is_there
            && runs == Some(job.release)
        {
            // A reload had believed in it. The next one finds that the file says something else, and tries again.
            let (service, spec) = self.deploys.newest(name).unwrap_or_else(|| before.clone());
            running.specs.insert(name.clone(), spec);
            put(&mut running, &service);
            let place = running.config.services.iter_mut().find(|known| known.spec.name == *name);
            place.into_iter().for_each(|place| place.grant.clone_from(&before.0.grant));
        }
        if self.deploys.under_way(name).is_none_or(|last| Arc::ptr_eq(&last, &job)) {
            self.grant(&running, name);
        }
        self.deploys.has_come(&job);
        if let Phase::Stuck(..) = &phase {
            // What is healthy of it goes on, and may have to be started again.
            drop(running);
            self.deploys.end(&job, outcome, reason.clone());
            self.changed.notify_waiters();
            self.left(&job).await;
            running = self.running.lock().await;
        }
        drop(made);
        self.keep_needed(&running);
        drop(running);
        // Whether a source is followed may be otherwise now.
        self.changed.notify_waiters();
        self.deploys.end(&job, outcome, reason);
    }
}

impl Reloader {
    /// From now on the workers of a service may use what its configuration says, and nothing else.
    fn grant(&self, running: &Running, name: &ServiceName) {
        let place = running.config.services.iter().find(|known| known.spec.name == *name);
        place.into_iter().for_each(|place| self.doors.grant(name, place.grant.clone()));
    }

    /// Waits until no worker of a release is left.
    async fn left(&self, job: &Job) {
        let mut roster = self.supervisor.roster();
        let is_here = || {
            let workers = self.supervisor.workers_of(job.name().as_str(), false);
            workers.iter().any(|worker| worker.release == job.release)
        };
        while is_here() && roster.changed().await.is_ok() {}
    }

    /// Remembers which version is not to be deployed again by itself: one that has gone back, and one that somebody has gone
    /// back from.
    fn note_what_was_bad(&self, job: &Job, made: &Made, phase: &Phase) {
        let left = job.before.as_ref().map(|(_, spec)| &spec.directory);
        let came = &made.spec.directory;
        // Else it was not the program.
        if left == Some(came) || *job.is_undone.borrow() {
            return;
        }
        match (phase, job.cause, left) {
            (Phase::RolledBack(..) | Phase::Stuck(..), cause, _) if cause != Cause::Rollback => {
                self.maker.was_bad(job.name(), came);
            }
            (Phase::Promoted, Cause::Rollback, Some(left)) => self.maker.was_bad(job.name(), left),
            _ => {}
        }
    }
}

/// What the file says of a release is what runs now. What does not belong to a release stays: how many workers there are,
/// the routes and the gateway's policy take effect with a reload alone.
fn put(running: &mut Running, service: &ServiceConfig) {
    let place = running.config.services.iter_mut().find(|known| known.spec.name == service.spec.name);
    if let Some(place) = place {
        place.spec = Spec { instances: place.spec.instances, ..service.spec.clone() };
        (place.build, place.source) = (service.build.clone(), service.source.clone());
        place.follow = service.follow;
        place.rollout = service.rollout.clone();
    }
}

/// The service and what is started of it, as they are now.
pub(super) fn found(running: &Running, name: &ServiceName) -> Result<(ServiceConfig, Spec), Problem> {
    let service = running.config.services.iter().find(|service| service.spec.name == *name);
    let unknown = || problem(409, "No such service", format!("{name} is on its way out"));
    let service = service.cloned().ok_or_else(unknown)?;
    let spec = running.specs.get(name).unwrap_or(&service.spec).clone();
    Ok((service, spec))
}

/// The service with another source.
fn chosen(service: ServiceConfig, text: &str) -> Result<ServiceConfig, Problem> {
    let name = &service.spec.name;
    let shown = source::url::without_secrets(text);
    let wrong = |why: &str| problem(400, "No source", format!("--source: `{shown}` {why}"));
    let source = match (text.strip_prefix('#'), &service.source) {
        (Some(reference), Some(Source::Git { url, .. })) => {
            if !source::is_reference(reference) {
                return Err(wrong("has no branch, tag or commit after `#`"));
            }
            Source::Git { url: url.clone(), reference: Some(reference.into()) }
        }
        (Some(_), _) => {
            return Err(wrong(&format!(
                "is a branch, tag or commit, and the `source` of {name} is no repository"
            )));
        }
        (None, _) => Source::parse(text, Path::new("/")).map_err(|why| wrong(&why))?,
    };
    Ok(service.with_source(source))
}

/// Which release is to come back.
fn target<'a>(name: &ServiceName, releases: &'a [Release], to: Option<u64>) -> Result<&'a Release, Problem> {
    let current = history::good(releases).map(|good| good.release);
    let Some(to) = to else {
        let none = format!(
            "{name}: no release before the one that runs is known; `lethe history {name}` lists them"
        );
        return history::previous(releases).ok_or_else(|| problem(409, "No release", none));
    };
    if current == Some(to) {
        return Err(problem(409, "It runs", format!("{name}: release {to} is the one that runs")));
    }
    let promoted = |known: &&Release| known.release == to && known.outcome == Outcome::Promoted;
    releases.iter().rev().find(promoted).ok_or_else(|| {
        let text = format!("{name}: no release {to} that ever took over; `lethe history {name}` lists them");
        problem(404, "No release", text)
    })
}

/// A release of which only the history is left, as it can be made again.
fn again(
    now: &ServiceConfig,
    release: &Release,
    history: &history::History,
) -> Result<ServiceConfig, Problem> {
    let (name, number) = (&now.spec.name, release.release);
    if history.digest(now) != release.digest {
        let text = format!(
            "{name}: release {number} had another command, environment or the like than the file has now, and what it had is not kept; \
             put it back into the file, and `lethe deploy {name}`"
        );
        return Err(problem(409, "Not kept", text));
    }
    let source = match &release.source {
        None => None,
        Some(text) => Some(remembered(text, release.revision.as_deref(), now.source.as_ref()).ok_or_else(|| {
            let text = format!(
                "{name}: release {number} came from {text}, whose credentials are not kept; `lethe deploy {name} --source URL` fetches it again"
            );
            problem(409, "Not kept", text)
        })?),
    };
    let mut service = now.clone();
    service.source = source;
    Ok(service)
}

fn problem(status: u16, title: &str, detail: String) -> Problem {
    Problem { status, title: title.into(), detail }
}

fn stopping() -> Problem {
    problem(503, "Stopping", Error::Stopping.to_string())
}

fn refused(error: &supervisor::Error) -> Problem {
    let (status, title) = match error {
        supervisor::Error::NoService { .. } => (404, "No such service"),
        supervisor::Error::Rolling(_) => (409, "A rollout is under way"),
        supervisor::Error::Stuck(_) => (409, "The release before does not start"),
        supervisor::Error::NotRolling(_) => (409, "No rollout is under way"),
        _ => (500, "Not done"),
    };
    problem(status, title, error.to_string())
}
