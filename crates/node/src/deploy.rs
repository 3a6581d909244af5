//! Releases: a version of a service is made, takes the place of the one that runs, and is remembered. The supervisor does
//! the rollout, the gateway counts what both versions answer, and here they meet; [`history`] is what is left of it.

pub(crate) mod auto;
pub(crate) mod begin;
pub(crate) mod comparison;
pub(crate) mod history;
mod verbs;
pub mod verdict;

pub(crate) use verbs::Verbs;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use lethe_admin::releases::{Cause, Event, Events, LINES_BYTES_MAX, Operator, Outcome, STEPS_MAX};
use lethe_gateway::gateway::Gateway;
use lethe_model::service::ServiceName;
use lethe_supervisor::{
    rollout::{
        policy::Policy,
        rolling::{Comparison, Phase, Sides, Step, Watch, What},
    },
    service::Spec,
    supervisor::{self, Rollout, Supervisor},
};
use tokio::sync::watch;

use self::{
    comparison::Comparer,
    history::{Begin, History},
};
use crate::{
    config::{self, ServiceConfig},
    release::Pin,
    secrets::Secrets,
    source::Source,
};

/// Releases of a service that can come back at once, since all of them is kept: the one that runs among them.
const WHOLE_KEPT: usize = 3;
/// The step of a line that was printed while a release is made.
const LINE: &str = "line";
/// What an event takes beside its text, in bytes.
const LINE_OVERHEAD: usize = 128;
/// The longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 2000;

/// All that is known of releases.
pub(crate) struct Deploys {
    pub(crate) history: History,
    supervisor: Supervisor,
    gateway: Arc<Gateway>,
    services: Mutex<BTreeMap<ServiceName, Releases>>,
}

/// What is known of the releases of one service.
#[derive(Default)]
struct Releases {
    /// The last rollout.
    last: Option<Arc<Job>>,
    /// The last releases that took over, the newest last.
    whole: VecDeque<Whole>,
    /// What takes over now or is watched, and what is started of it.
    coming: Option<(Arc<Job>, Spec)>,
    /// The source that somebody chose by hand, which stays until the file names another.
    chosen: Option<Choice>,
}

/// A source that is not what the file says.
#[derive(Clone)]
pub(crate) struct Choice {
    pub(crate) source: Source,
    /// The source of the file is not followed meanwhile.
    pub(crate) is_instead: bool,
}

/// A release that can come back at once.
#[derive(Clone)]
struct Whole {
    release: u64,
    /// As it was read, with the source that was chosen.
    service: ServiceConfig,
    /// As the file had it.
    as_read: ServiceConfig,
    spec: Spec,
}

/// A rollout, from the moment it is wanted.
pub(crate) struct Job {
    pub(crate) service: ServiceConfig,
    pub(crate) release: u64,
    pub(crate) cause: Cause,
    /// As the file has it: its source may be another than the one that was chosen.
    pub(crate) as_read: ServiceConfig,
    /// What ran before.
    pub(crate) before: Option<(ServiceConfig, Spec)>,
    events: watch::Sender<Vec<Event>>,
    /// How many steps are among them, and bytes of lines.
    steps: AtomicUsize,
    lines_bytes: AtomicUsize,
    /// Who does not want it any more.
    called_off: watch::Sender<Option<String>>,
    /// Once the supervisor has it.
    rollout: OnceLock<Rollout>,
    /// Rollouts in the order in which they were wanted.
    serial: u64,
    /// What it belonged to was not done.
    pub(crate) is_undone: watch::Sender<bool>,
}

/// What is wanted.
pub(crate) struct Wanted {
    /// What is to run, with the source that was chosen.
    pub(crate) service: ServiceConfig,
    /// As the file has it.
    pub(crate) as_read: ServiceConfig,
    /// What runs now.
    pub(crate) before: Option<(ServiceConfig, Spec)>,
    /// The number of a release that comes back; a new one when there is none.
    pub(crate) release: Option<u64>,
    pub(crate) cause: Cause,
    pub(crate) by: Option<Operator>,
    pub(crate) message: Option<String>,
}

/// How a program was made.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) spec: Spec,
    /// What its source calls the version, such as a commit.
    pub(crate) revision: Option<String>,
    /// Has what was fetched and built stay.
    pub(crate) _pin: Option<Arc<Pin>>,
}

