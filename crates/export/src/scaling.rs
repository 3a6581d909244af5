//! How the number of a service's workers follows its load, as an autoscaler elsewhere is told. Zero is not among the numbers:
//! there is nobody there who would hold a request until the first worker is ready.

use lethe_node::config::ServiceConfig;
use lethe_scaler::spec::{Source, Spec, Target};

/// What a service's workers are counted by; `None` if there is a fixed number of them.
pub fn spec(service: &ServiceConfig) -> Option<Spec> {
    let spec = service.scale.as_ref()?.spec.clone();
    let min = spec.min.max(1);
    (min < spec.max).then_some(Spec { min, ..spec })
}

/// Whether it goes by CPU in percent of what is requested.
pub(crate) fn is_share_of_cpu(spec: &Spec) -> bool {
    spec.metrics.iter().any(|metric| match &metric.source {
        Source::Resource(name) | Source::ContainerResource { resource: name, .. } => {
            name == "cpu" && matches!(metric.target, Target::Utilization(_))
        }
        _ => false,
    })
}

/// The names of numbers that a cluster does not have by itself.
pub(crate) fn foreign(spec: &Spec) -> Vec<&str> {
    let named = spec.metrics.iter().filter_map(|metric| match &metric.source {
        Source::Pods(name) | Source::Object(name) | Source::External(name) => Some(name.as_str()),
        Source::Resource(_) | Source::ContainerResource { .. } => None,
    });
    named.collect()
}
