//! Whether the kernel has killed for want of memory. It uses SIGKILL, as an operator does, so the signal alone does not
//! tell a worker that was killed from one whose own appetite killed it.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

/// Follows the kernel's count of such kills, of the whole machine.
#[derive(Debug)]
pub(crate) struct OutOfMemory {
    seen: AtomicU64,
}

impl OutOfMemory {
    /// Begins to follow now.
    pub(crate) fn new() -> Self {
        Self { seen: AtomicU64::new(kills()) }
    }

    /// Whether the kernel has killed since the last look. It may have been another process than the worker in
    /// question: then a worker is taken for guilty that is not, which costs a retry at most.
    pub(crate) fn has_struck(&self) -> bool {
        let now = kills();
        self.seen.swap(now, Ordering::Relaxed) < now
    }
}

/// The count in `/proc/vmstat`; 0 where the kernel has none.
fn kills() -> u64 {
    count(&fs::read_to_string("/proc/vmstat").unwrap_or_default())
}

fn count(vmstat: &str) -> u64 {
    let value = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_count() {
        assert_eq!(count("nr_free_pages 7\noom_kill 12\noom_kill_other 3\n"), 12);
        assert_eq!(count("nr_free_pages 7\n"), 0);
        let memory = OutOfMemory { seen: AtomicU64::new(kills() + 1) };
        assert!(!memory.has_struck());
        assert!(!memory.has_struck(), "the last look counts");
    }
}
