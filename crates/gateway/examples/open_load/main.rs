//! An open-model load: requests are due at random instants of a fixed mean rate (Poisson arrivals, the same ones in every
//! run), whether earlier ones were answered or not, and each is timed from when it was due to the last byte of its
//! answer. So a stall counts for every request that it delayed: there is no coordinated omission. Prints one line of JSON.
//!
//!     cargo run --release -p lethe-gateway --example open_load -- 127.0.0.1:8080 / --rate 4000 --seconds 5
//!
//! Threads that block are enough for it: each has one connection and takes the next request that is due when it has
//! none. `--connections 32`; `--post 1024` sends a body of that many bytes; `--close` opens a connection for each
//! request, within its time; `--tls cert.pem` speaks TLS 1.3 and trusts that certificate for `localhost`; `--h2` speaks
//! HTTP/2, with or without TLS.

use std::{
    error::Error,
    fs, io,
    io::Write,
    sync::{
        Barrier, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    connection::{Connection, Target},
    plan::Plan,
};

mod connection;
mod http1;
mod http2;
mod plan;

fn main() -> Result<(), Box<dyn Error>> {
    let plan = Plan::from_arguments()?;
    // Sleeps end when they are due, and not up to 50 µs later; threads inherit it. Where it is refused, that is added
    // to every latency alike.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
    let (due, next) = (plan.arrivals(), AtomicUsize::new(0));
    let (connected, begun) = (Barrier::new(plan.connections), OnceLock::new());
    let (mut latencies, mut failures) = (Vec::with_capacity(due.len()), Vec::new());
    thread::scope(|scope| {
        let client = || {
            let mut client = Client { target: &plan.target, connection: None };
            let opened = if plan.target.close { Ok(()) } else { client.exchange() };
            connected.wait();
            let start = *begun.get_or_init(|| Instant::now() + Duration::from_millis(10));
            (opened, client.run(&due, &next, start, plan.longest()))
        };
        let clients: Vec<_> = (0..plan.connections).map(|_| scope.spawn(client)).collect();
        for client in clients {
            let (opened, (answered, failed)) = client.join().expect("a client does not panic");
            latencies.extend(answered);
            failures
                .extend(opened.err().map(|error| format!("at the start: {error}")).into_iter().chain(failed));
        }
    });
    // Those that were never sent waited at least until the end.
    let never_sent = due.get(next.load(Ordering::Relaxed)..).unwrap_or_default();
    latencies.extend(never_sent.iter().map(|&due| plan.longest() - due));
    latencies.sort_unstable();
    let milliseconds = |share: f64| {
        let rank = (latencies.len() as f64 * share) as usize;
        latencies.get(rank).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    writeln!(
        io::stdout(),
        "{{\"due\": {}, \"never_sent\": {}, \"failed\": {}, \"failure\": {:?}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}, \
         \"p999_ms\": {:.3}}}",
        due.len(),
        never_sent.len(),
        failures.len(),
        failures.first().map_or("", String::as_str),
        milliseconds(0.5),
        milliseconds(0.99),
        milliseconds(0.999),
    )?;
    Ok(())
}

/// One of those who send. It has one connection at a time.
struct Client<'a> {
    target: &'a Target,
    connection: Option<Connection>,
}

impl Client<'_> {
    /// Takes requests as they fall due, until there are no more or it has taken too long. Gives the latencies of those
    /// that were answered, and what happened to the others.
    fn run(
        &mut self,
        due: &[Duration],
        next: &AtomicUsize,
        start: Instant,
        longest: Duration,
    ) -> (Vec<Duration>, Vec<String>) {
        let (mut latencies, mut failures) = (Vec::new(), Vec::new());
        while start.elapsed() < longest {
            let Some(&due) = due.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let due = start + due;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            match self.exchange() {
                Ok(()) => latencies.push(due.elapsed()),
                Err(error) => failures.push(error.to_string()),
            }
        }
        (latencies, failures)
    }

    /// Sends the request and takes the whole answer. The connection is kept if it can be.
    fn exchange(&mut self) -> io::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect()?,
        };
        if connection.exchange()? && !self.target.close {
            self.connection = Some(connection);
        }
        Ok(())
    }
}
