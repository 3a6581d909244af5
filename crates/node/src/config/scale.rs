//! `[services.NAME.scale]`: by what the number of a service's workers is decided. It is read to the spec of a
//! HorizontalPodAutoscaler, whose arithmetic decides, and to where the numbers come from.

mod behavior;
mod hpa;
mod metric;
mod target;

use std::{path::Path, time::Duration};

use lethe_gateway::config::Concurrency;
use lethe_scaler::spec::{Behavior, Metric, Options, Source, Spec, Target};
use lethe_supervisor::resources::Resources;
use toml::de::DeValue;

use super::{
    Instances, duration,
    problem::Report,
    table::{Table, Text, Value, bad_value, integer, wrong_type},
};
use crate::scaling::names;

/// What the table may say.
pub(super) const KEYS: [&str; 11] = [
    "instances",
    "idle",
    "cpu",
    "requests",
    "latency",
    "concurrency",
    "queue",
    "metric",
    "up",
    "down",
    "hpa",
];

#[cfg(test)]
pub(super) use self::{behavior::KEYS as SPEED_KEYS, metric::KEYS as METRIC_KEYS};

/// Most numbers of one service that are not its gateway's or its workers'.
pub const METRICS_MAX: usize = 16;
/// [`Scale::idle`] when nothing says otherwise.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(300);
/// CPU that a worker counts as having requested, in milli-cores, when nothing says otherwise: one core.
pub const CPU_REQUEST_DEFAULT: i64 = 1_000;
/// The share of its CPU, and of the requests that it takes at a time, at which a worker is to be kept when nothing says
/// otherwise, in percent.
pub const UTILIZATION_DEFAULT: i32 = 70;

/// The flags that Kubernetes gives its controller, for processes of this machine. Its own are for containers that are pulled and
/// scheduled, and for a CPU sample of a minute that comes every 15 s: five minutes of start and half a minute until
/// a first readiness that can be believed. Here a worker is ready in well under a second or some seconds, its readiness is
/// known at once, and its CPU is measured over two seconds.
pub const OPTIONS: Options = Options {
    tolerance: 0.1,
    cpu_initialization: Duration::from_secs(30),
    initial_readiness: Duration::from_secs(10),
    downscale_stabilization: Duration::from_secs(300),
    sample: Duration::from_secs(2),
};

const EXPECTED: &str = "a table such as `{ instances = \"2..8\", cpu = \"70%\" }`";
const IDLE_MAX: Duration = Duration::from_secs(24 * 3600);

/// By what the number of a service's workers is decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// What decides. Its `min` is 0 only where a metric is there without workers.
    pub spec: Spec,
    /// The last worker leaves when nothing was in flight for so long, if there may be none.
    pub idle: Duration,
    /// What of the latency [`names::LATENCY`] is.
    pub quantile: f64,
    /// Numbers from elsewhere.
    pub externals: Vec<External>,
    /// CPU that each worker counts as having requested, in milli-cores.
    pub cpu_request: i64,
    /// Memory that each worker counts as having requested, in bytes, if any.
    pub memory_request: Option<i64>,
}

/// A number that is neither the gateway's nor the workers'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Its name, unique in its service.
    pub name: String,
    /// Where it is fetched from; `None` for one that is told to the control API.
    pub from: Option<Fetched>,
    /// What is older than this is not believed any more.
    pub max_age: Duration,
}

/// A number that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// An `http` URL.
    pub url: http::Uri,
    /// Where in a JSON document it is (RFC 6901); the whole body when empty.
    pub pointer: String,
}

impl Scale {
    /// For a service of which no more is said than a range.
    pub(super) fn by_default(Instances { min, max }: Instances, concurrency: Concurrency) -> Self {
        let mut metrics = vec![Metric {
            source: Source::Resource("cpu".into()),
            target: Target::Utilization(UTILIZATION_DEFAULT),
        }];
        if let Concurrency::Limited(each) = concurrency {
            let target = Target::AverageValue(i64::from(each) * 10 * i64::from(UTILIZATION_DEFAULT));
            metrics.push(Metric { source: Source::External(names::CONCURRENCY.into()), target });
        }
        Self::of(metrics, Instances { min, max })
    }

