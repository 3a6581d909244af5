//! One `lethe up` from start to end. Starting claims everything that can be refused (folder, ports, programs) before
//! the first worker exists; ending goes the other way round: gateway, workers, state.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use lethe_admin::{
    Handles, api, control,
    handles::{self, Scaling as _},
    operator, runtime,
    stop::{Stop, Wish},
};
use lethe_gateway::gateway;
use lethe_model::service::ServiceName;
use lethe_state::{
    embedded::Embedded,
    metered::metered,
    open::{self, Away, Opened},
    place::{Kind, Placement},
    server,
};
use lethe_supervisor::{
    service::{Spec, StateUrls},
    supervisor::{self, Supervisor},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    allowance::Counter,
    build,
    config::{Config, ServiceConfig},
    deploy::{self, Deploys, begin, history::History},
    doors::{self, Doors},
    figures,
    folder::{Charge, Folder},
    follow,
    handover::{self, Ear, Kept, Word, Workers},
    heir::{Heir, Upgrader},
    inheritance::{self, Estate, Inheritance},
    interruption::{self, Interruption},
    ledger::AnswerStore,
    notify, port,
    release::{self, Maker, Step, Wanted},
    reload::{Reloader, Running},
    scaling::Scaling,
    signals::Signals,
    source::Source,
    waking,
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
        /// Its build command, as people are shown it: the program alone.
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
    /// Something that a person should know.
    Notice {
        /// The service.
        service: &'a ServiceName,
        /// What.
        text: &'a str,
    },
}

/// A running node: everything `lethe up` started.
pub struct Node {
    handles: Arc<Handles>,
    gateway: Arc<gateway::Gateway>,
    /// For as long as requests are served.
    waker: JoinHandle<()>,
    engine: Embedded,
    /// Those that are servers elsewhere.
    opened: Arc<Opened>,
    placement: Placement,
    doors: Arc<Doors>,
    admin: Vec<JoinHandle<()>>,
    folder: Folder,
    upgrader: Arc<Upgrader>,
}

/// How long the system may take to end processes that were killed, before `lethe` goes on without them.
const KILLED_WAIT: Duration = Duration::from_secs(2);

/// How long an engine that is a server elsewhere may take to answer before it is said to be away.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);
/// How long calls that are under way at the end may take, before the connections to engines elsewhere are closed.
const POOL_GRACE: Duration = Duration::from_secs(2);
/// How long a process that has taken over waits until the other one accepts no more.
const WELCOME_WAIT: Duration = Duration::from_secs(5);

