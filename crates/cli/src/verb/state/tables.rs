//! `lethe state tables`: rows, one by one or by prefix.

use std::{
    io::{self, Read, Write},
    str,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use bytes::Bytes;
use clap::{Args, Subcommand};
use lethe_state::{
    Millis,
    tables::{self, Action, Condition, Outcome, Row, SCAN_ROWS_MAX, VALUE_BYTES_MAX},
};
use serde_json::{Value, json};

use super::with;
use crate::{
    ansi,
    arguments::Target,
    figures, output,
    paint::Paint,
    span::Lifetime,
    table::{self, Cell, Column},
};

/// Most characters of a value in a list.
const SHOWN_CHARS_MAX: usize = 60;

const COLUMNS: [Column; 4] = [
    Column::left("KEY", 0),
    Column::right("REVISION", 0),
    Column::right("ENDS IN", 0),
    Column::left("VALUE", 0),
];

#[derive(Debug, Subcommand)]
pub(super) enum Tables {
    Get(Get),
    Put(Put),
    Delete(Delete),
    Scan(Scan),
}

/// Print the value of a row, byte for byte
#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    row: Place,
    #[command(flatten)]
    target: Target,
}

/// Set the value of a row
#[derive(Debug, Args)]
pub(super) struct Put {
    #[command(flatten)]
    row: Place,

    /// The value; - for standard input
    value: String,

    /// Let the row end after so long, such as 10m or 30d; a bare number is seconds
    #[arg(long, value_name = "TIME")]
    ttl: Option<Lifetime>,

    /// Only if the row does not exist
    #[arg(long, conflicts_with = "revision")]
    absent: bool,

    /// Only if the row has this revision
    #[arg(long, value_name = "N")]
    revision: Option<u64>,

    #[command(flatten)]
    target: Target,
}

/// Remove a row
#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    row: Place,
    #[command(flatten)]
    target: Target,
}

/// List rows in the order of their keys
#[derive(Debug, Args)]
pub(super) struct Scan {
    /// The table
    table: String,

    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    prefix: String,

    /// Only keys behind this one
    #[arg(long, value_name = "KEY")]
    after: Option<String>,

    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: usize,

    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct Place {
    /// The table
    table: String,
    /// The row's key
    key: String,
}

impl Place {
    /// As messages have it.
    fn shown(&self) -> String {
        format!("`{}` in the table `{}`", ansi::clean(&self.key, false), ansi::clean(&self.table, false))
    }
}

/// Whether a condition did not hold.
fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(lethe_state::error::Error::Conflict { .. }))
}

impl Tables {
    /// Does it.
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Get(get) => get.run(),
            Self::Put(put) => put.run(),
            Self::Delete(delete) => delete.run(),
            Self::Scan(scan) => scan.run(),
        }
    }
}

impl Get {
    fn run(self) -> anyhow::Result<()> {
        let (Place { table, key }, name) = (&self.row, self.row.shown());
        let row = with(&self.target, async |engines| Ok(engines.tables.get(table, key).await?))?;
        let Some(row) = row else { bail!("there is no {name}") };
        if self.target.json {
            return Ok(output::json(&as_json(&row))?);
        }
        let mut out = io::stdout().lock();
        out.write_all(&row.value)?;
        Ok(out.flush()?)
    }
}

impl Put {
    fn run(self) -> anyhow::Result<()> {
        let value = match self.value.as_str() {
            "-" => from_stdin()?,
            text => Bytes::copy_from_slice(text.as_bytes()),
        };
        let condition = match (self.absent, self.revision) {
            (true, _) => Condition::Absent,
            (false, Some(revision)) => Condition::Revision(revision),
            (false, None) => Condition::Any,
        };
        let action = Action::Put { value, ttl: self.ttl.map(|Lifetime(ttl)| ttl) };
        let (name, ttl) = (self.row.shown(), self.ttl);
        let written = apply(self.row, condition, action, &self.target);
        let outcome = match (written, condition) {
            (Err(error), Condition::Absent) if is_conflict(&error) => {
                bail!("{name} is there already, so it was not written; without --absent it is overwritten")
            }
            (Err(error), Condition::Revision(revision)) if is_conflict(&error) => {
                return Err(
                    error.context(format!("{name} does not have revision {revision}, so it was not written"))
                );
            }
            (written, _) => written?,
        };
        let Outcome::Put { revision } = outcome else { return Ok(()) };
        if self.target.json {
            return Ok(output::json(&json!({ "revision": revision }))?);
        }
        let end = ttl.map_or_else(String::new, |Lifetime(ttl)| format!(", for {} s", ttl.as_secs_f64()));
        Ok(output::line(&format!("wrote {name}, revision {revision}{end}"))?)
    }
}

