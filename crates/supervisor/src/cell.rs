//! The cgroup of one worker: its limits, what it has used, whether it was killed for memory, and its end.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

use crate::resources::{Controller, Resources};

/// How long the last processes of a cgroup may take to be gone after SIGKILL.
const REMOVAL_WAIT: Duration = Duration::from_millis(500);
const REMOVAL_LOOK: Duration = Duration::from_millis(1);

/// Cgroups in cgroups that a worker may have made, and that are removed with its own.
const NESTED_MAX: usize = 32;

/// The file that a process enters a cgroup by.
pub(crate) const ENTRANCE: &str = "cgroup.procs";

/// A worker's cgroup. Dropping it kills what is left in it, and removes it if that is gone already.
#[derive(Debug)]
pub(crate) struct Cell {
    folder: PathBuf,
    memory_limit_bytes: Option<u64>,
    counts_memory: bool,
}

/// Why the kernel has killed a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Starved {
    /// It wanted more than its limit, in bytes.
    OverLimit(u64),
    /// The machine, or what `lethe` may use of it, had no more.
    NoneLeft,
}

impl fmt::Display for Starved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverLimit(bytes) => {
                write!(f, "killed for memory: it wanted more than its limit of {}", Bytes(*bytes))
            }
            Self::NoneLeft => f.write_str("killed for memory: the machine had none left"),
        }
    }
}

/// Bytes for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(1 << 30) => write!(f, "{} GiB", bytes >> 30),
            bytes if bytes.is_multiple_of(1 << 20) => write!(f, "{} MiB", bytes >> 20),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

impl Cell {
    /// Makes the cgroup at `folder`, beside which there is none of this name, and sets what `resources` say, as far as
    /// there are `controllers` for it.
    pub(crate) fn make(
        folder: PathBuf,
        resources: &Resources,
        controllers: &BTreeSet<Controller>,
    ) -> io::Result<Self> {
        fs::create_dir(&folder)?;
        let counts_memory = controllers.contains(&Controller::Memory);
        let memory_limit_bytes = resources.memory_limit_bytes.filter(|_| counts_memory);
        // From here on, an error removes it.
        let cell = Self { folder, memory_limit_bytes, counts_memory };
        for setting in resources.settings(controllers) {
            match fs::write(cell.folder.join(setting.file), &setting.value) {
                Err(error) if !setting.is_optional => {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", setting.file)));
                }
                _ => {}
            }
        }
        Ok(cell)
    }

    /// What a process enters by writing `0` to it.
    pub(crate) fn entrance(&self) -> io::Result<OwnedFd> {
        let path = self.folder.join(ENTRANCE);
        Ok(rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// CPU time of all that was ever in it, in milliseconds.
    pub(crate) fn cpu_ms(&self) -> Option<u64> {
        Some(self.figure("cpu.stat", "usage_usec")? / 1000)
    }

    /// Memory of all that is in it, without what the kernel could take back at once, in bytes: what Kubernetes calls the
    /// working set. `None` where it is not counted.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        if !self.counts_memory {
            return None;
        }
        let current: u64 = self.read("memory.current")?.trim().parse().ok()?;
        Some(current.saturating_sub(self.figure("memory.stat", "inactive_file").unwrap_or(0)))
    }

    /// The limit that is kept up.
    pub(crate) fn memory_limit_bytes(&self) -> Option<u64> {
        self.memory_limit_bytes
    }

    /// Whether the kernel has killed in it for want of memory; `None` where that cannot be known.
    pub(crate) fn starved(&self) -> Option<Option<Starved>> {
        if !self.counts_memory {
            return None;
        }
        let kills = self.figure("memory.events", "oom_kill")?;
        // The kernel counts here when the limit itself leaves no other way.
        let is_over = self.figure("memory.events", "oom").unwrap_or(0) > 0;
        let why = match self.memory_limit_bytes {
            Some(bytes) if is_over => Starved::OverLimit(bytes),
            _ => Starved::NoneLeft,
        };
        Some((kills > 0).then_some(why))
    }

    /// Kills all that is in it, also what has left the worker's process group.
    pub(crate) fn kill(&self) {
        kill(&self.folder);
    }

    /// Removes it once nothing is in it any more. Cancellation safe.
    pub(crate) async fn gone(&self) {
        let began = Instant::now();
        while !remove(&self.folder) && began.elapsed() < REMOVAL_WAIT {
            self.kill();
            tokio::time::sleep(REMOVAL_LOOK).await;
        }
    }

    /// The number after `key` in a file of `key number` lines.
    fn figure(&self, file: &str, key: &str) -> Option<u64> {
        let text = self.read(file)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find_map(|(name, number)| if name == key { number.trim().parse().ok() } else { None })
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(file)).ok()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if !remove(&self.folder) {
            self.kill();
            remove(&self.folder);
        }
    }
}

