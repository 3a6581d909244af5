//! Which service answers a request: the longest path prefix by whole segments, among the routes of its host before
//! those of any host. The table is made once; a look-up allocates nothing unless a route names a host.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use crate::{allowance::Judge, config, service::Service, shard::RouteShard};

/// A route, with the service that it leads to.
pub(crate) struct Target {
    pub(crate) route: config::Route,
    pub(crate) service: Rc<Service>,
    pub(crate) stats: Arc<RouteShard>,
    /// Whether a request may pass; `None` where all do.
    pub(crate) judge: Option<Box<dyn Judge>>,
}

/// All routes of one core.
pub(crate) struct Table {
    hosts: HashMap<Box<str>, Prefixes>,
    any: Prefixes,
}

/// Prefixes without their last `/`, longest first.
#[derive(Default)]
struct Prefixes(Vec<(Box<str>, Rc<Target>)>);

impl Prefixes {
    fn find(&self, path: &str) -> Option<&Rc<Target>> {
        let is_under = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || (prefix.is_empty() && path == "*")
            })
        };
        self.0.iter().find(|(prefix, _)| is_under(prefix)).map(|(_, target)| target)
    }
}

impl Table {
    pub(crate) fn new(targets: Vec<Rc<Target>>) -> Self {
        let mut table = Self { hosts: HashMap::new(), any: Prefixes::default() };
        for target in targets {
            let prefixes = match &target.route.host {
                Some(host) => table.hosts.entry(host.to_ascii_lowercase().into()).or_default(),
                None => &mut table.any,
            };
            prefixes.0.push((target.route.path.trim_end_matches('/').into(), target));
        }
        for prefixes in table.hosts.values_mut().chain([&mut table.any]) {
            prefixes.0.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
        table
    }

    /// All routes.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Rc<Target>> {
        let prefixes = self.hosts.values().chain([&self.any]);
        prefixes.flat_map(|prefixes| prefixes.0.iter().map(|(_, target)| target))
    }

    /// The route of a request for `path` (or `*`) at `host`, as the client wrote it, with or without a port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Rc<Target>> {
        let of_host = if self.hosts.is_empty() { None } else { self.of_host(host) };
        of_host.and_then(|prefixes| prefixes.find(path)).or_else(|| self.any.find(path))
    }

    fn of_host(&self, host: &str) -> Option<&Prefixes> {
        let name = without_port(host).trim_end_matches('.');
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.hosts.get(name.to_ascii_lowercase().as_str())
        } else {
            self.hosts.get(name)
        }
    }
}

/// `host` of `host:port`, minding the colons of `[::1]:80`.
fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::{route_to, service};

    fn table(routes: &[(Option<&str>, &str, &str)]) -> Table {
        let target = |&(host, path, name): &(Option<&str>, &str, &str)| {
            let mut route = route_to(name);
            route.host = host.map(Into::into);
            route.path = path.into();
            Rc::new(Target { route, service: service(name), stats: Arc::default(), judge: None })
        };
        Table::new(routes.iter().map(target).collect())
    }

    fn check(table: &Table, host: &str, path: &str, expected: Option<&str>) {
        let found = table.find(host, path).map(|target| target.route.service.as_str());
        assert_eq!(found, expected, "{host} {path}");
    }

    #[test]
    fn longest_prefix_by_whole_segments() {
        let table = table(&[(None, "/", "web"), (None, "/api", "api"), (None, "/api/v2/", "next")]);
        check(&table, "x", "/", Some("web"));
        check(&table, "x", "/apiary", Some("web"));
        check(&table, "x", "/api", Some("api"));
        check(&table, "x", "/api/", Some("api"));
        check(&table, "x", "/api/v1", Some("api"));
        check(&table, "x", "/api/v2", Some("next"));
        check(&table, "x", "/api/v2/x", Some("next"));
        check(&table, "x", "/api/v22", Some("api"));
        check(&table, "x", "*", Some("web"));
    }

    #[test]
    fn hosts_come_first() {
        let table =
            table(&[(None, "/api", "api"), (Some("shop.test"), "/", "shop"), (Some("[::1]"), "/", "six")]);
        check(&table, "shop.test", "/api", Some("shop"));
        check(&table, "SHOP.test.:8080", "/", Some("shop"));
        check(&table, "[::1]:80", "/", Some("six"));
        check(&table, "[::1]", "/", Some("six"));
        check(&table, "other.test", "/api/x", Some("api"));
        check(&table, "other.test", "/", None);
        check(&table, "", "*", None);
    }
}
