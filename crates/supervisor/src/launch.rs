//! Starts worker processes. One thread starts them all, because the kernel kills a child with
//! `PR_SET_PDEATHSIG` when the *thread* that started it ends: this one lives as long as the supervisor.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    ffi::{CString, OsStr, OsString},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use lethe_model::{
    roster::Address,
    service::{InstanceId, ServiceName},
};
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal},
};
use tokio::{
    net::unix::pipe,
    runtime::Handle,
    sync::{RwLock, mpsc, oneshot},
};

use crate::{
    cell::Cell,
    cgroup::Cgroups,
    descriptors,
    guard::{self, Link},
    port::{self, Port},
    process::{Death, Leader},
    program,
    service::{Listener, Spec},
    socket::{SocketFile, Sockets},
    supervisor::Error,
};

/// Launches that may wait for the thread.
const LAUNCHES_MAX: usize = 64;

/// The descriptor on which an inherited listener is found (`SD_LISTEN_FDS_START`).
const LISTENER_FD: RawFd = 3;

/// Connections that may wait in an inherited listener; the system may allow less (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

/// What says where to listen and whom to notify, to `lethe` itself if it has them: a worker gets none but its own. The
/// last four are what `sd_listen_fds(3)` and `sd_notify(3)` read.
const OF_LETHE: [&str; 6] = ["PORT", "SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];

/// What one worker is started from.
#[derive(Debug)]
pub(crate) struct Order {
    /// Its service.
    pub(crate) spec: Arc<Spec>,
    /// Its name.
    pub(crate) instance: InstanceId,
    /// Where its cgroup comes from.
    pub(crate) cgroups: Arc<Cgroups>,
    /// Where its unix socket may be.
    pub(crate) sockets: Arc<Sockets>,
    /// The worker contract's variables, beside those that say where to listen.
    pub(crate) contract: Vec<(&'static str, OsString)>,
}

/// A worker that was started.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its process.
    pub(crate) leader: Arc<Leader>,
    /// Where it listens, given back when this is dropped.
    pub(crate) berth: Berth,
    /// Its cgroup, if it has one.
    pub(crate) cell: Option<Arc<Cell>>,
    /// Shows when the leader has ended.
    pub(crate) death: Death,
    /// Its standard output and its standard error.
    pub(crate) pipes: [pipe::Receiver; 2],
}

/// Where a worker listens, kept for it until this is dropped.
#[derive(Debug)]
pub(crate) enum Berth {
    Port(Port),
    Socket(SocketFile),
}

impl Berth {
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Port(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port.number)).into(),
            Self::Socket(file) => Address::Unix(Arc::clone(&file.path)),
        }
    }

    /// The variable that tells the worker.
    fn variable(&self) -> (&'static str, OsString) {
        match self {
            Self::Port(port) => ("PORT", port.number.to_string().into()),
            Self::Socket(file) => ("SOCKET", file.path.as_os_str().into()),
        }
    }
}

type Request = (Order, oneshot::Sender<Result<Launched, Error>>);

/// The handle of the thread. When it is dropped the thread ends, and the kernel kills the workers.
#[derive(Debug)]
pub(crate) struct Launcher {
    requests: mpsc::Sender<Request>,
    pub(crate) table: Arc<WorkerTable>,
    /// Held while a worker is started, until it is in the table.
    arriving: Arc<RwLock<()>>,
}

impl Launcher {
    /// Starts the thread. Called within a tokio runtime.
    pub(crate) fn start(link: Link) -> io::Result<Self> {
        let (requests, mut waiting) = mpsc::channel::<Request>(LAUNCHES_MAX);
        let table = Arc::new(WorkerTable::new(link));
        let entries = Arc::clone(&table);
        let arriving = Arc::new(RwLock::new(()));
        let arrival = Arc::clone(&arriving);
        let runtime = Handle::current();
        thread::Builder::new().name("lethe-launch".into()).spawn(move || {
            // What the runtime is to watch is registered with it here.
            let _runtime = runtime.enter();
            while let Some((order, reply)) = waiting.blocking_recv() {
                let launched = {
                    let _arriving = arrival.blocking_write();
                    launch(order, &entries)
                };
                if let Err(Ok(unwanted)) = reply.send(launched) {
                    // Dropping the last hold on it ends it.
                    entries.strike(&unwanted.leader);
                }
            }
        })?;
        Ok(Self { requests, table, arriving })
    }

