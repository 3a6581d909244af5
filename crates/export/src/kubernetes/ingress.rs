//! The Ingress for the routes. Its `Prefix` is by whole segments, as a route's path is.

use lethe_gateway::config::{Route, Tls};
use lethe_node::config::Config;

use super::{object, only};
use crate::yaml::{Map, Yaml};

const NAME: &str = "lethe-routes";

/// The object, if there are routes, and what it leaves out.
pub(super) fn of(config: &Config) -> (Option<Map>, Vec<String>) {
    let mut notices = Vec::new();
    let routes = unshared(&config.gateway.routes, &mut notices);
    if routes.is_empty() {
        return (None, notices);
    }
    let mut hosts: Vec<Option<&str>> = routes.iter().map(|route| route.host.as_deref()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let rule = |host: &Option<&str>| {
        let paths: Vec<Map> =
            routes.iter().filter(|route| route.host.as_deref() == *host).map(|route| path(route)).collect();
        Map::default().maybe("host", *host).with("http", Map::of("paths", paths))
    };
    let tls = config.gateway.tls.as_ref().map(|_| tls(&hosts));
    if matches!(config.gateway.tls, Some(Tls::Files(_))) {
        notices.push(format!("the certificates of [tls] are not exported: make the secret {NAME}-tls (kubectl create secret tls)"));
    }
    let spec = Map::default().maybe("tls", tls).with("rules", hosts.iter().map(rule).collect::<Vec<_>>());
    let metadata = Map::of("name", NAME).with("labels", Map::of("app.kubernetes.io/managed-by", "lethe"));
    (Some(object("networking.k8s.io/v1", "Ingress", metadata).with("spec", spec)), notices)
}

/// One route for each host and path: where services share one, that with the most of it.
fn unshared<'a>(routes: &'a [Route], notices: &mut Vec<String>) -> Vec<&'a Route> {
    let mut kept: Vec<&Route> = Vec::new();
    for route in routes {
        let is_same = |other: &Route| other.host == route.host && other.path == route.path;
        match kept.iter_mut().find(|other| is_same(other)) {
            None => kept.push(route),
            Some(other) => {
                notices.push(format!(
                    "the route {}{} is shared by weight, which an Ingress cannot: all of it goes to the service with the most",
                    route.host.as_deref().unwrap_or_default(),
                    route.path
                ));
                if route.weight > other.weight {
                    *other = route;
                }
            }
        }
    }
    notices.dedup();
    kept
}

fn path(route: &Route) -> Map {
    let service = Map::of("name", route.service.as_str()).with("port", Map::of("name", "http"));
    Map::of("path", route.path.as_str())
        .with("pathType", "Prefix")
        .with("backend", Map::of("service", service))
}

fn tls(hosts: &[Option<&str>]) -> Yaml {
    let named: Vec<&str> = hosts.iter().flatten().copied().collect();
    let hosts = (!named.is_empty()).then_some(named);
    only(Map::default().maybe("hosts", hosts).with("secretName", format!("{NAME}-tls")))
}
