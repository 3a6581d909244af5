//! What engines are doing, as numbers for who watches them: connections, servers that are left alone, writers, and how long
//! operations take. Names in them are few: servers of the configuration, kinds, and operations of traits.

use std::time::Duration;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Connections to servers.
    pub pools: Vec<Pool>,
    /// Servers, and whether they are asked.
    pub breakers: Vec<Breaker>,
    /// The writers of the embedded engine.
    pub writers: Vec<Writer>,
    /// What was asked of engines.
    pub operations: Vec<Operation>,
}

/// Connections to one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// The engine's name.
    pub engine: &'static str,
    /// The server, without its secrets.
    pub server: String,
    /// Most connections that there may be.
    pub max: u64,
    /// Connections there are, also those that are just being made.
    pub size: u64,
    /// Those of them that nobody uses. `None` where calls share a connection.
    pub idle: Option<u64>,
    /// Those that are lent out. `None` where calls share a connection.
    pub in_use: Option<u64>,
    /// Calls that are under way. `None` where each has a connection for itself.
    pub calls: Option<u64>,
    /// Callers that wait for a connection now. `None` where nobody does.
    pub waiting: Option<u64>,
    /// Callers that had to wait.
    pub waits_total: u64,
    /// Connections that were made.
    pub created_total: u64,
    /// Callers that waited in vain.
    pub timeouts_total: u64,
    /// Connections that were lost in use.
    pub lost_total: u64,
}

/// Whether a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// The engine's name.
    pub engine: &'static str,
    /// The server, without its secrets.
    pub server: String,
    /// Whether it is.
    pub state: BreakerState,
    /// How often it was given up.
    pub opened_total: u64,
}

/// Whether a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is.
    Closed,
    /// It did not answer, and is left alone.
    Open,
    /// One call asks whether it is back.
    Probing,
}

impl BreakerState {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::Probing];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Probing => "probing",
        }
    }
}

/// One database of the embedded engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its file.
    pub database: &'static str,
    /// Commands that wait for the writer now.
    pub queued: u64,
    /// Commands that were done, or failed.
    pub commands_total: u64,
    /// Transactions that were committed, each for a group of commands.
    pub commits_total: u64,
    /// Those that were not.
    pub failures_total: u64,
}

/// Upper bounds of the buckets of [`Operation::took`]. What took longer is in one more.
pub const BOUNDS: [Duration; 15] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(10),
];

/// One operation of one kind, as it was asked of its engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The kind of state.
    pub kind: &'static str,
    /// The engine that keeps it.
    pub engine: &'static str,
    /// What was asked.
    pub operation: &'static str,
    /// How many took at most as long as each of [`BOUNDS`], and longer than the one before.
    pub took: [u64; BOUNDS.len() + 1],
    /// All times together.
    pub sum: Duration,
    /// Those that found the engine away.
    pub unavailable: u64,
    /// Those in which the engine itself failed.
    pub failed: u64,
}
