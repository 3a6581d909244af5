//! What goes on beside a run: workers are killed, Ctrl-C ends it, and somebody who looks sees how far it is.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use lethe_admin::{api::Worker, client::Client};
use lethe_load::{run::Progress, schedule::Schedule};
use lethe_model::roster::WorkerState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

use super::target::Place;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Between two kills, where nobody is to be killed.
const NEVER: Duration = Duration::from_hours(24);

/// Exit status of what SIGINT has ended, as the shell has it.
const INTERRUPTED: i32 = 128 + 2;

/// Who was killed, and when.
type Kills = Vec<(Instant, String)>;

/// A thread beside a run.
pub(super) struct Attendant {
    progress: Arc<Progress>,
    end: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<Kills>>,
}

/// What the thread looks after.
struct Watch {
    progress: Arc<Progress>,
    kill: Option<(Duration, Option<String>, Client)>,
    schedule: Schedule,
    what: String,
    is_shown: bool,
}

impl Attendant {
    /// Begins to look after a run; kills a worker of the service so often.
    pub(super) fn begin(
        place: &Place,
        kill: Option<(Duration, Option<String>)>,
        schedule: Schedule,
        what: &str,
        is_quiet: bool,
    ) -> anyhow::Result<Self> {
        let kill = match kill {
            Some((every, service)) => {
                let client = place.client.clone().context("workers are killed only of a lethe that runs")?;
                Some((every, service, client))
            }
            None => None,
        };
        let progress = Arc::new(Progress::default());
        let is_shown = !is_quiet && io::stderr().is_terminal();
        let watch = Watch { progress: Arc::clone(&progress), kill, schedule, what: what.into(), is_shown };
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("attendant".into());
        let thread = thread.spawn(move || runtime.block_on(watch.run(ended)))?;
        Ok(Self { progress, end, thread })
    }

    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Ends it, and gives who was killed.
    pub(super) fn end(self) -> anyhow::Result<Kills> {
        // Whoever has failed has ended already.
        let _ = self.end.send(());
        self.thread.join().map_err(|_| anyhow::anyhow!("what goes on beside the load has panicked"))?
    }
}

impl Watch {
    async fn run(self, mut ended: oneshot::Receiver<()>) -> anyhow::Result<Kills> {
        let every = self.kill.as_ref().map_or(NEVER, |(every, ..)| *every);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looks, mut kills) = (interval(LOOK), Vec::new());
        let mut interrupts = signal(SignalKind::interrupt())?;
        // The first tick is at once, when nobody has come yet.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = &mut ended => break,
                _ = interrupts.recv() => {
                    // Whoever is under way is waited for; a second Ctrl-C does not.
                    if self.progress.stop.swap(true, Ordering::Relaxed) {
                        std::process::exit(INTERRUPTED);
                    }
                }
                _ = ticks.tick() => match self.kill().await {
                    Ok(killed) => kills.extend(killed.map(|name| (Instant::now(), name))),
                    // Without its kills, the run is not what it was to be.
                    Err(error) => {
                        self.progress.stop.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                },
                _ = looks.tick() => self.show(),
            }
        }
        if self.is_shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
        Ok(kills)
    }

    /// Kills the oldest worker that is ready, so that each has its turn.
    async fn kill(&self) -> anyhow::Result<Option<String>> {
        let Some((_, service, client)) = &self.kill else { return Ok(None) };
        let status = client.status().await?;
        let is_meant = |worker: &&Worker| {
            let is_its = service.as_ref().is_none_or(|service| worker.service.as_str() == service);
            is_its && worker.state == WorkerState::Ready && worker.pid.is_some()
        };
        let oldest = status.workers.iter().filter(is_meant).min_by_key(|worker| worker.started_at.unix_ms());
        let Some(worker) = oldest else { return Ok(None) };
        let name = worker.instance.as_str();
        match client.kill(name, 9).await {
            Ok(()) => Ok(Some(name.into())),
            // It has ended meanwhile by itself.
            Err(lethe_admin::client::Error::Problem(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn show(&self) {
        if !self.is_shown {
            return;
        }
        let Progress { arrived, ok, not_ok, .. } = &*self.progress;
        let (arrived, ok, not_ok) =
            (arrived.load(Ordering::Relaxed), ok.load(Ordering::Relaxed), not_ok.load(Ordering::Relaxed));
        let all = self.schedule.arrivals();
        let wrong = if not_ok > 0 { format!(", {not_ok} not as expected") } else { String::new() };
        let text = format!("{}{arrived} of {all} users, {ok} requests as expected{wrong}", self.what);
        let _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
    }
}