/// Kills all that is in a cgroup. Kernels before 5.14 cannot; then what is in the process group was killed.
pub(crate) fn kill(folder: &Path) {
    let _ = fs::write(folder.join("cgroup.kill"), "1");
}

/// Removes a cgroup, with those that were made in it; whether it is gone.
pub(crate) fn remove(folder: &Path) -> bool {
    remove_nested(folder, NESTED_MAX)
}

fn remove_nested(folder: &Path, depth: usize) -> bool {
    let is_gone = || match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_gone() {
        return true;
    }
    if depth == 0 {
        return false;
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let nested = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut removed = nested.map(|entry| remove_nested(&entry.path(), depth - 1)).peekable();
    // What is in the way of one is in the way of all.
    removed.peek().is_some() && removed.all(|is_gone| is_gone) && is_gone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(limit: Option<u64>, controllers: &[Controller]) -> (tempfile::TempDir, Cell) {
        let parent = tempfile::tempdir().unwrap();
        let resources = Resources { memory_limit_bytes: limit, ..Resources::default() };
        let controllers = controllers.iter().copied().collect();
        let cell = Cell::make(parent.path().join("web-1"), &resources, &controllers).unwrap();
        (parent, cell)
    }

    #[test]
    fn limits_are_written() {
        let (_parent, cell) = cell(Some(64 << 20), &[Controller::Memory]);
        assert_eq!(cell.read("memory.max").unwrap(), (64 << 20).to_string());
        assert_eq!(cell.read("memory.swap.max").unwrap(), "0");
        assert_eq!(cell.memory_limit_bytes(), Some(64 << 20));
        let again = Cell::make(cell.folder.clone(), &Resources::default(), &[].into());
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let (_parent, without) = self::cell(Some(64 << 20), &[Controller::Cpu]);
        assert_eq!((without.read("memory.max"), without.memory_limit_bytes()), (None, None));
    }

    #[test]
    fn what_was_used() {
        let (_parent, cell) = cell(None, &[Controller::Memory]);
        assert_eq!((cell.cpu_ms(), cell.memory_bytes()), (None, None));
        let write = |file: &str, text: &str| fs::write(cell.folder.join(file), text).unwrap();
        write("cpu.stat", "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n");
        write("memory.current", "5000\n");
        assert_eq!((cell.cpu_ms(), cell.memory_bytes()), (Some(1234), Some(5000)));
        write("memory.stat", "anon 3000\nfile 2000\ninactive_file 1500\nactive_file 500\n");
        assert_eq!(cell.memory_bytes(), Some(3500));
        let (_parent, uncounted) = self::cell(None, &[]);
        fs::write(uncounted.folder.join("memory.current"), "5000\n").unwrap();
        assert_eq!(uncounted.memory_bytes(), None);
    }

    #[test]
    fn killed_for_memory() {
        let (_parent, cell) = cell(Some(64 << 20), &[Controller::Memory]);
        assert_eq!(cell.starved(), None, "nothing is known");
        let events = |oom: u64, kills: u64| {
            let text = format!("low 0\nhigh 0\nmax 12\noom {oom}\noom_kill {kills}\noom_group_kill 0\n");
            fs::write(cell.folder.join("memory.events"), text).unwrap();
            cell.starved()
        };
        assert_eq!(events(0, 0), Some(None));
        assert_eq!(events(3, 0), Some(None), "the kernel has found memory after all");
        assert_eq!(events(1, 2), Some(Some(Starved::OverLimit(64 << 20))));
        assert_eq!(events(0, 1), Some(Some(Starved::NoneLeft)));
        let said = Starved::OverLimit(64 << 20).to_string();
        assert_eq!(said, "killed for memory: it wanted more than its limit of 64 MiB");
        assert_eq!(Bytes(1 << 30).to_string() + " " + &Bytes(1500).to_string(), "1 GiB 1500 bytes");
    }

    #[test]
    fn it_is_removed_with_what_was_made_in_it() {
        let (parent, cell) = cell(None, &[]);
        fs::create_dir_all(cell.folder.join("user/session/app")).unwrap();
        fs::create_dir_all(cell.folder.join("system")).unwrap();
        drop(cell);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let folder = parent.path().join("web-2");
        fs::create_dir_all(folder.join("user")).unwrap();
        // A file that is no cgroup's: it stays, as one does that is not empty.
        fs::write(folder.join("user/file"), "").unwrap();
        assert!(!remove(&folder) && folder.join("user/file").exists());
    }

    #[test]
    fn an_unwritable_file_is_named() {
        let parent = tempfile::tempdir().unwrap();
        // A folder of the limit's name cannot be written, whoever runs this.
        let folder = parent.path().join("web-1");
        let resources = Resources { cpu_request_milli: Some(100), ..Resources::default() };
        let error = Cell::make(folder.join("deep"), &resources, &[Controller::Cpu].into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!folder.exists());
    }
}