/// Claims, builds and starts all that `config` asks for. The claim on the state folder is the engine's lock on it. When it
/// returns, the gateway accepts and the workers are on their way; requests wait for the first of them.
///
/// With an inheritance, listeners and claim are those of the process that is taken over from. Then all workers are ready
/// before the gateway accepts, and when this returns, that process accepts no more.
///
/// `guard` is the program that ends the workers if this process is killed: the `lethe` binary itself. `stop` may be
/// turned at any time, also during the start: then this fails with "stopped".
pub async fn start(
    config: Config,
    guard: PathBuf,
    stop: Stop,
    inheritance: Option<Inheritance>,
    watch: impl FnMut(Progress<'_>) + Send,
) -> anyhow::Result<Node> {
    let Some(Inheritance { link, estate }) = inheritance else {
        let node = begin(config, guard, stop, None, watch).await?;
        notify::notify("READY=1");
        return Ok(node);
    };
    let mut ear = Ear::at(link.try_clone()?)?;
    let begun = tokio::select! {
        begun = begin(config, guard, stop, Some(estate), watch) => begun,
        // It says nothing before it is told something, so that this is its end.
        _ = ear.hear() => Err(anyhow::anyhow!("the lethe that was to be taken over from has ended")),
    };
    let node = begun.inspect_err(|error| {
        let _ = handover::say(&link, &Word::Failed(handover::reason(&format!("{error:#}"))));
    })?;
    handover::say(&link, &Word::Serving(node.handles.node.clone()))?;
    let _ = tokio::time::timeout(WELCOME_WAIT, ear.hear()).await;
    node.take_charge()?;
    Ok(node)
}

async fn begin(
    mut config: Config,
    guard: PathBuf,
    stop: Stop,
    estate: Option<Estate>,
    mut watch: impl FnMut(Progress<'_>) + Send,
) -> anyhow::Result<Node> {
    let read = config.clone();
    let charge = if estate.is_some() { Charge::Coming } else { Charge::Is };
    let Claimed { engine, bound, admin, attendant, workers } = claim(&config, estate).await?;
    let opened = Arc::new(open::open(&config.placement, &engine.engines()).context("cannot open [state]")?);
    let (engines, meter) = metered(opened.engines.clone(), &config.placement);
    let measure = figures::measure(engine.watch(), Arc::clone(&opened), meter);
    let state_dir = config.state_dir.canonicalize()?;
    keep_out_of_git(&state_dir).context("cannot write the state folder's .gitignore")?;
    let history =
        History::open(&state_dir).context("cannot keep the history of releases in the state folder")?;
    let mut chosen = begin::choose(&history, &mut config.services, charge == Charge::Is)?;
    let chosen_services = config.services.clone();
    let maker = Arc::new(Maker::new(&state_dir, Arc::clone(&engines.blobs), stop.clone()));
    let mut revisions = make_all(&mut config.services, &maker, &stop, &mut watch).await?;

    let (folder, state_listener) = Folder::enter(runtime::directory_for(&state_dir)?, charge)?;
    let services_folder = runtime::services_in(&folder.state_socket)?;
    let doors = Arc::new(Doors::new(engines.clone(), state_listener, services_folder.clone()));
    for service in &config.services {
        doors.open(&service.spec.name, service.grant.clone())?;
    }
    let control_socket = folder.bind_control()?;
    let state_url = server::socket::url(&folder.state_socket);
    let node = describe(&config, &bound, admin.as_ref(), state_dir.clone(), state_url)?;
    if charge == Charge::Is {
        runtime::announce(&folder.path, &node)?;
    }
    for (asked, made) in chosen_services.iter().zip(&mut config.services) {
        let as_read = read.services.iter().find(|known| known.spec.name == made.spec.name);
        let revision = revisions.remove(&made.spec.name);
        made.spec.release = begin::number(&history, asked, as_read, revision)?;
    }
    // The last step that can be refused, so that no worker is ever started for nothing.
    let mut services: Vec<_> = config.services.iter().map(|service| service.spec.clone()).collect();
    let specs = services.iter().map(|spec| (spec.name.clone(), spec.clone())).collect();
    scale_as_before(&mut services, &workers, &config);
    let numbers = workers.iter().map(|(name, workers)| (name.clone(), workers.last)).collect();
    let sockets = runtime::workers_in(&folder.state_socket)?;
    let state_urls =
        StateUrls::new(move |service| server::socket::url(&doors::socket(&services_folder, service)));
    let supervisor = Supervisor::start_after(
        supervisor::Config {
            services,
            sockets,
            state_urls: Some(state_urls),
            homes: Some(maker.homes()),
            guard,
        },
        numbers,
    )
    .await?;
    doors.know(supervisor.clone());
    if charge == Charge::Coming {
        tokio::select! {
            ready = supervisor.all_ready() => ready?,
            () = stop.asked(Wish::Drain) => return Err(build::Error::Stopped.into()),
        }
    }
    begin::has_begun(&history, &config.services)?;
    let counter = Counter::new(&engines, config.gateway.cores);
    let bound = bound.counted_by(counter).recorded_by(AnswerStore::new(&engines));
    let gateway = Arc::new(bound.run(supervisor.roster()));
    let traffic = {
        let gateway = Arc::clone(&gateway);
        Arc::new(move || gateway.snapshot())
    };
    let scaling = Scaling::new(supervisor.clone(), Arc::clone(&gateway), &state_dir);
    scaling.configure(&config.services);
    for (name, _) in workers.iter().filter(|(_, workers)| workers.pinned) {
        // A service that load no longer decides about has nothing to be pinned.
        let _ = scaling.pin(name.as_str(), true);
    }
    let deploys = Deploys::new(history, supervisor.clone(), Arc::clone(&gateway));
    for (asked, made) in chosen_services.into_iter().zip(&config.services) {
        let chosen = chosen.remove(&made.spec.name);
        let as_read = read.services.iter().find(|known| known.spec.name == made.spec.name);
        deploys.started(asked, as_read.unwrap_or(made).clone(), made.spec.clone(), chosen);
    }
    let reloader = Arc::new(Reloader {
        deploys,
        scaling: Arc::clone(&scaling),
        supervisor: supervisor.clone(),
        gateway: Arc::clone(&gateway),
        doors: Arc::clone(&doors),
        maker,
        stop: stop.clone(),
        running: tokio::sync::Mutex::new(Running { config: read, specs, is_over: false }),
        changed: tokio::sync::Notify::new(),
    });
    let upgrader = Arc::new(Upgrader {
        reloader: Arc::clone(&reloader),
        claim: engine.claim(),
        admin: match (&config.admin, &admin) {
            (Some(address), Some(listener)) => Some((*address, listener.try_clone()?)),
            _ => None,
        },
        folder: folder.path.clone(),
        charge: Arc::clone(&folder.charge),
        attendant,
        heir: watch::Sender::new(None),
    });
    let following = follow::follow(Arc::clone(&reloader), stop.clone());
    let handles = Handles::new(
        supervisor,
        traffic,
        Arc::clone(&reloader).hook(),
        Arc::clone(&upgrader).hook(),
        Arc::clone(&scaling) as Arc<dyn handles::Scaling>,
        measure,
        node,
        stop,
    );
    let _ = handles.releases.set(Arc::new(deploy::Verbs(Arc::clone(&reloader))));
    let waker =
        tokio::spawn(waking::run(Arc::clone(&gateway), handles.supervisor.clone(), Arc::clone(&scaling)));
    let mut tasks = vec![tokio::spawn(control::serve(control_socket, Arc::clone(&handles)))];
    tasks.push(tokio::spawn(scaling.run()));
    tasks.push(tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { gateway.follow_certificates().await }
    }));
    tasks.push(tokio::spawn(following));
    if let Some(interruption) = config.interruption.filter(Interruption::is_looked_for) {
        tasks.push(tokio::spawn(interruption::watch(interruption, handles.stop.clone())));
    }
    if let Some(listener) = admin {
        tasks.push(tokio::spawn(operator::serve(into_tokio(listener)?, Arc::clone(&handles))));
    }
    let placement = config.placement;
    let admin = tasks;
    Ok(Node { handles, gateway, waker, engine, opened, placement, doors, admin, folder, upgrader })
}

