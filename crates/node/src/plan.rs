//! What a changed configuration means for what runs: which services come, go, are replaced or scaled. Pure; what has to
//! happen in which order is decided in `reload`.

use std::fmt;

use lethe_gateway::config::{self as gateway, Network};
use lethe_model::service::ServiceName;
use lethe_state::place::Kind;

use crate::config::{Config, ServiceConfig};

/// What is to be done so that the new configuration runs.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Services to start, before a route leads to them.
    pub added: Vec<ServiceConfig>,
    /// Services whose workers are to be replaced or of which there shall be more or fewer.
    pub changed: Vec<Changed>,
    /// Services that may no longer be without a worker.
    pub raised: Vec<ServiceConfig>,
    /// Services to end, after no route leads to them any more.
    pub removed: Vec<ServiceName>,
    /// All that is different, one line for each, for people; empty when nothing is.
    pub changes: Vec<String>,
}

/// A service that is there before and after.
#[derive(Clone, Debug)]
pub struct Changed {
    /// As it runs.
    pub old: ServiceConfig,
    /// As it shall run.
    pub new: ServiceConfig,
    /// Its workers are replaced, one after the other.
    pub is_replaced: bool,
    /// Before that, its program is fetched and built again.
    pub is_made: bool,
    /// There shall be so many workers.
    pub scale: Option<u32>,
}

/// What differs cannot be changed while `lethe` runs; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Refused(pub Vec<String>);

/// Decides how to get from `old`, which runs, to `new`. What was done by hand since, as with `lethe scale`, stays
/// unless the configuration of the same thing has changed.
pub fn plan(old: &Config, new: &Config) -> Result<Plan, Refused> {
    let refused = fixed(old, new);
    if !refused.is_empty() {
        return Err(Refused(refused));
    }
    let mut plan = Plan::default();
    for service in &new.services {
        match find(old, &service.spec.name) {
            None => {
                let workers = workers(service.spec.instances);
                plan.changes.push(format!("service `{}`: added, {workers}", service.spec.name));
                plan.added.push(service.clone());
            }
            Some(before) => plan.compare(before, service),
        }
    }
    for service in &old.services {
        let name = &service.spec.name;
        if find(new, name).is_none() {
            plan.changes.push(format!("service `{name}`: removed"));
            plan.removed.push(name.clone());
        }
    }
    plan.changes.extend(routes(&old.gateway.routes, &new.gateway.routes));
    plan.changes.extend(of_gateway(&old.gateway, &new.gateway));
    Ok(plan)
}

impl Plan {
    /// Notes how a service that stays differs.
    fn compare(&mut self, old: &ServiceConfig, new: &ServiceConfig) {
        let (name, spec) = (&new.spec.name, &new.spec);
        let replacing = differing([
            ("command", spec.command != old.spec.command),
            ("source", new.source != old.source),
            ("build", new.build != old.build && spec.directory == old.spec.directory),
            ("ready", spec.ready != old.spec.ready),
            ("warm-up", spec.warm_up != old.spec.warm_up),
            ("listener", spec.listener != old.spec.listener),
            ("protocol", spec.protocol != old.spec.protocol),
            ("drain", spec.drain != old.spec.drain),
            ("env", spec.env != old.spec.env || spec.withheld != old.spec.withheld),
            ("directory", spec.directory != old.spec.directory),
            ("resources", spec.resources != old.spec.resources),
        ]);
        let policy = differing([
            ("concurrency", new.policy.concurrency != old.policy.concurrency),
            ("slow-start", new.policy.slow_start != old.policy.slow_start),
            // Where it only follows from how many workers there may be, that is what is said.
            (
                "start-wait",
                new.policy.start_wait != old.policy.start_wait
                    && new.policy.from_zero == old.policy.from_zero,
            ),
            ("eject", new.policy.ejection != old.policy.ejection),
            ("health", new.policy.health != old.policy.health),
            ("state", new.grant != old.grant),
            ("auto", new.follow != old.follow),
            ("rollout", new.rollout != old.rollout),
        ]);
        // Where load decides, it goes on from how many there are.
        let is_other = spec.instances != old.spec.instances || old.scale.is_some();
        let scale = (new.scale.is_none() && is_other).then_some(spec.instances);
        if let Some(keys) = &replacing {
            self.changes.push(format!("service `{name}`: {keys} changed, workers replaced"));
        }
        if let Some(keys) = policy {
            self.changes.push(format!("service `{name}`: {keys} changed"));
        }
        if scale.is_some() {
            let (from, to) = (old.instances, workers(spec.instances));
            self.changes.push(format!("service `{name}`: from {from} to {to}"));
        } else if new.instances != old.instances {
            self.changes.push(format!("service `{name}`: `instances` changed to {}", new.instances));
        } else if new.scale != old.scale {
            self.changes.push(format!("service `{name}`: `scale` changed"));
        }
        if old.instances.may_be_none() && !new.instances.may_be_none() {
            self.raised.push(new.clone());
        }
        if replacing.is_some() || scale.is_some() {
            // What only changes how it is run needs no other program.
            let is_made = new.source != old.source
                || new.build != old.build
                || spec.command != old.spec.command
                || spec.directory != old.spec.directory;
            let (old, new) = (old.clone(), new.clone());
            self.changed.push(Changed { old, new, is_replaced: replacing.is_some(), is_made, scale });
        }
    }
}