    /// Starts one worker.
    pub(crate) async fn launch(&self, order: Order) -> Result<Launched, Error> {
        let (reply, launched) = oneshot::channel();
        self.requests.send((order, reply)).await.map_err(|_| Error::Stopping)?;
        launched.await.map_err(|_| Error::Stopping)?
    }

    /// Waits until every worker whose process is there is in the table too. Cancellation safe.
    pub(crate) async fn settled(&self) {
        drop(self.arriving.read().await);
    }
}

/// The workers that exist, as the guard is told of them.
#[derive(Debug)]
pub(crate) struct WorkerTable {
    inner: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    leaders: HashMap<Pid, (Arc<Leader>, ServiceName)>,
    link: Link,
    closed: bool,
}

impl WorkerTable {
    fn new(link: Link) -> Self {
        Self { inner: Mutex::new(Table { leaders: HashMap::new(), link, closed: false }) }
    }

    /// The connection to the guard.
    fn guard(&self) -> Arc<UnixStream> {
        self.inner().link.socket()
    }

    /// Enters a new worker; refused once the table is closed.
    fn enter(&self, leader: &Arc<Leader>, service: &ServiceName) -> Result<(), Error> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(Error::Stopping);
        }
        inner.leaders.insert(leader.pid, (Arc::clone(leader), service.clone()));
        // The child has told the guard already, but perhaps one that has died meanwhile.
        inner.link.send(&guard::entry(leader));
        Ok(())
    }

    /// Whether a process is a worker's leader that is not reaped yet.
    pub(crate) fn has(&self, pid: Pid) -> bool {
        self.inner().leaders.contains_key(&pid)
    }

    /// Whose leader a process is.
    pub(crate) fn service_of(&self, pid: Pid) -> Option<ServiceName> {
        self.inner().leaders.get(&pid).map(|(_, service)| service.clone())
    }

    /// Strikes a worker that has ended and is reaped.
    pub(crate) fn strike(&self, leader: &Leader) {
        let mut inner = self.inner();
        inner.leaders.remove(&leader.pid);
        inner.link.send(&guard::exit(leader));
    }

    /// Turns to a new guard, which is told of all workers. It may be started afterwards: what it is told waits.
    pub(crate) fn relink(&self, link: Link) {
        let mut inner = self.inner();
        let entries: String = inner.leaders.values().map(|(leader, _)| guard::entry(leader)).collect();
        link.send(&entries);
        inner.link = link;
    }

    /// Kills all workers, and lets no further one in.
    pub(crate) fn kill_all(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        for (leader, _) in inner.leaders.values() {
            let _ = leader.signal(Signal::KILL);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Table> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held while a port is tried and a process is started. A socket that is open when *another* child is forked
/// stays open in that child until its exec, and a port that seems to be in use, or a worker that seems to listen,
/// would be the consequence.
static FORKING: Mutex<()> = Mutex::new(());

/// Waits until no port is being tried and no other process started, and keeps it so. To be held by whoever starts another
/// process that will live on beside the workers.
pub fn forking() -> MutexGuard<'static, ()> {
    FORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn launch(order: Order, table: &WorkerTable) -> Result<Launched, Error> {
    let spec = &order.spec;
    let refuse = |error: io::Error| {
        Error::Command {
        service: spec.name.clone(),
        reason: match error.raw_os_error() {
            Some(libc::ENOEXEC) => {
                "its program is neither a binary of this machine nor a script with a `#!` line"
            }
            // The program itself was found: what is missing is what runs it.
            Some(libc::ENOENT) => {
                "its program is there, but not the interpreter that its `#!` line names, or its dynamic loader"
            }
            _ => return refused(spec, &error),
        }
        .into(),
    }
    };
    let program = program::locate(spec)?;
    let directory = program::directory(spec).map_err(refuse)?;
    let cell = order.cgroups.cell(spec, &order.instance)?;
    let cgroup = cell.as_ref().map(|cell| cell.entrance()).transpose().map_err(refuse)?;
    let guard = table.guard();
    let forking = forking();
    let (berth, hole, listener) = match spec.listener {
        Listener::Socket => (Berth::Socket(order.sockets.reserve().map_err(refuse)?), None, None),
        // The socket that has reserved it is closed again: it must be free for the child to open.
        Listener::Port => (Berth::Port(port::reserve().map_err(refuse)?.0), None, None),
        Listener::Inherited => {
            let (port, reserved) = port::reserve().map_err(refuse)?;
            // If descriptor 3 were free, the pipe on which the child reports a failure might be put there.
            let hole = rustix::fs::open("/dev/null", OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| refuse(e.into()))?;
            rustix::net::listen(&reserved, BACKLOG).map_err(|e| refuse(e.into()))?;
            let above = rustix::io::fcntl_dupfd_cloexec(&reserved, LISTENER_FD + 1);
            (Berth::Port(port), Some(hole), Some(above.map_err(|e| refuse(e.into()))?))
        }
    };
    let mut contract = order.contract;
    contract.push(berth.variable());
    let mut entrance =
        Entrance::new(spec, program.as_os_str(), &contract, listener, &guard, cgroup).map_err(refuse)?;
    let mut command = Command::new(&program);
    command.current_dir(&directory).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: `enter` runs between fork and exec in the child of a process with several threads. It allocates
    // nothing, takes no lock, and makes only async-signal-safe system calls on what was prepared before.
    unsafe { command.pre_exec(move || entrance.enter()) };
    let spawned = command.spawn();
    drop((hole, command, forking));
    let mut child = spawned.map_err(refuse)?;
    let pipes = (child.stdout.take(), child.stderr.take());
    let leader = Arc::new(Leader::new(child));
    // From here on, an error drops the leader, which ends its group.
    let (Some(stdout), Some(stderr)) = pipes else {
        return Err(refuse(io::ErrorKind::BrokenPipe.into()));
    };
    let death = Death::of(leader.pid).map_err(refuse)?;
    let pipe = |pipe: OwnedFd| pipe::Receiver::from_owned_fd(pipe).map_err(refuse);
    let pipes = [pipe(stdout.into())?, pipe(stderr.into())?];
    table.enter(&leader, &spec.name)?;
    Ok(Launched { leader, berth, cell, death, pipes })
}

fn refused(spec: &Spec, error: &io::Error) -> Error {
    let command = spec.command.first().map_or("", String::as_str);
    Error::Command {
        service: spec.name.clone(),
        reason: format!("command `{command}` did not start: {error}"),
    }
}

/// The way of a child from fork to exec: everything it needs, prepared before.
struct Entrance {
    parent: Pid,
    guard: RawFd,
    /// Writing `0` to it moves the writer into its cgroup.
    cgroup: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    program: CString,
    /// `LISTEN_PID=`, and room for a process id, which only the child knows.
    listen_pid: Vec<u8>,
    /// What the pointers below point into.
    _texts: Vec<CString>,
    /// `char *argv[]` and `char *envp[]`, as addresses, because pointers are not `Send`.
    arguments: Vec<usize>,
    environment: Vec<usize>,
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";
/// Digits of the largest process id, and the end of the text.
const PID_BYTES_MAX: usize = 11;

impl Entrance {
    fn new(
        spec: &Spec,
        program: &OsStr,
        contract: &[(&'static str, OsString)],
        listener: Option<OwnedFd>,
        guard: &UnixStream,
        cgroup: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let text = |text: &[u8]| CString::new(text).map_err(io::Error::from);
        let mut variables: BTreeMap<OsString, OsString> = env::vars_os().collect();
        let withheld = |name: &OsString| name.to_str().is_some_and(|name| spec.withheld.contains(name));
        variables.retain(|name, _| OF_LETHE.iter().all(|other| *name != **other) && !withheld(name));
        variables.extend(spec.env.iter().map(|(name, value)| (name.into(), value.into())));
        variables.extend(contract.iter().map(|(name, value)| (name.into(), value.into())));
        if listener.is_some() {
            variables.insert("LISTEN_FDS".into(), "1".into());
        }
        let mut listen_pid = LISTEN_PID.to_vec();
        listen_pid.resize(LISTEN_PID.len() + PID_BYTES_MAX, 0);
        let mut texts = Vec::new();
        let mut arguments = Vec::new();
        for argument in &spec.command {
            arguments.push(keep(&mut texts, text(argument.as_bytes())?));
        }
        arguments.push(0);
        let mut environment = Vec::new();
        for (name, value) in variables {
            let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
            environment.push(keep(&mut texts, text(&pair)?));
        }
        if listener.is_some() {
            environment.push(listen_pid.as_ptr().expose_provenance());
        }
        environment.push(0);
        Ok(Self {
            parent: rustix::process::getpid(),
            guard: guard.as_raw_fd(),
            cgroup,
            listener,
            program: text(program.as_bytes())?,
            listen_pid,
            _texts: texts,
            arguments,
            environment,
        })
    }

    /// Runs in the child. Returns only if the program could not be started.
    fn enter(&mut self) -> io::Result<()> {
        let pid = rustix::process::getpid();
        reset_signals();
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(self.parent) {
            // `lethe` died before the line above could take effect.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        self.tell_guard(b'+', pid);
        let failed = self.exec(pid);
        // Otherwise the guard would go on to believe in a group whose id may be given to somebody else.
        self.tell_guard(b'-', pid);
        failed
    }

    fn exec(&mut self, pid: Pid) -> io::Result<()> {
        // Before anything of the program runs, so that nothing of it is counted elsewhere.
        if let Some(cgroup) = &self.cgroup {
            rustix::io::write(cgroup, b"0")?;
        }
        let mut first_closed = LISTENER_FD;
        if let Some(listener) = &self.listener {
            write_digits(pid, &mut self.listen_pid[LISTEN_PID.len()..]);
            // SAFETY: replaces the descriptor of that number in this process, which has no other use for it.
            if unsafe { libc::dup2(listener.as_raw_fd(), LISTENER_FD) } < 0 {
                return Err(io::Error::last_os_error());
            }
            first_closed += 1;
        }
        close_on_exec_from(first_closed);
        descriptors::restore()?;
        let (arguments, environment) = (self.arguments.as_ptr().cast(), self.environment.as_ptr().cast());
        // SAFETY: both are arrays of pointers to texts that end in NUL, are themselves ended by a null pointer,
        // and live as long as `self`.
        unsafe { libc::execve(self.program.as_ptr(), arguments, environment) };
        Err(io::Error::last_os_error())
    }

    /// The child enters and strikes itself with the guard, so that there is no moment at which it could outlive us unknown.
    fn tell_guard(&self, sign: u8, pid: Pid) {
        let mut line = [0; PID_BYTES_MAX + 2];
        line[0] = sign;
        let digits = write_digits(pid, &mut line[1..]);
        line[1 + digits] = b'\n';
        // SAFETY: the parent holds the socket open until this child has called exec.
        let guard = unsafe { BorrowedFd::borrow_raw(self.guard) };
        guard::send(guard.as_fd(), &line[..digits + 2]);
    }
}

fn keep(texts: &mut Vec<CString>, text: CString) -> usize {
    // What a CString owns stays where it is when the CString itself is moved.
    let address = text.as_ptr().expose_provenance();
    texts.push(text);
    address
}

/// Gives all signals their default effect and blocks none. Handlers end with exec by themselves, but what
/// `lethe` ignores (SIGPIPE; SIGHUP under nohup) would stay ignored in the worker.
fn reset_signals() {
    const SIGNAL_MAX: i32 = 64;
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: sets no handler; those signals that cannot be changed are refused by the system.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero set is a valid value to give to sigemptyset, which fills it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Marks all descriptors from `first` up to be closed by exec, also those that were opened without that mark.
/// They are not closed here, since on one of them a failure is reported.
fn close_on_exec_from(first: RawFd) {
    // SAFETY: only sets a flag on descriptors. Fails on kernels before 5.11; descriptors that were opened
    // with the mark, as all of ours are, close all the same.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Writes a process id in decimal, and returns the number of digits. Does not allocate.
fn write_digits(pid: Pid, into: &mut [u8]) -> usize {
    let mut rest = pid.as_raw_nonzero().get();
    let mut digits = 0;
    while rest > 0 && digits < into.len() {
        into[digits] = b'0' + (rest % 10) as u8;
        rest /= 10;
        digits += 1;
    }
    into[..digits].reverse();
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits() {
        for pid in [1, 10, 4_194_304, i32::MAX] {
            let mut text = [0; PID_BYTES_MAX];
            let length = write_digits(Pid::from_raw(pid).unwrap(), &mut text);
            assert_eq!(&text[..length], pid.to_string().as_bytes());
            assert_eq!(text[length], 0, "the text ends in NUL");
        }
    }
}
