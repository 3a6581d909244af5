//! `lethe load`: how a service does under load, and how much it holds.

mod attendant;
mod rate;
mod search;
mod target;
mod text;

use std::{fs, num::NonZero, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use http::{HeaderName, Method};
use lethe_journey::{
    file,
    journey::{Journey, Step},
    player::Limits,
    template::Template,
};
use lethe_load::{
    capacity::{Found, Limit},
    page,
    plan::{Plan, WorkerName},
    report::{self, Kill, Report, Requests, Summary},
    run,
    schedule::Schedule,
};

use self::{attendant::Attendant, rate::Rate, target::Place};
use crate::{ansi, arguments::Target, output, span::Span};

/// The most threads that make load.
const THREADS_MAX: usize = 4;

/// Make load on a service, and measure how it does
///
/// Users come at the planned instants, whether or not those before them have been served, and each goes through a journey: a file that you wrote, a
/// recording of a browser (.har), an OpenAPI document, or one GET. Latency is counted from the instant at which a request was to be sent.
/// Without --url, the load goes to the lethe that runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe load --rate 200 --for 30s
  lethe load shopping.toml --rate 10..100 --for 2m
  lethe load shopping.har --rate 50 --kill every=300ms     while workers are killed with SIGKILL
  lethe load --find-capacity --goal 100ms                  the most users a second of whom 98 % are served, 99 % of requests in time
  lethe load --workers 1..4                                the same with 1, 2, 3 and 4 workers, and how it grows")]
pub struct Load {
    /// What users do, in turn: files in Lethe's format or HAR
    #[arg(value_name = "JOURNEY")]
    journeys: Vec<PathBuf>,

    /// What users ask for, if there is no journey
    #[arg(long, value_name = "PATH", default_value = "/", conflicts_with = "journeys")]
    path: String,

    /// Where the load goes, such as http://127.0.0.1:3000, in place of the lethe that runs
    #[arg(long, value_name = "URL", conflicts_with_all = ["kill", "workers", "state_dir"])]
    url: Option<String>,

    /// Users a second, or from how many to how many
    #[arg(long, value_name = "RATE", default_value = "10")]
    rate: Rate,

    /// For how long users come
    #[arg(long = "for", value_name = "TIME", default_value = "10s")]
    duration: Span,

    /// Look for the highest rate that is held
    #[arg(long)]
    find_capacity: bool,

    /// 99 of 100 requests are to take no longer
    #[arg(long, value_name = "TIME", default_value = "200ms")]
    goal: Span,

    /// How long each rate is tried while the capacity is looked for
    #[arg(long, value_name = "TIME", default_value = "5s")]
    step: Span,

    /// Look for the capacity with so many workers, one number after the other, and fit how it grows
    #[arg(long, value_name = "RANGE")]
    workers: Option<rate::Workers>,

    /// Kill a worker with SIGKILL again and again, such as every=300ms; the oldest that is ready
    #[arg(long, value_name = "every=TIME")]
    kill: Option<rate::Every>,

    /// The service whose workers are killed or counted, if there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// The response's header field that names the worker [default: worker in Server-Timing, as routes with `server-timing = true` say it]
    #[arg(long, value_name = "NAME")]
    worker_header: Option<HeaderName>,

    /// What is sent as Host [default: the journey's own]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Users at a time; who comes then is turned away
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users_max: u32,

    /// One user in a hundred may be let in so much later than planned; with more, the run is not valid
    #[arg(long, value_name = "TIME", default_value = "10ms")]
    lag_max: Span,

    /// The longest that a request may take
    #[arg(long, value_name = "TIME", default_value = "10s")]
    timeout: Span,

    /// Write the report to this file too, as a page for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    target: Target,
}

/// All that is needed for runs that differ in their rates alone.
pub(super) struct Bench {
    plan: Plan,
    place: Place,
    kill: Option<Duration>,
    service: Option<String>,
    is_quiet: bool,
}

impl Load {
    /// Makes it, and tells what came of it.
    pub fn run(self) -> anyhow::Result<()> {
        let schedule = self.rate.schedule(self.duration.0)?;
        let place = Place::find(self.url.as_deref(), &self.target)?;
        let plan = self.plan(&place, schedule)?;
        let mut report = report::empty(&plan, place.name.clone());
        let bench = Bench {
            plan,
            place,
            kill: self.kill.map(|every| every.0),
            service: self.service.clone(),
            is_quiet: self.target.json,
        };
        if let Some(workers) = self.workers {
            search::by_workers(&bench, &self, workers, &mut report)?;
        } else if self.find_capacity {
            let (found, last) = search::capacity(&bench, &self, "")?;
            report.capacities = vec![report::Capacity { workers: None, found }];
            report.run = last;
        } else {
            report.run = Some(bench.run(schedule, "")?);
        }
        self.tell(&report)?;
        check_finished(&report)
    }

    fn tell(&self, report: &Report) -> anyhow::Result<()> {
        if let Some(file) = &self.html {
            fs::write(file, page::html(report))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        if self.target.json {
            output::json(report)?;
        } else {
            output::line(&text::lines(report, self.goal.0).join("\n"))?;
        }
        // What a search ends with is told by the search; a run that measured the generator, or nobody, is no measurement.
        match report.run.as_ref().filter(|_| report.capacities.is_empty()) {
            Some(run) if !run.valid => bail!("the run is not valid: {}", run.invalid_because.join("; ")),
            Some(run) if is_unanswered(&run.requests) => {
                bail!("no request got a response: is the service there, and does it listen at that address?")
            }
            _ if report.capacities.iter().any(|capacity| is_unknown(&capacity.found)) => {
                bail!("the capacity is not known: this machine could not make even the lowest rate")
            }
            _ => Ok(()),
        }
    }

    fn plan(&self, place: &Place, schedule: Schedule) -> anyhow::Result<Plan> {
        let mut journeys = Vec::new();
        for path in &self.journeys {
            journeys.push(Arc::new(file::load(path)?));
        }
        if journeys.is_empty() {
            journeys.push(Arc::new(single(&self.path)?));
        }
        let is_named = journeys.iter().any(|journey| journey.host.is_some());
        let host = self.host.clone().or_else(|| (!is_named).then(|| place.host.clone()));
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Plan {
            journeys,
            destination: place.destination.clone(),
            host,
            schedule,
            limits: Limits { step_time_max: self.timeout.0, ..Limits::default() },
            users_max: self.users_max as usize,
            lag_max: self.lag_max.0,
            threads: cores.min(THREADS_MAX),
            worker: self.worker_header.clone().map_or(WorkerName::ServerTiming, WorkerName::Header),
        })
    }
}

fn is_unanswered(requests: &Requests) -> bool {
    requests.total > 0 && requests.failed + requests.late == requests.total
}

/// Whether a search ended with nothing but what the generator could not do.
fn is_unknown(found: &Found) -> bool {
    found.users_per_s.is_none() && found.limit == Limit::Generator
}

/// A journey that is one GET.
fn single(path: &str) -> anyhow::Result<Journey> {
    let template = Template::parse(path).map_err(anyhow::Error::msg)?;
    if !path.starts_with('/') {
        bail!("{path} is no path: begin it with /");
    }
    let step = Step::new(1, Method::GET, template);
    Ok(Journey {
        name: format!("GET {path}"),
        host: None,
        variables: Vec::new(),
        steps: vec![step],
        notes: Vec::new(),
    })
}

/// A run in which nobody came to the end is a failure, whatever was answered; what a search found of that is told by the search.
fn check_finished(report: &Report) -> anyhow::Result<()> {
    let run = report.run.as_ref().filter(|_| report.capacities.is_empty());
    match run.filter(|run| run.users.arrived > 0 && run.users.finished == 0) {
        Some(run) => {
            let most = run.problems.first();
            let most = most.map_or(String::new(), |problem| {
                format!("; most often: {}", ansi::clean(&problem.what, false))
            });
            bail!("none of {} users came to the end of the journey{most}", run.users.arrived)
        }
        None => Ok(()),
    }
}

impl Bench {
    /// Makes a run of this schedule; `what` is shown meanwhile.
    fn run(&self, schedule: Schedule, what: &str) -> anyhow::Result<Summary> {
        let plan = Plan { schedule, ..self.plan.clone() };
        let kill = self.kill.map(|every| (every, self.service.clone()));
        let attendant = Attendant::begin(&self.place, kill, schedule, what, self.is_quiet)?;
        let ran = run::run(&plan, attendant.progress()).context("no load can be made")?;
        let kills = attendant.end()?;
        let mut summary = Summary::of(&plan, &ran);
        let at_s = |at: std::time::Instant| at.saturating_duration_since(ran.began_at).as_secs_f64();
        summary.kills = kills.into_iter().map(|(at, worker)| Kill { at_s: at_s(at), worker }).collect();
        Ok(summary)
    }
}
