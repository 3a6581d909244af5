//! One decision's inputs as JSON: what `lethe simulate` is given. What is left out is as of a service that has been
//! running for long: workers are running and ready, options are Kubernetes' defaults, nothing is remembered.

mod writing;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::{
    history::History,
    quantity::Quantity,
    samples::{Instance, Phase, Reading, Samples},
    spec::Options,
    time::Time,
    zero::Zero,
};

/// One decision's inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Where the spec is.
    pub spec: SpecSource,
    /// What in Kubernetes are flags of the controller.
    pub options: Options,
    /// Whether the metrics' proposal alone is asked for, before it is stabilized, slowed and bounded.
    pub is_raw: bool,
    /// When it is decided.
    pub now: Time,
    /// What was measured.
    pub samples: Samples,
    /// What is remembered.
    pub history: History,
    /// Of a service that may have no workers at all.
    pub zero: Option<Zero>,
    /// Keys that mean nothing, but look as if they should.
    pub unknown: Vec<String>,
}

/// Where the spec is.
#[derive(Clone, Debug, PartialEq)]
pub enum SpecSource {
    /// Here.
    Inline(Value),
    /// In a file, whose path is relative to the case's.
    Path(String),
}

impl Case {
    /// Reads one. Errors say line and column.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl<'de> Deserialize<'de> for Case {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let unknown = written.unknown();
        let spec = match written.spec.as_object().and_then(|spec| Some((spec.len(), spec.get("path")?))) {
            Some((1, Value::String(path))) => SpecSource::Path(path.clone()),
            _ => SpecSource::Inline(written.spec),
        };
        let is_raw = written.options.raw;
        let options = written.options.read().map_err(D::Error::custom)?;
        let instances = written.instances.unwrap_or_default();
        let samples = Samples {
            replicas: written.replicas,
            instances: instances.into_iter().enumerate().map(|(at, instance)| instance.read(at)).collect(),
            external: readings(written.external),
            object: readings(written.object),
        };
        let history = written.history.unwrap_or_default().into();
        let zero = written.zero.map(WrittenZero::read).transpose().map_err(D::Error::custom)?;
        Ok(Self { spec, options, is_raw, now: written.now, samples, history, zero, unknown })
    }
}

/// Keys without a meaning.
type Rest = BTreeMap<String, Value>;

/// A case as it is written.
#[derive(Deserialize)]
struct Written {
    spec: Value,
    #[serde(default)]
    options: WrittenOptions,
    #[serde(default)]
    now: Time,
    replicas: u32,
    instances: Option<Vec<WrittenInstance>>,
    external: Option<BTreeMap<String, Value>>,
    object: Option<BTreeMap<String, Value>>,
    history: Option<WrittenHistory>,
    zero: Option<WrittenZero>,
    #[serde(flatten)]
    rest: Rest,
}

impl Written {
    const KEYS: [&str; 9] =
        ["spec", "options", "now", "replicas", "instances", "external", "object", "history", "zero"];

    /// What is beside the keys may be a note, unless it is nearly one of them.
    fn unknown(&self) -> Vec<String> {
        let mut unknown = nearly("", &self.rest, &Self::KEYS);
        unknown.extend(nearly("options.", &self.options.rest, &WrittenOptions::KEYS));
        for (at, instance) in self.instances.iter().flatten().enumerate() {
            unknown.extend(nearly(&format!("instances[{at}]."), &instance.rest, &WrittenInstance::KEYS));
        }
        let history = self.history.iter();
        unknown.extend(history.flat_map(|history| nearly("history.", &history.rest, &WrittenHistory::KEYS)));
        let zero = self.zero.iter();
        unknown.extend(zero.flat_map(|zero| nearly("zero.", &zero.rest, &WrittenZero::KEYS)));
        unknown
    }
}

/// Keys of a table at `place` that are nearly one of those that mean something there.
fn nearly(place: &str, rest: &Rest, known: &[&str]) -> Vec<String> {
    let near = |key: &String| {
        let name = known.iter().find(|name| strsim::damerau_levenshtein(key, name) <= 2)?;
        Some(format!("{place}{key} means nothing here; did you mean {name}?"))
    };
    rest.keys().filter_map(near).collect()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenOptions {
    tolerance: Option<f64>,
    cpu_initialization_period: Option<f64>,
    initial_readiness_delay: Option<f64>,
    downscale_stabilization: Option<f64>,
    metric_window: Option<f64>,
    #[serde(deserialize_with = "or_default")]
    raw: bool,
    #[serde(flatten)]
    rest: Rest,
}

impl WrittenOptions {
    const KEYS: [&str; 6] = [
        "tolerance",
        "cpuInitializationPeriod",
        "initialReadinessDelay",
        "downscaleStabilization",
        "metricWindow",
        "raw",
    ];

    fn read(&self) -> Result<Options, String> {
        let default = Options::default();
        let span = |name: &str, seconds: Option<f64>, default: Duration| match seconds {
            None => Ok(default),
            Some(seconds) => span(&format!("options.{name}"), seconds),
        };
        let tolerance = self.tolerance.unwrap_or(default.tolerance);
        if tolerance.is_nan() || tolerance < 0.0 {
            return Err(format!("options.tolerance: must be 0 or greater, not {tolerance}"));
        }
        Ok(Options {
            tolerance,
            cpu_initialization: span(
                "cpuInitializationPeriod",
                self.cpu_initialization_period,
                default.cpu_initialization,
            )?,
            initial_readiness: span(
                "initialReadinessDelay",
                self.initial_readiness_delay,
                default.initial_readiness,
            )?,
            downscale_stabilization: span(
                "downscaleStabilization",
                self.downscale_stabilization,
                default.downscale_stabilization,
            )?,
            sample: span("metricWindow", self.metric_window, default.sample)?,
        })
    }
}

/// What a service needs that may have no workers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenZero {
    idle: f64,
    #[serde(default)]
    idle_for: f64,
    #[serde(default)]
    waiting: u64,
    #[serde(flatten)]
    rest: Rest,
}

