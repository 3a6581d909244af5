//! How fast: a decision for 10,000 workers, and a day with up to 10,000 workers at one-second steps.
//!
//!     cargo run --release -p lethe-scaler --example speed

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use lethe_scaler::{
    decision::decide,
    history::History,
    samples::{Instance, Reading, Samples},
    simulation::{
        self, Model,
        policy::{Kind, Policy},
    },
    spec::{Metric, Options, Spec},
    time::Time,
};

const WORKERS: u32 = 10_000;
const DECISIONS: u32 = 1_000;

fn main() {
    let options = Options::default();
    let spec = Spec { min: 1, max: WORKERS, metrics: vec![Metric::default()], behavior: None, options };
    let worker = |at: u32| Instance {
        name: format!("web-{at}"),
        cpu: Reading::Value(i64::from(at % 1_500)),
        cpu_request: Some(1_000),
        ..Instance::default()
    };
    let samples =
        Samples { replicas: WORKERS, instances: (0..WORKERS).map(worker).collect(), ..Samples::default() };
    let begun = Instant::now();
    for _ in 0..DECISIONS {
        let _ =
            black_box(decide(black_box(&spec), &History::default(), black_box(&samples), Time::default()));
    }
    println!("a decision for {WORKERS} workers: {:?}", begun.elapsed() / DECISIONS);

    let model = Model {
        service_time: Duration::from_millis(50),
        startup: Duration::from_secs(2),
        slots: 1,
        goal: Duration::from_millis(200),
        min: 1,
        max: WORKERS,
        utilization: 0.7,
    };
    // Two humps, as of a day, up to what all workers serve at the wished utilization.
    let most = f64::from(WORKERS) * model.rate() * model.utilization;
    let hump =
        |second: u32| (f64::from(second) / 86_400.0 * 2.0 * std::f64::consts::TAU).sin().mul_add(-0.45, 0.55);
    let load: Vec<f64> = (0..86_400).map(|second| most * hump(second)).collect();
    for kind in Kind::ALL {
        let begun = Instant::now();
        let outcome = simulation::play(&model, &load, Policy::new(kind, &model, None));
        let (most, elapsed) = (outcome.most, begun.elapsed());
        println!("a day with {:6} and up to {most} workers: {elapsed:.2?}", outcome.name);
    }
}
