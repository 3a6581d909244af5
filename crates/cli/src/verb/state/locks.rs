//! `lethe state locks`: who holds what, and an end to it.

use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use lethe_state::locks::{LIST_MAX, Lease};
use serde_json::json;

use super::{tables::remaining, with};
use crate::{
    ansi,
    arguments::Target,
    output,
    paint::Paint,
    table::{self, Cell, Column},
};

const COLUMNS: [Column; 4] = [
    Column::left("LOCK", 0),
    Column::left("HOLDER", 0),
    Column::right("TOKEN", 0),
    Column::right("ENDS IN", 0),
];

#[derive(Debug, Subcommand)]
pub(super) enum Locks {
    List(List),
    Release(Release),
}

/// List the locks that are held
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only locks behind this one
    #[arg(long, value_name = "LOCK")]
    after: Option<String>,

    /// At most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=LIST_MAX as u64))]
    limit: u64,

    #[command(flatten)]
    target: Target,
}

/// Let a lock go, whoever holds it
///
/// Its holder may still be at work. What it writes with its fencing token is refused once the next holder has written.
#[derive(Debug, Args)]
pub(super) struct Release {
    /// The lock
    lock: String,
    #[command(flatten)]
    target: Target,
}

impl Locks {
    /// Does it.
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run(),
            Self::Release(release) => release.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let most = usize::try_from(self.limit)?;
        let page =
            with(&self.target, async |engines| Ok(engines.locks.list(self.after.as_deref(), most).await?))?;
        if self.target.json {
            return Ok(output::json(&page)?);
        }
        let now = SystemTime::now();
        let cells = |lease: &Lease| {
            vec![
                Cell::new(ansi::clean(&lease.name, false)),
                Cell::new(ansi::clean(&lease.holder, false)),
                Cell::new(lease.token.to_string()),
                Cell::new(remaining(lease.expires_at, now)),
            ]
        };
        let rows: Vec<Vec<Cell>> = page.leases.iter().map(cells).collect();
        output::line(&table::lines(&COLUMNS, &rows, Paint::for_stdout()).join("\n"))?;
        if page.next.is_some() {
            output::line("there are more; go on behind the last with --after")?;
        }
        Ok(())
    }
}

impl Release {
    fn run(self) -> anyhow::Result<()> {
        let Self { lock, target } = self;
        let released = with(&target, async |engines| {
            let lease = engines.locks.look(&lock).await?;
            let lease = lease.with_context(|| {
                format!("nobody holds the lock `{lock}`; `lethe state locks list` shows those that are held")
            })?;
            let released = engines.locks.release(&lock, lease.token).await?;
            Ok(released.then_some(lease))
        })?;
        let Some(lease) = released else {
            bail!("the lock `{lock}` went from hand to hand meanwhile; try again")
        };
        if target.json {
            return Ok(output::json(&json!({ "released": lease }))?);
        }
        Ok(output::line(&format!("{} no longer holds `{lock}`", ansi::clean(&lease.holder, false)))?)
    }
}
