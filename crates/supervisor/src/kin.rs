//! Which worker a process belongs to: it is in a worker's process group, or descends from one that is.

use lethe_model::service::ServiceName;
use rustix::process::{Pid, getpid};

use crate::{launch::WorkerTable, process};

/// Most ancestors that are looked at.
const ANCESTORS_MAX: usize = 64;
/// How often a line of ancestors is read anew of which one ended meanwhile.
const TRIES: usize = 3;

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kin {
    /// It belongs to a worker of this service.
    Worker(ServiceName),
    /// It descends from this process, but from no worker that is known. So is one that has ended, or of which nothing can
    /// be read.
    Stray,
    /// It came from elsewhere. That is also what a process looks like that has left its worker's group and was orphaned:
    /// the system gives it to another parent then, unless this process is that one.
    Other,
}

/// Finds out, by `/proc`, for the process with this id.
pub(crate) fn of(pid: Pid, table: &WorkerTable) -> Kin {
    (0..TRIES).find_map(|_| climb(pid, table)).unwrap_or(Kin::Stray)
}

/// `None` if one of the ancestors has ended while they were looked at.
fn climb(pid: Pid, table: &WorkerTable) -> Option<Kin> {
    let own = getpid();
    let mut at = pid;
    for _ in 0..ANCESTORS_MAX {
        if at == own {
            return Some(if at == pid { Kin::Other } else { Kin::Stray });
        }
        let stat = process::stat(at)?;
        let group = Pid::from_raw(stat.group);
        if let Some(service) = table.service_of(at).or_else(|| table.service_of(group?)) {
            return Some(Kin::Worker(service));
        }
        match Pid::from_raw(stat.parent) {
            // The first of all, or one whose parent is outside of this namespace.
            None => return Some(Kin::Other),
            Some(parent) => at = parent,
        }
    }
    Some(Kin::Stray)
}
