//! What was found: one piece of state that a worker keeps, who needs it, the proof, and what to change.

use serde::{Deserialize, Serialize};

/// Where something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// In the memory of one worker.
    Memory,
    /// In a file on one worker's disk.
    File,
    /// It is signed or sealed with a secret that each worker makes for itself.
    BootSecret,
    /// A limit that each worker counts for itself.
    RateLimit,
    /// An old value that one worker still has.
    StaleCache,
    /// A step that a worker had begun when it was killed, and that cannot be done again.
    HalfDone,
    /// Not in the worker: it passes when the worker is started again.
    Elsewhere,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Memory,
        Self::File,
        Self::BootSecret,
        Self::RateLimit,
        Self::StaleCache,
        Self::HalfDone,
        Self::Elsewhere,
    ];

    /// The rule, as tools name it.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Memory => "lethe/memory",
            Self::File => "lethe/local-file",
            Self::BootSecret => "lethe/boot-secret",
            Self::RateLimit => "lethe/local-rate-limit",
            Self::StaleCache => "lethe/stale-cache",
            Self::HalfDone => "lethe/half-done",
            Self::Elsewhere => "lethe/several-workers",
        }
    }

    /// What to change.
    pub fn fix(self) -> &'static str {
        match self {
            Self::Memory => {
                "keep it in a store that all workers share (a session store such as connect-redis or lethe's state API), \
                 or send it to the client signed with a secret that all workers know"
            }
            Self::File => {
                "keep it in shared storage (an object store, a database, or lethe's blobs) and read it from there"
            }
            Self::BootSecret => {
                "give all workers the same secret, from the environment or a secret store, and make none at start"
            }
            Self::RateLimit => {
                "count in a store that all workers share (rate-limit-redis, or limits of lethe's gateway)"
            }
            Self::StaleCache => {
                "let the cache be told of changes, or ask the store whether its copy is still good, before it is used"
            }
            Self::HalfDone => {
                "do all that a step changes in one transaction, and give each lock an end of its own (a lease, as of lethe's \
                 state API), so that a worker that is killed holds nothing and leaves nothing in between"
            }
            Self::Elsewhere => {
                "look at what depends on which of several running workers is asked: routing, caches, clocks"
            }
        }
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// It failed each time, with fresh workers, and not on one worker.
    Proven,
    /// It failed, but not each time, or could not be reduced to two steps.
    Likely,
    /// Worth a look.
    Hint,
}

/// A step of a journey.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The journey's name.
    pub journey: String,
    /// The step, from 1.
    pub step: usize,
    /// What the step is called.
    pub title: String,
}

/// A file that a worker wrote and another one would need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptFile {
    /// Where workers see it.
    pub path: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// A text of the journey's own that is in it.
    pub canary: Option<String>,
}

/// How to see it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The journey's name.
    pub journey: String,
    /// The worker of each step, such as `B A B`, as [`crate::schedule::Schedule::text`] has it; anything else is repeated with its whole
    /// journey.
    pub workers: String,
    /// The step that fails, from 1.
    pub fails_at: usize,
}

/// One piece of state that a worker keeps.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// `F1`, `F2`, …
    pub id: String,
    /// [`Kind::rule`].
    pub rule: &'static str,
    /// Where it is kept.
    pub kind: Kind,
    /// How sure it is.
    pub confidence: Confidence,
    /// The step that leaves something behind.
    pub producer: Place,
    /// The first step that needs it.
    pub consumer: Place,
    /// Further steps that need it.
    pub also: Vec<Place>,
    /// The file, where it is one.
    pub file: Option<KeptFile>,
    /// What happened, in a sentence.
    pub proof: String,
    /// What to change.
    pub fix: String,
    /// How to see it again.
    pub replay: Replay,
}