/// What cannot be changed while it runs, a sentence each.
fn fixed(old: &Config, new: &Config) -> Vec<String> {
    let mut refused = Vec::new();
    let mut check = |key: &str, is: String, shall_be: String| {
        if is != shall_be {
            refused.push(format!(
                "`{key}` cannot change while lethe runs ({is} → {shall_be}): put it back, or restart lethe"
            ));
        }
    };
    check("listen", listener(old, 0), listener(new, 0));
    check("listen` in `[tls]", listener(old, 1), listener(new, 1));
    let proxy = |config: &Config| config.gateway.listeners.iter().any(|it| it.proxy_protocol).to_string();
    check("proxy-protocol", proxy(old), proxy(new));
    // What is beside `listen` by itself moves along with it, and is not complained about again.
    if !(admin_is_beside(old) && admin_is_beside(new)) {
        check("admin", admin(old), admin(new));
    }
    check("state", old.state_dir.display().to_string(), new.state_dir.display().to_string());
    let other = if old.placement == new.placement { "" } else { ", with other options or another password" };
    check("state", placement(old), placement(new) + other);
    let told = |config: &Config| match &config.interruption {
        Some(interruption) => interruption.to_string(),
        None => "nothing".into(),
    };
    check("[interruption]", told(old), told(new));
    check("cores", old.gateway.cores.to_string(), new.gateway.cores.to_string());
    refused
}

/// Where each kind is kept, without what is secret.
pub(crate) fn placement(config: &Config) -> String {
    let place = |kind: Kind| format!("{} {}", kind.name(), config.placement.of(kind));
    Kind::ALL.map(place).join(", ")
}

fn admin(config: &Config) -> String {
    config.admin.map_or_else(|| "off".into(), |address| address.to_string())
}

fn admin_is_beside(config: &Config) -> bool {
    config.admin.is_some_and(|admin| Some(admin.port()) == config.listen().port().checked_add(1))
}

fn listener(config: &Config, index: usize) -> String {
    match config.gateway.listeners.get(index) {
        Some(listener) if listener.tls => format!("{} with TLS", listener.address),
        Some(listener) => listener.address.to_string(),
        None => "nothing".into(),
    }
}

