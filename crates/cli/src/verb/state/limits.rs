//! `lethe state limits`: who has used up how much, and a fresh start for them.

use std::time::SystemTime;

use anyhow::bail;
use clap::{Args, Subcommand};
use lethe_state::limits::{LIST_MAX, Usage};
use serde_json::json;

use super::{tables::remaining, with};
use crate::{
    ansi,
    arguments::Target,
    output,
    paint::Paint,
    table::{self, Cell, Column},
};

const COLUMNS: [Column; 2] = [Column::left("KEY", 0), Column::right("FULL AGAIN IN", 0)];

#[derive(Debug, Subcommand)]
pub(super) enum Limits {
    List(List),
    Reset(Reset),
}

/// List the keys of a limit that have not all of their burst
#[derive(Debug, Args)]
pub(super) struct List {
    /// The limit
    limit: String,

    /// Only keys behind this one
    #[arg(long, value_name = "KEY")]
    after: Option<String>,

    /// At most this many
    #[arg(long = "limit", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=LIST_MAX as u64))]
    most: u64,

    #[command(flatten)]
    target: Target,
}

/// Give a key its whole burst back
#[derive(Debug, Args)]
pub(super) struct Reset {
    /// The limit
    limit: String,
    /// The key
    key: String,
    #[command(flatten)]
    target: Target,
}

impl Limits {
    /// Does it.
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run(),
            Self::Reset(reset) => reset.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let most = usize::try_from(self.most)?;
        let page = with(&self.target, async |engines| {
            Ok(engines.limits.list(&self.limit, self.after.as_deref(), most).await?)
        })?;
        if self.target.json {
            return Ok(output::json(&page)?);
        }
        let now = SystemTime::now();
        let cells = |usage: &Usage| {
            vec![Cell::new(ansi::clean(&usage.key, false)), Cell::new(remaining(usage.full_at, now))]
        };
        let rows: Vec<Vec<Cell>> = page.keys.iter().map(cells).collect();
        output::line(&table::lines(&COLUMNS, &rows, Paint::for_stdout()).join("\n"))?;
        if page.next.is_some() {
            output::line("there are more; go on behind the last with --after")?;
        }
        Ok(())
    }
}

impl Reset {
    fn run(self) -> anyhow::Result<()> {
        let Self { limit, key, target } = self;
        let was_used = with(&target, async |engines| Ok(engines.limits.reset(&limit, &key).await?))?;
        let shown = ansi::clean(&key, false);
        match was_used {
            _ if target.json => Ok(output::json(&json!({ "existed": was_used }))?),
            true => Ok(output::line(&format!("`{shown}` has the whole burst of `{limit}` again"))?),
            false => bail!(
                "nothing was taken of the limit `{limit}` for `{shown}`; `lethe state limits list {limit}` shows whose was"
            ),
        }
    }
}
