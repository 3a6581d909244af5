//! Near copies: what a worker has read of sessions, and of rows of some tables, stays in its memory until it changes.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), lethe::Error> {
//! # let state = lethe::State::ephemeral()?;
//! use lethe::near::Near;
//!
//! let state = state.near(Near::default().tables(["catalogue"]));
//! # Ok(())
//! # }
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use lethe_state::near::Counts;
use lethe_state::{
    Engines,
    near::{Bounds, NearSessions, NearTables},
};

use crate::{
    Error, State,
    metrics::{Page, Source},
};

/// Of what a worker keeps copies, and how many: by default of sessions alone.
///
/// A read that a copy answers is a look into memory. A change by this worker is seen at once; one by another worker once it was told, which is a
/// few milliseconds later, and a second at most ([`SILENCE_MAX`](lethe_state::feed::SILENCE_MAX)). A visitor sees their own changes at once
/// whichever worker they meet (see [`SessionLayer`](crate::session::SessionLayer)). What depends on what is there now is
/// written under a condition, as `update` does: the engine decides on it, never a copy.
#[derive(Clone, Debug)]
pub struct Near {
    bounds: Bounds,
    sessions: bool,
    tables: Vec<String>,
}

impl Default for Near {
    fn default() -> Self {
        Self { bounds: Bounds::default(), sessions: true, tables: Vec::new() }
    }
}

impl Near {
    /// Keeps copies of rows of these tables too, for what is read far more often than written. Scans always ask the engine.
    pub fn tables<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.tables.extend(names.into_iter().map(Into::into));
        self
    }

    /// Keeps no copies of sessions.
    pub fn without_sessions(self) -> Self {
        Self { sessions: false, ..self }
    }

    /// Most copies of sessions, and of rows of each table: 100,000 unless it is said.
    pub fn entries_max(mut self, entries: u64) -> Self {
        self.bounds.entries_max = entries;
        self
    }

    /// Most bytes for copies of sessions, and for rows of each table: 64 MiB unless it is said.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bounds.bytes_max = bytes;
        self
    }

    /// How long copies may be read while the engine cannot be reached: half a minute unless it is said; zero for never. A session that was
    /// ended elsewhere meanwhile can be read here for so long, and not be written.
    pub fn outage_max(mut self, time: Duration) -> Self {
        self.bounds.outage_max = time;
        self
    }
}

/// The copies of a worker.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    sessions: Option<Arc<NearSessions>>,
    tables: Option<Arc<NearTables>>,
}

impl Kept {
    /// Puts copies in front of engines.
    pub(crate) fn put(near: Near, engines: &mut Engines) -> Self {
        let mut kept = Self::default();
        if near.sessions {
            let sessions = Arc::new(NearSessions::new(Arc::clone(&engines.sessions), near.bounds));
            engines.sessions = Arc::clone(&sessions) as _;
            kept.sessions = Some(sessions);
        }
        if !near.tables.is_empty() {
            let tables = near.tables.into_iter().map(|table| (table, near.bounds));
            let tables = Arc::new(NearTables::new(Arc::clone(&engines.tables), tables));
            engines.tables = Arc::clone(&tables) as _;
            kept.tables = Some(tables);
        }
        kept
    }

    async fn followed(&self) -> Result<(), Error> {
        if let Some(sessions) = &self.sessions {
            sessions.followed().await?;
        }
        if let Some(tables) = &self.tables {
            tables.followed().await?;
        }
        Ok(())
    }
}

impl State {
    /// Waits until the engines tell what changes, from when on copies are kept: for who reads ahead before the service is ready. Returns at
    /// once when there are no copies. Fails with `Unsupported` when an engine tells nothing; then everything is read anew each time.
    pub async fn near_followed(&self) -> Result<(), Error> {
        self.kept().followed().await
    }

    /// What the copies of sessions have done so far; `None` when there are none.
    pub fn near_sessions(&self) -> Option<Counts> {
        self.kept().sessions.as_ref().map(|sessions| sessions.counts())
    }

    /// What the copies of rows have done so far, by table.
    pub fn near_tables(&self) -> BTreeMap<String, Counts> {
        self.kept().tables.as_ref().map(|tables| tables.counts()).unwrap_or_default()
    }
}

/// For [`Metrics::with`](crate::metrics::Metrics::with): what the near copies have done.
impl Source for State {
    fn count_on(&self, page: &mut Page) {
        if let Some(counts) = self.near_sessions() {
            count_on(page, "sessions", &counts);
        }
        for (table, counts) in self.near_tables() {
            count_on(page, &table, &counts);
        }
    }
}

fn count_on(page: &mut Page, of: &str, counts: &Counts) {
    const READS: &str = "Reads of what may be near, by who answered.";
    let answered = [
        ("copy", counts.hits),
        ("engine", counts.misses),
        ("other-read", counts.joined),
        ("copy-in-outage", counts.outage_hits),
    ];
    for (by, reads) in answered {
        page.counter("lethe_near_reads_total", READS, &[("of", of), ("by", by)], reads);
    }
    let of = [("of", of)];
    page.counter("lethe_near_changes_total", "Copies dropped by a change.", &of, counts.changes);
    page.counter(
        "lethe_near_fenced_total",
        "Answers that a change made old on their way.",
        &of,
        counts.fenced,
    );
    page.counter("lethe_near_flushes_total", "Times that all copies lost their worth.", &of, counts.flushes);
    page.gauge("lethe_near_copies", "Copies that are kept.", &of, counts.entries);
    page.gauge("lethe_near_bytes", "Bytes that they count as.", &of, counts.bytes);
    let followed = u64::from(counts.is_followed);
    page.gauge("lethe_near_followed", "Whether the engine tells what changes.", &of, followed);
}
