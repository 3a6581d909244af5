//! One `lethe up` from start to end. Starting claims everything that can be refused (folder, ports, programs) before
//! the first worker exists; ending goes the other way round: gateway, workers, state.

use std::{
    fs,
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context;
use lethe_admin::{
    Handles, api, control, operator, runtime,
    stop::{Stop, Wish},
};
use lethe_gateway::gateway;
use lethe_model::service::ServiceName;
use lethe_state::{embedded::Embedded, server};
use lethe_supervisor::supervisor::{self, Supervisor};
use tokio::{
    net::UnixListener,
    sync::{Notify, oneshot},
    task::JoinHandle,
};

use crate::{
    build,
    config::{self, Config, ServiceConfig},
    hangup::Terminal,
    port,
    reload::{self, Reloader, Running},
    source::Source,
};

/// What happens during the start, for whoever watches.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A source is being fetched.
    Fetching {
        /// The service.
        service: &'a ServiceName,
        /// Its source; shown, it has no credentials.
        source: &'a Source,
    },
    /// A build begins.
    Building {
        /// The service.
        service: &'a ServiceName,
        /// Its build command, as it was written.
        command: &'a str,
    },
    /// The build printed a line.
    Line {
        /// The service.
        service: &'a ServiceName,
        /// The line.
        text: &'a str,
    },
    /// The build has ended well.
    Built {
        /// The service.
        service: &'a ServiceName,
    },
}

/// A running node: everything `lethe up` started.
pub struct Node {
    handles: Arc<Handles>,
    gateway: Arc<gateway::Gateway>,
    engine: Embedded,
    state: Served,
    admin: Vec<JoinHandle<()>>,
    folder: Folder,
}

/// The folder of fetched sources, in the state folder.
const SOURCES: &str = "sources";
/// How long the system may take to end processes that were killed, before `lethe` goes on without them.
const KILLED_WAIT: Duration = Duration::from_secs(2);

/// The private folder with the sockets. Removed when dropped, also by a start that fails. Dropped before the claim on the
/// state folder is given up: what is there afterwards is of the next `lethe`.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        runtime::withdraw(&self.0);
    }
}

/// A server task, and the way to end it.
struct Served {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Claims, builds and starts all that `config` asks for. The claim on the state folder is the engine's lock on it. When it
/// returns, the gateway accepts and the workers are on their way; requests wait for the first of them.
///
/// `guard` is the program that ends the workers if this process is killed: the `lethe` binary itself. `stop` may be
/// turned at any time, also during the start: then this fails with "stopped".
pub async fn start(
    mut config: Config,
    guard: PathBuf,
    stop: Stop,
    mut watch: impl FnMut(Progress<'_>),
) -> anyhow::Result<Node> {
    let read = config.clone();
    let state_dir = config.state_dir.clone();
    let engine = tokio::task::spawn_blocking(move || Embedded::open(&state_dir))
        .await?
        .map_err(|error| match error {
            // Its own text says no more than what is said here.
            lethe_state::error::Error::Engine(cause) => anyhow::Error::from_boxed(cause),
            error => error.into(),
        })
        .context("cannot keep state; `--state-dir DIR` chooses another folder")?;
    let state_dir = config.state_dir.canonicalize()?;
    keep_out_of_git(&state_dir).context("cannot write the state folder's .gitignore")?;
    let bound = bind_gateway(&config)?;
    let admin = config.admin.map(|address| bind_admin(&config, address)).transpose()?;
    tokio::select! {
        fetched = fetch_all(&mut config.services, &state_dir, &engine, &mut watch) => fetched?,
        () = stop.asked(Wish::Drain) => return Err(build::Error::Stopped.into()),
    }
    build_all(&config.services, &stop, watch).await?;

    let (listeners, addresses) = (&config.gateway.listeners, bound.addresses().to_vec());
    let folder = Folder(runtime::directory_for(&state_dir)?);
    let state_socket = folder.0.join(runtime::STATE_SOCKET);
    let state = serve_state(server::socket::bind(&state_socket)?, &engine);
    let control_socket = server::socket::bind(&folder.0.join(runtime::CONTROL_SOCKET))?;
    let node = api::Node {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        listen: addresses[0],
        tls: listeners.iter().zip(&addresses).find(|(listener, _)| listener.tls).map(|(_, address)| *address),
        admin: admin.as_ref().map(TcpListener::local_addr).transpose()?,
        state_dir: state_dir.clone(),
        started_at: SystemTime::now().into(),
    };
    let admin = admin.map(into_tokio).transpose()?;
    runtime::announce(&folder.0, &node)?;
    // The last step that can be refused, so that no worker is ever started for nothing.
    let services: Vec<_> = config.services.iter().map(|service| service.spec.clone()).collect();
    let specs = services.iter().map(|spec| (spec.name.clone(), spec.clone())).collect();
    let sockets = runtime::workers_in(&folder.0)?;
    let state_url = Some(server::socket::url(&state_socket));
    let supervisor = Supervisor::start(supervisor::Config { services, sockets, state_url, guard }).await?;
    let gateway = Arc::new(bound.run(supervisor.roster()));
    let traffic = {
        let gateway = Arc::clone(&gateway);
        Arc::new(move || gateway.snapshot())
    };
    let reloader = Arc::new(Reloader {
        supervisor: supervisor.clone(),
        gateway: Arc::clone(&gateway),
        blobs: engine.engines().blobs,
        sources: state_dir.join(SOURCES),
        stop: stop.clone(),
        running: tokio::sync::Mutex::new(Running { config: read, specs, count: 0 }),
    });
    let handles = Handles::new(supervisor, traffic, reloader.hook(), node, stop);
    let mut tasks = vec![tokio::spawn(control::serve(control_socket, Arc::clone(&handles)))];
    tasks.push(tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { gateway.follow_certificates().await }
    }));
    if let Some(listener) = admin {
        tasks.push(tokio::spawn(operator::serve(listener, Arc::clone(&handles))));
    }
    Ok(Node { handles, gateway, engine, state, admin: tasks, folder })
}

