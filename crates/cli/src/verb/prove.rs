//! `lethe prove`: finds what a worker keeps that another one would need.

mod memory;
mod show;
pub(in crate::verb) mod source;
pub(in crate::verb) mod tier;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{Args, value_parser};
use lethe_journey::{file, journey::Journey};
use lethe_node::config;
use lethe_prover::{
    pool::Pool,
    proof::{self, Progress, Proof, Verdict},
    replay::Again,
    report::{framework::Framework, junit, page, sarif},
    scratch::Scratch,
    stage::Stage,
    worker,
    world::Level,
    yard::Yard,
};
use rustix::fs::Access;

use memory::{Asked, Written};

use crate::{
    failure::{Concluded, NotStarted, NothingProven},
    output,
};

/// Workers that a round robin may have.
const WORKERS_MAX: i64 = 16;

/// The answer goes to standard output.
const STDOUT: &str = "-";

/// Where `--ci` writes, if it does not say so.
const REPORTS: &str = "lethe-proof";

/// Prove that a service keeps nothing in its workers
///
/// Plays journeys against one worker, and then against several, each of which sees files, ports and processes of its own; workers
/// are killed with SIGKILL in between. Whatever a user would notice is reduced to the step that leaves something behind and the step
/// that needs it, with where it was kept, the proof and the fix. Nothing of your files is changed.
///
/// Exit status: 0 nothing was found, 1 something was, 2 not all could be looked at, 3 the service did not start.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe prove --journey login.toml -- node server.js
  lethe prove examples/guestbook --journey sign.toml --json proof.json
  lethe prove --journey a.toml --reset 'redis-cli flushall' -- python3 app.py
  lethe prove --replay F1")]
pub struct Prove {
    /// A folder with a lethe.toml or a Procfile, or such a file
    /// [default: .]
    #[arg(value_name = "DIR|FILE", conflicts_with = "command")]
    path: Option<PathBuf>,

    /// What users do: a .toml as docs/journeys.md describes, a .har that a browser recorded, or an OpenAPI document; may be
    /// given several times [default: links and forms are found and followed]
    #[arg(long, value_name = "FILE")]
    journey: Vec<PathBuf>,

    /// The service of the file that is meant, if it has several
    #[arg(long, value_name = "NAME")]
    service: Option<String>,

    /// A shell command that is run before each run and empties databases and caches beside
    #[arg(long, value_name = "COMMAND")]
    reset: Option<String>,

