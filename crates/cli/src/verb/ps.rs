//! `lethe ps`: the workers, as they are now.

use std::time::SystemTime;

use clap::Args;

use crate::{arguments::Target, output, paint::Paint, running, workers};

/// List the workers
///
/// Rates, latencies and CPU are those of the last five seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe ps
  lethe ps --json | jq '.workers[] | select(.state == \"ready\").instance'")]
pub struct Ps {
    #[command(flatten)]
    target: Target,
}

impl Ps {
    /// Prints them.
    pub fn run(self) -> anyhow::Result<()> {
        let status = running::with(&self.target, async |client| Ok(client.status().await?))?;
        if self.target.json {
            output::json(&status)?;
        } else {
            let mut lines = workers::lines(&status.workers, SystemTime::now(), Paint::for_stdout());
            lines.extend(workers::missing(&status.services));
            output::line(&lines.join("\n"))?;
        }
        Ok(())
    }
}
