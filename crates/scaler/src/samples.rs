//! What was measured: the workers as they are now, and the numbers that are not a worker's. All numbers are in
//! milli-units, as in Kubernetes; a number that is not there is not zero.

use std::collections::BTreeMap;

use crate::time::Time;

/// A number that was asked for, in milli-units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// It was measured.
    Value(i64),
    /// There is none.
    #[default]
    Missing,
    /// There is something else, which is this.
    Bad(String),
}

impl Reading {
    /// The number, if there is one.
    pub fn value(&self) -> Option<i64> {
        match self {
            Self::Value(value) => Some(*value),
            Self::Missing | Self::Bad(_) => None,
        }
    }
}

/// Everything that was measured for one decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// How many workers there should be as of now, which need not be as many as there are.
    pub replicas: u32,
    /// The workers that there are.
    pub instances: Vec<Instance>,
    /// External metrics by name. A missing name is a failing metric.
    pub external: BTreeMap<String, Reading>,
    /// Metrics of objects by name. A missing name is a failing metric.
    pub object: BTreeMap<String, Reading>,
}

/// The life of a worker, as Kubernetes names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet.
    Pending,
    /// Started.
    #[default]
    Running,
    /// Ended, and well.
    Succeeded,
    /// Ended, and not well.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// A worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// For messages.
    pub name: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether it is ready; None if nobody has looked yet.
    pub ready: Option<bool>,
    /// When `ready` last changed.
    pub ready_since: Time,
    /// When it was started; None if it is not known to have been.
    pub started: Option<Time>,
    /// Whether it was told to end.
    pub deleted: bool,
    /// CPU that it uses, in milli-cores.
    pub cpu: Reading,
    /// CPU that it requested, in milli-cores.
    pub cpu_request: Option<i64>,
    /// When its CPU was measured; None is now.
    pub sampled: Option<Time>,
    /// Other numbers of it by name. For a container, `CONTAINER/NAME` goes before `NAME`.
    pub metrics: BTreeMap<String, Reading>,
    /// What it requested of other resources by name, and of a container's as in `metrics`.
    pub requests: BTreeMap<String, i64>,
}

impl Default for Instance {
    /// One that has been running and ready for long, and of which nothing was measured.
    fn default() -> Self {
        Self {
            name: String::new(),
            phase: Phase::Running,
            ready: Some(true),
            ready_since: Time::LONG_AGO,
            started: Some(Time::LONG_AGO),
            deleted: false,
            cpu: Reading::Missing,
            cpu_request: None,
            sampled: None,
            metrics: BTreeMap::new(),
            requests: BTreeMap::new(),
        }
    }
}

impl Instance {
    /// What it uses of a resource, as a whole or in one container. Of a container of which nothing is said, it is what
    /// is said of the worker.
    pub fn usage(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        if resource == "cpu" && container.is_none() {
            return self.cpu.value();
        }
        let own = container.and_then(|container| self.metrics.get(&format!("{container}/{resource}")));
        match own.or_else(|| self.metrics.get(resource)) {
            Some(reading) => reading.value(),
            None if resource == "cpu" => self.cpu.value(),
            None => None,
        }
    }

    /// What it requested of a resource, as a whole or for one container.
    pub fn request(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        let own =
            container.and_then(|container| self.requests.get(&format!("{container}/{resource}"))).copied();
        let whole = if resource == "cpu" { self.cpu_request } else { None };
        own.or(whole).or_else(|| self.requests.get(resource).copied())
    }

    /// Whether it gets requests now.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Running && self.ready == Some(true)
    }
}