impl Choice {
    /// What was chosen for a service whose file says `configured`. What was gone back to, or was the last good one, is
    /// no choice against what comes next.
    pub(crate) fn new(source: Source, cause: Cause, configured: Option<&Source>) -> Self {
        let is_instead = match cause {
            Cause::Deploy => true,
            Cause::Rollback | Cause::Auto => false,
            Cause::Up | Cause::Reload => {
                let is_version = configured.is_some_and(|it| it.place() == source.place());
                !(is_version && source.pin().is_some())
            }
        };
        Self { source, is_instead }
    }
}

impl Job {
    pub(crate) fn name(&self) -> &ServiceName {
        &self.service.spec.name
    }

    fn is_over(&self) -> bool {
        self.events.borrow().last().is_some_and(Event::is_end)
    }

    /// Whether workers of it may have been started.
    pub(crate) fn is_handed(&self) -> bool {
        self.rollout.get().is_some()
    }

    fn has_taken_over(&self) -> bool {
        self.rollout.get().is_some_and(Rollout::has_taken_over) && !*self.is_undone.borrow()
    }

    /// What can come back of it.
    fn whole(&self, spec: &Spec) -> Whole {
        let spec = Spec { release: self.release, ..spec.clone() };
        Whole { release: self.release, service: self.service.clone(), as_read: self.as_read.clone(), spec }
    }

    /// Whether there is room for another event.
    fn has_room(&self, event: &Event) -> bool {
        if event.step == LINE {
            let bytes = event.text.len() + LINE_OVERHEAD;
            return self.lines_bytes.fetch_add(bytes, Relaxed) + bytes <= LINES_BYTES_MAX;
        }
        // The end is always told.
        self.steps.fetch_add(1, Relaxed) < STEPS_MAX || event.is_end()
    }

    /// Tells what happens, for people, with what was counted.
    pub(crate) fn tell(&self, step: &str, text: String, counted: Option<&Step>) {
        let event = Event {
            at: SystemTime::now().into(),
            release: self.release,
            step: step.into(),
            text,
            wanted: counted.map(|step| step.wanted),
            old: counted.map(|step| step.old),
            new: counted.map(|step| step.new),
            ready: counted.map(|step| step.ready),
        };
        match step {
            LINE => tracing::debug!("{}: {}", self.name(), event.text),
            "waiting" => tracing::debug!("{}: release {} {}", self.name(), self.release, event.text),
            "going-back" | "rolled-back" | "failed" => {
                tracing::error!("{}: release {} {}", self.name(), self.release, event.text);
            }
            _ => tracing::info!("{}: release {} {}", self.name(), self.release, event.text),
        }
        if self.has_room(&event) {
            self.events.send_modify(|events| events.push(event));
        }
    }

    /// Has it go back, or no longer be made. False if it has ended.
    fn call_off(&self, by: &str) -> bool {
        // In this order, since it may be handed over at this moment.
        self.called_off.send_replace(Some(by.to_owned()));
        self.rollout.get().map_or_else(|| !self.is_over(), |rollout| rollout.call_off(by.to_owned()))
    }

    /// Waits until somebody does not want it any more. Cancellation safe.
    pub(crate) async fn called_off(&self) -> String {
        let mut called_off = self.called_off.subscribe();
        let by = called_off.wait_for(Option::is_some).await.ok().and_then(|by| by.clone());
        // Its sender is in `self`.
        by.unwrap_or_default()
    }
}

impl Deploys {
    pub(crate) fn new(history: History, supervisor: Supervisor, gateway: Arc<Gateway>) -> Self {
        Self { history, supervisor, gateway, services: Mutex::default() }
    }

    /// Notes what runs from the start.
    pub(crate) fn started(
        &self,
        service: ServiceConfig,
        as_read: ServiceConfig,
        spec: Spec,
        chosen: Option<Choice>,
    ) {
        let mut services = self.services();
        let releases = services.entry(spec.name.clone()).or_default();
        releases.chosen = chosen;
        releases.keep(Whole { release: spec.release, service, as_read, spec });
    }

