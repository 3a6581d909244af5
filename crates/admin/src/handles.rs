//! What the operator's rooms need of the others: handles, given by the composition root.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Instant, SystemTime},
};

use futures_util::future::BoxFuture;
use lethe_gateway::stats::Snapshot;
use lethe_model::{service::ServiceName, workers::Workers};
use lethe_supervisor::supervisor::Supervisor;

use crate::{
    api,
    exposition::Exposition,
    releases::{Operator, Releases},
    sample::{SAMPLE_INTERVAL, Sample, Samples},
    stop::Stop,
};

/// Gives what the gateway has counted so far.
pub type Traffic = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// Reads the configuration again and lets it take effect, for whoever wants it, if it is a person; goes on to its end even
/// if the future is dropped.
pub type Reload =
    Arc<dyn Fn(Option<Operator>) -> BoxFuture<'static, Result<api::Reloaded, api::Problem>> + Send + Sync>;

/// What decides how many workers services have. All by the name of a service, and `None` for one whose number is fixed.
pub trait Scaling: Send + Sync {
    /// Within what it decides.
    fn range(&self, service: &str) -> Option<api::ServiceScale>;

    /// How it decides, and what it has decided last.
    fn look(&self, service: &str) -> Option<api::Scaling>;

    /// What the decision of this number was taken from, as JSON.
    fn case(&self, service: &str, number: u64) -> Option<String>;

    /// Leaves the number to whoever sets it, or decides it again.
    fn pin(&self, service: &str, is_pinned: bool) -> Option<()>;

    /// Notes a number of the service's, as it was written.
    fn tell(&self, service: &str, metric: &str, number: &str) -> Option<Result<(), api::Problem>>;

    /// Adds its families to what is measured.
    fn measure(&self, text: &mut Exposition);
}

/// Adds families of another room to what is measured.
pub type Measure = Arc<dyn Fn(&mut Exposition) + Send + Sync>;

/// Has another program take over; goes on to its end even if the future is dropped.
pub type Upgrade =
    Arc<dyn Fn(api::Upgrade) -> BoxFuture<'static, Result<api::Upgraded, api::Problem>> + Send + Sync>;

/// The handles. Shared by the control API, the operator's endpoint and the live table.
pub struct Handles {
    /// Commands for workers.
    pub supervisor: Supervisor,
    /// The gateway's counts.
    pub traffic: Traffic,
    /// Changes the configuration while it runs.
    pub reload: Reload,
    /// Gives the listeners to another program.
    pub upgrade: Upgrade,
    /// Decides how many workers there are.
    pub scaling: Arc<dyn Scaling>,
    /// What the state's engines do.
    pub state: Measure,
    /// Who and where this `lethe` is.
    pub node: api::Node,
    /// The switch that ends it.
    pub stop: Stop,
    /// Rolls out, once everything runs.
    pub releases: OnceLock<Arc<dyn Releases>>,
    samples: Mutex<Samples>,
}

impl Handles {
    /// Bundles the handles. Rates need samples: [`Handles::sample`] must run, which
    /// [`crate::control::serve`] sees to.
    #[allow(clippy::too_many_arguments, reason = "each is a handle of its own, and one place has them all")]
    pub fn new(
        supervisor: Supervisor,
        traffic: Traffic,
        reload: Reload,
        upgrade: Upgrade,
        scaling: Arc<dyn Scaling>,
        state: Measure,
        node: api::Node,
        stop: Stop,
    ) -> Arc<Self> {
        let samples = Mutex::default();
        let releases = OnceLock::new();
        Arc::new(Self { supervisor, traffic, reload, upgrade, scaling, state, node, stop, releases, samples })
    }

    /// All there is to see, now.
    pub fn status(&self) -> api::Status {
        let sample = self.take();
        let (gateway, workers) = self.samples().rates(&sample, SystemTime::now());
        api::Status { node: self.node.clone(), gateway, services: self.services(), workers }
    }

    /// The services, and how many workers of each are wanted, are there and may get requests.
    pub fn services(&self) -> Vec<api::Service> {
        // A service that comes is wanted once it is ready, and one that goes is not wanted before its workers leave. Looked at
        // on both sides of the roster, neither is ever seen to lack workers.
        let before = self.supervisor.wanted();
        let roster = Arc::clone(&self.supervisor.roster().borrow());
        let after = self.supervisor.wanted();
        let wanted = |name: &ServiceName| before.get(name).min(after.get(name)).copied().unwrap_or(0);
        let service = |(name, workers): (&ServiceName, &Workers)| api::Service {
            name: name.clone(),
            wanted: wanted(name),
            ready: roster.ready(name.as_str()).count(),
            workers: workers.len(),
            scale: self.scaling.range(name.as_str()),
        };
        roster.services.iter().map(service).collect()
    }

    /// Keeps taking samples, for the rates in [`Handles::status`]. Never returns.
    pub async fn sample(&self) {
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let sample = self.take();
            self.samples().keep(sample);
        }
    }

    fn take(&self) -> Sample {
        let traffic = (self.traffic)();
        Sample { at: Instant::now(), traffic, workers: self.supervisor.workers() }
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        // The samples are valid at every moment, also after a panic of whoever held the lock.
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
