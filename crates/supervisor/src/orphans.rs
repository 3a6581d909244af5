//! Reaps orphans where `lethe` is process 1, as in a container without an init: what the processes of a worker leave
//! behind becomes its child then, and stays a zombie that keeps a process id until its parent has looked at it.

use std::{collections::HashMap, time::Duration};

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use tokio::time::{MissedTickBehavior, interval};

use crate::{launch::WorkerTable, process, usage};

/// Between two looks at the children.
const LOOK: Duration = Duration::from_secs(1);

/// Whether orphans become children of this process.
pub(crate) fn come_here() -> bool {
    getpid().is_init()
}

/// Goes on reaping them. Never returns.
pub(crate) async fn reap(table: &WorkerTable) {
    let mut orphans = Orphans::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        orphans.look(|pid| table.has(pid));
    }
}

/// The children that were dead at the last look, with their start.
#[derive(Debug, Default)]
struct Orphans {
    dead: HashMap<Pid, u64>,
}

impl Orphans {
    /// Reaps the children that were dead at the last look already. Those whom somebody here waits for (a guard, a program
    /// that could not be executed) are reaped within moments of their death, and leaders are known as `ours`.
    fn look(&mut self, ours: impl Fn(Pid) -> bool) {
        let before = std::mem::take(&mut self.dead);
        for pid in usage::children(getpid()) {
            let Some(stat) = process::stat(pid).filter(|stat| stat.state == 'Z' && !ours(pid)) else {
                continue;
            };
            if before.get(&pid) == Some(&stat.start_ticks) {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            } else {
                self.dead.insert(pid, stat.start_ticks);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_orphan_is_reaped_at_the_second_look() {
        rustix::process::set_child_subreaper(Some(getpid())).unwrap();
        // The shell leaves before what it started, which then belongs to this process.
        let script = "sleep 0.05 >/dev/null 2>&1 & echo $!";
        let shell = Command::new("sh").args(["-c", script]).stderr(Stdio::null()).output().unwrap();
        let orphan: i32 = String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap();
        let orphan = Pid::from_raw(orphan).unwrap();
        while process::stat(orphan).is_some_and(|stat| stat.state != 'Z') {
            std::thread::yield_now();
        }
        // Other tests have children of their own.
        let mut orphans = Orphans::default();
        orphans.look(|pid| pid != orphan);
        assert!(process::stat(orphan).is_some(), "somebody may be about to wait for it");
        orphans.look(|_| true);
        orphans.look(|pid| pid != orphan);
        assert!(process::stat(orphan).is_some(), "one that was ours meanwhile is looked at anew");
        orphans.look(|pid| pid != orphan);
        assert!(process::stat(orphan).is_none());
    }
}
