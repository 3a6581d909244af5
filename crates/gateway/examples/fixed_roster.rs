//! The gateway alone, in front of workers whose addresses are given: for measuring and profiling it. The addresses can
//! be repeated until there are as many workers as wanted, and the roster can be kept changing; then the number of
//! changes made is printed ten times a second.
//!
//!     cargo run --release -p lethe-gateway --example fixed_roster -- 127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002
//!     … fixed_roster -- 127.0.0.1:8080 127.0.0.1:9001 --endpoints 10000 --changes-per-second 1000

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lethe_gateway::{
    config::{Config, Route},
    gateway::Bound,
};
use lethe_model::{
    gate::Gate,
    roster::{Protocol, Roster, Worker, WorkerState},
    service::{InstanceId, ServiceName},
    workers::Workers,
};
use tokio::sync::watch;

const USAGE: &str = "usage: fixed_roster LISTEN WORKER… [--endpoints NUMBER] [--changes-per-second NUMBER]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let (mut endpoints, mut changes_per_second) = (None, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--endpoints" => endpoints = Some(arguments.next().ok_or(USAGE)?.parse()?),
            "--changes-per-second" => changes_per_second = arguments.next().ok_or(USAGE)?.parse()?,
            address => addresses.push(address.parse()?),
        }
    }
    let (&listen, addresses) = addresses.split_first().ok_or(USAGE)?;
    let cast = Cast { service: ServiceName::new("fixed")?, addresses: addresses.to_vec() };
    let workers =
        (0..endpoints.unwrap_or(addresses.len())).map(|number| cast.worker(number, WorkerState::Ready));
    let services = BTreeMap::from([(cast.service.clone(), workers.collect())]);
    let (roster, receiver) = watch::channel(Arc::new(Roster { generation: 1, services }));

    let cores = thread::available_parallelism()?.get();
    let routes = vec![Route::everything_to(cast.service.clone())];
    let _gateway = Bound::bind(Config { routes, cores, ..Config::new(listen) })?.run(receiver);
    if changes_per_second > 0 {
        cast.replace_one_by_one(&roster, changes_per_second)?;
    }
    loop {
        thread::park();
    }
}

/// Those who can be in the roster.
struct Cast {
    service: ServiceName,
    addresses: Vec<SocketAddr>,
}

impl Cast {
    fn instance(&self, number: usize) -> InstanceId {
        InstanceId::new(&self.service, number as u64 + 1)
    }

    fn worker(&self, number: usize, state: WorkerState) -> Worker {
        Worker {
            instance: self.instance(number),
            address: self.addresses[number % self.addresses.len()].into(),
            protocol: Protocol::Http1,
            state,
            gate: Gate::new(),
            weight: Worker::WEIGHT,
        }
    }

    /// Replaces the oldest worker again and again, each time in the four steps that a supervisor publishes: it drains,
    /// it is gone, another one starts, it is ready. Changes that are late are made up for.
    fn replace_one_by_one(&self, roster: &watch::Sender<Arc<Roster>>, per_second: u32) -> io::Result<()> {
        let mut next = roster.borrow().services[&self.service].len();
        let started = Instant::now();
        for change in 1_u32.. {
            let due = started + Duration::from_secs(1) * change / per_second;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            roster.send_modify(|roster| {
                let snapshot = Arc::make_mut(roster);
                snapshot.generation += 1;
                self.change(change % 4, next, snapshot.services.entry(self.service.clone()).or_default());
            });
            next += usize::from(change % 4 == 0);
            if change % per_second.div_ceil(10) == 0 {
                writeln!(io::stdout(), "{change} changes in {:.1} s", started.elapsed().as_secs_f64())?;
            }
        }
        Ok(())
    }
    /// One of the four steps.
    fn change(&self, step: u32, next: usize, workers: &mut Workers) {
        let oldest = workers[0].instance.clone();
        match step {
            1 => _ = workers.update(&oldest, |worker| worker.state = WorkerState::Draining),
            2 => _ = workers.remove(&oldest),
            3 => workers.insert(self.worker(next, WorkerState::Starting)),
            _ => {
                let instance = self.instance(next);
                workers.update(&instance, |worker| worker.state = WorkerState::Ready);
            }
        }
    }
}
