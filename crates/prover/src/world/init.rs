//! The first process inside a world: makes its files, starts the service and answers on the channel. When the channel
//! ends, however `lethe` went, it ends too, and the kernel kills all the others with it (`pid_namespaces(7)`).

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, kill_process_group, wait,
    waitid,
};

use crate::clock;

use super::{
    Level, Reply, Request, Spec,
    channel::{Channel, FILES_MAX},
    entropy, listening,
    root::{self, Entered},
    watch::{Seen, Uppers, Watch, WatchMethod},
};

/// How long a connection to the service may take to be made; it is on the same machine.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long what is left is killed again and again, where no namespace ends it: what is killed may leave orphans, and what waits
/// for a disk ends late.
const KILLING_MAX: Duration = Duration::from_secs(60);

/// Runs as the first process; `spec` is the argument that it was started with, and its standard input is the channel.
pub fn init(spec: &str) -> ExitCode {
    let channel = match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) {
        Ok(socket) => Channel::of(socket),
        Err(_) => return ExitCode::FAILURE,
    };
    let mut service = Service::default();
    let served = make(spec, &channel, &mut service).and_then(|()| serve(&channel, &service));
    // Without a namespace, nobody else ends it.
    service.kill();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The service's processes, and what is seen of them.
#[derive(Default)]
struct Service {
    watch: Option<Watch>,
    /// Whether files should have been watched and could not be, though others may be watched: nothing seen is no sign then.
    is_blind: bool,
    /// The one that was started.
    pid: Option<Pid>,
    has_booted: Arc<AtomicBool>,
    fate: Arc<Mutex<Fate>>,
}

#[derive(Default)]
struct Fate {
    ended: Option<String>,
    /// Whether no process is left.
    is_empty: bool,
}

