//! What is decided, as families of `/metrics`. Labels are names of the configuration.

use std::collections::BTreeMap;

use lethe_admin::exposition::{
    Exposition,
    Kind::{Counter, Gauge},
};
use lethe_model::service::ServiceName;

use super::Service;

pub(super) fn write(
    text: &mut Exposition,
    services: &BTreeMap<ServiceName, Service>,
    wanted: &BTreeMap<ServiceName, u32>,
) {
    let mut each = |name, kind, help, value: &dyn Fn(&ServiceName, &Service) -> u64| {
        let mut family = text.family(name, kind, help);
        for (service, state) in services {
            family.sample(&[("service", service.as_str())], value(service, state));
        }
    };
    each("lethe_scale_min_workers", Gauge, "The fewest workers that load may leave.", &|_, state| {
        state.range().min.into()
    });
    each("lethe_scale_max_workers", Gauge, "The most workers that load may ask for.", &|_, state| {
        state.range().max.into()
    });
    let help = "Workers that the last decision wants; while it is pinned, that were set by hand.";
    each("lethe_scale_desired_workers", Gauge, help, &|name, _| {
        wanted.get(name).copied().unwrap_or(0).into()
    });
    let help = "1 while a number that was set by hand stands in the place of load's, else 0.";
    each("lethe_scale_pinned", Gauge, help, &|_, state| state.is_pinned.into());
    let help = "Decisions that changed something, or could not be taken.";
    each("lethe_scale_decisions_total", Counter, help, &|_, state| state.last.decisions);
    let help = "What a metric is to what it should be: above 1 wants more workers. Not there while it fails.";
    let mut ratios = text.family("lethe_scale_metric_ratio", Gauge, help);
    for (service, state) in services {
        for (metric, ratio) in state.last.ratios.iter().filter(|(_, ratio)| ratio.is_finite()) {
            ratios.sample(&[("service", service.as_str()), ("metric", metric)], ratio);
        }
    }
    let help = "1 for a metric that says nothing, else 0. While one fails, no worker leaves.";
    let mut failing = text.family("lethe_scale_metric_failing", Gauge, help);
    for (service, state) in services {
        for metric in &state.pilot.scale().spec.metrics {
            let name = metric.source.name();
            let is_failing = state.last.failing.contains_key(name);
            failing.sample(&[("service", service.as_str()), ("metric", name)], u8::from(is_failing));
        }
    }
}
