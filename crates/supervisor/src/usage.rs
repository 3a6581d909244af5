//! What a worker's processes use, read when somebody asks: from their cgroup where they have one, else from `/proc`.

use std::fs;

use rustix::process::Pid;

use crate::{cell::Cell, process};

/// Processes of one worker that are looked at.
const PROCESSES_MAX: usize = 256;

/// What a worker uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time so far, in milliseconds: of all that was ever in its cgroup, else of its leader and the descendants of it
    /// in its process group.
    pub(crate) cpu_ms: u64,
    /// Memory in bytes: of all that is in its cgroup, where that counts it; else resident, of the same processes. Of what
    /// several of them have, files and shared memory count for the leader alone; pages that a fork left shared count for
    /// each.
    pub(crate) memory_bytes: u64,
}

/// What the worker led by `leader` uses; zero if it has ended.
pub(crate) fn of(leader: Pid, cell: Option<&Cell>) -> Usage {
    let counted_cpu = cell.and_then(Cell::cpu_ms);
    let counted_memory = cell.and_then(Cell::memory_bytes);
    let read = match (counted_cpu, counted_memory) {
        (Some(_), Some(_)) => Usage::default(),
        _ => of_group(leader),
    };
    Usage {
        cpu_ms: counted_cpu.unwrap_or(read.cpu_ms),
        memory_bytes: counted_memory.unwrap_or(read.memory_bytes),
    }
}

fn of_group(leader: Pid) -> Usage {
    let (mut ticks, mut memory_bytes) = (0, 0);
    let mut found = vec![leader];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        let Some(stat) = process::stat(pid).filter(|stat| stat.group == leader.as_raw_nonzero().get()) else {
            continue;
        };
        ticks += stat.cpu_ticks;
        memory_bytes += memory(pid, pid == leader).unwrap_or(0);
        found.extend(children(pid).into_iter().take(PROCESSES_MAX.saturating_sub(found.len())));
    }
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Usage { cpu_ms: ticks * 1000 / per_second, memory_bytes }
}

/// Resident memory of one process, with or without what is not its own (proc_pid_statm(5)).
fn memory(pid: Pid, with_shared: bool) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_nonzero())).ok()?;
    let mut fields = statm.split(' ').skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (fields.next()?, fields.next()?);
    let pages = if with_shared { resident } else { resident.saturating_sub(shared) };
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
    use std::{
        io::{BufRead, BufReader},
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn memory_is_of_the_whole_group() {
        let work = "x = 'x' * (64 << 20); print(len(x), flush=True); import time; time.sleep(600)";
        let mut child = Command::new("sh")
            .args(["-c", "python3 -c \"$0\" & wait", work])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let group = Pid::from_child(&child);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let used = of(group, None);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(used.memory_bytes > 64 << 20, "{line}: the shell's own would be a few MiB: {used:?}");
        assert!(used.memory_bytes < 256 << 20, "{used:?}");
    }

    #[test]
    fn a_running_process_uses_something() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(of(pid, None).memory_bytes > 0);
        assert!(children(rustix::process::getpid()).contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of(pid, None), Usage::default());
    }
}