impl Node {
    /// The handles of everything that runs.
    pub fn handles(&self) -> &Arc<Handles> {
        &self.handles
    }

    /// Runs until the switch is turned, then drains: no new requests, open ones end, workers end, acknowledged state is
    /// on disk. Turned further, the workers are killed. When it returns nothing is left running.
    pub async fn run(self) -> anyhow::Result<()> {
        let stop = self.handles.stop.clone();
        stop.asked(Wish::Drain).await;
        tokio::select! {
            () = self.drain() => {}
            () = stop.asked(Wish::Now) => self.kill().await,
        }
        for task in &self.admin {
            task.abort();
        }
        drop(self.folder);
        let _ = self.state.end.send(());
        let mut state = self.state.task;
        let served = tokio::select! {
            biased;
            served = &mut state => served,
            () = stop.asked(Wish::Now) => {
                state.abort();
                Ok(())
            }
        };
        self.engine.close().await;
        served.context("the state API")
    }

    async fn drain(&self) {
        self.gateway.drain().await;
        self.handles.supervisor.stop().await;
    }

    async fn kill(&self) {
        self.handles.supervisor.kill_all();
        let _ = tokio::time::timeout(KILLED_WAIT, self.handles.supervisor.stop()).await;
    }
}

/// Turns `stop` at signals: SIGINT (Ctrl-C) one further each time, SIGTERM to drain. SIGHUP asks to reload;
/// but it drains when the terminal has gone in which `lethe` was started, and when `source` is a command, which cannot be
/// reloaded. A SIGHUP that is ignored, as under nohup(1), stays ignored.
pub fn obey_signals(stop: Stop, source: &config::Source) -> io::Result<Arc<Signals>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let hangup = SignalKind::hangup();
    let is_ignored =
        ignores(&fs::read_to_string("/proc/self/status").unwrap_or_default(), hangup.as_raw_value());
    let mut hangup = if is_ignored { None } else { Some(signal(hangup)?) };
    let terminal = Terminal::of_start();
    let can_reload = matches!(source, config::Source::Path(_));
    let signals = Arc::new(Signals::default());
    let seen = Arc::clone(&signals);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = interrupt.recv() => if stop.press() == Wish::Now {
                    seen.cut_short.store(true, Ordering::Relaxed);
                },
                Some(()) = terminate.recv() => stop.ask(Wish::Drain),
                Some(()) = async { hangup.as_mut()?.recv().await } => {
                    if can_reload && !terminal.has_gone() { seen.reload.notify_one() } else { stop.ask(Wish::Drain) }
                }
                else => return,
            }
        }
    });
    Ok(signals)
}

/// What signals have asked for, beside the end.
#[derive(Debug, Default)]
pub struct Signals {
    /// Notified when the configuration shall be read again.
    pub reload: Notify,
    /// Set when a second SIGINT came, so that open requests were not waited for.
    pub cut_short: AtomicBool,
}

