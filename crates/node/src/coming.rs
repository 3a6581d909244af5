//! A process that is to take over, from its start until it is in charge or gone: what it inherits, what it prints, and how it
//! ended if it did.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lethe_supervisor::{descriptors, launch};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, getpid, getppid},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    task::JoinHandle,
    time::timeout,
};

use crate::handover::{Deed, Ear, VARIABLE};

/// The last lines of a program that did not get ready which are told.
const LAST_LINES: usize = 20;
/// A longer line is cut.
const LINE_BYTES_MAX: u64 = 4096;
/// How long its last lines and its end are waited for, once it has closed its connection or was killed. Both come at once,
/// but for a machine with too much to do.
const END_WAIT: Duration = Duration::from_secs(10);

/// A process that is not in charge yet. Dropped, it is killed: its workers die with it.
pub(crate) struct Coming {
    pub(crate) child: Option<Child>,
    /// What it says.
    pub(crate) ear: Ear,
    /// Where it is spoken to.
    pub(crate) link: UnixStream,
    /// Where it is told of signals, if by this process.
    pub(crate) attended: Option<UnixStream>,
    lines: Arc<Mutex<VecDeque<String>>>,
    reading: JoinHandle<()>,
}

/// Descriptors for a child, closed here once it has them.
#[derive(Default)]
pub(crate) struct Parcel {
    descriptors: Vec<OwnedFd>,
}

impl Parcel {
    /// Puts one in, and gives the number that it has for the child too.
    pub(crate) fn put(&mut self, descriptor: OwnedFd) -> RawFd {
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
    /// Starts a program with the arguments of this process, which inherits what is in the parcel and what `deed` says of it.
    /// Needs a runtime.
    pub(crate) fn start(
        binary: &Path,
        deed: &Deed,
        parcel: Parcel,
        link: UnixStream,
        attended: Option<UnixStream>,
    ) -> io::Result<Self> {
        let text = serde_json::to_string(deed)?;
        let (printed, pipe) = io::pipe()?;
        let child = parcel.start(binary, &text, pipe.into())?;
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        let reading =
            tokio::spawn(read_lines(pipe::Receiver::from_owned_fd(printed.into())?, Arc::clone(&lines)));
        link.set_nonblocking(true)?;
        let ear = Ear::at(link.try_clone()?)?;
        Ok(Self { child: Some(child), ear, link, attended, lines, reading })
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.as_mut().map(Child::kill);
    }

    /// Waits for the end of a process that has closed its connection. It is killed if that is all it does.
    pub(crate) async fn ended(&mut self) -> String {
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
    pub(crate) async fn last_lines(&mut self) -> Vec<String> {
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

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
