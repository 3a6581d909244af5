//! What is asked of the scaler: the spec of a HorizontalPodAutoscaler, with all defaults filled in.

use std::{fmt, time::Duration};

/// `spec.metrics[]` when there is none: CPU at so many percent of the request (`pkg/apis/autoscaling/v2/defaults.go`).
pub const CPU_UTILIZATION_DEFAULT: i32 = 80;

/// No stabilization window is longer (`MaxStabilizationWindowSeconds` in `pkg/apis/autoscaling/validation`).
pub const WINDOW_MAX: Duration = Duration::from_secs(3_600);

/// No policy looks back further (`MaxPeriodSeconds` in `pkg/apis/autoscaling/validation`).
pub const PERIOD_MAX: Duration = Duration::from_secs(1_800);

/// How long a step upwards of [`Behavior::quick`] counts.
const QUICK_PERIOD: Duration = Duration::from_secs(1);

/// How many workers there may be, and by what they are counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// No fewer. Zero needs a metric that is there without workers: an object's or an external one.
    pub min: u32,
    /// No more; at least one, and at least `min`.
    pub max: u32,
    /// At least one. The largest proposal wins.
    pub metrics: Vec<Metric>,
    /// How fast. Without it, Kubernetes does not apply the behavior's defaults but older rules: at most twice as many
    /// (or four), and down only to the highest proposal of the last five minutes.
    pub behavior: Option<Behavior>,
    /// What in Kubernetes are flags of the controller.
    pub options: Options,
}

/// A number, and what it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Where it comes from.
    pub source: Source,
    /// What it should be.
    pub target: Target,
}

/// Where a number comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `cpu` or `memory` of each worker.
    Resource(String),
    /// The same, of one container of each worker.
    ContainerResource {
        /// `cpu` or `memory`.
        resource: String,
        /// Of this container.
        container: String,
    },
    /// A number that each worker has.
    Pods(String),
    /// A number of some one thing, such as a route.
    Object(String),
    /// A number from elsewhere, such as the length of a queue.
    External(String),
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// In percent of what the workers requested, all workers together; at least 1.
    Utilization(i32),
    /// For each worker, in milli-units; positive.
    AverageValue(i64),
    /// As a whole, in milli-units; positive.
    Value(i64),
}

/// How fast the number of workers may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// Upwards.
    pub up: Rules,
    /// Downwards.
    pub down: Rules,
}

/// How fast the number of workers may change in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Of all proposals of so long the most cautious one counts. None is the controller's own
    /// ([`Options::downscale_stabilization`]), which only the way down can have.
    pub window: Option<Duration>,
    /// Which policy counts.
    pub select: Select,
    /// At least one.
    pub policies: Vec<Policy>,
    /// The ratio may differ from 1 by so much before anything is done; None is [`Options::tolerance`].
    pub tolerance: Option<f64>,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// That which allows the largest change.
    Max,
    /// That which allows the smallest change.
    Min,
    /// None: no change in this direction.
    Disabled,
}

/// A bound of the change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How much.
    pub amount: Amount,
    /// Within so long; at most [`PERIOD_MAX`].
    pub period: Duration,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many workers.
    Pods(u32),
    /// So many percent of the workers that there were when the period began.
    Percent(u32),
}

/// What in Kubernetes are flags of kube-controller-manager (`--horizontal-pod-autoscaler-…`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The ratio may differ from 1 by so much before anything is done.
    pub tolerance: f64,
    /// For so long after a worker's start its CPU counts only while it is ready, and only what was measured since.
    pub cpu_initialization: Duration,
    /// A worker whose readiness changed no later than this after its start, and that is not ready, was never ready.
    pub initial_readiness: Duration,
    /// The window on the way down where no behavior says another.
    pub downscale_stabilization: Duration,
    /// Over so long a time was each CPU sample measured. In Kubernetes each sample says that itself; sixty seconds is what the
    /// tests of its controller have.
    pub sample: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            cpu_initialization: Duration::from_secs(300),
            initial_readiness: Duration::from_secs(30),
            downscale_stabilization: Duration::from_secs(300),
            sample: Duration::from_secs(60),
        }
    }
}

impl Rules {
    /// Upwards at once, by four workers or to twice as many within 15 s, whichever is more
    /// (`pkg/apis/autoscaling/v2/defaults.go`).
    pub fn up() -> Self {
        let policies = vec![
            Policy { amount: Amount::Pods(4), period: Duration::from_secs(15) },
            Policy { amount: Amount::Percent(100), period: Duration::from_secs(15) },
        ];
        Self { window: Some(Duration::ZERO), select: Select::Max, policies, tolerance: None }
    }

    /// Downwards to the highest proposal of the controller's window, by any number (`pkg/apis/autoscaling/v2/defaults.go`).
    pub fn down() -> Self {
        let policies = vec![Policy { amount: Amount::Percent(100), period: Duration::from_secs(15) }];
        Self { window: None, select: Select::Max, policies, tolerance: None }
    }
}

impl Default for Behavior {
    fn default() -> Self {
        Self { up: Rules::up(), down: Rules::down() }
    }
}

impl Behavior {
    /// As for processes of one machine, which are ready in the time in which Kubernetes looks once: upwards by four
    /// workers or to twice as many each second, not each 15 s. The way down is Kubernetes'.
    pub fn quick() -> Self {
        let mut behavior = Self::default();
        for policy in &mut behavior.up.policies {
            policy.period = QUICK_PERIOD;
        }
        behavior
    }
}

impl Default for Metric {
    /// What is measured when nothing is said.
    fn default() -> Self {
        Self { source: Source::Resource("cpu".into()), target: Target::Utilization(CPU_UTILIZATION_DEFAULT) }
    }
}

impl Spec {
    /// How far the ratio of a number to its target may be from 1, down and up.
    pub fn tolerances(&self) -> Tolerances {
        let of = |rules: &Rules| rules.tolerance.unwrap_or(self.options.tolerance);
        let (down, up) = match &self.behavior {
            Some(behavior) => (of(&behavior.down), of(&behavior.up)),
            None => (self.options.tolerance, self.options.tolerance),
        };
        Tolerances { down, up }
    }

    /// Of how long ago proposals still matter.
    pub fn memory(&self) -> Duration {
        let own = self.options.downscale_stabilization;
        let Some(Behavior { up, down }) = &self.behavior else { return own };
        up.window.unwrap_or_default().max(down.window.unwrap_or(own))
    }
}

/// How far a ratio may be from 1 before anything is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Below it.
    pub down: f64,
    /// Above it.
    pub up: f64,
}

impl Tolerances {
    /// Whether a ratio is near enough to 1, edges included (`Tolerances.isWithin`; in floating point, as there).
    pub fn contain(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

impl Source {
    /// The number's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Resource(name) | Self::Pods(name) | Self::Object(name) | Self::External(name) => name,
            Self::ContainerResource { resource, .. } => resource,
        }
    }

    /// As the manifest has it in `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Resource(_) => "Resource",
            Self::ContainerResource { .. } => "ContainerResource",
            Self::Pods(_) => "Pods",
            Self::Object(_) => "Object",
            Self::External(_) => "External",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(name) => write!(f, "{name}"),
            Self::ContainerResource { resource, container } => {
                write!(f, "{resource} of container {container}")
            }
            Self::Pods(name) => write!(f, "{name} per worker"),
            Self::Object(name) => write!(f, "object metric {name}"),
            Self::External(name) => write!(f, "external metric {name}"),
        }
    }
}