impl Delete {
    fn run(self) -> anyhow::Result<()> {
        let name = self.row.shown();
        match apply(self.row, Condition::Any, Action::Delete, &self.target)? {
            Outcome::Deleted { existed } if self.target.json => {
                Ok(output::json(&json!({ "existed": existed }))?)
            }
            Outcome::Deleted { existed: false } => bail!("there is no {name}"),
            _ => Ok(output::line(&format!("deleted {name}"))?),
        }
    }
}

impl Scan {
    fn run(self) -> anyhow::Result<()> {
        let (rows, next) = with(&self.target, async |engines| {
            let (mut rows, mut after) = (Vec::new(), self.after.clone());
            // A page may be shorter than there are rows.
            while rows.len() < self.limit {
                let limit = (self.limit - rows.len()).min(SCAN_ROWS_MAX);
                let scan = tables::Scan { prefix: self.prefix.clone(), after, limit };
                let page = engines.tables.scan(&self.table, &scan).await?;
                rows.extend(page.rows);
                after = page.next;
                if after.is_none() {
                    return Ok((rows, None));
                }
            }
            Ok((rows, after))
        })?;
        if self.target.json {
            let rows: Vec<Value> = rows.iter().map(as_json).collect();
            return Ok(output::json(&json!({ "rows": rows, "next": next }))?);
        }
        let now = SystemTime::now();
        let cells: Vec<Vec<Cell>> = rows.iter().map(|row| cells(row, now)).collect();
        output::line(&table::lines(&COLUMNS, &cells, Paint::for_stdout()).join("\n"))?;
        if let Some(next) = next {
            output::line(&format!("there are more; go on with --after {}", shell_quoted(&next)))?;
        }
        Ok(())
    }
}

fn apply(row: Place, condition: Condition, action: Action, target: &Target) -> anyhow::Result<Outcome> {
    let Place { table, key } = row;
    let write = tables::Write { table, key, condition, action };
    let outcomes = with(target, async |engines| Ok(engines.tables.apply(vec![write]).await?))?;
    match outcomes[..] {
        [outcome] => Ok(outcome),
        _ => bail!("the state API answered {} outcomes to one write", outcomes.len()),
    }
}

/// All of standard input, as far as a value may be long.
fn from_stdin() -> anyhow::Result<Bytes> {
    let mut value = Vec::new();
    io::stdin().lock().take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value)?;
    Ok(value.into())
}

fn as_json(row: &Row) -> Value {
    let (value, encoding) = match str::from_utf8(&row.value) {
        Ok(text) => (text.to_owned(), "utf8"),
        Err(_) => (base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &row.value), "base64"),
    };
    json!({
        "key": row.key,
        "value": value,
        "encoding": encoding,
        "revision": row.revision,
        "expires_at": row.expires_at,
    })
}

fn cells(row: &Row, now: SystemTime) -> Vec<Cell> {
    vec![
        Cell::new(ansi::clean(&row.key, false)),
        Cell::new(row.revision.to_string()),
        Cell::new(row.expires_at.map_or_else(|| "-".into(), |end| remaining(end, now))),
        Cell::new(shown(&row.value)),
    ]
}

/// How long it is until then.
pub(super) fn remaining(end: Millis, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    figures::age(Duration::from_millis(u64::try_from(end).unwrap_or(0)).saturating_sub(now))
}

/// The beginning of a value, on one line.
fn shown(value: &[u8]) -> String {
    let Ok(text) = str::from_utf8(value) else { return format!("({})", figures::bytes(value.len() as u64)) };
    let line = ansi::clean(&text.replace(['\n', '\r', '\t'], " "), false);
    match line.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A text as a shell takes it for one word.
fn shell_quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    match text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_on_a_line() {
        assert_eq!(shown(b"{\n  \"a\": 1\n}"), "{   \"a\": 1 }");
        assert_eq!(shown(&[0xff; 2048]), "(2.0 KiB)");
        assert_eq!(shown("é".repeat(61).as_bytes()), format!("{}…", "é".repeat(60)));
        assert!(!shown(b"\x1b[2Jx").contains('\x1b'));
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(shell_quoted("orders/2026-01"), "orders/2026-01");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    }
}
