//! What is proven: a service of a file, or a command.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use lethe_node::config::{self, Overrides, ServiceConfig, Source};
use lethe_prover::{
    service::Service,
    worker::{Error, Worker},
    yard::Yard,
};
use lethe_supervisor::service::Listener;

use super::tier::Tier;

/// A service and what it needs.
pub(in crate::verb) struct Chosen {
    name: String,
    command: Vec<String>,
    directory: PathBuf,
    env: Vec<(String, String)>,
    ready: Option<String>,
    /// Whether it may use the state tier, as services of a file may.
    pub(in crate::verb) wants_state: bool,
}

/// What is read in a folder.
const FILES: [&str; 2] = ["lethe.toml", "Procfile"];

/// What a service is called that has no file.
const UNNAMED: &str = "service";

/// Reads it. Of several services in a file one must be named; `verb` is what it is read for.
pub(in crate::verb) fn read(
    path: PathBuf,
    command: Vec<String>,
    name: Option<&str>,
    verb: &str,
) -> anyhow::Result<Chosen> {
    if !command.is_empty() {
        // Whether it starts is seen in its world.
        let directory = std::env::current_dir()?;
        return Ok(Chosen {
            name: UNNAMED.into(),
            command,
            directory,
            env: Vec::new(),
            ready: None,
            wants_state: false,
        });
    }
    is_service(&path, verb)?;
    let config = config::load(Source::Path(path), Overrides::default())?;
    let names: Vec<String> = config.services.iter().map(|service| service.spec.name.to_string()).collect();
    let is_meant = |service: &&ServiceConfig| name.is_none_or(|name| service.spec.name.as_str() == name);
    let mut meant = config.services.iter().filter(is_meant);
    let service = meant.next().ok_or_else(|| {
        anyhow!("there is no service {}: it has {}", name.unwrap_or_default(), names.join(", "))
    })?;
    if meant.next().is_some() {
        bail!("there are several services: name one with --service ({})", names.join(", "));
    }
    let spec = &service.spec;
    if service.source.is_some() {
        bail!("{} has a `source`: fetch it first, and name the folder of what was fetched", spec.name);
    }
    if spec.listener != Listener::Port {
        bail!(
            "{} does not listen on a port itself (`listener`): only services that do can be proven and recorded",
            spec.name
        );
    }
    // A proof changes nothing, so it builds nothing.
    service.check_command().with_context(|| match &service.build {
        Some(build) => {
            format!("{} is not built yet; run `{}` in {}", spec.name, build.text, build.directory.display())
        }
        None => format!("{} cannot be started", spec.name),
    })?;
    Ok(Chosen {
        name: spec.name.to_string(),
        command: spec.command.clone(),
        directory: spec.directory.clone(),
        env: spec.env.clone().into_iter().collect(),
        ready: spec.ready.clone(),
        wants_state: true,
    })
}

/// Whether there is a service at `path`, rather than nothing, or what its users do.
fn is_service(path: &Path, verb: &str) -> anyhow::Result<()> {
    let shown = path.display();
    if path.is_dir() && !FILES.iter().any(|name| path.join(name).exists()) {
        let folder = if path == Path::new(".") { "here".into() } else { format!("in {shown}") };
        bail!(
            "there is no lethe.toml and no Procfile {folder}: name a program, as in `lethe {verb} -- python3 app.py`, or a folder that has \
             one of them"
        );
    }
    if !path.exists() {
        bail!("{shown}: no such file or folder; to run a program, write `lethe {verb} -- {shown}`");
    }
    if path.is_file()
        && let Some(command) = config::command_for(path, &shown.to_string())
    {
        bail!("{shown}: is a program, not a configuration: to run it, write `lethe {verb} -- {command}`");
    }
    let is_recording = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("har"));
    let has_steps = || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| line.trim_start().starts_with("[[steps]]"))
    };
    if path.is_file() && (is_recording || has_steps()) {
        bail!("{shown} is a journey, and no service: `lethe prove --journey {shown} -- COMMAND` plays it");
    }
    Ok(())
}

impl Chosen {
    /// What starts it, by itself on this machine: the program with its arguments, its folder and its environment.
    pub(in crate::verb) fn into_program(self) -> (Vec<String>, PathBuf, Vec<(String, String)>) {
        let mut env = self.env;
        env.push(("LETHE_SERVICE".into(), self.name));
        (self.command, self.directory, env)
    }

    /// As the prover starts it.
    pub(in crate::verb) fn service(&self, start_timeout: u64, tier: Option<&Tier>) -> Service {
        let mut env = self.env.clone();
        env.extend(tier.map(|tier| ("LETHE_STATE".to_owned(), tier.url().to_owned())));
        Service {
            name: self.name.clone(),
            command: self.command.clone(),
            directory: self.directory.clone(),
            env,
            sockets: tier.map(|tier| tier.socket().to_owned()).into_iter().collect(),
            ready: self.ready.clone(),
            start_max: Duration::from_secs(start_timeout),
        }
    }
}

/// The yard in which a worker starts, and the first that did. A service that wants a port which something else has on this machine gets it in
/// its world, and cannot reach who has it outside.
pub(in crate::verb) fn with_ports(yard: Yard) -> Result<(Yard, Worker), Error> {
    let refusal = match start(&yard) {
        Ok(worker) => return Ok((yard, worker)),
        Err(refusal) => refusal,
    };
    let Error::NotListening { output, .. } = &refusal else { return Err(refusal) };
    let said = output.join("\n").to_ascii_lowercase();
    if !said.contains("eaddrinuse") && !said.contains("address already in use") {
        return Err(refusal);
    }
    let numbers = said.split(|char: char| !char.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    let is_door = |port: &u16| yard.doors().iter().any(|door| door.port() == *port);
    let wanted: Vec<u16> = numbers.filter(is_door).collect();
    let fewer = yard.with_fewer_doors(&wanted);
    let worker = start(&fewer)?;
    Ok((fewer, worker))
}

fn start(yard: &Yard) -> Result<Worker, Error> {
    Worker::start(yard, &yard.next("worker-0".into(), None)?, Arc::new(yard.disk()?))
}
