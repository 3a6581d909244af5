//! A trace of load, played against policies.

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use lethe_scaler::{
    manifest,
    simulation::{
        self, Model, Outcome, load,
        policy::{Kind, Policy},
    },
    spec::{Metric, Source, Spec},
};
use serde_json::{Value, json};

use super::{case::STDIN, chart, picture};
use crate::{figures, output, paint::Paint, span::Span, table};

/// No more workers are played with.
const WORKERS_MAX: u32 = 100_000;

/// Unless a goal is given, a request may take so many times as long as it takes by itself.
const GOAL_FACTOR: u32 = 4;

/// What the workers are like, and what is wished of them.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How long a worker is busy with one request, on average, such as 50ms
    #[arg(long, value_name = "TIME", requires = "trace")]
    service_time: Option<Span>,

    /// How long a new worker takes to be ready, such as 2s
    #[arg(long, value_name = "TIME", requires = "trace")]
    startup: Option<Span>,

    /// How many requests a worker serves at a time
    #[arg(long, value_name = "N", default_value_t = 1, requires = "trace", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    slots: u32,

    /// From how many to how many workers
    #[arg(long, value_name = "RANGE", default_value = "1..100", requires = "trace")]
    instances: Range,

    /// How busy workers should be, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 70, requires = "trace", value_parser = clap::value_parser!(u32).range(1..=100))]
    utilization: u32,

    /// Requests that take longer are counted [default: four times the service time]
    #[arg(long, value_name = "TIME", requires = "trace")]
    goal: Option<Span>,

    /// The policies: hpa (Kubernetes', on CPU, each 15 s), kpa (Knative's), target (AWS's target tracking), lethe (each
    /// second) [default: lethe, or hpa with --hpa]
    #[arg(long, value_name = "POLICIES", requires = "trace", value_delimiter = ',')]
    compare: Vec<Kind>,

    /// The HorizontalPodAutoscaler that the policy hpa follows, in place of the range and utilization above
    #[arg(long, value_name = "FILE", requires = "trace")]
    hpa: Option<PathBuf>,

    /// Draw load, workers and latency to this file
    #[arg(long, value_name = "FILE", requires = "trace")]
    svg: Option<PathBuf>,

    /// The same as pixels
    #[arg(long, value_name = "FILE", requires = "trace")]
    png: Option<PathBuf>,
}

/// From how many to how many workers.
#[derive(Clone, Copy, Debug)]
struct Range {
    min: u32,
    max: u32,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        match (min.parse(), max.parse()) {
            (Ok(min), Ok(max)) if min <= max && (1..=WORKERS_MAX).contains(&max) => Ok(Self { min, max }),
            (Ok(min), Ok(max)) if min > max => Err(format!("the least comes first: write {max}..{min}")),
            _ => Err(format!("write a range such as 2..50, of up to {WORKERS_MAX}")),
        }
    }
}

/// Plays it and prints what came of it.
pub fn run(path: &Path, arguments: &Arguments, is_json: bool) -> anyhow::Result<()> {
    let text =
        if path == Path::new(STDIN) { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) };
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let load = load::read(&text).with_context(|| format!("{} is no trace of load", path.display()))?;
    let model = arguments.model()?;
    let spec = arguments.hpa.as_deref().map(hpa).transpose()?;
    let play = |kind: &Kind| simulation::play(&model, &load, Policy::new(*kind, &model, spec.clone()));
    let outcomes: Vec<Outcome> = arguments.policies()?.iter().map(play).collect();
    if let Some(file) = &arguments.svg {
        write(file, picture::svg(&model, &outcomes).as_bytes())?;
    }
    if let Some(file) = &arguments.png {
        write(file, &picture::png(&model, &outcomes)?)?;
    }
    if is_json {
        return Ok(output::json(&json(&model, load.len(), &outcomes))?);
    }
    let mut lines = chart::lines(&outcomes);
    lines.push(String::new());
    lines.extend(summary(&model, &outcomes));
    Ok(output::line(&lines.join("\n"))?)
}

fn write(file: &Path, picture: &[u8]) -> anyhow::Result<()> {
    fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))
}

