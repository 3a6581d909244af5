//! `lethe scale`: more or fewer workers.

use std::str::FromStr;

use clap::Args;
use lethe_admin::api::INSTANCES_MAX;
use lethe_model::service::ServiceName;
use serde_json::json;

use crate::{arguments::Target, output, running};

/// Set the number of workers of services
///
/// Returns when the new ones are ready and the surplus ones have finished their requests and ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lethe scale shop=5\n  lethe scale shop=5 mail=2")]
pub struct Scale {
    /// A service and its number of workers, such as shop=3
    #[arg(value_name = "SERVICE=N", required = true)]
    counts: Vec<Count>,

    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Debug)]
struct Count {
    service: ServiceName,
    instances: u32,
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((service, instances)) = text.split_once('=') else {
            return Err(format!("use SERVICE=N, such as {text}=3"));
        };
        let service = ServiceName::new(service).map_err(|error| error.to_string())?;
        let instances = instances.parse().ok().filter(|count| *count <= INSTANCES_MAX);
        let instances = instances.ok_or_else(|| format!("use a number from 0 to {INSTANCES_MAX} after ="))?;
        Ok(Self { service, instances })
    }
}

impl Scale {
    /// Sets them, one after the other.
    pub fn run(self) -> anyhow::Result<()> {
        for Count { service, instances } in self.counts {
            running::with(&self.target, async |client| {
                Ok(client.scale(service.as_str(), instances).await?)
            })?;
            if self.target.json {
                output::json(&json!({ "service": service, "instances": instances }))?;
            } else {
                let workers = if instances == 1 { "worker" } else { "workers" };
                output::line(&format!("{service}: {instances} {workers}"))?;
            }
        }
        Ok(())
    }
}
