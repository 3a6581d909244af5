//! The gateway alone, in front of workers whose addresses are given: for measuring and profiling it.
//!
//!     cargo run --release -p lethe-gateway --example fixed_roster -- 127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002

use std::{collections::BTreeMap, error::Error, net::SocketAddr, sync::Arc};

use lethe_gateway::{
    config::{Config, Route},
    gateway::Bound,
};
use lethe_model::{
    gate::Gate,
    roster::{Roster, Worker, WorkerState},
    service::{InstanceId, ServiceName},
};
use tokio::sync::watch;

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = std::env::args().skip(1);
    let listen: SocketAddr = addresses.next().ok_or("usage: fixed_roster LISTEN WORKER…")?.parse()?;
    let service = ServiceName::new("fixed")?;
    let mut workers = Vec::new();
    for (number, address) in addresses.enumerate() {
        workers.push(Worker {
            instance: InstanceId::new(&service, number as u64 + 1),
            address: address.parse()?,
            state: WorkerState::Ready,
            gate: Gate::new(),
            weight: Worker::WEIGHT,
        });
    }
    let cores = std::thread::available_parallelism()?.get();
    let routes = vec![Route::everything_to(service.clone())];
    let config = Config { routes, cores, ..Config::new(listen) };
    let roster = Roster { generation: 1, services: BTreeMap::from([(service, workers)]) };
    // Kept, so that the roster is never seen as ended.
    let (_roster, receiver) = watch::channel(Arc::new(roster));
    let _gateway = Bound::bind(config)?.run(receiver);
    loop {
        std::thread::park();
    }
}
