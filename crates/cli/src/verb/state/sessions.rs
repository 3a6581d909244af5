//! `lethe state sessions`: who is signed in, and the end of it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal},
    time::SystemTime,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use lethe_state::{
    realm::Realm,
    sessions::{SessionId, SessionInfo},
};
use serde_json::{Value, json};

use super::{tables::remaining, with};
use crate::{
    arguments::Target,
    output,
    paint::Paint,
    table::{self, Cell, Column},
};

const COLUMNS: [Column; 4] = [
    Column::left("HANDLE", 0),
    Column::left("REALM", 0),
    Column::right("IDLE END IN", 0),
    Column::right("LAST END IN", 0),
];

#[derive(Debug, Subcommand)]
pub(super) enum Sessions {
    List(List),
    Show(Show),
    Revoke(Revoke),
}

/// List the live sessions of a user, newest first
#[derive(Debug, Args)]
pub(super) struct List {
    /// The user
    user: String,

    /// Only the sessions that services have under this name: their own, what `sessions` in their `state` says, or `common`
    #[arg(long, value_name = "NAME", value_parser = Realm::named)]
    realm: Option<Realm>,

    #[command(flatten)]
    target: Target,
}

/// Show what is in a session, as JSON
///
/// Its secret id, the value of the cookie, is read from standard input, so that it stays out of the shell's history.
/// Looking at it counts as use.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Not here: an id is a secret, and is read from standard input
    #[arg(hide = true, value_parser = refuse_id)]
    id: Option<String>,

    #[command(flatten)]
    target: Target,
}

/// End sessions of a user
#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false, args = ["handle", "all"])]
pub(super) struct Revoke {
    /// The user
    user: String,

    /// The one with this handle
    // One in 64 begins with a hyphen.
    #[arg(long, allow_hyphen_values = true)]
    handle: Option<String>,

    /// All of them
    #[arg(long)]
    all: bool,

    /// Only the sessions that services have under this name: their own, what `sessions` in their `state` says, or `common`
    #[arg(long, value_name = "NAME", value_parser = Realm::named)]
    realm: Option<Realm>,

    #[command(flatten)]
    target: Target,
}

/// What is typed as an argument stays in the history of the shell, and is seen by whoever lists processes.
fn refuse_id(_: &str) -> Result<String, String> {
    Err("a session's id is a secret, so it is not an argument: type `lethe state sessions show`, then the id on a line of its \
         own; handles are for `lethe state sessions revoke USER --handle HANDLE`"
        .into())
}

impl Sessions {
    /// Does it.
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
            Self::Revoke(revoke) => revoke.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let sessions = with(&self.target, async |engines| {
            Ok(engines.sessions.list_in(self.realm.as_ref(), &self.user).await?)
        })?;
        if self.target.json {
            return Ok(output::json(&json!({ "sessions": sessions }))?);
        }
        let now = SystemTime::now();
        let cells = |info: &SessionInfo| {
            vec![
                Cell::new(&info.handle),
                Cell::new(info.realm.to_string()),
                Cell::new(remaining(info.idle_expires_at, now)),
                Cell::new(remaining(info.absolute_expires_at, now)),
            ]
        };
        let rows: Vec<Vec<Cell>> = sessions.iter().map(cells).collect();
        Ok(output::line(&table::lines(&COLUMNS, &rows, Paint::for_stdout()).join("\n"))?)
    }
}

impl Show {
    fn run(self) -> anyhow::Result<()> {
        if io::stdin().is_terminal() {
            hint(
                "type the session's id, the value of its cookie, and Enter; it is not an argument, since it is a secret",
            );
        }
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        let id = SessionId::parse(line.trim()).context(
            "standard input has no session id; write the cookie's value there, on a line of its own",
        )?;
        let session = with(&self.target, async |engines| Ok(engines.sessions.load(&id).await?))?;
        let fields: BTreeMap<String, Value> =
            session.fields.iter().map(|(name, field)| (name.clone(), field.value.clone())).collect();
        Ok(output::json(&json!({
            "user": session.user,
            "fields": fields,
            "created_at": session.created_at,
            "idle_expires_at": session.idle_expires_at,
            "absolute_expires_at": session.absolute_expires_at,
        }))?)
    }
}

/// Says what is waited for, beside what is printed for programs.
#[allow(clippy::print_stderr, reason = "whoever sits there has to know")]
fn hint(text: &str) {
    eprintln!("{text}");
}

impl Revoke {
    fn run(self) -> anyhow::Result<()> {
        let Self { user, handle, realm, target, .. } = self;
        let ended = with(&target, async |engines| {
            Ok(engines.sessions.revoke_in(realm.as_ref(), &user, handle.as_deref()).await?)
        })?;
        if target.json {
            return Ok(output::json(&json!({ "revoked": ended }))?);
        }
        match (handle, ended) {
            (Some(handle), 0) => {
                bail!("{user} has no session `{handle}`; `lethe state sessions list {user}` lists them")
            }
            (_, 1) => Ok(output::line("1 session ended")?),
            _ => Ok(output::line(&format!("{ended} sessions ended"))?),
        }
    }
}
