//! Another program takes over from this process: it is started as a child that inherits the listeners and the claim on
//! the state folder, starts its own workers beside the old ones, and begins to accept. Only then does this process accept
//! no more. Whatever goes wrong before leaves all as it was.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{
            fs::PermissionsExt,
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use lethe_admin::{api, handles, runtime, stop::Wish};
use lethe_state::embedded::Claim;
use lethe_supervisor::{descriptors, launch};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, getpid, getppid},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    folder::Charge,
    handover::{self, Deed, Ear, FORMAT, Listeners, VARIABLE, Word, Workers},
    notify,
    reload::{Reloader, Running},
};

/// The longest time a program may be given to get ready.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The last lines of a program that did not get ready which are told.
const LAST_LINES: usize = 20;
/// A longer line is cut.
const LINE_BYTES_MAX: u64 = 4096;
/// How long its last lines and its end are waited for, once it has closed its connection or was killed.
const END_WAIT: Duration = Duration::from_secs(2);

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program cannot be run.
    #[error("{} cannot take over: {reason}", .binary.display())]
    Binary {
        /// The program.
        binary: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else is going on.
    #[error("a reload or another upgrade is under way; try again when it has ended")]
    Busy,
    /// Another process is in charge already.
    #[error("another process has taken over already; ask that one")]
    Over,
    /// It gave up; the text is its own.
    #[error("the new lethe did not start: {0}")]
    Refused(String),
    /// It ended.
    #[error("{} ended ({status}){}", .binary.display(), said(.lines))]
    Ended {
        /// The program.
        binary: PathBuf,
        /// How.
        status: String,
        /// What it printed last.
        lines: Vec<String>,
    },
    /// It took too long.
    #[error("{} was not ready within {} s, and was killed{}", .binary.display(), .timeout.as_secs(), said(.lines))]
    Late {
        /// The program.
        binary: PathBuf,
        /// How long it had.
        timeout: Duration,
        /// What it printed last.
        lines: Vec<String>,
    },
    /// The system refused.
    #[error("cannot hand over")]
    System(#[from] io::Error),
    /// `lethe` is to stop.
    #[error("lethe is stopping")]
    Stopping,
}

fn said(lines: &[String]) -> String {
    if lines.is_empty() {
        "; it printed nothing".into()
    } else {
        format!("; its last lines:\n{}", lines.join("\n"))
    }
}

/// What is handed over, and to whom it was.
pub(crate) struct Upgrader {
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) claim: Claim,
    /// With the address as it was configured.
    pub(crate) admin: Option<(SocketAddr, TcpListener)>,
    /// The folder of the sockets, and whether those in it are this process's.
    pub(crate) folder: PathBuf,
    pub(crate) charge: Arc<Mutex<Charge>>,
    /// Who waits for the end of this process, if it has itself taken over from another.
    pub(crate) attendant: Option<UnixStream>,
    pub(crate) heir: watch::Sender<Option<Arc<Heir>>>,
}

/// The process that has taken over.
#[derive(Debug)]
pub struct Heir {
    /// Its process id.
    pub pid: u32,
    pub(crate) child: Mutex<Option<Child>>,
    /// Where it waits for the terminal.
    link: UnixStream,
    /// Where it is told of signals; `None` if somebody else waits for its end.
    pub(crate) attended: Option<UnixStream>,
}

impl Heir {
    /// Lets it use the terminal. To be called when this process does not any more.
    pub fn welcome(&self) {
        // If it has gone, its end is seen elsewhere.
        let _ = handover::say(&self.link, &Word::Yours);
    }
}

/// A process that is not in charge yet. Dropped, it is killed: its workers die with it.
struct Coming {
    child: Option<Child>,
    ear: Ear,
    link: UnixStream,
    attended: Option<UnixStream>,
    lines: Arc<Mutex<VecDeque<String>>>,
    reading: JoinHandle<()>,
}

impl Upgrader {
    /// The hook for the control API.
    pub(crate) fn hook(self: Arc<Self>) -> handles::Upgrade {
        Arc::new(move |request| {
            let upgrader = Arc::clone(&self);
            // In a task of its own: whoever asked may go away, and it goes on all the same.
            let task = tokio::spawn(async move { upgrader.upgrade(request).await });
            async move { task.await.unwrap_or(Err(Error::Stopping)).map_err(|error| problem(&error)) }.boxed()
        })
    }

    /// Waits until another process is in charge. Cancellation safe.
    pub(crate) async fn taken_over(&self) -> Arc<Heir> {
        match self.heir.subscribe().wait_for(Option::is_some).await.map(|heir| heir.clone()) {
            Ok(Some(heir)) => heir,
            _ => std::future::pending().await,
        }
    }

