//! The guard: a tiny process beside `lethe` that ends the workers if `lethe` is killed with -9. It reads from
//! a socket which process groups exist; when the socket ends, `lethe` has died, and it kills those groups.
//! `PR_SET_PDEATHSIG` reaches only the leaders of groups, so this is for what they have started themselves.
//!
//! Lines: `+<group>` by a child about itself, `+<group> <start ticks>` by `lethe`, `-<group>` when it has ended or could
//! not be executed.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    net::SendFlags,
    process::{Pid, Signal, kill_process_group},
};

use crate::{
    launch::{self, WorkerTable},
    process::{self, Death, Leader},
};

/// The longest line that is read; a longer one is not ours.
const LINE_BYTES_MAX: u64 = 64;
/// How long to wait before a guard that has died is started again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Our end of the connection to a guard.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Arc<UnixStream>,
}

impl Link {
    /// The socket, kept open by the caller as long as it uses it.
    pub(crate) fn socket(&self) -> Arc<UnixStream> {
        Arc::clone(&self.socket)
    }

    /// Sends lines.
    pub(crate) fn send(&self, lines: &str) {
        send(self.socket.as_fd(), lines.as_bytes());
    }
}

/// Sends whole lines. Never waits and never fails: a guard that is dead is replaced and told everything, and one
/// that is stopped must not stop us. Async-signal-safe.
pub(crate) fn send(socket: BorrowedFd<'_>, lines: &[u8]) {
    if !lines.is_empty() {
        let _ = rustix::net::send(socket, lines, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// The line that enters a worker.
pub(crate) fn entry(leader: &Leader) -> String {
    format!("+{} {}\n", leader.pid.as_raw_nonzero(), leader.start_ticks)
}

/// The line that strikes it.
pub(crate) fn exit(leader: &Leader) -> String {
    format!("-{}\n", leader.pid.as_raw_nonzero())
}

/// A connection: our end, and the end that is a guard's standard input.
pub(crate) fn link() -> io::Result<(Link, OwnedFd)> {
    let (ours, its) = UnixStream::pair()?;
    Ok((Link { socket: Arc::new(ours) }, its.into()))
}

/// Starts a guard.
pub(crate) fn start(program: &Path, input: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("guard").stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    // SAFETY: runs between fork and exec; setsid is one async-signal-safe system call.
    unsafe { command.pre_exec(leave_terminal) };
    let _forking = launch::forking();
    command.spawn()
}

/// Leaves the terminal's session, so that Ctrl-C and a closed terminal do not reach the guard.
fn leave_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Keeps a guard running as long as `table` is in use.
pub(crate) async fn keep(mut guard: Child, program: &Path, table: &WorkerTable) {
    loop {
        ended(&mut guard).await;
        tracing::warn!("the guard process has died; starting another");
        guard = loop {
            match again(program, table) {
                Ok(guard) => break guard,
                Err(error) => tracing::warn!("the guard process did not start: {error}; trying again"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        // One that dies at once must not keep us busy.
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Starts another guard. What it must know is in its socket before it runs, and all that follows goes there.
fn again(program: &Path, table: &WorkerTable) -> io::Result<Child> {
    let (link, input) = link()?;
    table.relink(link);
    start(program, input)
}

async fn ended(guard: &mut Child) {
    if let Ok(death) = Death::of(Pid::from_child(guard)) {
        death.seen().await;
    }
    while matches!(guard.try_wait(), Ok(None)) {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The body of the guard. Returns the exit status.
pub(crate) fn run(input: impl Read) -> i32 {
    ignore_signals();
    for (group, start_ticks) in read(input) {
        if is_ours(group, start_ticks) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    0
}

/// Reads lines to their end, and returns the groups that are left, with the start of their leaders as far as
/// they were seen.
fn read(input: impl Read) -> HashMap<Pid, Option<u64>> {
    let mut groups = HashMap::new();
    let mut input = BufReader::with_capacity(4096, input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return groups,
            Ok(_) => note(&mut groups, &line),
        }
    }
}

fn note(groups: &mut HashMap<Pid, Option<u64>>, line: &[u8]) {
    let Some((sign, rest)) =
        std::str::from_utf8(line).ok().and_then(|line| line.trim_end().split_at_checked(1))
    else {
        return;
    };
    let (group, start_ticks) = rest.split_once(' ').unwrap_or((rest, ""));
    let Some(group) = group.parse().ok().filter(|&group| group > 1).and_then(Pid::from_raw) else { return };
    match sign {
        "+" => {
            let start_ticks = start_ticks.parse().ok().or_else(|| process::start_ticks(group));
            groups.insert(group, start_ticks);
        }
        "-" => {
            groups.remove(&group);
        }
        _ => {}
    }
}

/// Whether the group's id still means the group that was entered. As long as one of its members lives the
/// system gives the id to nobody else, so only a leader with another start speaks against it.
fn is_ours(group: Pid, start_ticks: Option<u64>) -> bool {
    match process::start_ticks(group) {
        Some(found) => start_ticks == Some(found),
        None => true,
    }
}

/// The guard ends when its input does, not before.
fn ignore_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: sets no handler, only that the signal has no effect on this process.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let pid = |raw| Pid::from_raw(raw).unwrap();
        let own = rustix::process::getpid();
        let lines = format!(
            "+4000001 7\n+4000002 8\n-4000001\nrubbish\n+0 1\n+1 1\n+x\n\n+{}\n{}\n+4000003 9",
            own.as_raw_nonzero(),
            "+".repeat(200)
        );
        let groups = read(lines.as_bytes());
        let expected =
            [(pid(4_000_002), Some(8)), (pid(4_000_003), Some(9)), (own, process::start_ticks(own))];
        assert_eq!(groups, expected.into());
    }

    #[test]
    fn an_id_that_was_given_away_is_not_ours() {
        let own = rustix::process::getpid();
        let start = process::start_ticks(own).unwrap();
        assert!(is_ours(own, Some(start)));
        assert!(!is_ours(own, Some(start + 1)));
        assert!(!is_ours(own, None));
    }
}