    /// Notes that a release of a service is wanted from now on. Refused while another is on its way; one that is only
    /// watched still is good then.
    pub(crate) fn want(&self, wanted: Wanted) -> Result<Arc<Job>, supervisor::Error> {
        let Wanted { service, as_read, before, release, cause, by, message } = wanted;
        let name = service.spec.name.clone();
        let mut services = self.services();
        let releases = services.entry(name.clone()).or_default();
        let is_busy =
            |job: &Arc<Job>| !job.is_over() && (!job.is_handed() || self.supervisor.is_rolling(&name));
        if releases.last.as_ref().is_some_and(is_busy) {
            return Err(supervisor::Error::Rolling(name));
        }
        let shown = |source: &Source| source.to_string();
        let begin = Begin {
            service: &name,
            release,
            cause,
            by,
            message,
            digest: self.history.digest(&service),
            source: service.source.as_ref().map(shown),
            configured: as_read.source.as_ref().map(shown),
        };
        let release = self.history.begin(begin).map_err(|error| unwritten(&name, &error))?;
        let serial = releases.last.as_ref().map_or(0, |last| last.serial + 1);
        let job = Job {
            service,
            as_read,
            release,
            cause,
            before,
            events: watch::Sender::default(),
            steps: AtomicUsize::default(),
            lines_bytes: AtomicUsize::default(),
            called_off: watch::Sender::default(),
            rollout: OnceLock::new(),
            serial,
            is_undone: watch::Sender::default(),
        };
        let job = Arc::new(job);
        releases.last = Some(Arc::clone(&job));
        Ok(job)
    }

    /// Notes which version it is.
    pub(crate) fn was_fetched(&self, job: &Job, revision: Option<String>) {
        if let Err(error) = self.history.made(job.name(), job.release, revision) {
            tracing::error!("{}", unwritten(job.name(), &error));
        }
    }

    /// Begins to let what was made take over.
    pub(crate) async fn roll(&self, job: &Arc<Job>, made: &Made) -> Result<Rollout, supervisor::Error> {
        self.was_fetched(job, made.revision.clone());
        let (service, rollout) = (job.name().clone(), &job.service.rollout);
        let comparer =
            Comparer::new(service, Arc::clone(&self.gateway), self.supervisor.clone(), rollout.guard);
        let watcher = Watcher { job: Arc::clone(job), comparer };
        let spec = Spec { release: job.release, ..made.spec.clone() };
        let policy = rollout.policy.clone();
        // While it has less than its share, it is not as fast as it will be.
        let policy = Policy { cold: policy.cold.max(job.service.policy.slow_start), ..policy };
        let rollout = self.supervisor.roll(spec, policy, Box::new(watcher)).await?;
        {
            let mut services = self.services();
            let releases = services.entry(job.name().clone()).or_default();
            // What was watched may have been taken for good, to make room; and this one may go back to it.
            if let Some((before, spec)) = releases.coming.replace((Arc::clone(job), made.spec.clone()))
                && before.has_taken_over()
            {
                releases.keep(before.whole(&spec));
            }
        }
        let rollout = job.rollout.get_or_init(|| rollout).clone();
        // Somebody may have said so while it was handed over.
        if let Some(by) = job.called_off.borrow().clone() {
            rollout.call_off(by);
        }
        Ok(rollout)
    }

    /// Notes that what came has come, or is not to come any more.
    pub(crate) fn has_come(&self, job: &Arc<Job>) {
        if let Some(releases) = self.services().get_mut(job.name()) {
            releases.coming.take_if(|(coming, _)| Arc::ptr_eq(coming, job));
        }
    }

    /// Where the program is that takes over now or is watched.
    pub(crate) fn coming(&self, service: &ServiceName) -> Option<PathBuf> {
        self.services().get(service)?.coming.as_ref().map(|(_, spec)| spec.directory.clone())
    }

    /// Whether what runs is of a rollout that was wanted after this one: it took over while this one was watched.
    pub(crate) fn is_superseded(&self, job: &Job, runs: Option<u64>) -> bool {
        let services = self.services();
        let last = services.get(job.name()).and_then(|releases| releases.last.as_ref());
        last.is_some_and(|last| last.serial > job.serial && Some(last.release) == runs)
    }

