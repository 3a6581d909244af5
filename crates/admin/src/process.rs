//! What `lethe` itself uses, from the system's books.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads so far.
pub(crate) fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// Resident memory in bytes; `None` where `/proc` is not mounted.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_there_and_grow() {
        let (cpu_before, memory_before) = (cpu(), resident_bytes().unwrap());
        let mut block = vec![1u8; 64 << 20];
        block.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        std::hint::black_box(&block);
        assert!(cpu() > cpu_before);
        // Some of what was resident before may have gone; most of the block is more than that.
        assert!(resident_bytes().unwrap() > memory_before + (32 << 20));
    }
}
