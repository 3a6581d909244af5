//! Both ends of `make bench-kill`: `bench-kill worker` is the service whose processes are killed, `bench-kill load` the
//! client in front of the gateway. Neither repairs anything, so that what is measured is the gateway alone; `run.py`
//! beside them starts both, kills and counts.

mod content;
mod exchange;
mod head;
mod kind;
mod load;
mod worker;

use clap::Parser;

/// The worker and the client of the measurement; `bench/kill/run.py` runs both.
#[derive(Parser)]
enum Command {
    /// Serve on 127.0.0.1:$PORT until killed
    Worker(worker::Arguments),
    /// Send requests and write down what became of each
    Load(load::Arguments),
}

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Worker(arguments) => runtime.block_on(worker::run(arguments)),
        Command::Load(arguments) => runtime.block_on(load::run(arguments)),
    }
}
