//! `lethe down`: the end, from another terminal.

use clap::Args;
use lethe_admin::stop::Wish;
use serde_json::json;

use crate::{arguments::Target, output, running};

/// Stop lethe and its workers
///
/// Open requests are finished first. Returns when the process has ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lethe down\n  lethe down --now   do not wait for open requests")]
pub struct Down {
    /// Kill the workers at once
    #[arg(long)]
    now: bool,

    #[command(flatten)]
    target: Target,
}

impl Down {
    /// Stops it.
    pub fn run(self) -> anyhow::Result<()> {
        let how = if self.now { Wish::Now } else { Wish::Drain };
        let node = running::with(&self.target, async |client| {
            let node = client.status().await?.node;
            client.down(how).await?;
            Ok(node)
        })?;
        if self.target.json {
            output::json(&json!({ "pid": node.pid, "state_dir": node.state_dir, "stopped": true }))?;
        } else {
            output::line(&format!("lethe (pid {}) has stopped", node.pid))?;
        }
        Ok(())
    }
}