    /// The last release that took over: as the file had it, and as it was started.
    pub(crate) fn newest(&self, service: &ServiceName) -> Option<(ServiceConfig, Spec)> {
        let services = self.services();
        let whole = services.get(service)?.whole.back()?;
        Some((whole.as_read.clone(), whole.spec.clone()))
    }

    /// Notes how it has ended, and tells it last of all. Has no effect on one that has ended.
    pub(crate) fn end(&self, job: &Job, outcome: Outcome, reason: Option<String>) {
        if job.is_over() {
            return;
        }
        let name = job.name();
        let reason = reason.map(|reason| without_secrets(&job.service, &reason));
        if let Err(error) = self.history.end(name, job.release, outcome, reason.clone()) {
            tracing::error!("{}", unwritten(name, &error));
        }
        let reason = reason.unwrap_or_default();
        let (step, text) = match outcome {
            Outcome::Promoted => ("promoted", "has taken over".to_owned()),
            Outcome::RolledBack => ("rolled-back", format!("was rolled back: {reason}")),
            Outcome::Failed => ("failed", format!("was not made: {reason}")),
            Outcome::Interrupted | Outcome::UnderWay => ("interrupted", "was interrupted".into()),
        };
        job.tell(step, text, None);
    }

    /// Notes that a release has taken over.
    pub(crate) fn keep(&self, job: &Job, spec: &Spec) {
        let mut services = self.services();
        let releases = services.entry(job.name().clone()).or_default();
        let (source, configured) = (&job.service.source, &job.as_read.source);
        let chosen = source.clone().filter(|_| source != configured);
        releases.chosen = chosen.map(|source| Choice::new(source, job.cause, configured.as_ref()));
        if job.as_read.follow.is_some() && releases.chosen.as_ref().is_some_and(|choice| choice.is_instead) {
            tracing::info!(
                "{name}: its source is not followed while another one runs; `lethe deploy {name}` goes back to it",
                name = job.name()
            );
        }
        releases.keep(job.whole(spec));
    }

    /// Forgets a service that is gone.
    pub(crate) fn forget(&self, service: &ServiceName) {
        self.services().remove(service);
    }

    /// Where the program of a service comes from: from where the file says, or from where somebody chose.
    pub(crate) fn source_of(&self, service: &ServiceName) -> Option<Source> {
        Some(self.services().get(service)?.chosen.clone()?.source)
    }

    /// Whether somebody chose a source by hand in the place of what the file says.
    pub(crate) fn has_another_source(&self, service: &ServiceName) -> bool {
        let services = self.services();
        let chosen = services.get(service).and_then(|releases| releases.chosen.as_ref());
        chosen.is_some_and(|choice| choice.is_instead)
    }