impl Arguments {
    fn policies(&self) -> anyhow::Result<Vec<Kind>> {
        match (self.compare.as_slice(), &self.hpa) {
            ([], None) => Ok(vec![Kind::Lethe]),
            ([], Some(_)) => Ok(vec![Kind::Hpa]),
            (kinds, Some(file)) if !kinds.contains(&Kind::Hpa) => {
                bail!("{} is for the policy hpa, which --compare leaves out: add it there", file.display())
            }
            (kinds, _) => Ok(kinds.to_vec()),
        }
    }

    fn model(&self) -> anyhow::Result<Model> {
        let (Some(Span(service_time)), Some(Span(startup))) = (self.service_time, self.startup) else {
            bail!("a trace needs --service-time and --startup");
        };
        let goal = self.goal.map_or(service_time * GOAL_FACTOR, |Span(goal)| goal);
        ensure!(goal > service_time, "no request is as quick as the goal: raise --goal above --service-time");
        Ok(Model {
            service_time,
            startup,
            slots: self.slots,
            goal,
            min: self.instances.min,
            max: self.instances.max,
            utilization: f64::from(self.utilization) / 100.0,
        })
    }
}

fn hpa(path: &Path) -> anyhow::Result<Spec> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let spec = manifest::read(&text).with_context(|| format!("{} cannot be followed", path.display()))?;
    let is_cpu = |metric: &Metric| metric.source == Source::Resource("cpu".into());
    let other = spec.metrics.iter().find(|metric| !is_cpu(metric));
    if let Some(Metric { source, .. }) = other {
        bail!(
            "{}: a trace of load tells nothing of {source}; take it out of spec.metrics, so that only CPU is left",
            path.display()
        );
    }
    Ok(spec)
}

fn share(outcome: &Outcome) -> f64 {
    if outcome.requests > 0.0 { outcome.over / outcome.requests } else { 0.0 }
}

fn json(model: &Model, seconds: usize, outcomes: &[Outcome]) -> Value {
    let policies = outcomes.iter().map(|outcome| {
        json!({
            "policy": outcome.name,
            "workerHours": outcome.worker_hours,
            "requests": outcome.requests,
            "over": outcome.over,
            "overShare": share(outcome),
            "changes": outcome.changes,
            "most": outcome.most,
            "p99Worst": outcome.seconds.iter().map(|second| second.p99).fold(0.0, f64::max),
        })
    });
    json!({ "seconds": seconds, "goal": model.goal.as_secs_f64(), "policies": policies.collect::<Vec<_>>() })
}

fn summary(model: &Model, outcomes: &[Outcome]) -> Vec<String> {
    let columns = [
        table::Column::left("POLICY", 0),
        table::Column::right("WORKER-HOURS", 0),
        table::Column::right("MOST", 0),
        table::Column::right("CHANGES", 0),
        table::Column::right("OVER THE GOAL", 0),
        table::Column::right("SHARE", 0),
    ];
    let row = |outcome: &Outcome| {
        vec![
            outcome.name.to_owned(),
            format!("{:.1}", outcome.worker_hours),
            outcome.most.to_string(),
            outcome.changes.to_string(),
            if outcome.over < 10.0 { format!("{:.1}", outcome.over) } else { format!("{:.0}", outcome.over) },
            format!("{:.3} %", share(outcome) * 100.0),
        ]
    };
    let cells = |outcome| row(outcome).into_iter().map(table::Cell::new).collect();
    let rows: Vec<Vec<table::Cell>> = outcomes.iter().map(cells).collect();
    let mut lines = table::lines(&columns, &rows, Paint::for_stdout());
    let goal = figures::latency(u64::try_from(model.goal.as_micros()).ok());
    let requests = outcomes.first().map_or(0.0, |outcome| outcome.requests);
    lines.push(format!("{requests:.0} requests; the goal is {goal}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_they_are_typed() {
        for (text, min, max) in [("2..50", 2, 50), ("0..1", 0, 1), ("7", 7, 7), ("1..100000", 1, 100_000)] {
            let range: Range = text.parse().unwrap();
            assert_eq!((range.min, range.max), (min, max), "{text}");
        }
        for text in ["", "0", "5..2", "1..100001", "a..b", "-1..2"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }
}