/// Routes that came, went or changed, by the requests they are for.
fn routes(old: &[gateway::Route], new: &[gateway::Route]) -> Vec<String> {
    let same =
        |one: &gateway::Route, other: &gateway::Route| one.host == other.host && one.path == other.path;
    // Services that share a route are beside each other.
    let (old, new): (Vec<_>, Vec<_>) = (old.chunk_by(same).collect(), new.chunk_by(same).collect());
    let mut changes = Vec::new();
    for routes in &new {
        let (place, to) = (Place(&routes[0]), answering(routes));
        match old.iter().find(|before| same(&before[0], &routes[0])) {
            None => changes.push(format!("route {place}: added, to {to}")),
            Some(before) if answering(before) != to => {
                changes.push(format!("route {place}: from {} to {to}", answering(before)));
            }
            Some(before) if before != routes => changes.push(format!("route {place}: changed")),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|before| !new.iter().any(|routes| same(&before[0], &routes[0])));
    changes.extend(gone.map(|before| format!("route {}: removed", Place(&before[0]))));
    changes
}

/// Who answers at one place, and what share.
fn answering(routes: &[gateway::Route]) -> String {
    let one = |route: &gateway::Route| match route.weight {
        Some(weight) => format!("`{}` {weight}", route.service),
        None => format!("`{}`", route.service),
    };
    routes.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What else of the gateway differs.
fn of_gateway(old: &gateway::Config, new: &gateway::Config) -> Vec<String> {
    let networks = |networks: &[Network]| match networks {
        [] => "nobody".into(),
        some => {
            some.iter().map(|it| format!("{}/{}", it.address, it.prefix_bits)).collect::<Vec<_>>().join(", ")
        }
    };
    let mut changes = Vec::new();
    if old.tls != new.tls {
        changes.push("certificates: changed".into());
    }
    if old.trusted_proxies != new.trusted_proxies {
        changes.push(format!("trusted-proxies: {}", networks(&new.trusted_proxies)));
    }
    if old.via != new.via {
        changes.push(format!("via: {}", new.via.as_deref().unwrap_or("off")));
    }
    match &new.access_log {
        log if *log == old.access_log => {}
        gateway::AccessLog::Off => changes.push("access-log: off".into()),
        gateway::AccessLog::Stdout => changes.push("access-log: stdout".into()),
        gateway::AccessLog::File(path) => changes.push(format!("access-log: {}", path.display())),
    }
    if old.limits != new.limits {
        changes.push("limits: changed".into());
    }
    changes
}

/// Which requests a route is for.
struct Place<'a>(&'a gateway::Route);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0.host.as_deref().unwrap_or_default(), self.0.path)
    }
}

fn find<'a>(config: &'a Config, name: &ServiceName) -> Option<&'a ServiceConfig> {
    config.services.iter().find(|service| service.spec.name == *name)
}

/// The keys that differ, for people.
fn differing<const N: usize>(keys: [(&str, bool); N]) -> Option<String> {
    let keys: Vec<String> =
        keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("`{key}`")).collect();
    (!keys.is_empty()).then(|| keys.join(", "))
}

