//! `lethe export kubernetes`: for each service a Deployment, a Service, a HorizontalPodAutoscaler, a PodDisruptionBudget and a
//! ConfigMap, and an Ingress for the routes. One pod is one worker.

mod autoscaler;
mod deployment;
mod ingress;

use lethe_model::roster::Protocol;
use lethe_node::config::{Config, ServiceConfig};
use lethe_state::place::{EngineName, Kind};
use lethe_supervisor::service::Listener;

use crate::{
    Exported, File, Refused, lacks, scaling, secret,
    yaml::{Map, Yaml},
};

/// What a pod's program listens on.
const PORT: i64 = 8080;
/// What the Service listens on.
const SERVICE_PORT: i64 = 80;
/// Stands for an image that nobody has named.
const IMAGE_PLACEHOLDER: &str = "REGISTRY/IMAGE:TAG";

/// How to export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The image that the pods run; without it a placeholder, and a notice.
    pub image: Option<String>,
    /// More environment variables that are secrets.
    pub secrets: Vec<String>,
    /// The pods run `lethe up` with one worker, and not only the worker's program.
    pub with_lethe: bool,
}

/// One service on its way.
struct Subject<'a> {
    service: &'a ServiceConfig,
    options: &'a Options,
    /// Environment variables that everybody may read.
    open: Vec<(&'a str, &'a str)>,
    /// Names of those that are secrets.
    secrets: Vec<&'a str>,
}

/// Writes them.
pub fn export(config: &Config, options: &Options) -> Result<Exported, Refused> {
    let refused = refusals(config, options);
    if !refused.is_empty() {
        return Err(Refused(refused));
    }
    let mut exported = Exported::default();
    if options.image.is_none() {
        exported
            .notices
            .push(format!("no --image was given: replace {IMAGE_PLACEHOLDER} in what was written"));
    }
    for service in &config.services {
        let subject = Subject::new(service, options);
        exported.notices.extend(subject.notices(config));
        exported.files.push(subject.file());
    }
    let (ingress, notices) = ingress::of(config);
    if let Some(ingress) = ingress {
        exported.files.push(File { name: "ingress.yaml".into(), text: documents(&[ingress]) });
    }
    exported.notices.extend(notices);
    if !options.with_lethe {
        exported.notices.extend(lacks::of_routes(config));
    }
    exported.notices.push(
        "a Deployment stops where new pods do not get ready, and does not go back by itself: `kubectl rollout undo`".into(),
    );
    Ok(exported)
}

/// What cannot be.
fn refusals(config: &Config, options: &Options) -> Vec<String> {
    let mut refused = Vec::new();
    for service in &config.services {
        let name = &service.spec.name;
        if name.as_str().ends_with('-') {
            refused.push(format!(
                "service `{name}`: names at Kubernetes do not end with `-` (RFC 1123); rename it"
            ));
        }
        let listener = match service.spec.listener {
            Listener::Port => continue,
            Listener::Inherited => "inherited",
            Listener::Socket => "socket",
        };
        if !options.with_lethe {
            refused.push(format!(
                "service `{name}`: listener = \"{listener}\" is between lethe and its workers; pods are reached by a port: \
                 write listener = \"port\", or put lethe into the image and export --with-lethe"
            ));
        }
    }
    if !options.with_lethe {
        return refused;
    }
    if config.services.len() > 1 {
        let names: Vec<&str> = config.services.iter().map(|service| service.spec.name.as_str()).collect();
        refused.push(format!(
            "--with-lethe is for a file with one service, since a pod runs all that is in it; this one has {}",
            names.join(", ")
        ));
    }
    let here: Vec<&str> = embedded(config).map(Kind::name).collect();
    if !here.is_empty() {
        refused.push(format!(
            "{} would be kept in a folder of each pod, where no other pod sees it and which ends with the pod: give URLs of \
             engines that all reach (redis://, postgres://, s3://, azure://, gs://) under [state]",
            here.join(", ")
        ));
    }
    refused
}

/// The kinds of state that are on the machine itself.
fn embedded(config: &Config) -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| config.placement.of(*kind).engine() == EngineName::Embedded)
}

impl<'a> Subject<'a> {
    fn new(service: &'a ServiceConfig, options: &'a Options) -> Self {
        let named = |name: &str| options.secrets.iter().any(|secret| secret == name);
        let mut subject = Self { service, options, open: Vec::new(), secrets: Vec::new() };
        for (name, value) in &service.spec.env {
            if named(name) || secret::is_secret(name, value) {
                subject.secrets.push(name);
            } else {
                subject.open.push((name, value));
            }
        }
        if options.with_lethe {
            // What stands as ${NAME} in the URLs of [state], which lethe itself reads.
            subject.secrets.extend(service.spec.withheld.iter().map(String::as_str));
        }
        subject.secrets.sort_unstable();
        subject.secrets.dedup();
        subject
    }

