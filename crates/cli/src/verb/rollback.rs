//! `lethe rollback`: an earlier release comes back.

use clap::{Args, value_parser};
use lethe_admin::releases;

use super::deploy::tell;
use crate::{arguments::Target, running};

/// Go back to an earlier release of a service
///
/// While a rollout is under way, it is called off and what it has replaced comes back. Otherwise the release comes back that
/// ran before, or the one with this number, as carefully as a new one comes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lethe rollback shop\n  lethe rollback shop --to 3")]
pub struct Rollback {
    /// The service
    service: String,

    /// The number of the release, as `lethe history` lists them [default: the one before]
    #[arg(long, value_name = "RELEASE", value_parser = value_parser!(u64).range(1..))]
    to: Option<u64>,

    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,

    /// Return as soon as it has begun
    #[arg(long)]
    detach: bool,

    #[command(flatten)]
    target: Target,
}

impl Rollback {
    /// Goes back.
    pub fn run(self) -> anyhow::Result<()> {
        let Self { service, to, message, detach, target } = self;
        running::with(&target, async |client| {
            let rollback = releases::Rollback { to, message, abort: false };
            let begun = client.rollback(&service, &rollback).await?;
            tell(&client, &begun, detach, &target).await
        })
    }
}
