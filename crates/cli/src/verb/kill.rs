//! `lethe kill`: a signal to one worker, as an accident would come.

use clap::Args;
use serde_json::json;

use crate::{arguments::Target, output, running, signal};

/// Send a signal to a worker, without draining it
///
/// The signal goes to the worker's whole process group. What dies is replaced at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe kill shop-1                 with SIGKILL, to see that users notice nothing
  lethe kill shop-1 --signal TERM
  lethe kill shop-1 --signal STOP   to see what a hanging worker does")]
pub struct Kill {
    /// The worker; `lethe ps` lists them
    instance: String,

    /// The signal, by name or number
    #[arg(short, long, value_name = "NAME|N", default_value = "KILL", value_parser = signal::parse)]
    signal: i32,

    #[command(flatten)]
    target: Target,
}

impl Kill {
    /// Sends it.
    pub fn run(self) -> anyhow::Result<()> {
        let (instance, signal) = (self.instance, self.signal);
        running::with(&self.target, async |client| Ok(client.kill(&instance, signal).await?))?;
        if self.target.json {
            output::json(&json!({ "instance": instance, "signal": signal }))?;
        } else {
            output::line(&format!("{instance}: sent {}", signal::name(signal)))?;
        }
        Ok(())
    }
}
