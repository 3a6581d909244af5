//! `lethe deploy`: a new release takes the place of the one that runs, and goes back by itself when it is worse.

use std::{path::Path, time::Instant};

use anyhow::{Context, bail};
use clap::Args;
use lethe_admin::{
    client::Client,
    releases::{self, Begun, Event},
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    ansi,
    arguments::Target,
    figures, output,
    paint::{Paint, Style},
    running,
};

/// Roll out a new release of a service
///
/// Reads the service from lethe.toml again, fetches and builds its source, and replaces the workers step by step: new ones
/// are ready before old ones leave. If the new ones do not start, or answer worse than the old ones, the old ones come back.
/// Returns when the release has taken over; Ctrl-C stops watching it and nothing else.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe deploy shop
  lethe deploy shop --source '#v1.3' --message 'faster search'
  lethe deploy shop --source https://example.org/shop-1.3.tar.gz --detach
  lethe deploy shop --follow          watch one that was begun elsewhere
  lethe deploy shop --abort           call off one that is under way")]
pub struct Deploy {
    /// The service
    service: String,

    /// Another source than that of lethe.toml, or `#` and another branch, tag or commit of that one. It stays until
    /// `source` in the file changes
    #[arg(long, value_name = "SOURCE", conflicts_with_all = ["abort", "follow"])]
    source: Option<String>,

    /// What is new, for the history
    #[arg(long, short, value_name = "TEXT", conflicts_with_all = ["abort", "follow"])]
    message: Option<String>,

    /// Return when the release has taken over, which is the default
    #[arg(long, conflicts_with = "detach")]
    wait: bool,

    /// Return as soon as it has begun
    #[arg(long, conflicts_with = "follow")]
    detach: bool,

    /// Begin nothing, and watch the rollout that is under way
    #[arg(long, conflicts_with = "abort")]
    follow: bool,

    /// Call off the rollout that is under way: the old release comes back
    #[arg(long)]
    abort: bool,

    #[command(flatten)]
    target: Target,
}

impl Deploy {
    /// Rolls it out.
    pub fn run(self) -> anyhow::Result<()> {
        let Self { service, source, message, detach, follow, abort, target, .. } = self;
        let source = source.map(|source| from_here(&source)).transpose()?;
        running::with(&target, async |client| {
            if follow {
                return watch(&client, &service, None, &target).await;
            }
            let begun = if abort {
                let rollback = releases::Rollback { abort, message, ..releases::Rollback::default() };
                client.rollback(&service, &rollback).await?
            } else {
                client.deploy(&service, &releases::Deploy { source, message }).await?
            };
            tell(&client, &begun, detach, &target).await
        })
    }
}

/// Tells how what has begun goes on, unless that is of no interest. Where a rollout is called off, the good end is that the old
/// release is back.
pub(super) async fn tell(
    client: &Client,
    begun: &Begun,
    detach: bool,
    target: &Target,
) -> anyhow::Result<()> {
    let Begun { service, release, .. } = begun;
    if detach {
        return begin(begun, target);
    }
    if !begun.is_called_off {
        if !target.json {
            let from = begun.from.map(|from| format!(", in the place of {from}")).unwrap_or_default();
            output::line(&format!("{service}: release {release}{from}"))?;
        }
        return watch(client, service.as_str(), Some(*release), target).await;
    }
    match follow(client, service.as_str(), Some(*release), target).await? {
        Some(end) if end.is_good() => {
            bail!("{service}: release {release} had taken over before it could be called off")
        }
        Some(_) if !target.json => {
            let runs = begun.from.map(|from| format!("; release {from} runs")).unwrap_or_default();
            Ok(output::line(&format!("{service}: release {release} is called off{runs}"))?)
        }
        _ => Ok(()),
    }
}

fn begin(begun: &Begun, target: &Target) -> anyhow::Result<()> {
    let (service, release) = (&begun.service, begun.release);
    if target.json {
        output::json(&json!({ "service": service, "release": release, "from": begun.from }))?;
    } else {
        output::line(&format!(
            "{service}: release {release} is on its way; `lethe deploy {service} --follow` shows it"
        ))?;
    }
    Ok(())
}