    async fn upgrade(&self, request: api::Upgrade) -> Result<api::Upgraded, Error> {
        let mut running = self.reloader.running.try_lock().map_err(|_| Error::Busy)?;
        if running.is_over {
            return Err(Error::Over);
        }
        if self.reloader.stop.wish() != Wish::Run {
            return Err(Error::Stopping);
        }
        let binary = request.binary;
        check(&binary).map_err(|reason| Error::Binary { binary: binary.clone(), reason })?;
        tracing::info!("upgrade: running {}", binary.display());
        let taken = self.take_over(&binary, &running, Duration::from_secs(request.timeout_s)).await;
        match &taken {
            Ok((_, node)) => {
                running.is_over = true;
                tracing::info!("upgrade: pid {} (lethe {}) has taken over", node.pid, node.version);
            }
            Err(error) => {
                self.claim.hold();
                tracing::error!("not upgraded: {}", in_full(error));
            }
        }
        let (heir, node) = taken?;
        self.heir.send_replace(Some(heir));
        Ok(api::Upgraded { before: std::process::id(), pid: node.pid, version: node.version })
    }

    async fn take_over(
        &self,
        binary: &Path,
        running: &Running,
        time: Duration,
    ) -> Result<(Arc<Heir>, api::Node), Error> {
        let mut coming = self.start(binary, running)?;
        let time = time.min(TIMEOUT_MAX);
        let heard = tokio::select! {
            biased;
            () = self.reloader.stop.asked(Wish::Drain) => return Err(Error::Stopping),
            heard = timeout(time, coming.ear.hear()) => heard,
        };
        let binary = binary.to_owned();
        match heard {
            Ok(Some(Word::Serving(node))) => {
                let link = coming.link.try_clone()?;
                // A program between the two, such as a shell, may be the child, and is the one whose end is seen.
                let pid = coming.child.as_ref().map_or(node.pid, Child::id);
                self.leave_charge(&node, pid)?;
                let heir = Heir {
                    pid,
                    child: Mutex::new(coming.child.take()),
                    link,
                    attended: coming.attended.take(),
                };
                Ok((Arc::new(heir), node))
            }
            Ok(Some(Word::Failed(reason))) => Err(Error::Refused(reason)),
            Ok(_) => {
                let status = coming.ended().await;
                Err(Error::Ended { binary, status, lines: coming.last_lines().await })
            }
            Err(_elapsed) => {
                coming.kill();
                Err(Error::Late { binary, timeout: time, lines: coming.last_lines().await })
            }
        }
    }

    /// From here on the other process is the one that is found, waited for, and told of.
    fn leave_charge(&self, node: &api::Node, pid: u32) -> io::Result<()> {
        let mut charge = self.charge.lock().unwrap_or_else(PoisonError::into_inner);
        runtime::put_in_charge(&self.folder, node)?;
        *charge = Charge::Left;
        if let Some(attendant) = &self.attendant {
            let _ = handover::say(attendant, &Word::Heir(pid));
        }
        // Of two processes, systemd by default believes only the main one, which this is for the last time.
        notify::notify(&format!("MAINPID={pid}"));
        Ok(())
    }

    /// Starts the program with the arguments of this process.
    fn start(&self, binary: &Path, running: &Running) -> Result<Coming, Error> {
        let (link, its_link) = UnixStream::pair()?;
        let mut parcel = Parcel::default();
        let (attended, its_attendant) = match &self.attendant {
            Some(attendant) => (None, Some(attendant.try_clone()?)),
            // Whoever supervises this process is told which one comes after it.
            None if notify::is_wanted() => (None, None),
            None => {
                let (ours, its) = UnixStream::pair()?;
                ours.set_nonblocking(true)?;
                (Some(ours), Some(its))
            }
        };
        let listeners = self.reloader.gateway.listeners()?.into_iter().map(|listeners| Listeners {
            address: listeners.address,
            sockets: listeners.sockets.into_iter().map(|socket| parcel.put(socket.into())).collect(),
        });
        let deed = Deed {
            format: FORMAT,
            listeners: listeners.collect(),
            link: parcel.put(its_link.into()),
            attendant: its_attendant.map(|stream| parcel.put(stream.into())),
            lock: parcel.put(self.claim.share()?),
            admin: match &self.admin {
                Some((address, socket)) => Some(Listeners {
                    address: *address,
                    sockets: vec![parcel.put(socket.try_clone()?.into())],
                }),
                None => None,
            },
            output: [
                parcel.put(io::stdout().as_fd().try_clone_to_owned()?),
                parcel.put(io::stderr().as_fd().try_clone_to_owned()?),
            ],
            workers: self.workers(running),
        };
        if self.attendant.is_none() && attended.is_some() {
            // What comes after the new one is to become a child of this process too, once the new one has ended.
            rustix::process::set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
        }
        let text = serde_json::to_string(&deed).map_err(io::Error::from)?;
        let (printed, pipe) = io::pipe()?;
        let child = parcel.start(binary, &text, pipe.into())?;
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        let reading =
            tokio::spawn(read_lines(pipe::Receiver::from_owned_fd(printed.into())?, Arc::clone(&lines)));
        link.set_nonblocking(true)?;
        let ear = Ear::at(link.try_clone()?)?;
        Ok(Coming { child: Some(child), ear, link, attended, lines, reading })
    }

