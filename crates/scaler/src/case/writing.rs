//! A case as JSON, from what a decision was in fact taken from: what [`Case::read`] makes of it is the same case again.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    case::{Case, SpecSource},
    samples::{Instance, Phase, Reading},
    spec::Options,
    time::Time,
};

impl Case {
    /// As it is read again. What is as of any worker that has been running for long is left out.
    pub fn to_json(&self) -> Value {
        let spec = match &self.spec {
            SpecSource::Inline(spec) => spec.clone(),
            SpecSource::Path(path) => json!({ "path": path }),
        };
        let mut case = json!({
            "spec": spec,
            "options": options(&self.options, self.is_raw),
            "now": self.now,
            "replicas": self.samples.replicas,
            "instances": self.samples.instances.iter().map(instance).collect::<Vec<_>>(),
            "external": readings(&self.samples.external),
            "object": readings(&self.samples.object),
            "history": self.history,
        });
        if let Some(zero) = &self.zero {
            case["zero"] = json!({
                "idle": zero.idle.as_secs_f64(),
                "idleFor": zero.idle_for.as_secs_f64(),
                "waiting": zero.waiting,
            });
        }
        case
    }
}

fn options(options: &Options, is_raw: bool) -> Value {
    let seconds = |span: Duration| span.as_secs_f64();
    let mut written = json!({
        "tolerance": options.tolerance,
        "cpuInitializationPeriod": seconds(options.cpu_initialization),
        "initialReadinessDelay": seconds(options.initial_readiness),
        "downscaleStabilization": seconds(options.downscale_stabilization),
        "metricWindow": seconds(options.sample),
    });
    if is_raw {
        written["raw"] = true.into();
    }
    written
}

fn instance(instance: &Instance) -> Value {
    let phase = match instance.phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        Phase::Unknown => "Unknown",
    };
    let mut written = Map::new();
    written.insert("name".into(), instance.name.clone().into());
    written.insert("phase".into(), phase.into());
    written.insert("ready".into(), instance.ready.into());
    if instance.ready_since != Time::LONG_AGO {
        written.insert("readySince".into(), json!(instance.ready_since));
    }
    if instance.started != Some(Time::LONG_AGO) {
        written.insert("started".into(), json!(instance.started));
    }
    if instance.deleted {
        written.insert("deleted".into(), true.into());
    }
    written.insert("cpu".into(), reading(&instance.cpu));
    written.insert("cpuRequest".into(), instance.cpu_request.into());
    if let Some(sampled) = instance.sampled {
        written.insert("sampled".into(), json!(sampled));
    }
    if !instance.metrics.is_empty() {
        written.insert("metrics".into(), readings(&instance.metrics));
    }
    if !instance.requests.is_empty() {
        written.insert("requests".into(), json!(instance.requests));
    }
    written.into()
}

fn readings(readings: &BTreeMap<String, Reading>) -> Value {
    readings.iter().map(|(name, value)| (name.clone(), reading(value))).collect::<Map<_, _>>().into()
}

fn reading(reading: &Reading) -> Value {
    match reading {
        Reading::Value(milli) => (*milli).into(),
        Reading::Missing => Value::Null,
        Reading::Bad(text) => text.clone().into(),
    }
}