/// All that only one process may have, and what else was inherited.
struct Claimed {
    engine: Embedded,
    bound: gateway::Bound,
    admin: Option<TcpListener>,
    attendant: Option<UnixStream>,
    workers: BTreeMap<ServiceName, Workers>,
}

async fn claim(config: &Config, estate: Option<Estate>) -> anyhow::Result<Claimed> {
    let Some(Estate { attendant, lock, listeners, admin, workers, kept }) = estate else {
        let engine = open_state(config, Embedded::open).await?;
        let bound = bind_gateway(config)?;
        let admin = config.admin.map(|address| bind_admin(config, address)).transpose()?;
        return Ok(Claimed { engine, bound, admin, attendant: None, workers: BTreeMap::new() });
    };
    if let Some(kept) = kept {
        kept.check(&Kept::by(config))?;
    }
    let engine = open_state(config, |directory| Embedded::open_beside(directory, lock)).await?;
    let bound = export_spans(gateway::Bound::adopt(config.gateway.clone(), listeners)?)?;
    if config.admin != admin.as_ref().map(|(address, _)| *address) {
        anyhow::bail!("`admin` has changed, which needs a restart");
    }
    let admin = admin.map(|(_, listener)| listener);
    if let Some(attendant) = &attendant {
        attendant.set_nonblocking(true)?;
    }
    Ok(Claimed { engine, bound, admin, attendant, workers })
}

