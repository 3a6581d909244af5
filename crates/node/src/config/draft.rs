//! What a source says, whatever kind it is of, before the command line has its say.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use lethe_gateway::config::Route;

use super::{
    Config, Errors, Instances, LISTEN_DEFAULT, STATE_DEFAULT, ServiceConfig,
    address::Admin,
    flags::Flags,
    problem::{Problem, Quote},
};

/// What a source says, with a default for all that it did not say.
pub(super) struct Draft {
    pub(super) listen: SocketAddr,
    pub(super) admin: Admin,
    /// Where `admin` was written.
    pub(super) admin_quote: Option<Quote>,
    pub(super) state_dir: PathBuf,
    pub(super) services: Vec<ServiceConfig>,
    pub(super) routes: Vec<Route>,
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
            services: Vec::new(),
            routes: Vec::new(),
            notices: Vec::new(),
            file: None,
        }
    }

    /// The configuration, with what the command line says put in.
    pub(super) fn finish(mut self, flags: Flags) -> Result<Config, Errors> {
        let listen = flags.listen.unwrap_or(self.listen);
        let admin = self.admin.address(listen);
        if let Some(admin) = admin.filter(|admin| overlap(*admin, listen)) {
            let message = format!(
                "`admin`: `{admin}` is where the gateway listens ({listen}); choose another port, or \"off\""
            );
            return Err(Problem { quote: self.admin_quote, message }.into());
        }
        for service in &mut self.services {
            service.instances = flags.instances.unwrap_or(service.instances);
            service.spec.instances = service.instances.min;
            let (name, Instances { min, max }) = (&service.spec.name, service.instances);
            if min < max {
                self.notices.push(format!(
                    "service `{name}`: of {min}..{max} workers, {min} are started; `lethe scale {name}=N` changes that"
                ));
            }
        }
        Ok(Config {
            listen,
            admin,
            state_dir: flags.state_dir.unwrap_or(self.state_dir),
            services: self.services,
            routes: self.routes,
            notices: self.notices,
            file: self.file,
        })
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

/// Whether one of two listeners would keep the other from being opened.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let every = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (every || one.ip() == other.ip())
}