    /// Where everything is that could come back at once.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let services = self.services();
        let specs = services.values().flat_map(|releases| {
            let whole = releases.whole.iter().map(|whole| &whole.spec);
            whole.chain(releases.coming.iter().map(|(_, spec)| spec))
        });
        specs.map(|spec| spec.directory.clone()).collect()
    }

    /// The last rollout of a service.
    pub(crate) fn events(&self, service: &ServiceName) -> Option<Events> {
        Some(self.services().get(service)?.last.as_ref()?.events.subscribe())
    }

    /// The rollout of a service that has not ended.
    pub(crate) fn under_way(&self, service: &ServiceName) -> Option<Arc<Job>> {
        self.services().get(service)?.last.clone().filter(|job| !job.is_over())
    }

    /// Services of which a release is on its way.
    pub(crate) fn all_under_way(&self) -> Vec<ServiceName> {
        let services = self.services();
        let is_open = |releases: &Releases| releases.last.as_ref().is_some_and(|job| !job.is_over());
        services.iter().filter(|(_, releases)| is_open(releases)).map(|(name, _)| name.clone()).collect()
    }

    fn whole(&self, service: &ServiceName, release: u64) -> Option<Whole> {
        self.services().get(service)?.whole.iter().find(|whole| whole.release == release).cloned()
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Releases>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Releases {
    /// Keeps one, in the place of the oldest.
    fn keep(&mut self, whole: Whole) {
        self.whole.retain(|known| known.release != whole.release);
        self.whole.push_back(whole);
        while self.whole.len() > WHOLE_KEPT {
            self.whole.pop_front();
        }
    }
}

/// Compares the versions, and tells what the supervisor does.
struct Watcher {
    job: Arc<Job>,
    comparer: Comparer,
}

impl Watch for Watcher {
    fn compare(&mut self, sides: &Sides) -> Comparison {
        self.comparer.compare(sides)
    }

    fn note(&mut self, step: &Step) {
        let name = self.job.name();
        let count = |count: usize, version: &str, verb: &str| {
            let (s, verb) = if count == 1 { ("", format!("{verb}s")) } else { ("s", verb.to_owned()) };
            format!("{count} {version} worker{s} {verb}")
        };
        let (what, text) = match &step.what {
            What::Started { count: n } => ("started", count(*n, "new", "start")),
            What::StartedOld { count: n } => ("started-old", count(*n, "old", "start")),
            What::Draining { count: n } => ("draining", count(*n, "old", "drain")),
            What::DrainingNew { count: n } => ("draining-new", count(*n, "new", "drain")),
            What::Waiting { text } => ("waiting", format!("waits {text}")),
            What::Pausing { percent, for_ms } => {
                let time = config::shown(Duration::from_millis(*for_ms));
                (
                    "pausing",
                    format!("is at {percent} % and pauses for {time}; `lethe rollback {name}` goes back"),
                )
            }
            What::Baking { for_ms } => (
                "baking",
                format!("runs alone, and is watched for {}", config::shown(Duration::from_millis(*for_ms))),
            ),
            What::GoingBack { reason } => ("going-back", format!("goes back: {reason}")),
            // Told when it is remembered.
            What::Promoted | What::RolledBack { .. } | What::Interrupted => return,
        };
        self.job.tell(what, text, Some(step));
    }
}

/// What becomes of a rollout, in the words of the history.
pub(crate) fn outcome(phase: &Phase) -> (Outcome, Option<String>) {
    match phase {
        Phase::Promoted => (Outcome::Promoted, None),
        Phase::RolledBack(reason, None) => (Outcome::RolledBack, Some(reason.to_string())),
        Phase::RolledBack(reason, Some(trouble)) => {
            (Outcome::RolledBack, Some(format!("{reason}; a worker: {trouble}")))
        }
        Phase::Stuck(reason, said) => {
            let said = said.as_ref().map(|said| format!("; a worker: {said}")).unwrap_or_default();
            let reason = format!("{reason}; the release before does not start either{said}");
            (Outcome::RolledBack, Some(reason))
        }
        Phase::Rolling | Phase::Baking | Phase::Interrupted => (Outcome::Interrupted, None),
    }
}

/// What a worker or a build said last is a part of the reason, and may repeat what it was given.
fn without_secrets(service: &ServiceConfig, reason: &str) -> String {
    let shown = Secrets::of(service).hidden_in(reason);
    match shown.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// A source as the history shows it, at a revision that is known: with the credentials that the file has for the same
/// place. `None` if it had others, which are not kept.
pub(crate) fn remembered(text: &str, revision: Option<&str>, configured: Option<&Source>) -> Option<Source> {
    let (place, reference) = match text.split_once('#') {
        Some((place, reference)) => (place, Some(reference)),
        None => (text, None),
    };
    let known = match configured {
        Some(Source::Git { url, .. }) if url.to_string() == place => {
            Some(Source::Git { url: url.clone(), reference: reference.map(str::to_owned) })
        }
        Some(source) if source.to_string() == text => Some(source.clone()),
        _ if text.contains('…') => None,
        _ => Source::parse(text, Path::new("/")).ok(),
    }?;
    Some(revision.map_or_else(|| known.clone(), |revision| known.at(revision)))
}

fn unwritten(service: &ServiceName, error: &std::io::Error) -> supervisor::Error {
    supervisor::Error::System(format!("{service}: the history of its releases cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_does_not_repeat_what_the_environment_says() {
        let folder = tempfile::tempdir().unwrap();
        let toml = "[services.web]\ncommand = 'sh'\nenv = { KEY = 'hunter2', MODE = 'on' }\n";
        std::fs::write(folder.path().join("lethe.toml"), toml).unwrap();
        let source = config::Source::Path(folder.path().into());
        let config = config::load(source, config::Overrides::default()).unwrap();
        let spec = &config.services[0];
        assert_eq!(without_secrets(spec, "no login on db with hunter2"), "no login on db with …");
        assert_eq!(without_secrets(spec, &"x".repeat(5000)).chars().count(), REASON_CHARS_MAX + 1);
    }

    #[test]
    fn what_is_told_of_a_rollout_is_bounded_and_ends_with_its_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lethe.toml"), "[services.web]\ncommand = 'sh'\n").unwrap();
        let source = config::Source::Path(folder.path().into());
        let service = config::load(source, config::Overrides::default()).unwrap().services.remove(0);
        let job = Job {
            as_read: service.clone(),
            service,
            release: 5,
            cause: Cause::Deploy,
            before: None,
            events: watch::Sender::default(),
            steps: AtomicUsize::default(),
            lines_bytes: AtomicUsize::default(),
            called_off: watch::Sender::default(),
            rollout: OnceLock::new(),
            serial: 0,
            is_undone: watch::Sender::default(),
        };
        assert!(job.call_off("ada"), "it is not made yet");
        for _ in 0..2 * LINES_BYTES_MAX / 1000 {
            job.tell(LINE, "x".repeat(1000), None);
        }
        let lines = job.events.borrow().len();
        assert!((LINES_BYTES_MAX / 2000..LINES_BYTES_MAX / 1000).contains(&lines), "{lines}");
        for _ in 0..=STEPS_MAX {
            job.tell("draining", "1 old worker drains".into(), None);
        }
        assert_eq!(
            job.events.borrow().len(),
            lines + STEPS_MAX,
            "what is built takes no room of what follows"
        );
        assert!(!job.is_over());
        job.tell("promoted", "has taken over".into(), None);
        assert!(job.is_over() && !job.call_off("ada"), "its end is told in any case");
    }

    #[test]
    fn a_source_comes_back_with_the_credentials_of_the_file() {
        let parse = |text: &str| Source::parse(text, Path::new("/")).unwrap();
        let secret = parse("https://me:s3cret@h/shop.git#main");
        let check =
            |text: &str, revision: Option<&str>, configured: Option<&Source>, expected: Option<&str>| {
                assert_eq!(remembered(text, revision, configured), expected.map(parse), "{text}");
            };
        check(
            "https://…@h/shop.git#main",
            Some("abc"),
            Some(&secret),
            Some("https://me:s3cret@h/shop.git#abc"),
        );
        check("https://…@h/shop.git#v2", None, Some(&secret), Some("https://me:s3cret@h/shop.git#v2"));
        // Those of another place are not known.
        check("https://…@h/blog.git#v2", Some("abc"), Some(&secret), None);
        check("https://h/blog.git", Some("abc"), Some(&secret), Some("https://h/blog.git#abc"));
        check("/dist/shop.tar.gz", None, None, Some("/dist/shop.tar.gz"));
        check("blob:releases/shop.tgz", None, None, Some("blob:releases/shop.tgz"));
        // An archive is what it was, whatever is at its URL now; that URL is the one of the file.
        let (query, hash) = (parse("https://h/x.tar?token=s3cret"), "ab".repeat(32));
        let pinned = format!("https://h/x.tar?token=s3cret#sha256={hash}");
        check("https://h/x.tar?…", Some(&hash), Some(&query), Some(&pinned));
        check("https://h/x.tar?…", Some(&hash), Some(&secret), None);
    }

    #[test]
    fn only_another_source_is_followed_no_more() {
        let parse = |text: &str| Source::parse(text, Path::new("/")).unwrap();
        let (main, commit) = (parse("https://h/x.git#main"), "ab".repeat(20));
        let is_instead = |text: &str, cause: Cause| Choice::new(parse(text), cause, Some(&main)).is_instead;
        let at_commit = format!("https://h/x.git#{commit}");
        assert!(is_instead("https://h/x.git#v1", Cause::Deploy));
        assert!(is_instead(&at_commit, Cause::Deploy));
        assert!(!is_instead("https://h/x.git#v1", Cause::Rollback));
        assert!(!is_instead(&at_commit, Cause::Up), "the last good one, after one that was not");
        assert!(is_instead("https://h/x.git#v1", Cause::Up), "as before the restart");
        assert!(is_instead("https://h/y.git#main", Cause::Reload));
    }
}
