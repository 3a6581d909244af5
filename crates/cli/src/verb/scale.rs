//! `lethe scale`: more or fewer workers, set by hand or left to load, and why load decided as it did.

mod why;

use std::str::FromStr;

use anyhow::anyhow;
use clap::{ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};
use lethe_admin::{api::INSTANCES_MAX, client::Client};
use lethe_model::service::ServiceName;
use serde_json::json;

use crate::{arguments::Target, output, running};

/// Set the number of workers of services, or see why load decided as it did
#[derive(Debug)]
pub struct Scale {
    what: What,
    target: Target,
}

#[derive(Debug)]
enum What {
    Set(Vec<Count>),
    Why(Vec<ServiceName>, Option<u64>),
    Tell(Vec<ServiceName>, Told),
}

/// A number of somebody's own.
#[derive(Clone, Debug)]
struct Told {
    metric: String,
    /// As it was typed: lethe judges it, and what is no number makes the metric fail.
    number: String,
}

impl FromStr for Told {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "use METRIC=NUMBER, such as emails=17".to_owned();
        let (metric, number) = text.split_once('=').ok_or_else(wrong)?;
        if number.is_empty() {
            return Err(wrong());
        }
        Ok(Self { metric: metric.into(), number: number.into() })
    }
}

/// Set the number of workers of services, or see why load decided as it did
///
/// Returns when the new ones are ready and the surplus ones have finished their requests and ended.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  lethe scale shop=5
  lethe scale shop=5 mail=2
  lethe scale shop=auto                        load decides again, within the range of lethe.toml
  lethe scale shop --why                       what load decided last, and why
  lethe scale shop --why --case 3 > case.json  what the third decision was taken from
  lethe simulate case.json                     the same decision again
  lethe scale shop --tell emails=17            a number of your own, which shop is scaled by")]
struct Words {
    /// A service and its number of workers, such as shop=3, or shop=auto; with --why a service
    #[arg(value_name = "SERVICE=N", required = true)]
    counts: Vec<String>,

    /// Say what load decided last, and why
    #[arg(long)]
    why: bool,

    /// Print what the decision of this number was taken from, for `lethe simulate`
    #[arg(long, value_name = "NUMBER", requires = "why")]
    case: Option<u64>,

    /// Tell a number that the service is scaled by, such as emails=17
    #[arg(long, value_name = "METRIC=NUMBER", conflicts_with = "why")]
    tell: Option<Told>,

    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Debug)]
struct Count {
    service: ServiceName,
    /// None for as many as load wants.
    instances: Option<u32>,
}

/// What stands for a number that load decides.
const AUTO: &str = "auto";

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((service, instances)) = text.split_once('=') else {
            return Err(format!("use SERVICE=N, such as {text}=3"));
        };
        let service = ServiceName::new(service).map_err(|error| error.to_string())?;
        if instances == AUTO {
            return Ok(Self { service, instances: None });
        }
        let instances = instances.parse().ok().filter(|count| *count <= INSTANCES_MAX);
        let instances =
            instances.ok_or_else(|| format!("use a number from 0 to {INSTANCES_MAX}, or {AUTO}, after ="))?;
        Ok(Self { service, instances: Some(instances) })
    }
}

impl Scale {
    /// Sets them, one after the other, or says why they are as they are.
    pub fn run(self) -> anyhow::Result<()> {
        let counts = match self.what {
            What::Why(services, case) => return why::run(&services, case, &self.target),
            What::Tell(services, told) => return tell(&services, &told, &self.target),
            What::Set(counts) => counts,
        };
        for Count { service, instances } in counts {
            match instances {
                Some(instances) => set(&service, instances, &self.target)?,
                None => leave(&service, &self.target)?,
            }
        }
        Ok(())
    }

    fn read(words: Words) -> Result<Self, clap::Error> {
        fn each<T>(words: &[String], read: fn(&str) -> Result<T, String>) -> Result<Vec<T>, clap::Error> {
            let refuse = |word: &String, why: String| {
                let text = format!("invalid value '{word}' for '<SERVICE=N>...': {why}\n");
                clap::Error::raw(ErrorKind::ValueValidation, text)
            };
            words.iter().map(|word| read(word).map_err(|why| refuse(word, why))).collect()
        }
        let name = |word: &str| ServiceName::new(word).map_err(|error| error.to_string());
        let what = match (words.why, words.tell) {
            (true, _) => What::Why(each(&words.counts, name)?, words.case),
            (false, Some(told)) => What::Tell(each(&words.counts, name)?, told),
            (false, None) => What::Set(each(&words.counts, str::parse)?),
        };
        Ok(Self { what, target: words.target })
    }
}

/// What a word means depends on a flag behind it, so that words are read when all are there.
impl FromArgMatches for Scale {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::read(Words::from_arg_matches(matches)?)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Scale {
    fn augment_args(command: Command) -> Command {
        Words::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Words::augment_args_for_update(command)
    }
}

fn set(service: &ServiceName, instances: u32, target: &Target) -> anyhow::Result<()> {
    let scaled = running::with(target, async |client| {
        let before = wanted(&client, service).await;
        match client.scale(service.as_str(), instances).await {
            Ok(scaled) => Ok(scaled),
            // What was refused leaves the wish as it was; what did not come about does not.
            Err(error) if wanted(&client, service).await != before => {
                let is_by_load = client.scaling(service.as_str()).await.is_ok();
                let back = if is_by_load { "auto".into() } else { before.unwrap_or_default().to_string() };
                Err(anyhow!(
                    "{error}\n{service} shall have {instances} now, and goes on trying; `lethe scale {service}={back}` takes it back"
                ))
            }
            Err(error) => Err(error.into()),
        }
    })?;
    if target.json {
        let notices = scaled.notices;
        output::json(&json!({ "service": service, "instances": instances, "notices": notices }))?;
    } else {
        let workers = if instances == 1 { "worker" } else { "workers" };
        output::line(&format!("{service}: {instances} {workers}"))?;
        scaled.notices.iter().try_for_each(|notice| output::line(notice))?;
    }
    Ok(())
}

fn tell(services: &[ServiceName], Told { metric, number }: &Told, target: &Target) -> anyhow::Result<()> {
    for service in services {
        running::with(target, async |client| {
            Ok(client.tell_metric(service.as_str(), metric, number).await?)
        })?;
        match target.json {
            true => output::json(&json!({ "service": service, "metric": metric, "number": number }))?,
            false => output::line(&format!("{service}: {metric} is {number}"))?,
        }
    }
    Ok(())
}

fn leave(service: &ServiceName, target: &Target) -> anyhow::Result<()> {
    running::with(target, async |client| Ok(client.scale_by_load(service.as_str()).await?))?;
    if target.json {
        output::json(&json!({ "service": service, "instances": AUTO, "notices": [] }))?;
    } else {
        output::line(&format!("{service}: load decides; `lethe scale {service} --why` says how"))?;
    }
    Ok(())
}

/// How many workers a service shall have.
async fn wanted(client: &Client, service: &ServiceName) -> Option<u32> {
    let status = client.status().await.ok()?;
    status.services.iter().find(|known| known.name == *service).map(|known| known.wanted)
}
