//! `lethe state`: a look into what the services keep, and a hand in it, through the state API that they use themselves.

mod blobs;
mod cache;
mod compare;
mod dump;
mod export;
mod import;
mod limits;
mod locks;
mod moving;
mod progress;
mod sessions;
mod tables;

use anyhow::Context;
use clap::{Args, Subcommand};
use lethe_state::{Engines, remote::Remote};

use crate::{arguments::Target, running};

/// Look at what the services keep, and change it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe state tables scan products --prefix mug
  lethe state tables get products mug-blue --json
  lethe state sessions list ada
  lethe state sessions revoke ada --all
  lethe state blobs cp photo.png blob:photos/mug-blue")]
pub struct State {
    #[command(subcommand)]
    kind: Kind,
}

/// What is looked at.
#[derive(Debug, Subcommand)]
enum Kind {
    /// Rows of tables
    #[command(subcommand)]
    Tables(tables::Tables),
    /// Sessions of users
    #[command(subcommand)]
    Sessions(sessions::Sessions),
    /// Files in buckets
    #[command(subcommand)]
    Blobs(blobs::Blobs),
    /// Limits, by the keys that have used them
    #[command(subcommand)]
    Limits(limits::Limits),
    /// Locks and who holds them
    #[command(subcommand)]
    Locks(locks::Locks),
    /// Caches and what they hold
    #[command(subcommand)]
    Cache(cache::Caches),
    Export(export::Export),
    Import(import::Import),
}

impl State {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Tables(tables) => tables.run(),
            Kind::Sessions(sessions) => sessions.run(),
            Kind::Blobs(blobs) => blobs.run(),
            Kind::Limits(limits) => limits.run(),
            Kind::Locks(locks) => locks.run(),
            Kind::Export(export) => export.run(),
            Kind::Import(import) => import.run(),
            Kind::Cache(caches) => caches.run(),
        }
    }
}

/// Calls `ask` with the state of the `lethe` that `target` means.
fn with<T>(target: &Target, ask: impl AsyncFnOnce(Engines) -> anyhow::Result<T>) -> anyhow::Result<T> {
    running::with_node(target, async |node| {
        let url = node
            .state
            .context("the lethe that runs is older and does not say where its state is; restart it")?;
        ask(Remote::connect(&url)?.engines()).await
    })
}
