//! `lethe drain`: one worker leaves in order, and another takes its place first.

use clap::Args;
use serde_json::json;

use crate::{arguments::Target, output, running};

/// Drain a worker and replace it
///
/// A new worker is ready before the old one leaves; the old one finishes its requests. Returns when it has ended.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lethe drain shop-1")]
pub struct Drain {
    /// The worker; `lethe ps` lists them
    instance: String,

    #[command(flatten)]
    target: Target,
}

impl Drain {
    /// Drains it.
    pub fn run(self) -> anyhow::Result<()> {
        let instance = self.instance;
        running::with(&self.target, async |client| Ok(client.drain(&instance).await?))?;
        if self.target.json {
            output::json(&json!({ "instance": instance, "drained": true }))?;
        } else {
            output::line(&format!("{instance}: drained and replaced"))?;
        }
        Ok(())
    }
}
