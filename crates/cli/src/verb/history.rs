//! `lethe history`: the releases of a service, and what became of them.

use clap::Args;
use lethe_admin::releases::{Outcome, Release};

use crate::{
    ansi,
    arguments::Target,
    output,
    paint::{Paint, Style},
    running,
    table::{self, Cell, Column},
    workers::gist,
};

const COLUMNS: [Column; 8] = [
    Column::left("", 0),
    Column::right("RELEASE", 0),
    Column::left("AT", 0),
    Column::left("BY", 0),
    Column::left("CAUSE", 0),
    Column::left("OUTCOME", 0),
    Column::left("WHAT", 0),
    Column::left("REASON OR MESSAGE", 0),
];
/// What is shown of a hash, as git does.
const SHOWN_LEN: usize = 9;
/// The whole hash of a commit.
const COMMIT_LEN: usize = 40;

/// List the releases of a service
///
/// Who rolled out what and when, and what became of it; the release that runs is marked with `*`. The last 50 are kept,
/// also when lethe is restarted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe history shop
  lethe history shop --json | jq '.[] | select(.outcome == \"rolled-back\").reason'")]
pub struct History {
    /// The service
    service: String,

    #[command(flatten)]
    target: Target,
}

impl History {
    /// Lists them.
    pub fn run(self) -> anyhow::Result<()> {
        let releases = running::with(&self.target, async |client| Ok(client.history(&self.service).await?))?;
        if self.target.json {
            output::json(&releases)?;
            return Ok(());
        }
        if releases.is_empty() {
            output::line(&format!("{}: nothing was rolled out yet", self.service))?;
            return Ok(());
        }
        output::line(&lines(&releases, Paint::for_stdout()).join("\n"))?;
        Ok(())
    }
}

fn lines(releases: &[Release], paint: Paint) -> Vec<String> {
    let current = releases.iter().rposition(|known| known.outcome == Outcome::Promoted);
    let row = |(number, release): (usize, &Release)| row(release, Some(number) == current);
    // The newest is what one looks for.
    let rows: Vec<Vec<Cell>> = releases.iter().enumerate().rev().map(row).collect();
    table::lines(&COLUMNS, &rows, paint)
}

fn row(release: &Release, is_current: bool) -> Vec<Cell> {
    let style = match release.outcome {
        Outcome::Promoted => Style::GREEN,
        Outcome::UnderWay => Style::YELLOW,
        Outcome::RolledBack | Outcome::Failed | Outcome::Interrupted => Style::RED,
    };
    let by = release.by.as_ref().map_or_else(|| "-".into(), ToString::to_string);
    let at = release.at.to_string();
    // To the second: `2026-01-31 09:05:00Z`.
    let at = format!("{}Z", at.split('.').next().unwrap_or(&at).replace('T', " "));
    let text =
        release.reason.as_ref().or(release.message.as_ref()).map_or_else(String::new, |text| gist(text));
    vec![
        Cell::new(if is_current { "*" } else { "" }),
        Cell::new(release.release.to_string()),
        Cell::new(at),
        Cell::new(by),
        Cell::new(release.cause.as_str()),
        Cell::styled(release.outcome.as_str(), style),
        Cell::new(ansi::clean(&what(release), false)),
        Cell::new(ansi::clean(&text, false)),
    ]
}

/// Its commit or source; without any, what tells it from others.
fn what(release: &Release) -> String {
    match (&release.revision, &release.source) {
        // As git names commits, and others their hashes.
        (Some(hash), _) => {
            let kind = if hash.len() == COMMIT_LEN { "commit " } else { "" };
            format!("{kind}{}", hash.get(..SHOWN_LEN).unwrap_or(hash))
        }
        (None, Some(source)) => source.clone(),
        (None, None) => format!("spec {}", release.digest),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use lethe_admin::releases::{Cause, Operator};

    use super::*;

    #[test]
    fn the_newest_first_and_the_one_that_runs_is_marked() {
        let first = Release {
            release: 1,
            from: None,
            at: UNIX_EPOCH.into(),
            ended_at: None,
            by: None,
            cause: Cause::Up,
            message: None,
            source: None,
            configured: None,
            revision: None,
            digest: "0123456789ab".into(),
            outcome: Outcome::Promoted,
            reason: None,
        };
        let second = Release {
            release: 2,
            by: Some(Operator { uid: 7, name: Some("ada".into()) }),
            cause: Cause::Deploy,
            message: Some("faster".into()),
            revision: Some("c0ff".repeat(10)),
            outcome: Outcome::RolledBack,
            reason: Some(
                "shop-9: exit status 1; its last lines:\nTraceback\nno module flask\x1b[2J\n".into(),
            ),
            ..first.clone()
        };
        let text = lines(&[first, second], Paint::default()).join("\n");
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1][..4], ["2", "1970-01-01", "00:00:00Z", "ada"], "{text}");
        assert!(
            words[1].ends_with(&[
                "rolled",
                "back",
                "commit",
                "c0ffc0ffc",
                "shop-9:",
                "exit",
                "status",
                "1:",
                "no",
                "module",
                "flask"
            ]),
            "{text}"
        );
        assert_eq!(
            words[2],
            ["*", "1", "1970-01-01", "00:00:00Z", "-", "up", "promoted", "spec", "0123456789ab"]
        );
    }
}
