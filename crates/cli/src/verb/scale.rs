//! `lethe scale`: more or fewer workers.

use std::str::FromStr;

use anyhow::anyhow;
use clap::Args;
use lethe_admin::{api::INSTANCES_MAX, client::Client};
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
            let scaled = running::with(&self.target, async |client| {
                let before = wanted(&client, &service).await;
                match client.scale(service.as_str(), instances).await {
                    Ok(scaled) => Ok(scaled),
                    // What was refused leaves the wish as it was; what did not come about does not.
                    Err(error) if wanted(&client, &service).await != before => {
                        let back = before.unwrap_or_default();
                        Err(anyhow!(
                            "{error}\n{service} shall have {instances} now, and goes on trying; `lethe scale {service}={back}` takes it back"
                        ))
                    }
                    Err(error) => Err(error.into()),
                }
            })?;
            if self.target.json {
                let notices = scaled.notices;
                output::json(&json!({ "service": service, "instances": instances, "notices": notices }))?;
            } else {
                let workers = if instances == 1 { "worker" } else { "workers" };
                output::line(&format!("{service}: {instances} {workers}"))?;
                scaled.notices.iter().try_for_each(|notice| output::line(notice))?;
            }
        }
        Ok(())
    }
}

/// How many workers a service shall have.
async fn wanted(client: &Client, service: &ServiceName) -> Option<u32> {
    let status = client.status().await.ok()?;
    status.services.iter().find(|known| known.name == *service).map(|known| known.wanted)
}
