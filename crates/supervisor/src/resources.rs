//! What each worker of a service may use, and what it is reckoned with: Kubernetes' requests and limits. Here are their
//! values and what they come to in the files of a cgroup; who makes that cgroup is `cgroup`.

use std::collections::BTreeSet;

/// The least CPU that a limit may be, in thousandths of a core: the kernel gives no less than 1 ms in each
/// [`PERIOD_US`].
pub const CPU_LIMIT_MILLI_MIN: u64 = 10;
/// The least memory that a limit may be, in bytes. No program starts with less.
pub const MEMORY_LIMIT_BYTES_MIN: u64 = 1 << 20;

/// In how many microseconds a worker has its share of CPU: the kernel's default, and that of Kubernetes.
const PERIOD_US: u64 = 100_000;
/// What a cgroup weighs that nobody has given a weight, and here one whose request is a whole core (cgroup-v2.rst,
/// `cpu.weight`).
const WEIGHT_OF_A_CORE: u64 = 100;
const WEIGHT_MAX: u64 = 10_000;

/// Requests and limits of one worker. `Default` is none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU that it is reckoned with, in thousandths of a core.
    pub cpu_request_milli: Option<u64>,
    /// Memory that it is reckoned with, in bytes.
    pub memory_request_bytes: Option<u64>,
    /// CPU that it never gets more of, in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// Memory beyond which it is killed, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Whether limits are a condition.
    pub enforce: Enforce,
}

/// What becomes of a service whose limits the system does not let us set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforce {
    /// It is not started.
    #[default]
    Always,
    /// It runs without them, and a warning says so.
    IfPossible,
}

/// A controller of cgroup v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Cpu,
    Memory,
}

impl Controller {
    pub(crate) const ALL: [Self; 2] = [Self::Cpu, Self::Memory];

    /// Its name, to the kernel and to people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// What is written into one file of a worker's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) file: &'static str,
    pub(crate) value: String,
    /// Kernels may be built without it; the others are there wherever the controller is.
    pub(crate) is_optional: bool,
}

impl Resources {
    /// The controllers that keep up its limits.
    pub(crate) fn limiting(&self) -> BTreeSet<Controller> {
        let limits = [
            (Controller::Cpu, self.cpu_limit_milli.is_some()),
            (Controller::Memory, self.memory_limit_bytes.is_some()),
        ];
        limits.into_iter().filter(|(_, is_limited)| *is_limited).map(|(controller, _)| controller).collect()
    }

    /// Whether anything of it needs a cgroup.
    pub(crate) fn needs_cgroup(&self) -> bool {
        self.cpu_request_milli.is_some() || !self.limiting().is_empty()
    }

    /// What is written where `controllers` are.
    pub(crate) fn settings(&self, controllers: &BTreeSet<Controller>) -> Vec<Setting> {
        let mut settings = Vec::new();
        let mut set = |file, value: String, is_optional| settings.push(Setting { file, value, is_optional });
        if controllers.contains(&Controller::Cpu) {
            if let Some(milli) = self.cpu_request_milli {
                let weight = (milli * WEIGHT_OF_A_CORE / 1000).clamp(1, WEIGHT_MAX);
                set("cpu.weight", weight.to_string(), false);
            }
            if let Some(milli) = self.cpu_limit_milli {
                set("cpu.max", format!("{} {PERIOD_US}", milli.saturating_mul(PERIOD_US / 1000)), false);
            }
        }
        if controllers.contains(&Controller::Memory)
            && let Some(bytes) = self.memory_limit_bytes
        {
            // All of a worker or nothing of it: half a worker would be asked and not answer.
            set("memory.oom.group", "1".into(), true);
            // With swap, one that outgrows its limit becomes slow for a long time, instead of being replaced.
            set("memory.swap.max", "0".into(), true);
            set("memory.max", bytes.to_string(), false);
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resources: &Resources, controllers: &[Controller]) -> String {
        let settings = resources.settings(&controllers.iter().copied().collect());
        settings.iter().map(|it| format!("{}={}", it.file, it.value)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_is_written() {
        let all = Resources {
            cpu_request_milli: Some(500),
            cpu_limit_milli: Some(1500),
            memory_request_bytes: Some(1 << 20),
            memory_limit_bytes: Some(2 << 20),
            ..Resources::default()
        };
        let memory = "memory.oom.group=1; memory.swap.max=0; memory.max=2097152";
        let cpu = "cpu.weight=50; cpu.max=150000 100000";
        assert_eq!(written(&all, &Controller::ALL), format!("{cpu}; {memory}"));
        assert_eq!(written(&all, &[Controller::Memory]), memory);
        assert_eq!(written(&all, &[Controller::Cpu]), cpu);
        assert_eq!(written(&all, &[]), "");
        let requested = Resources { cpu_limit_milli: None, memory_limit_bytes: None, ..all };
        assert_eq!(written(&requested, &Controller::ALL), "cpu.weight=50");
        for (milli, weight) in [(1, "1"), (9, "1"), (1000, "100"), (64_000, "6400"), (1_000_000, "10000")] {
            let one = Resources { cpu_request_milli: Some(milli), ..Resources::default() };
            assert_eq!(written(&one, &Controller::ALL), format!("cpu.weight={weight}"));
        }
        let least = Resources { cpu_limit_milli: Some(CPU_LIMIT_MILLI_MIN), ..Resources::default() };
        assert_eq!(written(&least, &Controller::ALL), "cpu.max=1000 100000");
    }

    #[test]
    fn what_is_needed() {
        let nothing = Resources::default();
        let memory = Resources { memory_request_bytes: Some(1), ..nothing };
        let weight = Resources { cpu_request_milli: Some(1), ..nothing };
        let limited = Resources { memory_limit_bytes: Some(1), ..nothing };
        assert_eq!(
            [nothing, memory, weight, limited].map(|it| it.needs_cgroup()),
            [false, false, true, true]
        );
        assert_eq!(weight.limiting(), [].into());
        assert_eq!(limited.limiting(), [Controller::Memory].into());
    }
}
