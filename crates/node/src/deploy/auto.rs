//! `auto = true`: what is new in a source that is followed becomes a release as by `lethe deploy`, with the same guards.
//! The service is as it runs: an edited file takes effect when somebody wants it to.

use std::{path::PathBuf, sync::Arc};

use lethe_admin::{
    releases::{Cause, Outcome},
    stop::Wish,
};
use lethe_model::service::ServiceName;
use lethe_supervisor::{service::Spec, supervisor};

use super::{Job, Wanted, verbs::found};
use crate::{
    build,
    config::ServiceConfig,
    release,
    reload::{Error, Reloader, Running, in_full},
    source,
};

/// A service whose source is followed, as it is configured, and where its programs are.
pub(crate) struct Followed {
    pub(crate) service: ServiceConfig,
    pub(crate) programs: Vec<PathBuf>,
}

impl Reloader {
    /// The services whose sources are followed; not those of which another source was chosen by hand. `None` when
    /// another process does that.
    pub(crate) async fn followed(&self) -> Option<Vec<Followed>> {
        let running = self.running.lock().await;
        let services = running.config.services.iter().filter(|service| {
            service.follow.is_some() && !self.deploys.has_another_source(&service.spec.name)
        });
        let followed = services.map(|service| Followed {
            service: service.clone(),
            programs: self.programs(&running, &service.spec),
        });
        (!running.is_over).then(|| followed.collect())
    }

    /// Where the program is that runs, and the one that takes over or is watched. Neither is new.
    fn programs(&self, running: &Running, spec: &Spec) -> Vec<PathBuf> {
        let runs = running.specs.get(&spec.name).unwrap_or(spec).directory.clone();
        [Some(runs), self.deploys.coming(&spec.name)].into_iter().flatten().collect()
    }

    /// Whether the source of a service that is followed may have something new.
    pub(crate) async fn has_news(&self, followed: &Followed) -> Result<bool, source::Error> {
        self.maker.has_news(&followed.service, &followed.programs).await
    }

    /// Makes what is new, and begins to let it take over. What cannot be built is named in the log and the history. An error
    /// says why it could not be had, which is not told yet: it may be otherwise the next time.
    pub(crate) async fn deploy_news(self: &Arc<Self>, followed: &Followed) -> Result<(), String> {
        let service = &followed.service;
        let name = &service.spec.name;
        let mut fetched = None;
        match self.make_known(service.clone(), release::Wanted::News, None, &mut fetched).await {
            Ok(made) if followed.programs.contains(&made.spec.directory) => {
                tracing::debug!("{name}: nothing new");
            }
            Ok(made) => {
                // What was new when it was looked at may have come meanwhile.
                if let Some(job) = self.wanted_by_itself(followed, Some(&followed.programs)).await {
                    tokio::spawn(Arc::clone(self).carry_out(job, Some(made)));
                }
            }
            Err(
                Error::Stopping
                | Error::Build(build::Error::Stopped)
                | Error::Release(_, release::Error::FailedBefore { .. }),
            ) => {}
            Err(error @ (Error::Source(..) | Error::Release(_, release::Error::Store(..)))) => {
                return Err(in_full(&error));
            }
            Err(error) => {
                let error = in_full(&error);
                match self.wanted_by_itself(followed, None).await {
                    Some(job) => {
                        self.deploys.was_fetched(&job, fetched);
                        self.deploys.end(&job, Outcome::Failed, Some(error));
                    }
                    None => {
                        let what = fetched.as_deref().map_or_else(|| "what is new".into(), release::shown);
                        tracing::error!("{name}: {what} cannot be made: {error}");
                    }
                }
            }
        }
        Ok(())
    }

    /// A release that nobody has asked for. `None` if it is not the time for it: another one is on its way, the service is not any
    /// more what it was, or its programs are others than `programs`, where some are given. Then it is looked at again.
    async fn wanted_by_itself(&self, followed: &Followed, programs: Option<&[PathBuf]>) -> Option<Arc<Job>> {
        let running = self.running.lock().await;
        if self.stop.wish() != Wish::Run || running.is_over {
            return None;
        }
        let name: &ServiceName = &followed.service.spec.name;
        let (service, spec) = found(&running, name).ok()?;
        let is_same = |one: &ServiceConfig, other: &ServiceConfig| {
            (&one.source, &one.build, &one.spec) == (&other.source, &other.build, &other.spec)
        };
        if !is_same(&service, &followed.service) || self.deploys.has_another_source(name) {
            return None;
        }
        if programs.is_some_and(|programs| programs != self.programs(&running, &service.spec)) {
            return None;
        }
        let (as_read, before, cause) = (service.clone(), Some((service.clone(), spec)), Cause::Auto);
        let wanted = Wanted { service, as_read, before, release: None, cause, by: None, message: None };
        match self.deploys.want(wanted) {
            Ok(job) => Some(job),
            Err(supervisor::Error::Rolling(_)) => None,
            Err(error) => {
                tracing::error!("{error}");
                None
            }
        }
    }
}