fn workers(count: u32) -> String {
    format!("{count} {}", if count == 1 { "worker" } else { "workers" })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Overrides, Source};

    fn load(folder: &Path, toml: &str) -> Config {
        std::fs::write(folder.join("lethe.toml"), toml).unwrap();
        config::load(Source::Path(folder.into()), Overrides::default())
            .unwrap_or_else(|errors| panic!("{errors}"))
    }

    const BEFORE: &str = "[services.a]\ncommand = 'sh a'\ninstances = 3\n[services.b]\ncommand = 'sh b'\n\
                          [[routes]]\nservice = 'a'\n[[routes]]\npath = '/b'\nservice = 'b'\n";

    /// What is planned, in one line each, when `from` in [`BEFORE`] becomes `to`.
    fn planned(from: &str, to: &str) -> Result<Vec<String>, Refused> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["cert.pem", "new.pem"] {
            let pem = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";
            std::fs::write(folder.path().join(name), pem).unwrap();
        }
        assert!(from.is_empty() || BEFORE.contains(from), "{from}");
        let after = if from.is_empty() { format!("{to}{BEFORE}") } else { BEFORE.replacen(from, to, 1) };
        let (old, new) = (load(folder.path(), BEFORE), load(folder.path(), &after));
        let plan = plan(&old, &new)?;
        let mut said = plan.changes;
        said.extend(plan.added.iter().map(|service| format!("+{}", service.spec.name)));
        said.extend(plan.removed.iter().map(|name| format!("-{name}")));
        said.extend(plan.changed.iter().map(|it| {
            let (replaced, made) = (if it.is_replaced { "r" } else { "" }, if it.is_made { "m" } else { "" });
            format!(
                "~{} {replaced}{made}{}",
                it.new.spec.name,
                it.scale.map_or(String::new(), |n| n.to_string())
            )
        }));
        Ok(said)
    }

    #[test]
    fn plans() {
        let check = |from: &str, to: &str, expected: &[&str]| {
            assert_eq!(planned(from, to).unwrap(), expected, "{from} -> {to}");
        };
        check("", "# nothing\n", &[]);
        check("instances = 3", "instances = 5", &["service `a`: from 3 to 5 workers", "~a 5"]);
        check("instances = 3", "instances = '3..8'", &["service `a`: `instances` changed to 3..8"]);
        check("instances = 3\n", "", &["service `a`: from 3 to 2 workers", "~a 2"]);
        check("'sh a'", "'sh c'", &["service `a`: `command` changed, workers replaced", "~a rm"]);
        check(
            "instances = 3",
            "instances = 1\nenv = { A = 'b' }\ndrain = '1s'\nready = '/'",
            &[
                "service `a`: `ready`, `drain`, `env` changed, workers replaced",
                "service `a`: from 3 to 1 worker",
                "~a r1",
            ],
        );
        // What they speak is a matter of their version.
        check(
            "'sh a'",
            "'sh a'\nprotocol = 'h2c'",
            &["service `a`: `protocol` changed, workers replaced", "~a r"],
        );
        check("'sh a'", "'sh a'\nstate = { tables = ['a'] }", &["service `a`: `state` changed"]);
        check(
            "'sh a'",
            "'sh a'\nresources = { limits = { memory = '64Mi' } }",
            &["service `a`: `resources` changed, workers replaced", "~a r"],
        );
        check(
            "'sh a'",
            "'sh a'\nbuild = 'true'",
            &["service `a`: `build` changed, workers replaced", "~a rm"],
        );
        check(
            "'sh a'",
            "'sh a'\nbuild = 'true'\ndirectory = '/'",
            &["service `a`: `directory` changed, workers replaced", "~a rm"],
        );
        check(
            "'sh a'",
            "'sh a'\nconcurrency = 4\neject = 'off'",
            &["service `a`: `concurrency`, `eject` changed"],
        );
        check(
            "[services.b]\ncommand = 'sh b'\n[[routes]]\nservice = 'a'\n[[routes]]\npath = '/b'\nservice = 'b'\n",
            "",
            &["service `b`: removed", "route /b: removed", "-b"],
        );
        check("", "services.c.command = 'sh'\n", &["service `c`: added, 2 workers", "+c"]);
        check(
            "[services.b]\ncommand = 'sh b'\n[[routes]]\nservice = 'a'\n[[routes]]\npath = '/b'\nservice = 'b'\n",
            "[services.d]\ncommand = 'sh b'\n[[routes]]\nservice = 'd'\n[[routes]]\nhost = 'x.y'\nservice = 'a'",
            &[
                "service `d`: added, 2 workers",
                "service `b`: removed",
                "route /: from `a` to `d`",
                "route x.y/: added, to `a`",
                "route /b: removed",
                "+d",
                "-b",
            ],
        );
        check("instances = 3", "instances = '0..3'", &["service `a`: `instances` changed to 0..3"]);
        check(
            "instances = 3",
            "instances = 3\nwarm-up = '/'\nstart-wait = '5s'",
            &[
                "service `a`: `warm-up` changed, workers replaced",
                "service `a`: `start-wait` changed",
                "~a r",
            ],
        );
        check("path = '/b'", "path = '/b'\ntimeout = '1s'", &["route /b: changed"]);
        check("service = 'b'\n", "service = { a = 9, b = 1 }\n", &["route /b: from `b` to `a` 9, `b` 1"]);
        check(
            "",
            "trusted-proxies = ['10.0.0.0/8', '::1']\nvia = 'edge'\naccess-log = 'stdout'\nlimits.queue-max = 7\n",
            &["trusted-proxies: 10.0.0.0/8, ::1/128", "via: edge", "access-log: stdout", "limits: changed"],
        );
    }

    #[test]
    fn what_may_no_longer_be_without_a_worker_is_raised() {
        let folder = tempfile::tempdir().unwrap();
        let load = |instances: &str| {
            load(folder.path(), &format!("[services.a]\ncommand = 'sh'\ninstances = '{instances}'\n"))
        };
        for (from, to, raised) in [("0..4", "1..4", true), ("0..4", "0..9", false), ("1..4", "2..4", false)] {
            let plan = plan(&load(from), &load(to)).unwrap();
            assert_eq!(!plan.raised.is_empty(), raised, "{from} to {to}");
            assert!(plan.changed.is_empty(), "load decides within {to}");
        }
    }

    #[test]
    fn what_needs_a_restart_is_refused() {
        let check = |to: &str, expected: &[&str]| {
            let refused = planned("", to).unwrap_err().0;
            let expected: Vec<String> = expected
                .iter()
                .map(|it| it.replace(": !", " while lethe runs (") + "): put it back, or restart lethe")
                .collect();
            assert_eq!(refused, expected, "{to}");
        };
        check("listen = 9000\n", &["`listen` cannot change: !127.0.0.1:8080 → 127.0.0.1:9000"]);
        check(
            "listen = 9000\nadmin = 9002\n",
            &[
                "`listen` cannot change: !127.0.0.1:8080 → 127.0.0.1:9000",
                "`admin` cannot change: !127.0.0.1:8081 → 127.0.0.1:9002",
            ],
        );
        check("admin = 'off'\n", &["`admin` cannot change: !127.0.0.1:8081 → off"]);
        let cores = std::thread::available_parallelism().unwrap();
        check("cores = 1000\n", &[&format!("`cores` cannot change: !{cores} → 1000")]);
        let state = planned("", "state = '/elsewhere'\n").unwrap_err().to_string();
        assert!(
            state.starts_with("`state` cannot change") && state.contains(".lethe → /elsewhere"),
            "{state}"
        );
        let folder = tempfile::tempdir().unwrap();
        let redis = |password| {
            let state = format!("state = {{ url = 'redis://:{password}@cache', blobs = 'embedded' }}\n");
            load(folder.path(), &(state + BEFORE))
        };
        let state = plan(&redis("old-one"), &redis("new-one")).unwrap_err().to_string();
        assert!(state.contains("another password") && !state.contains("-one"), "{state}");
        let tls = "tls.certificates = [{ chain = 'cert.pem', key = 'cert.pem' }]\n";
        check(tls, &["`listen` cannot change: !127.0.0.1:8080 → 127.0.0.1:8080 with TLS"]);
        check(
            &format!("{tls}tls.listen = 8443\n"),
            &["`listen` in `[tls]` cannot change: !nothing → 127.0.0.1:8443 with TLS"],
        );
        check(
            "proxy-protocol = true\ntrusted-proxies = ['::1']\n",
            &["`proxy-protocol` cannot change: !false → true"],
        );
    }

    #[test]
    fn certificates_may_change() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["cert.pem", "new.pem"] {
            let pem = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";
            std::fs::write(folder.path().join(name), pem).unwrap();
        }
        let toml =
            "tls.certificates = [{ chain = 'cert.pem', key = 'cert.pem' }]\nservices.a.command = 'sh'\n";
        let old = load(folder.path(), toml);
        let new = load(folder.path(), &toml.replace("cert.pem", "new.pem"));
        assert_eq!(plan(&old, &new).unwrap().changes, ["certificates: changed"]);
    }
}
