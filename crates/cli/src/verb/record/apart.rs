//! The service that is recorded, in a world of its own, as a worker of a proof is: what it writes there is gone when the recording ends.
//! Were it still there, all workers of the proof that follows would find it, also one that has never been told of it.

use std::{sync::Arc, time::Duration};

use lethe_prover::{
    scratch::Scratch,
    worker::{Error, Worker},
    world::Level,
    yard::Yard,
};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{proxy::Way, service::END_MAX};
use crate::verb::prove::source;

/// Between two looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The service. It is killed when this is dropped, with all that it has started.
pub(super) struct Apart {
    worker: Arc<Worker>,
    /// Where its world is.
    yard: Yard,
}

impl Apart {
    /// Starts it, and waits until it listens. What it prints goes to standard error.
    ///
    /// # Errors
    /// [`Error::NoWorlds`] where no world can be made, and it may not have a copy of its folder either.
    pub(super) async fn start(
        scratch: Arc<Scratch>,
        service: lethe_prover::service::Service,
        may_copy: bool,
    ) -> Result<Self, Error> {
        let started = spawn_blocking(move || {
            let yard = Yard::open(scratch, service, Level::Overlay, may_copy)?;
            source::with_ports(yard)
        });
        let (yard, worker) = started.await.map_err(std::io::Error::from)??;
        worker.show_output();
        Ok(Self { worker: Arc::new(worker), yard })
    }

    /// Whether only its folder is its own.
    pub(super) fn is_copied(&self) -> bool {
        self.yard.level() == Level::Copied
    }

    /// What opens connections to it.
    pub(super) fn way(&self) -> Way {
        Arc::new(self.worker.door())
    }

    /// Waits until it has ended, and says how. Cancellation safe.
    pub(super) async fn ended(&self) -> String {
        loop {
            let worker = Arc::clone(&self.worker);
            match spawn_blocking(move || worker.ended()).await {
                Ok(Ok(Some(ended))) => return ended,
                Ok(Ok(None)) => sleep(LOOK_EVERY).await,
                Ok(Err(error)) => return error.to_string(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Asks it to end, and waits for that, though not for long.
    pub(super) async fn end(self) {
        let worker = Arc::clone(&self.worker);
        // Who has ended already need not be asked.
        let _ = spawn_blocking(move || worker.terminate()).await;
        let _ = timeout(END_MAX, self.ended()).await;
    }
}
