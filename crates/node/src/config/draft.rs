//! What a source says, whatever kind it is of, before the command line has its say.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use lethe_gateway::config::{self as gateway_config, AccessLog, Limits, Listener, Network, Route};

use lethe_state::place::Placement;

use super::{
    Config, Errors, LISTEN_DEFAULT, Origin, STATE_DEFAULT, ServiceConfig,
    address::Admin,
    flags::Flags,
    policy,
    problem::{Problem, Quote},
    tls::Tls,
};
use crate::interruption::Interruption;

/// What a source says, with a default for all that it did not say.
pub(super) struct Draft {
    pub(super) listen: SocketAddr,
    pub(super) admin: Admin,
    /// Where `admin` was written.
    pub(super) admin_quote: Option<Quote>,
    pub(super) state_dir: PathBuf,
    pub(super) placement: Placement,
    /// Environment variables that are in it, which workers do not get.
    pub(super) withheld: BTreeSet<String>,
    pub(super) services: Vec<ServiceConfig>,
    pub(super) routes: Vec<Route>,
    pub(super) tls: Option<Tls>,
    pub(super) proxy_protocol: bool,
    pub(super) trusted_proxies: Vec<Network>,
    /// The gateway's name in `Via`, if it is to say one.
    pub(super) via: Option<String>,
    pub(super) access_log: AccessLog,
    /// Runtimes of the gateway; one for each processor when nothing is said.
    pub(super) cores: Option<usize>,
    pub(super) limits: Limits,
    pub(super) interruption: Option<Interruption>,
    pub(super) notices: Vec<String>,
    pub(super) file: Option<String>,
}

impl Draft {
    /// One that says nothing yet, for a source in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            listen: LISTEN_DEFAULT,
            admin: Admin::default(),
            admin_quote: None,
            state_dir: folder.join(STATE_DEFAULT),
            placement: Placement::default(),
            withheld: BTreeSet::new(),
            services: Vec::new(),
            routes: Vec::new(),
            tls: None,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            via: None,
            access_log: AccessLog::default(),
            cores: None,
            limits: Limits::default(),
            interruption: None,
            notices: Vec::new(),
            file: None,
        }
    }

    /// The configuration, with what the command line says put in.
    pub(super) fn finish(mut self, mut flags: Flags, origin: Origin) -> Result<Config, Errors> {
        let listen = flags.listen.unwrap_or(self.listen);
        let admin = self.admin.address(listen);
        if let Some(admin) = admin.filter(|admin| overlap(*admin, listen)) {
            let message = format!(
                "`admin`: `{admin}` is where the gateway listens ({listen}); choose another port, or \"off\""
            );
            return Err(Problem { quote: self.admin_quote, message }.into());
        }
        self.check_tls_address(listen, admin)?;
        for service in &mut self.services {
            if let Some(instances) = flags.instances {
                service.scale_between(instances);
            }
            service.spec.instances = service.instances.first();
            if let Some(scale) = &mut service.scale {
                scale.request(&service.spec.resources);
            }
            policy::follow(&mut service.policy, service.instances);
            service.spec.withheld = self.withheld.clone();
            if let Some(build) = &mut service.build {
                build.withheld = self.withheld.clone();
            }
        }
        let state_dir = flags.state_dir.take().unwrap_or_else(|| self.state_dir.clone());
        let placement = std::mem::take(&mut self.placement);
        let (notices, file) = (std::mem::take(&mut self.notices), self.file.take());
        let interruption = self.interruption.take();
        let (gateway, services) = self.gateway(listen, flags.tls_self_signed);
        Ok(Config { gateway, admin, state_dir, placement, services, interruption, notices, file, origin })
    }

    /// The address that TLS has for itself must be free of the others.
    fn check_tls_address(&self, listen: SocketAddr, admin: Option<SocketAddr>) -> Result<(), Errors> {
        let Some(Tls { listen: Some(address), listen_quote, .. }) = &self.tls else { return Ok(()) };
        let taken = |other: SocketAddr, by: &str| {
            let next = "choose another port, or leave it out to speak TLS on `listen`";
            let message = format!("`listen` in [tls]: `{address}` is where {by} ({other}); {next}");
            Err(Problem { quote: listen_quote.clone(), message }.into())
        };
        match admin {
            _ if overlap(*address, listen) => taken(listen, "the gateway listens without TLS"),
            Some(admin) if overlap(*address, admin) => taken(admin, "health and metrics are"),
            _ => Ok(()),
        }
    }

    /// The gateway's part. TLS is spoken on the address that `[tls]` names, else where the gateway listens anyway; there
    /// is nothing in between, such as the same port for both.
    fn gateway(self, address: SocketAddr, self_signed: bool) -> (gateway_config::Config, Vec<ServiceConfig>) {
        let listener = |address, tls| Listener { address, tls, proxy_protocol: self.proxy_protocol };
        let listeners = match self.tls.as_ref().map(|tls| tls.listen) {
            Some(Some(own)) => vec![listener(address, false), listener(own, true)],
            Some(None) => vec![listener(address, true)],
            None => vec![listener(address, self_signed)],
        };
        let tls = match self.tls {
            _ if self_signed => Some(gateway_config::Tls::SelfSigned(own_names(&listeners, &self.routes))),
            Some(tls) => Some(gateway_config::Tls::Files(tls.certificates)),
            None => None,
        };
        let of_service = |service: &ServiceConfig| (service.spec.name.clone(), service.policy.clone());
        let config = gateway_config::Config {
            listeners,
            tls,
            routes: self.routes,
            services: self.services.iter().map(of_service).collect(),
            trusted_proxies: self.trusted_proxies,
            via: self.via,
            access_log: self.access_log,
            cores: self.cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            limits: self.limits,
        };
        (config, self.services)
    }

    /// Says of each service without a route that it gets no requests.
    pub(super) fn note_unrouted(&mut self) {
        for service in &self.services {
            let name = &service.spec.name;
            if !self.routes.iter().any(|route| route.service == *name) {
                self.notices.push(format!("service `{name}`: no route leads to it, so it gets no requests"));
            }
        }
    }
}

/// The names by which a certificate for local use is asked for.
fn own_names(listeners: &[Listener], routes: &[Route]) -> Vec<String> {
    let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let listened = listeners.iter().map(|listener| listener.address.ip()).filter(|ip| !ip.is_unspecified());
    let addresses = local.into_iter().chain(listened).map(|ip| ip.to_string());
    let hosts = routes.iter().filter_map(|route| route.host.clone());
    let mut names: Vec<String> = Vec::new();
    for name in ["localhost".to_owned()].into_iter().chain(addresses).chain(hosts) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether one of two listeners would keep the other from being opened.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let every = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (every || one.ip() == other.ip())
}
