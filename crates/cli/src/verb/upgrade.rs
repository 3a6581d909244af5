//! `lethe upgrade`: another program takes over, and no request fails.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, value_parser};
use lethe_admin::api::{self, UPGRADE_TIMEOUT_S};

use crate::{arguments::Target, output, running};

/// The longest time that can be given, in seconds.
const TIMEOUT_S_MAX: u64 = 24 * 60 * 60;

/// Let a new lethe take over from the running one
///
/// The new one starts its own workers, and accepts on the same sockets as soon as all of them are ready; then the running
/// one finishes its open requests and ends. If the new one does not get ready, the running one goes on. Returns when the
/// new one is in charge.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo install lethe-new /usr/local/bin/lethe && lethe upgrade
  lethe upgrade --binary ./target/release/lethe")]
pub struct Upgrade {
    /// The program that takes over [default: the one that is run here]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,

    /// How long it may take until all its workers are ready
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = UPGRADE_TIMEOUT_S,
        value_parser = value_parser!(u64).range(1..=TIMEOUT_S_MAX)
    )]
    timeout: u64,

    #[command(flatten)]
    target: Target,
}

impl Upgrade {
    /// Has it take over.
    pub fn run(self) -> anyhow::Result<()> {
        let binary = match self.binary {
            Some(path) => path.canonicalize().with_context(|| format!("cannot run {}", path.display()))?,
            None => std::env::current_exe().context("cannot tell which program this is; pass --binary")?,
        };
        let upgrade = api::Upgrade { binary, timeout_s: self.timeout };
        let upgraded = running::with(&self.target, async |client| Ok(client.upgrade(&upgrade).await?))?;
        if self.target.json {
            output::json(&upgraded)?;
        } else {
            let api::Upgraded { before, pid, version } = upgraded;
            output::line(&format!("lethe {version} (pid {pid}) has taken over from pid {before}"))?;
        }
        Ok(())
    }
}
