//! Which service answers a request: the longest path prefix by whole segments, among the routes of its host before
//! those of any host, and of several with a share in turn. The table is made once; a look-up allocates nothing unless a
//! route names a host.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use crate::{allowance::Judge, config, rotation::Rotation, service::Service, shard::RouteShard};

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
    all: Vec<Rc<Target>>,
}

/// Where the requests of one host and path go.
enum Way {
    To(Rc<Target>),
    /// To each in proportion to its weight.
    Shared(RefCell<Rotation<Rc<Target>>>),
}

impl Way {
    /// Leads to one more.
    fn add(&mut self, target: Rc<Target>) {
        if let Self::To(first) = self {
            let shares = RefCell::default();
            join(&shares, Rc::clone(first));
            *self = Self::Shared(shares);
        }
        if let Self::Shared(shares) = self {
            join(shares, target);
        }
    }

    /// Where the next request goes. A share whose service has no worker that is ready goes to the others, as long as one has.
    fn next(&self) -> Option<Rc<Target>> {
        let shares = match self {
            Self::To(target) => return Some(Rc::clone(target)),
            Self::Shared(shares) => &mut *shares.borrow_mut(),
        };
        let can_answer = |target: &Rc<Target>| target.service.rotation.borrow().len() > 0;
        let is_any = (0..shares.len()).any(|index| shares.get(index).is_some_and(can_answer));
        shares.next(usize::MAX, |target| (!is_any || can_answer(target)).then(|| Rc::clone(target)))
    }
}

fn join(shares: &RefCell<Rotation<Rc<Target>>>, target: Rc<Target>) {
    let mut shares = shares.borrow_mut();
    let (key, weight) = (shares.len(), target.route.weight.unwrap_or(1));
    shares.insert(key, weight, target);
}

/// Prefixes without their last `/`, longest first.
#[derive(Default)]
struct Prefixes(Vec<(Box<str>, Way)>);

impl Prefixes {
    fn find(&self, path: &str) -> Option<Rc<Target>> {
        let is_under = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || (prefix.is_empty() && path == "*")
            })
        };
        self.0.iter().find(|(prefix, _)| is_under(prefix)).and_then(|(_, way)| way.next())
    }
}

impl Table {
    pub(crate) fn new(targets: Vec<Rc<Target>>) -> Self {
        let mut table = Self { hosts: HashMap::new(), any: Prefixes::default(), all: targets.clone() };
        for target in targets {
            let prefixes = match &target.route.host {
                Some(host) => table.hosts.entry(host.to_ascii_lowercase().into()).or_default(),
                None => &mut table.any,
            };
            let path = target.route.path.trim_end_matches('/');
            match prefixes.0.iter_mut().find(|(prefix, _)| **prefix == *path) {
                Some((_, way)) => way.add(target),
                None => prefixes.0.push((path.into(), Way::To(target))),
            }
        }
        for prefixes in table.hosts.values_mut().chain([&mut table.any]) {
            prefixes.0.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
        table
    }

    /// All routes.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Rc<Target>> {
        self.all.iter()
    }

    /// The route of a request for `path` (or `*`) at `host`, as the client wrote it, with or without a port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Rc<Target>> {
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
    use lethe_model::roster::WorkerState::Ready;

    use super::*;
    use crate::service::tests::{apply, route_to, service, worker};

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
        let found = table.find(host, path).map(|target| target.route.service.to_string());
        assert_eq!(found.as_deref(), expected, "{host} {path}");
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

    #[test]
    fn shares_are_kept_and_go_to_those_who_can_answer() {
        let services = ["web", "next"].map(service);
        let target = |(service, weight): (&Rc<Service>, u32)| {
            let route = config::Route { weight: Some(weight), ..route_to(service.name.as_str()) };
            Rc::new(Target { route, service: Rc::clone(service), stats: Arc::default(), judge: None })
        };
        let table = Table::new(services.iter().zip([9, 1]).map(target).collect());
        assert_eq!(table.targets().count(), 2);
        let to_next = |count: usize| {
            let found = (0..count).map(|_| table.find("x", "/").unwrap());
            found.filter(|target| target.service.name.as_str() == "next").count()
        };
        assert_eq!(to_next(100), 10, "nobody has a worker");
        apply(&services[0], &[worker(1, Ready)]);
        assert_eq!(to_next(100), 0, "one has");
        apply(&services[1], &[worker(1, Ready)]);
        for _ in 0..10 {
            assert_eq!(to_next(10), 1, "evenly");
        }
    }
}
