//! `lethe restart`: all workers of a service are replaced, and no request fails.

use clap::Args;
use serde_json::json;

use crate::{arguments::Target, output, running};

/// Replace all workers of a service, one after the other
///
/// Each new worker is ready before an old one leaves. If a new one cannot start, the old ones keep serving.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo build --release && lethe restart shop")]
pub struct Restart {
    /// The service
    service: String,

    #[command(flatten)]
    target: Target,
}

impl Restart {
    /// Replaces them.
    pub fn run(self) -> anyhow::Result<()> {
        let service = self.service;
        let replaced = running::with(&self.target, async |client| Ok(client.restart(&service).await?))?;
        if self.target.json {
            output::json(&json!({ "service": service, "replaced": replaced }))?;
        } else {
            let workers = if replaced == 1 { "worker" } else { "workers" };
            output::line(&format!("{service}: replaced {replaced} {workers}"))?;
        }
        Ok(())
    }
}