async fn open_state(
    config: &Config,
    open: impl FnOnce(&Path) -> Result<Embedded, lethe_state::error::Error> + Send + 'static,
) -> anyhow::Result<Embedded> {
    let state_dir = config.state_dir.clone();
    tokio::task::spawn_blocking(move || open(&state_dir))
        .await?
        .map_err(|error| match error {
            // Its own text says no more than what is said here.
            lethe_state::error::Error::Engine(cause) => anyhow::Error::from_boxed(cause),
            error => error.into(),
        })
        .context("cannot keep state; `--state-dir DIR` chooses another folder")
}

fn describe(
    config: &Config,
    bound: &gateway::Bound,
    admin: Option<&TcpListener>,
    state_dir: PathBuf,
    state_url: String,
) -> io::Result<api::Node> {
    let (listeners, addresses) = (&config.gateway.listeners, bound.addresses());
    Ok(api::Node {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        listen: addresses[0],
        tls: listeners.iter().zip(addresses).find(|(listener, _)| listener.tls).map(|(_, address)| *address),
        admin: admin.map(TcpListener::local_addr).transpose()?,
        state_dir,
        state: Some(state_url),
        started_at: SystemTime::now().into(),
    })
}

/// What `lethe scale` has done stays, as long as the configuration says the same as before.
/// What load has decided stays in any case, within what it may decide.
fn scale_as_before(services: &mut [Spec], workers: &BTreeMap<ServiceName, Workers>, config: &Config) {
    for spec in services {
        let configured = config.services.iter().find(|service| service.spec.name == spec.name);
        let range = configured.filter(|service| service.scale.is_some()).map(|service| service.instances);
        if let (Some(range), Some(workers)) = (range, workers.get(&spec.name)) {
            let is_as_before = workers.configured == spec.instances && workers.pinned;
            spec.instances =
                if is_as_before { workers.wanted } else { workers.wanted.clamp(range.min, range.max) };
        } else if let Some(workers) = workers.get(&spec.name)
            && workers.configured == spec.instances
        {
            spec.instances = workers.wanted;
        }
    }
}

impl Node {
    /// The handles of everything that runs.
    pub fn handles(&self) -> &Arc<Handles> {
        &self.handles
    }

    /// Does what the process says that waits for the end of this one, if there is one.
    pub fn obey_attendant(&mut self, signals: Arc<Signals>) -> io::Result<()> {
        if let Some(attendant) = &self.upgrader.attendant {
            let ear = Ear::at(attendant.try_clone()?)?;
            self.admin.push(tokio::spawn(inheritance::obey(ear, self.handles.stop.clone(), signals)));
        }
        Ok(())
    }

