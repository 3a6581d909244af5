//! `lethe simulate`: what the scaler would do.

mod case;
mod chart;
mod picture;
mod trace;

use std::path::PathBuf;

use clap::Args;

/// Show what the scaler decides, and why
///
/// Takes one decision from the inputs in CASE, which are JSON: the spec of a HorizontalPodAutoscaler, the workers, and what
/// is remembered of earlier decisions. Or plays a whole trace of load against one or several policies, with a model of the
/// workers, and shows how many workers there would be and how long requests would take.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe simulate case.json
  lethe simulate case.json --json | jq .desired
  lethe simulate --trace load.csv --service-time 50ms --startup 2s --compare hpa,kpa,target,lethe")]
pub struct Simulate {
    /// The inputs of one decision; - is standard input
    #[arg(value_name = "CASE", required_unless_present = "trace", conflicts_with = "trace")]
    case: Option<PathBuf>,

    /// Load to play: lines of a time in seconds and of requests a second from then on, such as 60,120; - is standard input
    #[arg(long, value_name = "CSV", requires = "service_time", requires = "startup")]
    trace: Option<PathBuf>,

    #[command(flatten)]
    model: trace::Arguments,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

impl Simulate {
    /// Shows it.
    pub fn run(self) -> anyhow::Result<()> {
        match (self.case, self.trace) {
            (Some(case), _) => case::run(&case, self.json),
            (None, Some(trace)) => trace::run(&trace, &self.model, self.json),
            // clap has seen to it that there is one.
            (None, None) => Ok(()),
        }
    }
}