    fn of(metrics: Vec<Metric>, Instances { min, max }: Instances) -> Self {
        let spec = Spec { min, max, metrics, behavior: Some(Behavior::quick()), options: OPTIONS };
        let mut scale = Self {
            spec,
            idle: IDLE_DEFAULT,
            quantile: 0.0,
            externals: Vec::new(),
            cpu_request: CPU_REQUEST_DEFAULT,
            memory_request: None,
        };
        scale.within(Instances { min, max });
        scale
    }

    /// Of workers with these resources.
    pub(super) fn request(&mut self, resources: &Resources) {
        let number = |amount: Option<u64>| amount.and_then(|amount| i64::try_from(amount).ok());
        self.cpu_request = number(resources.cpu_request_milli).unwrap_or(CPU_REQUEST_DEFAULT);
        self.memory_request = number(resources.memory_request_bytes);
    }

    /// Between so many and so many workers. Without a number that is there without workers, the rules have no zero.
    pub(super) fn within(&mut self, Instances { min, max }: Instances) {
        let is_there = |metric: &Metric| matches!(metric.source, Source::External(_) | Source::Object(_));
        let least = if self.spec.metrics.iter().any(is_there) { 0 } else { 1 };
        (self.spec.min, self.spec.max) = (min.max(least), max);
    }
}

/// What was read of a service.
pub(super) struct Read {
    /// The range.
    pub instances: Instances,
    pub scale: Scale,
}