    /// Looks whether the engines that are servers elsewhere can be used, for some seconds at most, and says of each that cannot
    /// what is wrong, what that means and what to do. Does not keep the node.
    pub fn away(&self) -> impl Future<Output = Vec<String>> + Send + 'static {
        let (opened, placement) = (Arc::clone(&self.opened), self.placement.clone());
        async move {
            let away = opened.away(ENGINE_PATIENCE).await;
            away.into_iter().map(|Away { engine, why }| absence(&placement, engine, &why)).collect()
        }
    }

    /// Waits until another process has taken over. Cancellation safe; does not keep the node.
    pub fn taken_over(&self) -> impl Future<Output = Arc<Heir>> + Send + 'static {
        let upgrader = Arc::clone(&self.upgrader);
        async move { upgrader.taken_over().await }
    }

    /// Runs until the switch is turned or another process has taken over, then drains: no new requests, open ones end,
    /// workers end, acknowledged state is on disk. Turned further, the workers are killed. When it returns nothing is left
    /// running, but for the process that has taken over, if one has.
    pub async fn run(self) -> anyhow::Result<Option<Arc<Heir>>> {
        let stop = self.handles.stop.clone();
        let is_taken_over = tokio::select! {
            biased;
            _ = self.upgrader.taken_over() => true,
            () = stop.asked(Wish::Drain) => false,
        };
        if is_taken_over {
            // The other one has these by now.
            self.admin.iter().for_each(JoinHandle::abort);
        } else {
            notify::notify("STOPPING=1");
        }
        tokio::select! {
            () = self.drain(is_taken_over) => {}
            () = stop.asked(Wish::Now) => self.kill().await,
        }
        self.admin.iter().for_each(JoinHandle::abort);
        if is_taken_over {
            self.upgrader.reloader.maker.hold_only([]);
            self.upgrader.reloader.maker.sweep().await;
        }
        drop(self.folder);
        let served = tokio::select! {
            biased;
            served = self.doors.end() => served,
            () = stop.asked(Wish::Now) => Ok(()),
        };
        self.engine.close().await;
        self.opened.close(POOL_GRACE).await;
        let heir = self.upgrader.heir.borrow().clone();
        match (served.context("the state API"), &heir) {
            (Err(error), None) => return Err(error),
            (Err(error), Some(_)) => tracing::error!("{error:#}"),
            (Ok(()), _) => {}
        }
        Ok(heir)
    }

    /// From here on this process is the one that is found.
    fn take_charge(&self) -> io::Result<()> {
        self.engine.claim().hold();
        let mut charge = self.folder.charge.lock().unwrap_or_else(PoisonError::into_inner);
        *charge = Charge::Is;
        // Else the other one has done so, as the last before it stopped accepting.
        if self.folder.path.join(runtime::NEXT_SOCKET).exists() {
            runtime::put_in_charge(&self.folder.path, &self.handles.node)?;
        }
        Ok(())
    }

    async fn drain(&self, is_taken_over: bool) {
        if is_taken_over {
            self.gateway.release().await;
        } else {
            self.gateway.drain().await;
        }
        self.waker.abort();
        self.handles.supervisor.stop().await;
    }

    async fn kill(&self) {
        self.handles.supervisor.kill_all();
        let _ = tokio::time::timeout(KILLED_WAIT, self.handles.supervisor.stop()).await;
    }
}

/// What is said of an engine that cannot be used.
fn absence(placement: &Placement, engine: &str, why: &str) -> String {
    let kinds = Kind::ALL.into_iter().filter(|kind| placement.of(*kind).engine().name() == engine);
    let kinds: Vec<&str> = kinds.map(Kind::name).collect();
    format!(
        "the state engine {engine} cannot be used: {why}. lethe goes on, and what is kept there ({}) cannot be read or written \
         until it answers; nothing needs a restart then, unless [state] in lethe.toml is to name another place",
        kinds.join(", ")
    )
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

/// Fetches and builds what is not there yet, each service after the other. Gives what their sources call the versions.
async fn make_all(
    services: &mut [ServiceConfig],
    maker: &Maker,
    stop: &Stop,
    watch: &mut (impl FnMut(Progress<'_>) + Send),
) -> anyhow::Result<BTreeMap<ServiceName, String>> {
    let (mut revisions, mut pins) = (BTreeMap::new(), Vec::new());
    for service in services.iter_mut() {
        let name = service.spec.name.clone();
        let mut tell = |step: Step<'_>| {
            watch(match step {
                // What is built next, or taken over, says so too.
                Step::Fetched(_) => return,
                Step::Fetching(source) => Progress::Fetching { service: &name, source },
                Step::Building(command) => Progress::Building { service: &name, command },
                Step::Line(text) => Progress::Line { service: &name, text },
                Step::Built => Progress::Built { service: &name },
                Step::Notice(text) => Progress::Notice { service: &name, text },
            });
        };
        let made = maker.make(service, Wanted::NewestOrLast, &mut tell).await;
        let release::Made { revision, pin, .. } = made.map_err(|error| match error {
            release::Error::Source(_) | release::Error::Store(..) => {
                anyhow::Error::new(error).context(format!("service `{name}`"))
            }
            error => error.into(),
        })?;
        pins.push(pin);
        revisions.extend(revision.map(|revision| (name, revision)));
    }
    if stop.wish() != Wish::Run {
        return Err(build::Error::Stopped.into());
    }
    maker.hold_only(services.iter().map(|service| service.spec.directory.clone()));
    maker.sweep().await;
    Ok(revisions)
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
        let started = start(config, place.path().join("no-guard"), Stop::new(), None, |_| {}).await;
        let error = started.err().expect("it cannot start").to_string();
        assert!(error.contains("no-guard did not start"), "{error}");
        assert!(!sockets.exists());
    }
}
