//! `hpa`: a HorizontalPodAutoscaler's file, as it is.

use std::path::Path;

use lethe_scaler::{
    manifest,
    spec::{Metric, Source, Spec},
};
use toml::de::DeValue;

use super::{
    super::{
        FILE_BYTES_MAX, Instances, file,
        instances::INSTANCES_MAX,
        problem::Report,
        table::{Table, Text, Value, bad_value},
    },
    CPU_REQUEST_DEFAULT, External, IDLE_DEFAULT, METRICS_MAX, OPTIONS, Read, Scale, idle,
};
use crate::scaling::names;

/// [`External::max_age`] of its metrics, which are told to the control API.
const TOLD_AGE: std::time::Duration = std::time::Duration::from_secs(60);

/// Reads the file. Whatever else is said, but for when the last worker leaves, would contradict it.
pub(super) fn read(
    table: &Table<'_, '_>,
    value: &Value<'_>,
    outer: Option<&Value<'_>>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Read> {
    let others = super::KEYS.iter().filter(|key| !["hpa", "idle"].contains(key));
    for (key, other) in others.filter_map(|key| Some((key, table.value(key)?))) {
        report.at(other.span(), format!("`{key}` is said by the file of `hpa`: keep one of them"));
    }
    if let Some(other) = outer {
        let title = &table.title;
        report.at(
            other.span(),
            format!("`instances` is said by the file of `hpa` in {title} too: keep one of them"),
        );
    }
    let DeValue::String(path) = value.get_ref() else {
        table.wrong_type("hpa", "a file such as `\"hpa.yaml\"`", value, report);
        return None;
    };
    let spec = follow(&folder.join(path.as_ref()));
    let spec = match spec {
        Ok(spec) => spec,
        Err(why) => {
            bad_value("hpa", &Text { text: path, span: value.span() }, &why, report);
            return None;
        }
    };
    let instances = Instances { min: spec.min, max: spec.max };
    let idle = idle(table, Some(instances), report).unwrap_or(IDLE_DEFAULT);
    let externals = spec.metrics.iter().filter_map(told).collect();
    let scale = Scale {
        spec,
        idle,
        quantile: names::QUANTILE_DEFAULT,
        externals,
        cpu_request: CPU_REQUEST_DEFAULT,
        memory_request: None,
    };
    Some(Read { instances, scale })
}

fn follow(path: &Path) -> Result<Spec, String> {
    let shown = path.display().to_string();
    if let Ok(meta) = path.metadata()
        && meta.len() > FILE_BYTES_MAX
    {
        return Err(format!("is larger than {} KiB", FILE_BYTES_MAX >> 10));
    }
    let text = file::text_of(path, &shown)
        .map_err(|problem| problem.message.replacen(&format!("{shown}: "), "", 1))?;
    let spec = manifest::read(&text)
        .map_err(|error| format!("cannot be followed: {}", error.to_string().replace('\n', "; ")))?;
    let resource = |metric: &Metric| match &metric.source {
        Source::Resource(name) | Source::ContainerResource { resource: name, .. } => Some(name.clone()),
        _ => None,
    };
    let is_measured = |name: &String| ["cpu", "memory"].contains(&name.as_str());
    if let Some(other) = spec.metrics.iter().filter_map(resource).find(|name| !is_measured(name)) {
        return Err(format!(
            "cannot be followed: spec.metrics: of a worker, `cpu` and `memory` are measured, and not `{other}`: take it out, or \
             have it told as a metric of type External"
        ));
    }
    if spec.max > INSTANCES_MAX {
        let max = spec.max;
        return Err(format!(
            "cannot be followed: spec.maxReplicas: a service has at most {INSTANCES_MAX} workers, not {max}"
        ));
    }
    let told = spec.metrics.iter().filter_map(told).count();
    if told > METRICS_MAX {
        return Err(format!(
            "cannot be followed: spec.metrics: at most {METRICS_MAX} of them may be of numbers from elsewhere, not {told}"
        ));
    }
    Ok(Spec { options: OPTIONS, ..spec })
}

/// A metric that somebody has to tell.
fn told(metric: &Metric) -> Option<External> {
    let name = match &metric.source {
        Source::Pods(name) | Source::Object(name) | Source::External(name) => name,
        Source::Resource(_) | Source::ContainerResource { .. } => return None,
    };
    (!names::RESERVED.contains(&name.as_str())).then(|| External {
        name: name.clone(),
        from: None,
        max_age: TOLD_AGE,
    })
}
