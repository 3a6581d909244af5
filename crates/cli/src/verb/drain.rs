//! `lethe drain`: one worker leaves in order, and another takes its place first; or all of this host does, since it is to go.

use clap::Args;
use lethe_admin::api::Interrupt;
use serde_json::json;

use crate::{arguments::Target, output, running, span::Span};

/// Drain a worker and replace it, or drain the host
///
/// A new worker is ready before the old one leaves; the old one finishes its requests. Returns when it has ended.
///
/// With --host, lethe is not ready from then on, so that load balancers stop sending requests; takes what still comes for a
/// while; then drains all workers and ends, at the latest by the deadline. Returns when it has ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe drain shop-1
  lethe drain --host --deadline 2m --settle 10s")]
pub struct Drain {
    /// The worker; `lethe ps` lists them
    #[arg(required_unless_present = "host", conflicts_with = "host")]
    instance: Option<String>,

    /// All of it: this machine is to go
    #[arg(long)]
    host: bool,

    /// All has ended by then [default: as in [interruption], else 2m]
    #[arg(long, value_name = "TIME", requires = "host", conflicts_with = "instance")]
    deadline: Option<Span>,

    /// For how long requests are still taken [default: as in [interruption], else 5s]
    #[arg(long, value_name = "TIME", requires = "host", conflicts_with = "instance")]
    settle: Option<Span>,

    #[command(flatten)]
    target: Target,
}

impl Drain {
    /// Drains it.
    pub fn run(self) -> anyhow::Result<()> {
        let Some(instance) = self.instance else { return host(&self.target, self.deadline, self.settle) };
        running::with(&self.target, async |client| Ok(client.drain(&instance).await?))?;
        if self.target.json {
            output::json(&json!({ "instance": instance, "drained": true }))?;
        } else {
            output::line(&format!("{instance}: drained and replaced"))?;
        }
        Ok(())
    }
}

fn host(target: &Target, deadline: Option<Span>, settle: Option<Span>) -> anyhow::Result<()> {
    let ms = |span: Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
    let interrupt = Interrupt { deadline_ms: deadline.map(ms), settle_ms: settle.map(ms) };
    let node = running::with(target, async |client| {
        let node = client.status().await?.node;
        client.interrupt(interrupt).await?;
        Ok(node)
    })?;
    if target.json {
        output::json(&json!({ "pid": node.pid, "state_dir": node.state_dir, "stopped": true }))?;
    } else {
        output::line(&format!("lethe (pid {}) has drained and stopped", node.pid))?;
    }
    Ok(())
}
