//! One worker's processes: the leader, which we started, and its process group. Signals go to the group, and
//! only while the leader is not yet reaped, so that a process id that the system gave to somebody else is
//! never hit.

use std::{
    fmt, fs, io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{Child, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group};
use tokio::io::{Interest, unix::AsyncFd};

/// The leader of a worker's process group, and our child.
#[derive(Debug)]
pub(crate) struct Leader {
    /// Its process id, which is the id of the group too.
    pub(crate) pid: Pid,
    /// When it started, in clock ticks since boot: with the id it names a process for good.
    pub(crate) start_ticks: u64,
    /// `None` once it is reaped.
    child: Mutex<Option<Child>>,
}

impl Leader {
    /// Takes over a child that leads its own process group.
    pub(crate) fn new(child: Child) -> Self {
        let pid = Pid::from_child(&child);
        let start_ticks = start_ticks(pid).unwrap_or(0);
        Self { pid, start_ticks, child: Mutex::new(Some(child)) }
    }

    /// Sends a signal to the whole group. Nothing happens once the leader is reaped.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match &*self.child() {
            Some(_) => Ok(kill_process_group(self.pid, signal)?),
            None => Ok(()),
        }
    }

    /// Kills whatever is left of the group and reaps the leader, if it has ended. `None` if it has not, or if it
    /// was reaped before.
    pub(crate) fn bury(&self) -> Option<ExitStatus> {
        let mut child = self.child();
        // While the leader is a zombie its id cannot be given to another process or group.
        let _ = child.as_ref().map(|_| kill_process_group(self.pid, Signal::KILL));
        let status = child.as_mut()?.try_wait().ok().flatten()?;
        *child = None;
        Some(status)
    }

    /// Whether a process of the group exists, zombies that nobody has reaped included.
    pub(crate) fn group_exists(&self) -> bool {
        test_kill_process_group(self.pid).is_ok()
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            let _ = kill_process_group(self.pid, Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// The death of a process, as its pidfd shows it: at once, and before anybody has reaped it.
#[derive(Debug)]
pub(crate) struct Death {
    pidfd: AsyncFd<OwnedFd>,
}

impl Death {
    /// Watches a child that is not reaped yet. Called within a tokio runtime.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and nothing replaces this one.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        Ok(Self { pidfd: pidfd? })
    }

    /// Waits until the process has ended; returns at once from then on. Cancellation safe.
    pub(crate) async fn seen(&self) {
        // The guard is dropped without clearing it, so that the descriptor stays readable for the next call.
        let _ = self.pidfd.readable().await;
    }
}

/// When process `pid` started, in clock ticks since boot; `None` if there is none.
pub(crate) fn start_ticks(pid: Pid) -> Option<u64> {
    stat(pid).map(|stat| stat.start_ticks)
}

/// Whether a process of the group lives, beside its leader. Looks through all of `/proc`: a system call for
/// each process of the machine.
pub(crate) fn others_live(group: Pid) -> bool {
    let group = group.as_raw_nonzero().get();
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let others = ids.filter(|&id| id != group).filter_map(Pid::from_raw);
    others.filter_map(stat).any(|stat| stat.group == group && !matches!(stat.state, 'Z' | 'X'))
}

/// What is used of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `Z` and `X` are dead.
    pub(crate) state: char,
    /// Its parent; 0 if that is outside of this namespace of process ids.
    pub(crate) parent: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// CPU time of it and of its children that were waited for, in clock ticks.
    pub(crate) cpu_ticks: u64,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
}

/// Reads `/proc/<pid>/stat`.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse_stat(&String::from_utf8_lossy(&text))
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in brackets, which may hold spaces and brackets itself.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the state is its field 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        cpu_ticks: number(14)? + number(15)? + number(16)? + number(17)?,
        start_ticks: number(22)?,
    })
}

/// A process's end in words: `exit status 3`, `killed by signal 9 (SIGKILL)`.
pub(crate) struct InWords(pub(crate) ExitStatus);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, signal) = (self.0.code(), self.0.signal());
        match (code, signal) {
            (Some(code), _) => write!(f, "exit status {code}"),
            (None, Some(signal)) => {
                write!(f, "killed by signal {signal}")?;
                signal_name(signal).map_or(Ok(()), |name| write!(f, " ({name})"))?;
                if self.0.core_dumped() { f.write_str(", core dumped") } else { Ok(()) }
            }
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_words() {
        let cases = [
            (0x0300, "exit status 3"),
            (0, "exit status 0"),
            (9, "killed by signal 9 (SIGKILL)"),
            (11 | 0x80, "killed by signal 11 (SIGSEGV), core dumped"),
            (40, "killed by signal 40"),
        ];
        for (raw, words) in cases {
            assert_eq!(InWords(ExitStatus::from_raw(raw)).to_string(), words);
        }
    }

    #[test]
    fn stat_with_an_awkward_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 10 20 3 4 20 0 1 0 4242 1 2";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat, Stat { state: 'S', parent: 1, group: 7, cpu_ticks: 37, start_ticks: 4242 });
        assert_eq!(parse_stat("7 (a"), None);
        assert!(start_ticks(rustix::process::getpid()).is_some());
    }
}