/// Whether a process ignores a signal, by its `/proc/<pid>/status`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn bind_gateway(config: &Config) -> anyhow::Result<gateway::Bound> {
    let bound = gateway::Bound::bind(config.gateway.clone()).map_err(|error| match &error {
        gateway::Error::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            let key = if *address == config.listen() { "--listen" } else { "another `listen` in [tls]" };
            anyhow::Error::msg(port::taken(*address, key))
        }
        _ => error.into(),
    })?;
    export_spans(bound)
}

/// Exports spans if the environment names a receiver.
#[cfg(feature = "otel")]
fn export_spans(bound: gateway::Bound) -> anyhow::Result<gateway::Bound> {
    match lethe_gateway::otel::settings::Settings::read(|name| std::env::var(name).ok())? {
        Some(settings) => Ok(bound.export(settings)?),
        None => Ok(bound),
    }
}

/// Says so if the environment asks for what this build cannot do.
#[cfg(not(feature = "otel"))]
fn export_spans(bound: gateway::Bound) -> anyhow::Result<gateway::Bound> {
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but this lethe was built without `--features otel`"
        );
    }
    Ok(bound)
}

fn bind_admin(config: &Config, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            let taken = port::taken(address, "another `admin` address in lethe.toml");
            anyhow::anyhow!("the admin address: {taken}; `--listen` moves it too ({} + 1)", config.listen())
        } else {
            anyhow::Error::new(error).context(format!("cannot listen on the admin address {address}"))
        }
    })
}

fn into_tokio(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Sessions and password hashes are one `git add .` away from a repository, as the folder lies in the user's project.
fn keep_out_of_git(state_dir: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).open(state_dir.join(".gitignore")) {
        Ok(mut file) => file.write_all(b"*\n"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Fetches what is to be fetched, each service into a folder of its own in the state folder.
async fn fetch_all(
    services: &mut [ServiceConfig],
    state_dir: &Path,
    engine: &Embedded,
    watch: &mut impl FnMut(Progress<'_>),
) -> anyhow::Result<()> {
    for service in services {
        let Some(source) = service.source.clone() else { continue };
        let name = service.spec.name.clone();
        watch(Progress::Fetching { service: &name, source: &source });
        let parent = state_dir.join(SOURCES).join(name.as_str());
        reload::forget_reloads(&parent).with_context(|| format!("cannot clear {}", parent.display()))?;
        let folder = source.fetch(&parent, &*engine.engines().blobs).await;
        service.fetched(&folder.with_context(|| format!("service `{name}`"))?);
        if service.build.is_none() {
            service.check_command()?;
        }
    }
    Ok(())
}

async fn build_all(
    services: &[ServiceConfig],
    stop: &Stop,
    mut watch: impl FnMut(Progress<'_>),
) -> anyhow::Result<()> {
    for service in services {
        let name = &service.spec.name;
        let Some(build) = &service.build else { continue };
        watch(Progress::Building { service: name, command: &build.text });
        let line = |text: &str| watch(Progress::Line { service: name, text });
        build::run(name, build, stop, line).await?;
        watch(Progress::Built { service: name });
        service.check_command()?;
    }
    if stop.wish() != Wish::Run {
        return Err(build::Error::Stopped.into());
    }
    Ok(())
}

fn serve_state(listener: UnixListener, engine: &Embedded) -> Served {
    let (end, ended) = oneshot::channel::<()>();
    let shutdown = async move { drop(ended.await) };
    let task = tokio::spawn(server::serve(listener, engine.engines(), shutdown));
    Served { end, task }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides, Source};

    #[tokio::test]
    async fn a_start_that_fails_leaves_no_sockets_behind() {
        let place = tempfile::tempdir().unwrap();
        let state_dir = place.path().join("state");
        fs::create_dir(&state_dir).unwrap();
        let sockets = runtime::directory_for(&state_dir).unwrap();
        let source = Source::Command {
            command: ["sleep", "600"].map(String::from).into(),
            directory: place.path().into(),
        };
        let overrides =
            Overrides { listen: Some("0".into()), state_dir: Some(state_dir), ..Overrides::default() };
        let config = config::load(source, overrides).unwrap();
        // The guard is the first process of all to be started, and the sockets are open by then.
        let started = start(config, place.path().join("no-guard"), Stop::new(), |_| {}).await;
        let error = started.err().expect("it cannot start").to_string();
        assert!(error.contains("no-guard did not start"), "{error}");
        assert!(!sockets.exists());
    }

    #[test]
    fn ignored_signals() {
        let status = "Name:\tlethe\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        for (signal, ignored) in [(1, true), (2, false), (13, true), (64, false)] {
            assert_eq!(ignores(status, signal), ignored, "{signal}");
        }
        assert!(!ignores("", 1));
    }
}
