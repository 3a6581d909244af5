//! The client: a few kept connections for each kind of request, each sending at its own pace whatever the answers, and
//! one line for each request about what became of it.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufWriter, Write},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{
    content,
    exchange::{Outcome, exchange},
    kind::Kind,
};

/// The arguments of `bench-kill load`.
#[derive(Args)]
pub struct Arguments {
    /// The gateway
    #[arg(long)]
    address: SocketAddr,
    /// How long requests are begun
    #[arg(long)]
    seconds: f64,
    /// Connections for each kind
    #[arg(long, default_value_t = 6)]
    connections: u64,
    /// The kinds of request
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Decides which request takes how long, and when each is sent
    #[arg(long)]
    seed: u64,
    /// Where to write a line for each request: kind, id, what became of it, whether the connection had been used
    /// before, microseconds
    #[arg(long)]
    records: PathBuf,
}

/// Runs the load and writes the records.
///
/// # Errors
/// When the records cannot be written.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file = File::create(&arguments.records)
        .with_context(|| format!("creating {}", arguments.records.display()))?;
    let records = Rc::new(RefCell::new(BufWriter::new(file)));
    content::first(1); // Made before the first response is compared with it.
    let ends = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let connections = tokio::task::LocalSet::new();
    for &kind in &arguments.kinds {
        for place in 0..arguments.connections {
            let stream = content::scramble(arguments.seed ^ content::scramble(kind as u64 * 1000 + place));
            let client = Client { kind, stream, address: arguments.address, ends, records: records.clone() };
            connections.spawn_local(client.run());
        }
    }
    connections.await;
    records.borrow_mut().flush().context("writing the records")
}

/// One connection, opened again whenever it was closed.
struct Client {
    kind: Kind,
    /// Tells this client's requests from all others, and is the same for the same seed.
    stream: u64,
    address: SocketAddr,
    ends: Instant,
    records: Rc<RefCell<BufWriter<File>>>,
}

impl Client {
    async fn run(self) {
        let mut due = Instant::now() + self.pause(0);
        let mut kept: Option<TcpStream> = None;
        for number in 1.. {
            sleep_until(due).await;
            let begun = Instant::now();
            if begun >= self.ends {
                return;
            }
            due = begun + self.pause(number);
            let id = format!("{:016x}-{number}", self.stream);
            // What a browser does too: a connection that was closed while it was idle is not used again.
            kept = kept.filter(is_open);
            let reused = kept.is_some();
            let outcome = self.request(&mut kept, &id).await;
            let (kind, taken) = (self.kind.name(), begun.elapsed().as_micros());
            let how = if reused { "reused" } else { "new" };
            // A full disk shows itself when the records are flushed at the end.
            let _ = writeln!(self.records.borrow_mut(), "{kind} {id} {outcome} {how} {taken}");
        }
    }

    /// Between the begins of two requests: between half and one and a half of the period, lest kills and requests keep
    /// step.
    fn pause(&self, number: u64) -> Duration {
        let share =
            (content::scramble(self.stream ^ content::scramble(number)) >> 11) as f64 / (1u64 << 53) as f64;
        self.kind.period().mul_f64(0.5 + share)
    }

    async fn request(&self, kept: &mut Option<TcpStream>, id: &str) -> Outcome {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(self.address).await {
                Ok(stream) => stream,
                Err(_) => return Outcome::Refused,
            },
        };
        // Fails only on a connection that is already gone, which the exchange then meets.
        let _ = stream.set_nodelay(true);
        let (outcome, reusable) = exchange(&mut stream, self.kind, id).await;
        *kept = reusable.then_some(stream);
        outcome
    }
}

/// Whether nothing was heard on an idle connection: neither its end nor a byte that nobody asked for.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