impl Service {
    /// Kills all that was started. Orphans are children of this process, whatever group they have gone to.
    fn kill(&self) {
        let began = Instant::now();
        while began.elapsed() < KILLING_MAX {
            // Nobody is reaped meanwhile, so no number is somebody else's by now.
            let fate = self.fate();
            if let (Some(pid), None) = (self.pid, &fate.ended) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let children = children();
            if children.is_empty() {
                return;
            }
            for child in children {
                let _ = kill_process(child, Signal::KILL);
            }
            drop(fate);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks it to end, if it has not ended yet.
    fn terminate(&self) {
        // Nobody is reaped meanwhile, so the number is not somebody else's.
        let fate = self.fate();
        if let (Some(pid), None) = (self.pid, &fate.ended) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processes whose parent is this one.
fn children() -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<i32> = lists.flat_map(|list| numbers(&list)).collect();
    pids.into_iter().filter_map(Pid::from_raw).collect()
}

fn numbers(list: &str) -> Vec<i32> {
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// Makes the world and starts the service, and says how that went.
fn make(spec: &str, channel: &Channel, service: &mut Service) -> io::Result<()> {
    let made = serde_json::from_str::<Spec>(spec).map_err(io::Error::from).and_then(|spec| {
        // No name leads to the disk from inside.
        let uppers = Uppers::open(&spec.disk, &spec.mounts.layers);
        let entered = surroundings(&spec)?;
        spec.emptied.as_deref().map_or(Ok(()), empty)?;
        Ok((spec, entered, uppers))
    });
    let (spec, entered, uppers) = match made {
        Ok(made) => made,
        Err(error) => {
            channel.send(&Reply::NoWorld(error.to_string()), &[])?;
            return Err(error);
        }
    };
    // A file system that was mounted somewhere below a layer meanwhile keeps that from being one, in a user namespace. What a service does
    // where it can only read says nothing of it.
    if spec.weak.as_ref().is_some_and(|weak| *weak != entered.weak) {
        let differ = |path: &&PathBuf| {
            spec.weak.iter().flatten().any(|known| known == *path) != entered.weak.contains(path)
        };
        let paths = spec
            .mounts
            .layers
            .iter()
            .filter(differ)
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>();
        channel.send(&Reply::Unlike(paths.join(", ")), &[])?;
        return Err(io::Error::other("it is not like others"));
    }
    let mut notices = entered.notices;
    service.watch = watch(&spec, uppers, &mut notices);
    service.is_blind = service.watch.is_none() && spec.is_watched && spec.level != Level::Copied;
    let doors = open_doors(&spec.doors);
    if let Err(error) = start(&spec, entered.has_own_processes, service) {
        channel.send(
            &Reply::NoProgram(format!("{}: {error}", spec.command.first().map_or("", String::as_str))),
            &[],
        )?;
        return Err(error);
    }
    let files: Vec<BorrowedFd<'_>> = doors.iter().map(|(_, listener)| listener.as_fd()).collect();
    let doors = doors.iter().map(|(address, _)| *address).collect();
    let watch_method = service.watch.as_ref().map_or(WatchMethod::None, Watch::watch_method);
    channel.send(&Reply::Ready { doors, watch_method, notices, weak: entered.weak }, &files)
}

/// Leaves nothing in a file. What is below the overlay stays as it is.
fn empty(file: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).truncate(true).open(file).map(drop)
}

fn surroundings(spec: &Spec) -> io::Result<Entered> {
    // Should the outer process be killed, this one goes with it, and the world with that.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Nobody inside asks for a password, or reads keys, at the terminal that `lethe` was called from.
    rustix::process::setsid()?;
    if spec.level == Level::Copied {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        return Ok(Entered { notices: Vec::new(), weak: Vec::new(), has_own_processes: true });
    }
    let entered = root::enter(spec)?;
    loopback_up()?;
    Ok(entered)
}

/// Watches the overlays, where that can be done.
fn watch(spec: &Spec, uppers: Uppers, notices: &mut Vec<String>) -> Option<Watch> {
    if !spec.is_watched || spec.level == Level::Copied {
        return None;
    }
    // In a user namespace the kernel allows whole mounts to nobody.
    if spec.level == Level::Overlay
        && let Ok(watch) = Watch::mounts(&spec.mounts.layers)
    {
        return Some(watch);
    }
    let watch = Watch::folders(uppers, &spec.directory);
    watch.map_err(|error| notices.push(format!("files cannot be watched: {error}"))).ok()
}

/// Those that cannot be opened are left out: somebody inside has the address.
fn open_doors(doors: &[SocketAddr]) -> Vec<(SocketAddr, TcpListener)> {
    let opened = doors.iter().take(FILES_MAX).map(|door| (*door, TcpListener::bind(door)));
    opened.filter_map(|(door, listener)| Some((door, listener.ok()?))).collect()
}

/// A new network namespace has a loopback interface, which is down (`network_namespaces(7)`).
fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket: OwnedFd = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all zeros is a valid `ifreq`, which is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: `SIOCSIFFLAGS` reads an `ifreq` (netdevice(7)), which lives until after the call.
    match unsafe { libc::ioctl(raw, libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn start(spec: &Spec, has_own_processes: bool, service: &mut Service) -> io::Result<()> {
    let Some((program, arguments)) = spec.command.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&spec.directory).stdin(Stdio::null()).process_group(0);
    clock::load(&mut command, spec.preload.as_deref());
    let child = match spec.entropy {
        // Answers are written into the memory of who asked, which is found by its number.
        Some(_) if !has_own_processes => {
            return Err(io::Error::other("without an own /proc its random numbers cannot be given to it"));
        }
        Some(seed) => entropy::spawn(&mut command, seed, Arc::clone(&service.has_booted))?,
        None => command.spawn()?,
    };
    service.pid = Some(Pid::from_child(&child));
    let (pid, fate) = (service.pid, Arc::clone(&service.fate));
    thread::Builder::new().name("reaper".into()).spawn(move || reap(pid, &fate))?;
    Ok(())
}

/// Waits for all processes; those whose parents have gone are children of this one.
fn reap(service: Option<Pid>, fate: &Mutex<Fate>) {
    loop {
        let ends = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let seen = rustix::io::retry_on_intr(|| waitid(WaitId::All, ends));
        let mut fate = fate.lock().unwrap_or_else(PoisonError::into_inner);
        // Until here it kept its number, so that who holds the lock may kill by number.
        match seen.and_then(|_| wait(WaitOptions::NOHANG)) {
            Ok(Some((pid, status))) if Some(pid) == service => fate.ended = Some(told(status)),
            Ok(_) => {}
            Err(_) => {
                fate.is_empty = true;
                return;
            }
        }
    }
}

fn done(result: io::Result<()>) -> Reply {
    result.map_or_else(|error| Reply::Refused(error.to_string()), |()| Reply::Done)
}

fn told(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => format!("it ended with status {status}"),
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        _ => "it ended".into(),
    }
}

/// How many processes but this one have a library in their memory, and how many have not.
fn loaded(library: &Path) -> (usize, usize) {
    let own = std::process::id();
    let library = library.to_string_lossy();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        (pid != own).then_some(entry.path().join("maps"))
    });
    // Who has ended has no memory any more.
    let maps = pids.filter_map(|path| fs::read_to_string(path).ok()).filter(|maps| !maps.is_empty());
    let (with, without): (Vec<String>, Vec<String>) = maps.partition(|maps| maps.contains(&*library));
    (with.len(), without.len())
}

/// Answers until the channel ends.
fn serve(channel: &Channel, service: &Service) -> io::Result<()> {
    while let Some((request, _)) = channel.receive::<Request>()? {
        match request {
            Request::Connect(address) => match TcpStream::connect_timeout(&address, CONNECT_MAX) {
                Ok(stream) => channel.send(&Reply::Connected, &[stream.as_fd()])?,
                Err(error) => channel.send(&Reply::Refused(error.to_string()), &[])?,
            },
            Request::Listening => {
                let listening = listening::tcp()?.into_iter().collect();
                channel.send(&Reply::Listening(listening), &[])?;
            }
            Request::Booted => {
                service.has_booted.store(true, Ordering::Relaxed);
                channel.send(&Reply::Done, &[])?;
            }
            Request::Empty(file) => channel.send(&done(empty(&file)), &[])?,
            Request::Terminate => {
                service.terminate();
                channel.send(&Reply::Done, &[])?;
            }
            Request::Seen => {
                let unwatched = || Seen { is_cut: service.is_blind, ..Seen::default() };
                let seen = service.watch.as_ref().map_or_else(unwatched, Watch::seen);
                channel.send(&Reply::Seen(seen), &[])?;
            }
            Request::Loaded(library) => {
                let (with, without) = loaded(&library);
                channel.send(&Reply::Loaded(with, without), &[])?;
            }
            Request::Unread(port) => channel.send(&Reply::Unread(listening::unread(port)?), &[])?,
            Request::Status => {
                let fate = service.fate();
                let (ended, has_others) = (fate.ended.clone(), !fate.is_empty);
                drop(fate);
                channel.send(&Reply::Status { ended, has_others }, &[])?;
            }
        }
    }
    Ok(())
}