    /// Workers of a round robin
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(2..=WORKERS_MAX))]
    workers: u16,

    /// What names of users are drawn from; the same seed plays the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Where workers cannot be kept apart, run each in a copy of the service's folder: its other files, ports and processes
    /// are then this machine's, and it may change them
    #[arg(long)]
    copied: bool,

    /// How long a worker may take until it listens
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u64).range(1..=3600))]
    start_timeout: u64,

    /// How long workers are left alone, to see what each of them does by itself; 0 for not at all
    /// [default: 3 where the service uses something beside, else 0]
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(0..=3600))]
    idle: Option<u64>,

    /// Write the report as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the findings as SARIF 2.1.0
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,

    /// Write the steps as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write the report as one page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write proof.json, proof.sarif, proof.junit.xml and proof.html into a folder, which is made if need be: lethe-proof if none is
    /// given. What follows it is taken for that folder, so write a service before it
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = REPORTS,
          conflicts_with_all = ["json", "sarif", "junit", "html"])]
    ci: Option<PathBuf>,

    /// Repeat one finding of the last proof that was started in this folder: status 1 if it fails again, 0 if not. What is given
    /// beside, a journey or a service, is taken instead of what that proof had
    #[arg(long, value_name = "ID", conflicts_with_all = ["json", "sarif", "junit", "html", "ci"])]
    replay: Option<String>,

    /// The JSON of the proof that `--replay` is about
    #[arg(long, value_name = "FILE", requires = "replay")]
    from: Option<PathBuf>,

    /// A program and its arguments to prove, without any file
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Prove {
    /// Proves it.
    pub fn run(self) -> anyhow::Result<()> {
        self.conclude().map_err(|error| {
            let is_told = error.is::<Concluded>() || error.is::<NotStarted>() || error.is::<config::Errors>();
            // Status 1 is a violation, and nothing else.
            if is_told { error } else { error.context(NothingProven) }
        })
    }

    fn conclude(mut self) -> anyhow::Result<()> {
        if let Some(folder) = &self.ci {
            // `--ci` before a service takes its folder for that of the reports.
            ensure!(
                !folder.join("lethe.toml").exists(),
                "{0} is a service, and `--ci {0}` would write reports into it: write the service before `--ci`, or a folder after it",
                folder.display()
            );
            self.json = Some(folder.join("proof.json"));
            self.sarif = Some(folder.join("proof.sarif"));
            self.junit = Some(folder.join("proof.junit.xml"));
            self.html = Some(folder.join("proof.html"));
        }
        if let Some(id) = self.replay.clone() {
            return self.repeat(&id);
        }
        self.can_write()?;
        let asked = self.asked()?;
        let mut journeys = self.journeys()?;
        let (proof, framework) = self.prove(&mut journeys)?;
        let report = Written { proof: &proof, asked: &asked };
        if let Err(error) = memory::keep(&report) {
            show::not_remembered(&error);
        }
        // What was found is shown, and is the status, whether or not it can be written or somebody reads it.
        let written = self.write(&report, &journeys, framework);
        let written = written.and(to_reader(self.show(&report)).map_err(Into::into));
        let status = match proof.verdict {
            Verdict::Stateless => 0,
            Verdict::Violation => 1,
            Verdict::Inconclusive => 2,
        };
        match (written, status) {
            (Ok(()), 0) => Ok(()),
            (Ok(()), status) => Err(Concluded(status).into()),
            (Err(error), status) => {
                show::not_written(&error);
                // Without its report a proof that found nothing is not the one that was asked for.
                Err(Concluded(if status == 0 { 2 } else { status }).into())
            }
        }
    }

    /// Repeats a finding of an earlier proof.
    fn repeat(mut self, id: &str) -> anyhow::Result<()> {
        // Before the folder is changed.
        let given = self.asked()?;
        let earlier = memory::read(self.from.as_deref())?;
        let found = earlier.finding(id)?;
        let asked = &earlier.asked;
        std::env::set_current_dir(&asked.folder)
            .with_context(|| format!("that proof was started in {}", asked.folder.display()))?;
        if self.path.is_none() && self.command.is_empty() {
            (self.path, self.command) = (Some(asked.path.clone()), asked.command.clone());
        }
        self.journey = if given.journeys.is_empty() { asked.journeys.clone() } else { given.journeys };
        self.service = self.service.or_else(|| asked.service.clone());
        self.reset = self.reset.or_else(|| asked.reset.clone());
        (self.workers, self.seed, self.start_timeout) = (asked.workers, asked.seed, asked.start_timeout);
        self.copied |= asked.copied;
        self.idle = self.idle.or(asked.idle);
        let mut journeys = self.journeys()?;
        let (again, _) = self.on_stage(&mut journeys, |stage, journeys, progress| {
            let journey = match found.journey(journeys) {
                Ok(journey) => journey,
                Err(why) => return Ok(Again::Unclear(why)),
            };
            found.again(stage, journey, usize::from(self.workers), self.seed, progress)
        })?;
        to_reader(show::again(&found.id, &again))?;
        match again {
            Again::Passes { .. } => Ok(()),
            Again::Fails { .. } => Err(Concluded(1).into()),
            Again::Unclear(_) => Err(Concluded(2).into()),
        }
    }

    /// All that this proof is asked for.
    fn asked(&self) -> anyhow::Result<Asked> {
        let folder = std::env::current_dir().context("cannot find the folder that this was started in")?;
        Ok(Asked {
            path: folder.join(self.path()),
            command: self.command.clone(),
            journeys: self.journey.iter().map(|path| folder.join(path)).collect(),
            service: self.service.clone(),
            reset: self.reset.clone(),
            workers: self.workers,
            seed: self.seed,
            copied: self.copied,
            start_timeout: self.start_timeout,
            idle: self.idle,
            folder,
        })
    }

    fn path(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| PathBuf::from("."))
    }

    /// Shows the report on standard output, in the form that was asked for.
    fn show(&self, report: &Written<'_>) -> io::Result<()> {
        match self.json.as_deref() == Some(Path::new(STDOUT)) {
            true => output::line(&serde_json::to_string_pretty(report)?),
            false => show::report(report.proof),
        }
    }

    /// Whether reports can be written where they are asked for, before there are any.
    fn can_write(&self) -> anyhow::Result<()> {
        let files = [&self.json, &self.sarif, &self.junit, &self.html].into_iter().flatten();
        for file in files.filter(|path| *path != Path::new(STDOUT)) {
            let folder =
                file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // That of `--ci` is made when there is something to write.
            let there = folder.ancestors().find(|folder| self.ci.is_none() || folder.exists());
            let there = there.filter(|there| !there.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let is_possible = match file.metadata() {
                Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
                Ok(_) => rustix::fs::access(file, Access::WRITE_OK).map_err(io::Error::from),
                Err(_) if there.is_file() => Err(io::ErrorKind::NotADirectory.into()),
                Err(_) => rustix::fs::access(there, Access::WRITE_OK).map_err(io::Error::from),
            };
            is_possible.with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    fn write(
        &self,
        report: &Written<'_>,
        journeys: &[Arc<Journey>],
        framework: Option<Framework>,
    ) -> anyhow::Result<()> {
        let proof = report.proof;
        if let Some(folder) = &self.ci {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let write = |path: &Path, text: String| {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        if let Some(path) = self.json.as_deref().filter(|path| *path != Path::new(STDOUT)) {
            write(path, serde_json::to_string_pretty(report)? + "\n")?;
        }
        if let Some(path) = &self.html {
            write(path, page::html(proof, journeys.iter().map(Arc::as_ref), framework))?;
        }
        if let Some(path) = &self.sarif {
            // Journeys are in the order of their files; what was found by following links has none.
            let file_of = |name: &str| {
                let at = journeys.iter().position(|journey| journey.name == name)?;
                Some(self.journey.get(at)?.display().to_string())
            };
            let log = sarif::log(proof, env!("CARGO_PKG_VERSION"), &file_of);
            write(path, serde_json::to_string_pretty(&log)? + "\n")?;
        }
        if let Some(path) = &self.junit {
            write(path, junit::report(proof, journeys.iter().map(Arc::as_ref)))?;
        }
        Ok(())
    }

    fn journeys(&self) -> anyhow::Result<Vec<Arc<Journey>>> {
        let load = |path: &PathBuf| {
            file::load(path).map(Arc::new).with_context(|| format!("cannot use {}", path.display()))
        };
        self.journey.iter().map(load).collect()
    }

    /// The proof, and what the service is made with.
    fn prove(&self, journeys: &mut Vec<Arc<Journey>>) -> anyhow::Result<(Proof, Option<Framework>)> {
        self.on_stage(journeys, |stage, journeys, progress| {
            proof::prove(stage, journeys, usize::from(self.workers), self.seed, progress)
        })
    }

    /// Does something on a stage with workers of the service. Without journeys, links and forms are followed first.
    fn on_stage<T>(
        &self,
        journeys: &mut Vec<Arc<Journey>>,
        play: impl FnOnce(&Stage, &[Arc<Journey>], &dyn Fn(Progress<'_>)) -> Result<T, worker::Error>,
    ) -> anyhow::Result<(T, Option<Framework>)> {
        let scratch = Arc::new(scratch()?);
        let chosen = source::read(self.path(), self.command.clone(), self.service.as_deref(), "prove")?;
        // It ends with the proof, after the workers.
        let tier = chosen.wants_state.then(|| tier::Tier::open(scratch.path())).transpose()?;
        let service = chosen.service(self.start_timeout, tier.as_ref());
        let framework = Framework::recognise(&service.command, &service.directory);
        let shown = show::Shown::new();
        let yard = Yard::open(Arc::clone(&scratch), service, Level::Overlay, self.copied)
            .map_err(|error| not_started(error, Vec::new()))?;
        let notes = yard.notices();
        let (yard, _) = source::with_ports(yard).map_err(|error| not_started(error, notes.clone()))?;
        // Those that are started ahead would take jobs from a queue that nobody has sent them.
        let waits_for_jobs =
            journeys.iter().flat_map(|journey| &journey.steps).any(|step| step.within.is_some());
        let pool = Pool::new(Arc::new(yard), self.reset.is_none() && !waits_for_jobs)?;
        let stage =
            Stage::new(pool, self.reset.clone(), self.seed)?.with_idle(self.idle.map(Duration::from_secs));
        if journeys.is_empty() {
            journeys.push(Arc::new(stage.crawl().map_err(|error| not_started(error, notes.clone()))?));
        }
        let played = play(&stage, journeys, &|progress| shown.progress(progress));
        drop(stage);
        drop(tier);
        Ok((played.map_err(|error| not_started(error, notes))?, framework))
    }
}

/// Who no longer reads, as in `lethe prove | head -1`, has what it wanted.
fn to_reader(shown: io::Result<()>) -> io::Result<()> {
    match shown {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => shown,
    }
}

/// Whether it was the service that failed, or something else.
fn not_started(error: worker::Error, notes: Vec<String>) -> anyhow::Error {
    match error {
        // Its kind is not told: a pipe of a worker's world that breaks is not a reader who has left.
        worker::Error::Io(error) => io::Error::other(error).into(),
        error @ (worker::Error::NoWorlds(_) | worker::Error::World(_) | worker::Error::Unlike(_)) => {
            error.into()
        }
        error => NotStarted { error, notes }.into(),
    }
}

/// A scratch folder where there is room for one: overlays need a file system that is not itself an overlay.
pub(super) fn scratch() -> anyhow::Result<Scratch> {
    let program = std::env::current_exe().context("cannot find lethe's own program")?;
    let folder = std::env::temp_dir();
    Scratch::new(&folder, &program)
        .with_context(|| format!("cannot make a folder in {}; TMPDIR chooses another one", folder.display()))
}