impl WrittenZero {
    const KEYS: [&str; 3] = ["idle", "idleFor", "waiting"];

    fn read(self) -> Result<Zero, String> {
        let (idle, idle_for) = (span("zero.idle", self.idle)?, span("zero.idleFor", self.idle_for)?);
        Ok(Zero { idle, idle_for, waiting: self.waiting })
    }
}

fn span(path: &str, seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| format!("{path}: {seconds} is no span of time in seconds ({error})"))
}

/// A worker as it is written. For what Kubernetes would not know either, null is not the same as nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenInstance {
    name: Option<String>,
    phase: Option<WrittenPhase>,
    ready: Option<bool>,
    ready_since: Option<Time>,
    started: Option<Time>,
    #[serde(deserialize_with = "or_default")]
    deleted: bool,
    cpu: Value,
    cpu_request: Value,
    memory_request: Value,
    sampled: Option<Time>,
    metrics: Option<BTreeMap<String, Value>>,
    requests: Option<BTreeMap<String, Value>>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Clone, Copy, Deserialize)]
enum WrittenPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Default for WrittenInstance {
    fn default() -> Self {
        let Instance { ready, ready_since, started, .. } = Instance::default();
        Self {
            name: None,
            phase: None,
            ready,
            ready_since: Some(ready_since),
            started,
            deleted: false,
            cpu: Value::Null,
            cpu_request: Value::Null,
            memory_request: Value::Null,
            sampled: None,
            metrics: None,
            requests: None,
            rest: Rest::new(),
        }
    }
}

impl WrittenInstance {
    const KEYS: [&str; 12] = [
        "name",
        "phase",
        "ready",
        "readySince",
        "started",
        "deleted",
        "cpu",
        "cpuRequest",
        "memoryRequest",
        "sampled",
        "metrics",
        "requests",
    ];

    fn read(self, at: usize) -> Instance {
        let requests = self.requests.unwrap_or_default().into_iter();
        let mut requests: BTreeMap<_, _> =
            requests.filter_map(|(name, value)| Some((name, reading(&value).value()?))).collect();
        if let Some(memory) = reading(&self.memory_request).value() {
            requests.insert("memory".into(), memory);
        }
        Instance {
            name: self.name.unwrap_or_else(|| format!("#{}", at + 1)),
            phase: match self.phase.unwrap_or(WrittenPhase::Running) {
                WrittenPhase::Pending => Phase::Pending,
                WrittenPhase::Running => Phase::Running,
                WrittenPhase::Succeeded => Phase::Succeeded,
                WrittenPhase::Failed => Phase::Failed,
                WrittenPhase::Unknown => Phase::Unknown,
            },
            ready: self.ready,
            ready_since: self.ready_since.unwrap_or(Time::LONG_AGO),
            started: self.started,
            deleted: self.deleted,
            cpu: reading(&self.cpu),
            cpu_request: reading(&self.cpu_request).value(),
            sampled: self.sampled,
            metrics: readings(self.metrics),
            requests,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenHistory {
    recommendations: Option<Vec<crate::history::Recommendation>>,
    scale_ups: Option<Vec<crate::history::Change>>,
    scale_downs: Option<Vec<crate::history::Change>>,
    #[serde(flatten)]
    rest: Rest,
}

impl WrittenHistory {
    const KEYS: [&str; 3] = ["recommendations", "scaleUps", "scaleDowns"];
}

impl From<WrittenHistory> for History {
    fn from(written: WrittenHistory) -> Self {
        Self {
            recommendations: written.recommendations.unwrap_or_default(),
            scale_ups: written.scale_ups.unwrap_or_default(),
            scale_downs: written.scale_downs.unwrap_or_default(),
        }
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn readings(values: Option<BTreeMap<String, Value>>) -> BTreeMap<String, Reading> {
    values.unwrap_or_default().into_iter().map(|(name, value)| (name, reading(&value))).collect()
}

/// A number in milli-units. A text is a quantity; a list is the series that a metric consists of, which are added.
fn reading(value: &Value) -> Reading {
    match value {
        Value::Null => Reading::Missing,
        Value::Number(number) => number.as_i64().map_or_else(|| rounded(number.as_f64()), Reading::Value),
        Value::String(text) => match text.parse::<Quantity>() {
            Ok(quantity) => Reading::Value(quantity.milli),
            Err(_) => Reading::Bad(text.clone()),
        },
        Value::Array(series) => series.iter().map(reading).reduce(sum).unwrap_or_default(),
        Value::Bool(_) | Value::Object(_) => Reading::Bad(value.to_string()),
    }
}

/// What is finer than a milli-unit is rounded up, as Kubernetes rounds quantities.
fn rounded(number: Option<f64>) -> Reading {
    number.map_or_else(|| Reading::Bad("not a number".into()), |number| Reading::Value(number.ceil() as i64))
}

/// No more than fits (`GetExternalMetricReplicas`).
fn sum(one: Reading, other: Reading) -> Reading {
    match (one, other) {
        (Reading::Value(one), Reading::Value(other)) => Reading::Value(one.saturating_add(other)),
        (Reading::Bad(text), _) | (_, Reading::Bad(text)) => Reading::Bad(text),
        (Reading::Missing, other) | (other, Reading::Missing) => other,
    }
}
