//! `lethe reload`: the configuration is read again, and no request fails.

use clap::Args;

use crate::{arguments::Target, output, running};

/// Read the configuration again and let it take effect
///
/// Routes, limits, certificates and services change while requests are served. A file with a mistake changes nothing.
/// Returns when new workers are ready and old ones have ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $EDITOR lethe.toml && lethe reload
  kill -HUP PID                        does the same, without saying what came of it")]
pub struct Reload {
    #[command(flatten)]
    target: Target,
}

impl Reload {
    /// Has it read.
    pub fn run(self) -> anyhow::Result<()> {
        let reloaded = running::with(&self.target, async |client| Ok(client.reload().await?))?;
        if self.target.json {
            output::json(&reloaded)?;
            return Ok(());
        }
        for line in reloaded.changes.iter().chain(&reloaded.notices) {
            output::line(line)?;
        }
        if reloaded.changes.is_empty() {
            output::line("nothing has changed")?;
        }
        Ok(())
    }
}
