//! The yard: where worlds are made, all alike, and at which level that can be done here.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use crate::{
    clock,
    disk::Disk,
    preload, relay,
    scratch::Scratch,
    service::Service,
    worker::{self, try_world},
    world::{Level, Spec, listening, mounts::Mounts, watch::WatchMethod},
};

/// Most unix sockets of services beside that workers can reach.
const SOCKETS_MAX: usize = 64;

/// Most sentences of what could not be done.
const NOTICES_MAX: usize = 100;

/// Ports that databases, caches, brokers and the like use by default: kept reachable when a service needs the rest.
const OF_SERVICES: &[u16] = &[
    53, 389, 1433, 1521, 1883, 2181, 2379, 3306, 4222, 5432, 5433, 5672, 6379, 6380, 7000, 7001, 7687, 8086,
    8123, 9000, 9042, 9092, 9200, 11211, 26379, 27017,
];

/// What is said of the weakest level.
const COPIED: &str = "workers have a copy of the service's folder and nothing else of their own: files at absolute paths, ports, \
                      processes and the network are this machine's, and what they do there stays";

/// How long a service that listens at another port than it was told may still open that one.
const OTHER_PORT_AFTER: Duration = Duration::from_secs(1);

/// The same for a port that debuggers use.
const DEBUGGER_AFTER: Duration = Duration::from_secs(10);

/// Where debuggers listen, before the program runs that they are for: Node.js's (`--inspect`).
const OF_DEBUGGERS: &[u16] = &[9229];

/// How one worker is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// What it is called; it gets this as `LETHE_INSTANCE`.
    pub instance: String,
    /// The port it is told to listen on.
    pub port: u16,
    /// What its random numbers of boot are drawn from, if they are to come again.
    pub entropy: Option<u64>,
    /// A file that is emptied in its world before it is started.
    pub emptied: Option<PathBuf>,
    /// Where what services beside answer waits for other workers that start with it.
    pub gate: Option<relay::Place>,
    /// How many seconds its clock is moved forwards.
    pub clock: Option<i64>,
}

/// Makes worlds for one service.
pub struct Yard {
    scratch: Arc<Scratch>,
    service: Service,
    level: Level,
    watch_method: WatchMethod,
    is_watched: bool,
    mounts: Mounts,
    doors: Vec<SocketAddr>,
    /// The port that each worker is told; at a level without ports of its own, none.
    port: Option<u16>,
    /// Where the service listens though it is told another port; the first worker shows it.
    learned: OnceLock<u16>,
    notices: Mutex<Vec<String>>,
    /// The layers that can only be read, or are not there, as the first world has shown.
    weak: OnceLock<Vec<PathBuf>>,
    /// Whether the library is there that moves clocks.
    made: Mutex<bool>,
}