/// Reads it from the table of a service, if it is there. `outer` is the service's own `instances`, and `concurrency` how
/// many requests a worker gets at a time; relative paths are relative to `folder`. `None` if it is not there, or
/// wrong and reported.
pub(super) fn read(
    service: &Table<'_, '_>,
    outer: Option<Instances>,
    concurrency: Concurrency,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Read> {
    let Some(value) = service.value("scale") else {
        let instances = outer.filter(|instances| instances.min < instances.max)?;
        return Some(Read { instances, scale: Scale::by_default(instances, concurrency) });
    };
    let DeValue::Table(entries) = value.get_ref() else {
        service.wrong_type("scale", EXPECTED, value, report);
        return None;
    };
    let since = report.count();
    let table = service.inner("scale", value, entries, &KEYS, report);
    let read = match table.value("hpa") {
        Some(hpa) => hpa::read(&table, hpa, service.value("instances"), folder, report),
        None => by_keys(&table, service, outer, concurrency, report),
    };
    report.say_where(since, &table.title);
    read
}

/// What is said by keys of its own.
fn by_keys(
    table: &Table<'_, '_>,
    service: &Table<'_, '_>,
    outer: Option<Instances>,
    concurrency: Concurrency,
    report: &mut Report<'_>,
) -> Option<Read> {
    let instances = instances(table, service, outer, report);
    let mut metrics = Vec::new();
    let cpu = table.value("cpu").and_then(|value| target::percent("cpu", table, value, report));
    metrics.extend(cpu.map(|percent| Metric {
        source: Source::Resource("cpu".into()),
        target: Target::Utilization(percent),
    }));
    let requests = table.value("requests").and_then(|value| target::rate("requests", table, value, report));
    metrics.extend(requests.map(|milli| external(names::REQUESTS, Target::AverageValue(milli))));
    let each = table.value("concurrency").and_then(|value| target::milli("concurrency", value, report));
    metrics.extend(each.map(|milli| external(names::CONCURRENCY, Target::AverageValue(milli))));
    let latency = table.parsed("latency", target::LATENCY_EXPECTED, report, target::latency);
    metrics.extend(latency.as_ref().map(|latency| Metric {
        source: Source::Object(names::LATENCY.into()),
        target: Target::Value(latency.goal_milli),
    }));
    let more = metric::read_all(table, report);
    metrics.extend(more.iter().map(|(external_metric, target)| external(&external_metric.name, *target)));
    let idle = idle(table, instances, report);
    let behavior = behavior::read(table, report);
    let is_said = ["cpu", "requests", "latency", "concurrency", "queue", "metric"]
        .iter()
        .any(|key| table.was_tried(key));
    let instances = instances?;
    let mut scale = match is_said {
        true => Scale::of(metrics, instances),
        false => Scale::by_default(instances, concurrency),
    };
    scale.spec.behavior = Some(behavior);
    scale.idle = idle.unwrap_or(IDLE_DEFAULT);
    scale.quantile = latency.map_or(0.0, |latency| latency.quantile);
    scale.externals = more.into_iter().map(|(external, _)| external).collect();
    Some(Read { instances, scale })
}

fn external(name: &str, target: Target) -> Metric {
    Metric { source: Source::External(name.into()), target }
}

/// The range: of `scale`, or else of the service.
fn instances(
    table: &Table<'_, '_>,
    service: &Table<'_, '_>,
    outer: Option<Instances>,
    report: &mut Report<'_>,
) -> Option<Instances> {
    let Some(value) = table.value("instances") else {
        if table.was_tried("instances") || (outer.is_none() && service.was_tried("instances")) {
            return None;
        }
        let range = outer.filter(|instances| instances.min < instances.max);
        if range.is_none() {
            let had = outer.map_or_else(String::new, |instances| {
                format!("; the service's own `instances = {instances}` is a number, not a range")
            });
            let message =
                format!("{} has no `instances`: add a range such as instances = \"2..8\"{had}", table.title);
            report.at(table.span.clone(), message);
        }
        return range;
    };
    if let Some(other) = service.value("instances") {
        let line = report.line_of(other.span().start);
        let message = format!(
            "`instances` in {} contradicts `instances` on line {line}: keep one of them",
            table.title
        );
        report.at(value.span(), message);
        return None;
    }
    let (text, parsed) = match value.get_ref() {
        DeValue::Integer(number) => (number.to_string(), Instances::exactly(integer(number))),
        DeValue::String(text) => (text.to_string(), Instances::parse(text)),
        _ => {
            table.wrong_type("instances", "a range such as `\"2..8\"`", value, report);
            return None;
        }
    };
    let parsed = parsed.and_then(|instances| match instances {
        Instances { min, max } if min == max => Err(format!(
            "is no range: write one such as \"{min}..{}\", or `instances = {min}` for the service, without `scale`",
            max.saturating_mul(4).max(2)
        )),
        instances => Ok(instances),
    });
    parsed.map_err(|why| bad_value("instances", &Text { text: &text, span: value.span() }, &why, report)).ok()
}

fn idle(table: &Table<'_, '_>, instances: Option<Instances>, report: &mut Report<'_>) -> Option<Duration> {
    let idle = table.duration("idle", Duration::from_secs(1)..=IDLE_MAX, report)?;
    if let Some(Instances { min: 1.., max }) = instances
        && let Some(value) = table.value("idle")
    {
        let message = format!(
            "`idle` is when the last worker leaves, and here one stays: write instances = \"0..{max}\", or leave `idle` out"
        );
        report.at(value.span(), message);
    }
    Some(idle)
}

/// A duration of whole seconds, as the rules count them.
fn whole_seconds(
    key: &str,
    table: &Table<'_, '_>,
    (least, most): (u64, Duration),
    report: &mut Report<'_>,
) -> Option<Duration> {
    table.parsed(key, duration::EXPECTED, report, |text| match duration::parse(text)? {
        span if span.subsec_millis() != 0 => Err("must be whole seconds".into()),
        span if span.as_secs() < least => Err(format!("is too short: write at least \"{least}s\"")),
        span if span > most => Err(format!("is too long: write at most \"{}\"", duration::shown(most))),
        span => Ok(span),
    })
}

/// The items of a value that may be one table or a list of them.
fn tables<'v, 't>(value: &'v Value<'t>) -> Vec<&'v Value<'t>> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![value],
    }
}

/// Reports what is no table.
fn no_table(key: &str, expected: &str, value: &Value<'_>, report: &mut Report<'_>) {
    wrong_type(&format!("`{key}`"), expected, value, report);
}

#[cfg(test)]
mod tests;