/// Shows what happens until the end. An error if the release did not take over.
async fn watch(client: &Client, service: &str, release: Option<u64>, target: &Target) -> anyhow::Result<()> {
    let Some(end) = follow(client, service, release, target).await? else { return Ok(()) };
    if end.is_good() {
        if !target.json {
            output::line(&format!(
                "`lethe rollback {service}` goes back, `lethe history {service}` lists the releases"
            ))?;
        }
        return Ok(());
    }
    bail!("{service}: release {} {}", end.release, end.text)
}

/// Shows what happens with this release, or with the last one; gives the last event, or nothing if the user has stopped
/// watching.
async fn follow(
    client: &Client,
    service: &str,
    release: Option<u64>,
    target: &Target,
) -> anyhow::Result<Option<Event>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut events = client.rollout(service).await?;
    let (began, paint) = (Instant::now(), Paint::for_stdout());
    loop {
        let next = tokio::select! {
            next = events.next() => next?,
            _ = interrupt.recv() => {
                let text = format!(
                    "{service}: the rollout goes on; `lethe deploy {service} --follow` shows it, `lethe rollback {service}` goes back"
                );
                if !target.json {
                    output::line(&text)?;
                }
                return Ok(None);
            }
        };
        let event = next.with_context(|| format!("{service}: lethe has ended, and the rollout with it"))?;
        if let Some(release) = release.filter(|release| *release != event.release) {
            let other = event.release;
            bail!(
                "{service}: release {other} has come after {release} already; `lethe history {service}` says what became of {release}"
            );
        }
        if target.json {
            output::line(&serde_json::to_string(&event)?)?;
        } else if !event.is_end() || event.is_good() {
            output::line(&line(&event, began, paint))?;
        }
        if event.is_end() {
            return Ok(Some(event));
        }
    }
}

/// `  12s  3/4 new  2 old workers drain`
fn line(event: &Event, began: Instant, paint: Paint) -> String {
    let time = paint.text(Style::DIM, &format!("{:>6}", figures::age(began.elapsed())));
    let count = match (event.ready, event.wanted) {
        (Some(ready), Some(wanted)) => format!("{ready}/{wanted} new"),
        _ => String::new(),
    };
    let text = ansi::clean(&event.text, false);
    let text = match event.step.as_str() {
        "promoted" => paint.text(Style::GREEN, &text),
        "going-back" => paint.text(Style::RED, &text),
        "waiting" | "pausing" | "baking" => paint.text(Style::YELLOW, &text),
        "line" => paint.text(Style::DIM, &text),
        _ => text,
    };
    format!("{time}  {count:>9}  {text}")
}

/// An archive, folder or repository of this machine is named from the folder that one is in.
fn from_here(source: &str) -> anyhow::Result<String> {
    let (path, reference) = source.split_at(source.find('#').unwrap_or(source.len()));
    let is_path = !path.contains(':') && !path.is_empty() && Path::new(path).exists();
    if !is_path {
        return Ok(source.into());
    }
    let path = Path::new(path).canonicalize().with_context(|| format!("--source {source}"))?;
    let path = path.into_os_string().into_string().ok();
    Ok(path.with_context(|| format!("--source {source} has no name in UTF-8"))? + reference)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn one_line_for_each_step() {
        let event = Event {
            at: UNIX_EPOCH.into(),
            release: 5,
            step: "draining".into(),
            text: "2 old workers drain".into(),
            wanted: Some(4),
            old: Some(2),
            new: Some(3),
            ready: Some(3),
        };
        let began = Instant::now() - Duration::from_secs(72);
        assert_eq!(line(&event, began, Paint::default()), " 1m12s    3/4 new  2 old workers drain");
        let bare = Event { wanted: None, ready: None, text: "is built:\x1b[2J make".into(), ..event };
        assert!(!line(&bare, began, Paint::default()).contains('\x1b'));
    }

    #[test]
    fn what_is_here_is_named_as_a_whole() {
        for source in ["#v1", "https://h/x.git", "git@h:me/shop", "nowhere.tar"] {
            assert_eq!(from_here(source).unwrap(), source);
        }
        assert!(from_here("Cargo.toml").unwrap().ends_with("/crates/cli/Cargo.toml"));
        assert!(from_here("./src#main").unwrap().ends_with("/crates/cli/src#main"));
    }
}