impl Yard {
    /// Finds the best level that works here, not better than `best`, and what services there are beside. [`Level::Copied`] is
    /// taken only if it `may_copy`, since it does not keep the service from the machine's own files.
    ///
    /// # Errors
    /// [`worker::Error::NoWorlds`] when no level works that may be taken.
    pub fn open(
        scratch: Arc<Scratch>,
        service: Service,
        best: Level,
        may_copy: bool,
    ) -> Result<Self, worker::Error> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        // By their true paths: a link on the way, as /var/run is one, leads out of a root that is being put together.
        let sockets = listening::unix()?.into_iter().filter_map(|path| path.canonicalize().ok());
        let sockets = sockets.filter(|path| !path.starts_with("/dev") && !path.starts_with("/sys"));
        let sockets: BTreeSet<PathBuf> = sockets.take(SOCKETS_MAX).collect();
        let doors: Vec<_> = listening::doors(&listening::tcp()?).into_iter().collect();
        let taken: BTreeSet<u16> = doors.iter().map(SocketAddr::port).collect();
        let port = (8000..9000).find(|port| !taken.contains(port));
        let mut yard = Self {
            scratch,
            service,
            level: Level::Overlay,
            watch_method: WatchMethod::None,
            is_watched: true,
            mounts: Mounts::default(),
            doors,
            port,
            learned: OnceLock::new(),
            notices: Mutex::default(),
            weak: OnceLock::new(),
            made: Mutex::default(),
        };
        let mut refusals = Vec::new();
        for level in [Level::Overlay, Level::UserOverlay] {
            if level == Level::Overlay && (best != level || !rustix::process::geteuid().is_root()) {
                continue;
            }
            if best == Level::Copied {
                break;
            }
            yard.level = level;
            yard.mounts = match level {
                Level::Overlay => Mounts::plan(&table, &yard.service.directory, Path::is_dir),
                _ => Mounts::plan_by_folder(&table, &yard.service.directory),
            };
            yard.mounts.binds.extend(sockets.iter().cloned());
            match yard.try_level() {
                Ok(watch_method) => {
                    yard.watch_method = watch_method;
                    yard.note(&refusals);
                    yard.note(&yard.mounts.notices());
                    if level == Level::UserOverlay {
                        yard.note(foreign(&yard.service.directory).as_slice());
                    }
                    return Ok(yard);
                }
                Err(error) => refusals.push(format!("not {}: {error}", level.text(WatchMethod::None))),
            }
        }
        if !may_copy {
            return Err(worker::Error::NoWorlds(refusals.join("; ")));
        }
        yard.note(&refusals);
        yard.note(&[COPIED.into()]);
        (yard.level, yard.port) = (Level::Copied, None);
        Ok(yard)
    }

    fn try_level(&self) -> Result<WatchMethod, worker::Error> {
        let start =
            Start { instance: "try".into(), port: 0, entropy: None, emptied: None, gate: None, clock: None };
        let disk = self.disk()?;
        let tried =
            Self { service: Service { command: Vec::new(), ..self.service.clone() }, ..self.shallow() };
        let watch_method = try_world(&tried, &start, &disk)?;
        self.expect(tried.weak.into_inner().unwrap_or_default());
        Ok(watch_method)
    }

    fn shallow(&self) -> Self {
        Self {
            scratch: Arc::clone(&self.scratch),
            service: self.service.clone(),
            level: self.level,
            watch_method: self.watch_method,
            is_watched: self.is_watched,
            mounts: self.mounts.clone(),
            doors: self.doors.clone(),
            port: self.port,
            learned: OnceLock::new(),
            notices: Mutex::new(self.notices()),
            weak: self.weak.clone(),
            made: Mutex::default(),
        }
    }

    /// Another yard for the same service, which leaves services beside alone but for those at well-known ports: for a
    /// service that wants an address which somebody has outside.
    pub fn with_fewer_doors(&self, wanted: &[u16]) -> Self {
        let mut fewer = self.shallow();
        fewer.note(&[
            "a port that something else has on this machine is the service's own in its world".into()
        ]);
        fewer.doors.retain(|door| match wanted {
            [] => OF_SERVICES.contains(&door.port()),
            wanted => !wanted.contains(&door.port()),
        });
        fewer
    }

    /// How well workers are kept apart.
    pub fn level(&self) -> Level {
        self.level
    }

    /// By what means it is watched what workers do with files.
    pub fn watch_method(&self) -> WatchMethod {
        self.watch_method
    }

    /// The same without watching what is done with files: for measuring what that costs.
    pub fn without_watching(self) -> Self {
        Self { is_watched: false, watch_method: WatchMethod::None, ..self }
    }

    /// What could not be done as it should so far, here and in the worlds of workers.
    pub fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what could not be done. Worlds are alike, so most say what others have said.
    pub(crate) fn note(&self, notices: &[String]) {
        let mut noted = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        for notice in notices {
            if noted.len() < NOTICES_MAX && !noted.contains(notice) {
                noted.push(notice.clone());
            }
        }
    }

    /// Where the disks of workers are.
    pub fn scratch_folder(&self) -> &Path {
        self.scratch.path()
    }

    /// How many bytes are free there; the most there can be where that cannot be known.
    pub fn room(&self) -> u64 {
        let status = rustix::fs::statvfs(self.scratch.path());
        status.map_or(u64::MAX, |status| status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Where the service is.
    pub fn directory(&self) -> &Path {
        &self.service.directory
    }

    /// The addresses of services beside that workers can reach.
    pub fn doors(&self) -> &[SocketAddr] {
        &self.doors
    }

    /// `lethe` itself.
    pub(crate) fn program(&self) -> &Path {
        self.scratch.program()
    }

    pub(crate) fn ready(&self) -> Option<&str> {
        self.service.ready.as_deref()
    }

    pub(crate) fn start_max(&self) -> Duration {
        self.service.start_max
    }

    /// How the next worker is started.
    pub fn next(&self, instance: String, entropy: Option<u64>) -> io::Result<Start> {
        let port = match self.port {
            Some(port) => port,
            None => TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
        };
        Ok(Start { instance, port, entropy, emptied: None, gate: None, clock: None })
    }

    /// A new empty disk.
    pub fn disk(&self) -> io::Result<Disk> {
        let folder = self.scratch.folder("disk")?;
        match self.level {
            Level::Copied => Disk::copied(folder, &self.service.directory, self.scratch.path()),
            _ => Disk::new(folder, &self.mounts.layers),
        }
    }

    /// The address of the service among what is listened on, `for_long` by now: where it was told, or where workers before did;
    /// another one is taken when nothing came after it. Without a network of its own it is only believed to listen where it
    /// was told.
    pub(crate) fn choose(
        &self,
        listening: impl Iterator<Item = SocketAddr>,
        told: SocketAddr,
        for_long: Duration,
    ) -> Option<SocketAddr> {
        let learned = self.learned.get().copied();
        let rank = |port: u16| match port {
            port if port == told.port() => 0,
            port if Some(port) == learned => 1,
            port if OF_DEBUGGERS.contains(&port) => 3,
            _ => 2,
        };
        let mut found: Vec<SocketAddr> = listening.map(reachable).collect();
        found.sort_by_key(|address| (rank(address.port()), address.is_ipv6(), *address));
        let first = *found.first()?;
        let rank = rank(first.port());
        let patience = [Duration::ZERO, Duration::ZERO, OTHER_PORT_AFTER, DEBUGGER_AFTER][rank];
        if for_long < patience || (rank > 0 && !self.level.has_own_files()) {
            return None;
        }
        if rank > 0 {
            // Another worker may have shown it meanwhile.
            let _ = self.learned.set(first.port());
        }
        Some(first)
    }

    /// Notes how worlds are here, so that all are alike.
    pub(crate) fn expect(&self, weak: Vec<PathBuf>) {
        // The first one says it.
        let _ = self.weak.set(weak);
    }

    pub(crate) fn spec(&self, start: &Start, disk: &Disk) -> io::Result<Spec> {
        let mut mounts = self.mounts.clone();
        mounts.binds.extend(self.service.sockets.iter().cloned());
        if start.entropy.is_some() {
            mounts.binds.push(self.preload(start)?);
        }
        if start.clock.is_some() {
            mounts.binds.push(self.clock()?);
        }
        Ok(Spec {
            level: self.level,
            host: disk.host(),
            disk: disk.folder().to_owned(),
            root: self.scratch.folder("root")?,
            mounts,
            weak: self.weak.get().cloned(),
            hidden: self.scratch.path().to_owned(),
            doors: self.doors.clone(),
            command: self.service.command.clone(),
            directory: disk.directory(self.level).unwrap_or_else(|| self.service.directory.clone()),
            entropy: start.entropy,
            emptied: start.emptied.clone(),
            preload: start.clock.map(|_| self.clock()).transpose()?,
            is_watched: self.is_watched,
        })
    }

    /// What a worker is told, beside the environment of this process.
    pub(crate) fn env(&self, start: &Start) -> io::Result<Vec<(String, String)>> {
        let mut env = vec![
            ("PORT".into(), start.port.to_string()),
            ("LETHE_SERVICE".into(), self.service.name.clone()),
            ("LETHE_INSTANCE".into(), start.instance.clone()),
        ];
        // What the service is to load is not for the processes that make its world.
        env.extend(self.service.env.iter().cloned().map(|(name, value)| match &*name {
            clock::PRELOAD => (clock::OF_SERVICE.into(), value),
            _ => (name, value),
        }));
        if start.entropy.is_some() {
            env.push(("NODE_OPTIONS".into(), preload::options(&self.preload(start)?)));
        }
        if let Some(offset) = start.clock {
            env.push((clock::OFFSET.into(), offset.to_string()));
        }
        Ok(env)
    }

    /// The library that moves the clock of who loads it.
    pub(crate) fn clock(&self) -> io::Result<PathBuf> {
        let path = self.scratch.path().join("clock.so");
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            fs::write(&path, clock::LIBRARY)?;
            *made = true;
        }
        Ok(path)
    }

    /// The file that Node.js loads before a service whose random numbers come again.
    fn preload(&self, start: &Start) -> io::Result<PathBuf> {
        let seed = start.entropy.unwrap_or_default();
        let path = self.scratch.path().join(format!("preload-{seed}.cjs"));
        if !path.exists() {
            fs::write(&path, preload::script(seed))?;
        }
        Ok(path)
    }
}

/// What is to be said of a folder of somebody else: a user namespace knows one user and one group (user_namespaces(7)), and an overlay
/// that cannot give a copy the owner of what it copies refuses the change with `EOVERFLOW`.
fn foreign(folder: &Path) -> Option<String> {
    let metadata = fs::metadata(folder).ok()?;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    ((metadata.uid(), metadata.gid()) != own).then(|| {
        format!(
            "{} is not of the user and the group of who proves: without root, workers can change nothing in it (\"Value too large for \
             defined data type\"); prove as its owner with its group, or as root",
            folder.display()
        )
    })
}

/// Where to connect to reach who listens there.
fn reachable(address: SocketAddr) -> SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, address.port()).into()
}
