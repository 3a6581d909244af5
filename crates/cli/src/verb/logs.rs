//! `lethe logs`: what the workers print, also those that are gone.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use lethe_admin::api;

use crate::{arguments::Target, clock, paint::Paint, running, ui::row};

/// Show what the workers printed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe logs                    the last lines of all workers
  lethe logs -f shop            those of one service, and what comes
  lethe logs shop-2 --lines 20  those of one worker, also when it is gone")]
pub struct Logs {
    /// A worker or a service [default: all]
    #[arg(value_name = "INSTANCE|SERVICE")]
    name: Option<String>,

    /// Go on with the lines that come, until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// How many lines of the past
    #[arg(short = 'n', long, value_name = "N", default_value_t = api::LINES_DEFAULT)]
    lines: usize,

    #[command(flatten)]
    target: Target,
}

impl Logs {
    /// Prints them.
    pub fn run(self) -> anyhow::Result<()> {
        let logs = api::Logs { name: self.name, lines: Some(self.lines), follow: self.follow };
        let (json, paint, terminal) = (self.target.json, Paint::for_stdout(), io::stdout().is_terminal());
        running::with(&self.target, async |client| {
            let mut lines = client.logs(&logs).await?;
            let mut out = io::BufWriter::new(io::stdout().lock());
            let mut prefix = row::Prefix::default();
            while let Some(line) = next(&mut lines, &mut out).await? {
                if json {
                    writeln!(out, "{}", serde_json::to_string(&line)?)?;
                    continue;
                }
                let time = clock::time_of_day(line.at);
                let text = if terminal { crate::ansi::clean(&line.text, paint.on) } else { line.text };
                let name = prefix.of(line.instance.as_str(), line.source, paint);
                writeln!(out, "{time} {name}{text}")?;
            }
            Ok(out.flush()?)
        })
    }
}

/// The next line; what is written already is shown before it is waited for.
async fn next(
    lines: &mut lethe_admin::client::Lines,
    out: &mut impl Write,
) -> anyhow::Result<Option<api::Line>> {
    tokio::select! {
        biased;
        line = lines.next() => return Ok(line?),
        () = std::future::ready(()) => {}
    }
    out.flush()?;
    Ok(lines.next().await?)
}