    fn workers(&self, running: &Running) -> BTreeMap<lethe_model::service::ServiceName, Workers> {
        let (wanted, numbers) = (self.reloader.supervisor.wanted(), self.reloader.supervisor.numbers());
        let workers = running.config.services.iter().map(|service| {
            let (name, configured) = (&service.spec.name, service.spec.instances);
            let wanted = wanted.get(name).copied().unwrap_or(configured);
            (name.clone(), Workers { configured, wanted, last: numbers.get(name).copied().unwrap_or(0) })
        });
        workers.collect()
    }
}

/// Descriptors for a child, closed here once it has them.
#[derive(Default)]
struct Parcel {
    descriptors: Vec<OwnedFd>,
}

impl Parcel {
    fn put(&mut self, descriptor: OwnedFd) -> RawFd {
        let number = descriptor.as_raw_fd();
        self.descriptors.push(descriptor);
        number
    }

    /// Starts the program. It dies with this process, until it has claimed what it inherits.
    fn start(self, binary: &Path, deed: &str, output: OwnedFd) -> io::Result<Child> {
        let numbers: Vec<RawFd> = self.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut command = Command::new(binary);
        command.args(std::env::args_os().skip(1)).env(VARIABLE, deed);
        command.stdout(output.try_clone()?).stderr(output);
        let parent = getpid();
        // SAFETY: runs between fork and exec, allocates nothing, takes no lock, and makes async-signal-safe system calls
        // only, on descriptors that `self` keeps open meanwhile.
        unsafe { command.pre_exec(move || enter(parent, &numbers)) };
        let _forking = launch::forking();
        command.spawn()
    }
}

/// The child's way from fork to exec.
fn enter(parent: Pid, numbers: &[RawFd]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        // It died before the line above could take effect.
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
    }
    for number in numbers {
        // SAFETY: open in this process, which has a table of descriptors of its own.
        fcntl_setfd(unsafe { BorrowedFd::borrow_raw(*number) }, FdFlags::empty())?;
    }
    descriptors::restore()
}

impl Coming {
    fn kill(&mut self) {
        let _ = self.child.as_mut().map(Child::kill);
    }

    /// Waits for the end of a process that has closed its connection. It is killed if that is all it does.
    async fn ended(&mut self) -> String {
        let Some(mut child) = self.child.take() else { return "gone".into() };
        let ended = tokio::task::spawn_blocking(move || {
            let began = std::time::Instant::now();
            while began.elapsed() < END_WAIT {
                if let Ok(Some(status)) = child.try_wait() {
                    return in_words(status);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = child.kill();
            let _ = child.wait();
            "it closed what it had inherited, and was killed".into()
        });
        ended.await.unwrap_or_else(|_| "its end was not seen".into())
    }

    /// What it printed last. Others may still have its output open, so it is not waited for long.
    async fn last_lines(&mut self) -> Vec<String> {
        let _ = timeout(END_WAIT, &mut self.reading).await;
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            // It cannot refuse SIGKILL, so this is over in a moment.
            let _ = child.wait();
        }
    }
}

async fn read_lines(pipe: pipe::Receiver, lines: Arc<Mutex<VecDeque<String>>>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        tracing::info!("upgrade: it says: {text}");
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

/// What is wrong with a program that is to be run.
fn check(binary: &Path) -> Result<(), String> {
    if !binary.is_absolute() {
        return Err("its path must be absolute".into());
    }
    let meta = fs::metadata(binary).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is not a file".into());
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err("it is not executable".into());
    }
    Ok(())
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn in_full(error: &Error) -> String {
    match error {
        Error::System(cause) => format!("{error}: {cause}"),
        error => error.to_string(),
    }
}

fn problem(error: &Error) -> api::Problem {
    let (status, title) = match error {
        Error::Binary { .. } => (422, "Cannot be run"),
        Error::Busy | Error::Over => (409, "Not now"),
        Error::Stopping => (503, "Stopping"),
        _ => (500, "Not upgraded"),
    };
    let detail =
        format!("{}\nnothing was changed; lethe (pid {}) goes on", in_full(error), std::process::id());
    api::Problem { status, title: title.into(), detail }
}
