//! The releases that `lethe` begins with. Every worker of a start is of one version, whatever was under way when the last
//! `lethe` ended: what the file says, with the source of the last good release where that was chosen by hand or what
//! came after it was not good.

use std::{collections::BTreeMap, io};

use lethe_admin::releases::{Cause, Outcome};
use lethe_model::service::ServiceName;

use super::{
    Choice,
    history::{Begin, History, good, pinned},
    remembered,
};
use crate::config::ServiceConfig;

/// Chooses where the program of each service comes from, before it is fetched. Returns those that are not as the file says.
pub(crate) fn choose(
    history: &History,
    services: &mut [ServiceConfig],
    is_first: bool,
) -> io::Result<BTreeMap<ServiceName, Choice>> {
    let mut chosen = BTreeMap::new();
    for service in services {
        let name = service.spec.name.clone();
        history.mend(&name)?;
        if is_first {
            history.cut_off(&name)?;
        }
        let configured = service.source.clone();
        let shown = configured.as_ref().map(ToString::to_string);
        let releases = history.of(&name)?;
        let Some(release) = pinned(&releases, shown.as_deref()) else { continue };
        let number = release.release;
        let text = release.source.as_deref().unwrap_or_default();
        match remembered(text, release.revision.as_deref(), configured.as_ref()) {
            Some(source) if Some(&source) == configured.as_ref() => {}
            Some(source) => {
                tracing::info!("{name}: release {number} was the last good one, and is started: {source}");
                *service = service.clone().with_source(source.clone());
                // What only came after it was not good, and is no choice.
                let cause = if release.source == shown { Cause::Rollback } else { release.cause };
                chosen.insert(name, Choice::new(source, cause, configured.as_ref()));
            }
            None => tracing::warn!(
                "{name}: release {number} came from {text}, whose credentials are not kept; what the file names is started"
            ),
        }
    }
    Ok(chosen)
}

/// The number of what is about to be started: that of the last good release if it is the same, or else a new one. `service`
/// is as it was read, but for its source; `as_read` is just so, and `revision` is what its source calls the version. A new
/// one is under way until [`has_begun`].
pub(crate) fn number(
    history: &History,
    service: &ServiceConfig,
    as_read: Option<&ServiceConfig>,
    revision: Option<String>,
) -> io::Result<u64> {
    let name = &service.spec.name;
    let digest = history.digest(service);
    let source = service.source.as_ref().map(ToString::to_string);
    let releases = history.of(name)?;
    let place =
        |text: &Option<String>| text.as_ref().map(|it| it.split('#').next().unwrap_or_default().to_owned());
    if let Some(good) = good(&releases) {
        // A commit is the same by whatever name it was asked for.
        let is_same_source = match (&good.revision, &revision) {
            (Some(one), Some(other)) => one == other && place(&good.source) == place(&source),
            _ => good.source == source,
        };
        if good.digest == digest && is_same_source {
            return Ok(good.release);
        }
    }
    let configured = as_read.and_then(|service| service.source.as_ref()).map(ToString::to_string);
    let (by, message, cause) = (None, None, Cause::Up);
    let begin = Begin { service: name, release: None, cause, by, message, digest, source, configured };
    let release = history.begin(begin)?;
    history.made(name, release, revision)?;
    Ok(release)
}

/// Notes that what `lethe` has begun with is what runs.
pub(crate) fn has_begun(history: &History, services: &[ServiceConfig]) -> io::Result<()> {
    services.iter().try_for_each(|service| {
        history.end(&service.spec.name, service.spec.release, Outcome::Promoted, None)
    })
}
