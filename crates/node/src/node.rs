//! One `lethe up` from start to end. Starting claims everything that can be refused (folder, ports, programs) before
//! the first worker exists; ending goes the other way round: gateway, workers, state.

use std::{io, net::TcpListener, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::Context;
use lethe_admin::{
    Handles, api, control, operator, runtime,
    stop::{Stop, Wish},
};
use lethe_gateway::{config as gateway_config, gateway};
use lethe_model::service::ServiceName;
use lethe_state::{embedded::Embedded, server};
use lethe_supervisor::supervisor::{self, Supervisor};
use tokio::{net::UnixListener, sync::oneshot, task::JoinHandle};

use crate::{
    build,
    config::{Config, ServiceConfig},
    port,
};

/// What happens during the start, for whoever watches.
#[derive(Debug)]
pub enum Progress<'a> {
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
    runtime: PathBuf,
}

/// A server task, and the way to end it.
struct Served {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Claims, builds and starts all that `config` asks for. The claim on the state folder is the engine's lock on it. When it returns, the gateway accepts and the workers are on
/// their way; requests wait for the first of them.
///
/// `guard` is the program that ends the workers if this process is killed: the `lethe` binary itself. `stop` may be
/// turned at any time, also during the start: then this fails with "stopped".
pub async fn start(
    config: Config,
    guard: PathBuf,
    stop: Stop,
    watch: impl FnMut(Progress<'_>),
) -> anyhow::Result<Node> {
    let folder = config.state_dir.clone();
    let engine = tokio::task::spawn_blocking(move || Embedded::open(&folder))
        .await?
        .context("cannot keep state; `--state-dir DIR` chooses another folder")?;
    let state_dir = config.state_dir.canonicalize()?;
    let bound = bind_gateway(&config)?;
    let admin = config.admin.map(|address| bind_admin(&config, address)).transpose()?;
    tokio::select! {
        built = build_all(&config.services, watch) => built?,
        () = stop.asked(Wish::Drain) => anyhow::bail!("stopped before everything was built"),
    }

    let runtime = runtime::directory_for(&state_dir)?;
    let state_socket = runtime.join(runtime::STATE_SOCKET);
    let state = serve_state(server::socket::bind(&state_socket)?, &engine);
    let control_socket = server::socket::bind(&runtime.join(runtime::CONTROL_SOCKET))?;

    let services = config.services.iter().map(|service| service.spec.clone()).collect();
    let state_url = Some(format!("unix://{}", state_socket.display()));
    let supervisor = Supervisor::start(supervisor::Config { services, state_url, guard }).await?;
    let node = api::Node {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        listen: bound.address(),
        admin: admin.as_ref().map(TcpListener::local_addr).transpose()?,
        state_dir,
        started_at: SystemTime::now().into(),
    };
    runtime::announce(&runtime, &node)?;
    let gateway = Arc::new(bound.run(supervisor.roster()));
    let traffic = {
        let gateway = Arc::clone(&gateway);
        Arc::new(move || gateway.snapshot())
    };
    let handles = Handles::new(supervisor, traffic, node, stop);
    let mut tasks = vec![tokio::spawn(control::serve(control_socket, Arc::clone(&handles)))];
    if let Some(listener) = admin {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.push(tokio::spawn(operator::serve(listener, Arc::clone(&handles))));
    }
    Ok(Node { handles, gateway, engine, state, admin: tasks, runtime })
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
            () = stop.asked(Wish::Now) => self.handles.supervisor.kill_all(),
        }
        for task in &self.admin {
            task.abort();
        }
        runtime::withdraw(&self.runtime);
        let _ = self.state.end.send(());
        self.state.task.await.context("the state API")?;
        self.engine.close().await;
        Ok(())
    }

    async fn drain(&self) {
        self.gateway.drain().await;
        self.handles.supervisor.stop().await;
    }
}

/// Turns `stop` at signals: SIGINT (Ctrl-C) one further each time, SIGTERM and SIGHUP to drain.
pub fn obey_signals(stop: Stop) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = interrupt.recv() => drop(stop.press()),
                Some(()) = terminate.recv() => stop.ask(Wish::Drain),
                Some(()) = hangup.recv() => stop.ask(Wish::Drain),
                else => return,
            }
        }
    });
    Ok(())
}

fn bind_gateway(config: &Config) -> anyhow::Result<gateway::Bound> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bound = gateway::Bound::bind(gateway_config::Config {
        listen: config.listen,
        routes: config.routes.clone(),
        cores,
        limits: gateway_config::Limits::default(),
    });
    bound.map_err(|error| match &error {
        gateway::Error::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            anyhow::Error::msg(port::taken(*address, "--listen"))
        }
        _ => error.into(),
    })
}

fn bind_admin(config: &Config, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            let taken = port::taken(address, "another `admin` address in lethe.toml");
            anyhow::anyhow!("the admin address: {taken}; `--listen` moves it too ({} + 1)", config.listen)
        } else {
            anyhow::Error::new(error).context(format!("cannot listen on the admin address {address}"))
        }
    })
}

async fn build_all(services: &[ServiceConfig], mut watch: impl FnMut(Progress<'_>)) -> anyhow::Result<()> {
    for service in services {
        let name = &service.spec.name;
        let Some(build) = &service.build else { continue };
        watch(Progress::Building { service: name, command: &build.text });
        let line = |text: &str| watch(Progress::Line { service: name, text });
        build::run(name, &build.command, &build.directory, line).await?;
        watch(Progress::Built { service: name });
        service.check_command()?;
    }
    Ok(())
}

fn serve_state(listener: UnixListener, engine: &Embedded) -> Served {
    let (end, ended) = oneshot::channel::<()>();
    let shutdown = async move { drop(ended.await) };
    let task = tokio::spawn(server::serve(listener, engine.engines(), shutdown));
    Served { end, task }
}
