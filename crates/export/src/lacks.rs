//! What of a configuration has no counterpart outside of `lethe`, a sentence each.

use lethe_gateway::config::{Balance, Class, Concurrency, RetryOn, Route, Service};
use lethe_node::config::{Config, ServiceConfig, TIMEOUT_DEFAULT};

/// What pods of this service do without, when only its program runs in them.
pub(crate) fn of_service(service: &ServiceConfig) -> Vec<String> {
    let name = &service.spec.name;
    let usual = Service::default();
    let mut lost = Vec::new();
    if service.policy.concurrency != Concurrency::Unlimited {
        lost.push("`concurrency`");
    }
    if service.policy.slow_start != usual.slow_start {
        lost.push("`slow-start`");
    }
    if service.policy.ejection != usual.ejection {
        lost.push("`eject`");
    }
    if !service.spec.warm_up.is_empty() {
        lost.push("`warm-up`");
    }
    if service.policy.health.is_some() {
        lost.push("`health`");
    }
    if !service.rollout.policy.checkpoints.is_empty() {
        lost.push("`checkpoints` of `rollout`");
    }
    let mut said = Vec::new();
    if !lost.is_empty() {
        said.push(format!("service `{name}`: {} has no counterpart there", lost.join(", ")));
    }
    if service.source.is_some() {
        said.push(format!(
            "service `{name}`: `source` is not fetched by a pod; its program is part of the image"
        ));
    }
    said
}

/// What requests do without when no gateway of lethe is in front.
pub(crate) fn of_routes(config: &Config) -> Vec<String> {
    let mut lost = Vec::new();
    let mut note = |key: &'static str, is_lost: &dyn Fn(&Route) -> bool| {
        if config.gateway.routes.iter().any(is_lost) {
            lost.push(key);
        }
    };
    note("`idempotent`", &|route| route.idempotent);
    note("`idempotency`", &|route| route.once.is_some());
    note("`limit`", &|route| !route.limits.is_empty());
    note("`timeout`", &|route| route.timeout != TIMEOUT_DEFAULT);
    note("`retry-on`", &|route| route.retry_on != RetryOn::default());
    note("`class`", &|route| route.class != Class::Timely);
    note("`balance`", &|route| route.balance != Balance::default());
    note("`server-timing`", &|route| route.server_timing);
    if lost.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "of the routes, {} is lethe's own and is not exported; a request whose pod dies is not given to another one",
        lost.join(", ")
    )]
}