    fn name(&self) -> &'a str {
        self.service.spec.name.as_str()
    }

    fn image(&self) -> &'a str {
        self.options.image.as_deref().unwrap_or(IMAGE_PLACEHOLDER)
    }

    /// The name of what holds the open environment.
    fn config_map(&self) -> String {
        format!("{}-env", self.name())
    }

    fn secret(&self) -> String {
        format!("{}-secrets", self.name())
    }

    fn file(&self) -> File {
        let mut objects = Vec::new();
        if !self.open.is_empty() {
            objects
                .push(object("v1", "ConfigMap", self.metadata(&self.config_map())).with("data", self.data()));
        }
        objects.push(deployment::of(self));
        objects.push(self.service_object());
        objects.extend(autoscaler::of(self));
        objects.push(self.budget());
        File { name: format!("{}.yaml", self.name()), text: documents(&objects) }
    }

    fn data(&self) -> Map {
        self.open.iter().fold(Map::default(), |data, (name, value)| data.with(name, *value))
    }

    fn selector(&self) -> Map {
        Map::of("app.kubernetes.io/name", self.name())
    }

    fn metadata(&self, name: &str) -> Map {
        let labels = self.selector().with("app.kubernetes.io/managed-by", "lethe");
        Map::of("name", name).with("labels", labels)
    }

    fn service_object(&self) -> Map {
        let port = Map::of("name", "http").with("port", SERVICE_PORT).with("targetPort", "http");
        let is_h2c = self.service.spec.protocol == Protocol::H2c;
        let port = port.maybe("appProtocol", is_h2c.then_some("kubernetes.io/h2c"));
        let spec = Map::of("selector", self.selector()).with("ports", vec![port]);
        object("v1", "Service", self.metadata(self.name())).with("spec", spec)
    }

    /// The share of the pods that may be away while others come.
    fn unavailable_percent(&self) -> u32 {
        100 - u32::from(self.service.rollout.policy.min_healthy_percent.min(100))
    }

    /// Nodes are emptied without taking away more pods at a time than a rollout may.
    fn budget(&self) -> Map {
        let spec = Map::of("maxUnavailable", format!("{}%", self.unavailable_percent().max(1)))
            .saying("At least one, since it is rounded up.")
            .with("selector", Map::of("matchLabels", self.selector()));
        object("policy/v1", "PodDisruptionBudget", self.metadata(self.name())).with("spec", spec)
    }

    /// What somebody must know about this service.
    fn notices(&self, config: &Config) -> Vec<String> {
        let name = self.name();
        let mut said = Vec::new();
        if !self.secrets.is_empty() {
            let literals: Vec<String> =
                self.secrets.iter().map(|secret| format!("--from-literal={secret}=…")).collect();
            said.push(format!(
                "service `{name}`: make its secrets, of which no value was written: kubectl create secret generic {} {}",
                self.secret(),
                literals.join(" ")
            ));
        }
        if self.options.with_lethe {
            said.push(format!(
                "service `{name}`: its image needs lethe, and in its working folder the lethe.toml and what that runs"
            ));
            return said;
        }
        said.push(format!(
            "service `{name}`: its program must listen on all addresses of the pod (0.0.0.0:$PORT); under lethe 127.0.0.1 is enough"
        ));
        let elsewhere =
            Kind::ALL.into_iter().any(|kind| config.placement.of(kind).engine() != EngineName::Embedded);
        if elsewhere || self.service.grant.as_ref().is_some_and(|grant| *grant != Default::default()) {
            said.push(format!(
                "WARNING: service `{name}` uses the state that lethe keeps, and its pods have no LETHE_STATE: give URLs of engines \
                 that all pods reach under [state], put lethe into the image, and export --with-lethe"
            ));
        }
        said.extend(self.about_scaling());
        let goes_by_cpu = scaling::spec(self.service).is_some_and(|spec| scaling::is_share_of_cpu(&spec));
        if goes_by_cpu && self.service.spec.resources.cpu_request_milli.is_none() {
            said.push(format!(
                "service `{name}`: its autoscaler goes by CPU in percent of what is requested, and one core was written: say how \
                 much in [services.{name}.resources] requests"
            ));
        } else if scaling::spec(self.service).is_some()
            && self.service.spec.resources.cpu_request_milli.is_none()
        {
            said.push(format!(
                "service `{name}`: each pod requests one core, since [services.{name}.resources] requests says nothing else"
            ));
        }
        if self.service.spec.protocol == Protocol::H2c && self.service.spec.ready.is_some() {
            said.push(format!(
                "service `{name}`: `ready` is not asked, since Kubernetes asks by HTTP/1.1 and the pods speak h2c; an open port counts"
            ));
        }
        said.extend(lacks::of_service(self.service));
        said
    }
}

