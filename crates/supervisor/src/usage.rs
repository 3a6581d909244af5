//! What a worker's processes use, read from `/proc` when somebody asks.

use std::fs;

use rustix::process::Pid;

use crate::process;

/// Processes of one worker that are looked at.
const PROCESSES_MAX: usize = 256;

/// What a worker uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time so far, in milliseconds, of its leader and the descendants of it in its process group.
    pub(crate) cpu_ms: u64,
    /// Resident memory of its leader, in bytes.
    pub(crate) memory_bytes: u64,
}

/// What the worker led by `leader` uses; zero if it has ended.
pub(crate) fn of(leader: Pid) -> Usage {
    let mut ticks = 0;
    let mut found = vec![leader];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        let Some(stat) = process::stat(pid).filter(|stat| stat.group == leader.as_raw_nonzero().get()) else {
            continue;
        };
        ticks += stat.cpu_ticks;
        found.extend(children(pid).into_iter().take(PROCESSES_MAX.saturating_sub(found.len())));
    }
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Usage { cpu_ms: ticks * 1000 / per_second, memory_bytes: memory_bytes(leader).unwrap_or(0) }
}

fn memory_bytes(pid: Pid) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_nonzero())).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The children of all threads of a process.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let lists = tasks.into_iter().flatten().flatten();
    let lists = lists.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split(' ').filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    #[test]
    fn a_running_process_uses_something() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(of(pid).memory_bytes > 0);
        assert!(children(rustix::process::getpid()).contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of(pid), Usage::default());
    }
}
