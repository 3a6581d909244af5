//! The live table with made-up workers, to look at and to resize: `cargo run -p lethe-cli --example table -- 20`.
//! The argument is the number of workers. Ctrl-C ends it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};
use lethe_admin::api::{Gateway, Line, Node, Service, Status, Worker};
use lethe_cli::ui::{Mode, Source, Ui};
use lethe_model::{
    roster::WorkerState,
    service::{InstanceId, ServiceName},
};
use lethe_supervisor::logs;

const TEXTS: [&str; 5] = [
    "GET /products 200 1.2 ms",
    "\x1b[33mwarning\x1b[0m: the basket of \x1b[1muser 17\x1b[0m is empty",
    "a line with \x1b[2J\x1b[1;1H what must not move the cursor, and 漢字",
    "a long line, as a stack trace or a structured log would be: {\"level\":\"info\",\"path\":\"/checkout\",\
     \"user\":17,\"items\":[1,2,3,4,5,6,7,8,9],\"total\":\"129.90\",\"trace\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}",
    "done",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(3);
    let began = SystemTime::now();
    let ui = Ui::start(Mode::detect())?;
    ui.printer().say("building: cargo build --release");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let turns = AtomicU64::new(0);
    let status = Box::new(move || status(count, began, turns.fetch_add(1, Ordering::Relaxed)));
    let lines = stream::iter(0..).then(move |number| async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        line(number, count)
    });
    ui.attach(Source { status, lines: lines.boxed() });
    tokio::signal::ctrl_c().await?;
    ui.printer().say("draining; press Ctrl-C again to stop at once");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ui.finish();
    Ok(())
}

fn shop() -> ServiceName {
    ServiceName::new("shop").expect("a name")
}

fn line(number: u64, count: u64) -> Line {
    Line {
        at: SystemTime::now().into(),
        service: shop(),
        instance: InstanceId::new(&shop(), number % count + 1),
        source: if number.is_multiple_of(7) { logs::Source::Lethe } else { logs::Source::Stdout },
        text: format!("{number} {}", TEXTS[(number % 5) as usize]),
    }
}

fn status(count: u64, began: SystemTime, turn: u64) -> Status {
    let wave = |number: u64| ((turn + number * 5) as f64 / 8.0).sin() + 1.0;
    let workers: Vec<Worker> = (1..=count)
        .map(|number| Worker {
            service: shop(),
            instance: InstanceId::new(&shop(), number),
            release: 1,
            pid: (number != 3).then_some(4000 + number as u32),
            port: Some(40_000),
            socket: None,
            state: if number == 3 { WorkerState::Starting } else { WorkerState::Ready },
            started_at: began.into(),
            restarts: number,
            in_flight: turn % 5,
            requests: 100,
            failures: 0,
            requests_per_s: wave(number) * 400.0,
            p50_us: Some((wave(number) * 1000.0) as u64),
            p99_us: Some((wave(number) * 90_000.0) as u64),
            cpu_percent: wave(number) * 30.0,
            cpu_ms: 99,
            memory_bytes: 9 << 20,
            memory_limit_bytes: None,
            memory_kills: 0,
            trouble: (number == 3).then(|| "exited with status 1: address in use".into()),
        })
        .collect();
    Status {
        node: Node {
            pid: 7,
            version: "0.1.0".into(),
            listen: ([127, 0, 0, 1], 8080).into(),
            tls: None,
            admin: None,
            state_dir: "/x".into(),
            state: None,
            started_at: began.into(),
        },
        gateway: Gateway { requests_per_s: wave(0) * 1000.0, ..Gateway::default() },
        services: vec![Service {
            name: shop(),
            wanted: count as u32,
            ready: count as usize - 1,
            workers: count as usize,
            scale: None,
        }],
        workers,
    }
}
