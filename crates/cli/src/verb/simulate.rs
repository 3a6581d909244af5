//! `lethe simulate`: what the scaler would do.

mod case;

use std::path::PathBuf;

use clap::Args;

/// Show what the scaler decides, and why
///
/// Takes one decision from the inputs in CASE, which are JSON: the spec of a HorizontalPodAutoscaler, the workers, and what
/// is remembered of earlier decisions.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe simulate case.json
  lethe simulate case.json --json | jq .desired")]
pub struct Simulate {
    /// The inputs of one decision; - is standard input
    #[arg(value_name = "CASE")]
    case: PathBuf,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

impl Simulate {
    /// Shows it.
    pub fn run(self) -> anyhow::Result<()> {
        case::run(&self.case, self.json)
    }
}
