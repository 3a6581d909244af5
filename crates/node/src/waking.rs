//! Workers for services that have none: when the gateway says that requests wait for one, it is started, however many wait;
//! and when none starts, they are let go. Whether a service may come to have none is decided elsewhere.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lethe_gateway::gateway::Gateway;
use lethe_model::service::ServiceName;
use lethe_supervisor::supervisor::{Error, Supervisor};
use tokio::{task::JoinSet, time::Instant};

use crate::{config, scaling::Scaling};

/// Starts them; never ends. A start goes on if this is dropped, but nobody is told any more of one that fails.
pub(crate) async fn run(gateway: Arc<Gateway>, supervisor: Supervisor, scaling: Arc<Scaling>) {
    let mut starts = Starts { supervisor, scaling, running: JoinSet::new(), asked_again: BTreeMap::new() };
    loop {
        tokio::select! {
            wanted = gateway.wanted() => wanted.into_iter().for_each(|service| starts.begin(service)),
            Some((service, outcome)) = starts.next() => {
                match outcome {
                    Ok(took) => tell_if_late(&service, took, gateway.start_wait(&service)),
                    Err(error) => {
                        // The cause is told with the worker's output already, once for each start and not for each request.
                        tracing::debug!(%service, %error, "no worker starts, and requests wait for one");
                        gateway.not_started(&service);
                    }
                }
                starts.end(service);
            }
        }
    }
}

/// Who waited for this start was turned away before it was over.
fn tell_if_late(service: &ServiceName, took: Duration, waits: Option<Duration>) {
    if let Some(waits) = waits.filter(|waits| took > *waits) {
        tracing::warn!(
            "{service}: its worker was ready after {:.1} s, and requests wait for no more than start-wait = \"{}\": raise that, or have it start and warm up sooner",
            took.as_secs_f64(),
            config::shown(waits)
        );
    }
}

/// Those under way, at most one for each service.
struct Starts {
    supervisor: Supervisor,
    scaling: Arc<Scaling>,
    running: JoinSet<(ServiceName, Result<Duration, Error>)>,
    /// Whether a worker was asked for again while one is being started: it may be somebody who was not told how that ends.
    asked_again: BTreeMap<ServiceName, bool>,
}

impl Starts {
    /// Starts a worker, unless that is under way.
    fn begin(&mut self, service: ServiceName) {
        if let Some(again) = self.asked_again.get_mut(&service) {
            *again = true;
            return;
        }
        self.asked_again.insert(service.clone(), false);
        tracing::debug!("{service}: a request waits for a worker");
        self.scaling.is_woken(&service);
        let supervisor = self.supervisor.clone();
        self.running.spawn(async move {
            let began = Instant::now();
            let outcome = supervisor.wake(service.as_str()).await;
            (service, outcome.map(|()| began.elapsed()))
        });
    }

    /// The next one that has ended; `None` if none is under way.
    async fn next(&mut self) -> Option<(ServiceName, Result<Duration, Error>)> {
        // An error would be a panic of the supervisor, which catches its own.
        self.running.join_next().await?.ok()
    }

    /// One has ended.
    fn end(&mut self, service: ServiceName) {
        if self.asked_again.remove(&service) == Some(true) {
            self.begin(service);
        }
    }
}