impl Subject<'_> {
    fn about_scaling(&self) -> Vec<String> {
        let name = self.name();
        let mut said = Vec::new();
        if self.service.instances.min == 0 {
            said.push(format!(
                "service `{name}`: one pod stays, where lethe would have no worker while nobody asks"
            ));
        }
        let spec = scaling::spec(self.service);
        let foreign = spec.as_ref().map(scaling::foreign).unwrap_or_default();
        if !foreign.is_empty() {
            said.push(format!(
                "service `{name}`: its autoscaler asks for {}, which a cluster has only by an adapter for its metrics API (such as \
                 prometheus-adapter)",
                foreign.join(", ")
            ));
        }
        said
    }
}

/// An object of Kubernetes, without what it is about.
fn object(version: &str, kind: &str, metadata: Map) -> Map {
    Map::of("apiVersion", version).with("kind", kind).with("metadata", metadata)
}

/// Several objects as one file.
fn documents(objects: &[Map]) -> String {
    let texts: Vec<String> = objects.iter().map(Map::document).collect();
    format!("# Written by `lethe export kubernetes`.\n{}", texts.join("---\n"))
}

/// A list of one.
fn only(value: impl Into<Yaml>) -> Yaml {
    Yaml::List(vec![value.into()])
}

#[cfg(test)]
mod tests {
    use lethe_node::config::{self, Overrides, Source};

    use super::*;

    pub(super) fn load(toml: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lethe.toml"), toml).unwrap();
        let source = Source::Path(folder.path().into());
        config::load(source, Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    pub(super) fn with_subject<T>(name: &str, then: impl FnOnce(&Subject<'_>) -> T) -> T {
        let config = load(&format!("[services.{name}]\ncommand = 'sh'\n"));
        then(&Subject::new(&config.services[0], &Options::default()))
    }

    pub(super) fn text(toml: &str, options: &Options) -> String {
        let exported = export(&load(toml), options).unwrap_or_else(|refused| panic!("{refused}"));
        exported.files.iter().map(|file| file.text.as_str()).collect::<Vec<_>>().join("---\n")
            + &exported.notices.join("\n")
    }

    #[test]
    fn no_secret_is_written() {
        let toml = "[services.web]\ncommand = 'sh'\n[services.web.env]\nDB_PASSWORD = 'hunter2'\n\
                    URL = 'redis://:hunter2@cache'\nOPEN = 'no'\nCODE = 'hunter2'\n";
        let text = text(toml, &Options { secrets: vec!["CODE".into()], ..Options::default() });
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("OPEN: \"no\"") && text.contains("name: web-secrets"), "{text}");
        assert!(text.contains("kubectl create secret generic web-secrets --from-literal=CODE=…"), "{text}");
    }

    #[test]
    fn what_pods_cannot_do_is_refused() {
        let refused = |toml: &str, with_lethe: bool| {
            export(&load(toml), &Options { with_lethe, ..Options::default() }).unwrap_err().to_string()
        };
        let socket = "[services.web]\ncommand = 'sh'\nlistener = 'socket'\n";
        assert!(refused(socket, false).contains("listener = \"socket\""));
        let embedded = refused(socket, true);
        assert!(
            embedded.starts_with("sessions, tables, blobs") && embedded.contains("[state]"),
            "{embedded}"
        );
        let two = "[services.a]\ncommand = 'sh'\n[services.b-]\ncommand = 'sh'\n[[routes]]\nservice = 'a'\n";
        let two = refused(two, true);
        assert!(two.contains("has a, b-") && two.contains("service `b-`: names"), "{two}");
    }

    #[test]
    fn what_is_lost_is_said() {
        let toml = "[services.web]\ncommand = 'sh'\nconcurrency = 4\nstate = { tables = ['a'] }\ninstances = '2..5'\n\
                    [services.next]\ncommand = 'sh'\nprotocol = 'h2c'\nready = '/up'\n\
                    [[routes]]\nservice = { web = 1, next = 9 }\nidempotent = true\nlimit = '5/s'\n";
        let text = text(toml, &Options::default());
        for said in [
            "replace REGISTRY/IMAGE:TAG",
            "service `web`: `concurrency` has no counterpart",
            "WARNING: service `web` uses the state",
            "service `web`: its autoscaler goes by CPU",
            "service `next`: `ready` is not asked",
            "the route / is shared by weight",
            "of the routes, `idempotent`, `limit` is lethe's own",
            "must listen on all addresses",
        ] {
            assert!(text.contains(said), "{said}\n{text}");
        }
        let backend = text.split("kind: Ingress").nth(1).unwrap();
        assert!(
            backend.contains("name: next") && !backend.contains("name: web"),
            "the most weight: {backend}"
        );
    }
}
