//! What was found: one piece of state that a worker keeps, who needs it, the proof, and what to change.

use serde::{Deserialize, Serialize};

use crate::content;

/// Where something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// In the memory of one worker.
    Memory,
    /// In a file on one worker's disk.
    File,
    /// On the disk, where a worker that was killed has left it, and where it is in the way of the one that is started there.
    LeftBehind,
    /// It is signed or sealed with a secret that each worker makes for itself.
    BootSecret,
    /// A limit that each worker counts for itself.
    RateLimit,
    /// An old value that one worker still has.
    StaleCache,
    /// The result of a job, in the worker that did it.
    Job,
    /// A step that a worker had begun when it was killed, and that cannot be done again.
    HalfDone,
    /// A request that a worker had begun when it was asked to end, and did not answer.
    Drain,
    /// A request that says that it may be sent twice, and does more then than when it is sent once.
    Retry,
    /// What each worker does by itself, at a time, and only one should do.
    Schedule,
    /// Messages over WebSockets that reach those alone who are connected to the worker that sends them.
    Websocket,
    /// The same of server-sent events.
    EventStream,
    /// What several workers that start at the same moment do to each other.
    Migration,
    /// The first request of a worker takes much longer than later ones.
    SlowStart,
    /// A number or an id that each worker counts for itself.
    DuplicateId,
    /// A cookie that names a worker.
    StickyCookie,
    /// A file beside the program that is read only when a worker starts.
    Configuration,
    /// Not in the worker: it passes when the worker is started again.
    Elsewhere,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Memory,
        Self::File,
        Self::LeftBehind,
        Self::BootSecret,
        Self::RateLimit,
        Self::StaleCache,
        Self::Job,
        Self::HalfDone,
        Self::Drain,
        Self::Retry,
        Self::Schedule,
        Self::Websocket,
        Self::EventStream,
        Self::Migration,
        Self::SlowStart,
        Self::DuplicateId,
        Self::StickyCookie,
        Self::Configuration,
        Self::Elsewhere,
    ];

    /// The rule, as tools name it.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Memory => "lethe/memory",
            Self::File => "lethe/local-file",
            Self::LeftBehind => "lethe/left-behind",
            Self::BootSecret => "lethe/boot-secret",
            Self::RateLimit => "lethe/local-rate-limit",
            Self::StaleCache => "lethe/stale-cache",
            Self::Job => "lethe/job-in-worker",
            Self::HalfDone => "lethe/half-done",
            Self::Drain => "lethe/no-drain",
            Self::Retry => "lethe/unsafe-retry",
            Self::Schedule => "lethe/schedule-in-each-worker",
            Self::Websocket => "lethe/websocket-fan-out",
            Self::EventStream => "lethe/event-stream-fan-out",
            Self::Migration => "lethe/migration-race",
            Self::SlowStart => "lethe/slow-start",
            Self::DuplicateId => "lethe/duplicate-id",
            Self::StickyCookie => "lethe/sticky-cookie",
            Self::Configuration => "lethe/configuration-at-start",
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
            Self::LeftBehind => {
                "let what ends with its process say who runs (a lock of the kernel on the file, as by flock, and not a number in a pid file), \
                 and take over or remove at start what one that was killed has left"
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
            Self::Job => {
                "write what came of a job where all workers read it, under the id of the job (a table, a blob, or what the queue itself \
                 keeps, such as BullMQ's return values)"
            }
            Self::HalfDone => {
                "do all that a step changes in one transaction, and give each lock an end of its own (a lease, as of lethe's \
                 state API), so that a worker that is killed holds nothing and leaves nothing in between"
            }
            Self::Drain => {
                "at SIGTERM, accept no more connections, answer all requests that were begun, and only then end \
                 (server.close() in Node.js, --graceful-timeout of gunicorn, with_graceful_shutdown in axum)"
            }
            Self::Retry => {
                "let the request say what is to be rather than what is to be added, or remember its key with its answer in a store that \
                 all workers share, in the same transaction as its effect (as `idempotency` of lethe's gateway does); use POST for what \
                 must not be sent twice"
            }
            Self::Schedule => {
                "let one worker do it at a time (a lock with a lease in a shared store, as lethe's locks), or move it out of the workers \
                 (cron, a queue, a job of its own)"
            }
            Self::Websocket | Self::EventStream => {
                "let each worker publish what it has to tell to a topic that all workers subscribe to, and pass on to its own \
                 connections what comes from there (publish and subscribe of Redis, lethe's topics, @socket.io/redis-adapter)"
            }
            Self::Migration => {
                "migrate once, before workers start (a step of the release), or under a lock that all workers share (an advisory lock, \
                 a lock of lethe's state API)"
            }
            Self::SlowStart => {
                "do at start what the first request does (open connections, load what is needed, compile), and be ready only after it: \
                 `ready` and `warm-up` of lethe.toml"
            }
            Self::DuplicateId => {
                "let what all workers share give numbers (a sequence of the database, INCR of Redis), or draw ids that are long enough to \
                 be unique by chance (UUIDs of version 4 or 7)"
            }
            Self::StickyCookie => {
                "set no cookie that says where a user was: what needs it is kept in that worker, and is lost with it"
            }
            Self::Configuration => {
                "replace the workers when it changes (`lethe deploy`), so that no two of them go by different ones for long; or look at \
                 each request, or when the file changes, what is in it"
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

impl Confidence {
    /// As reports name it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Likely => "likely",
            Self::Hint => "hint",
        }
    }
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
    /// What is in it, such as `SQLite database` or `text`.
    pub kind: &'static str,
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

impl Finding {
    /// What a step shows by itself, with what there is to do about its kind. It has no number yet.
    pub(crate) fn new(kind: Kind, confidence: Confidence, at: Place, proof: String, replay: Replay) -> Self {
        Self {
            id: String::new(),
            rule: kind.rule(),
            kind,
            confidence,
            producer: at.clone(),
            consumer: at,
            also: Vec::new(),
            file: None,
            proof,
            fix: kind.fix().into(),
            replay,
        }
    }

    /// What it is, in a sentence without its end.
    pub fn what(&self) -> String {
        let (journey, producer, consumer) =
            (&self.producer.journey, self.producer.text(), self.consumer.text());
        match self.kind {
            Kind::Drain => {
                format!(
                    "in {journey}, {producer} is not answered when its worker is asked to end in the middle of it"
                )
            }
            Kind::Retry => format!(
                "in {journey}, {producer} says that it may be sent twice, and then {consumer} shows that it did more than when it is sent \
                 once"
            ),
            Kind::Schedule => "each worker does by itself what should be done once".into(),
            Kind::Websocket | Kind::EventStream => format!(
                "in {journey}, what {consumer} tells reaches those alone who are connected to the same worker, as {producer} connects \
                 them"
            ),
            Kind::Migration => {
                format!(
                    "in {journey}, workers that start at the same moment do not come to {producer} as one does"
                )
            }
            Kind::SlowStart => {
                format!("in {journey}, {producer} takes much longer at a worker that nobody has used")
            }
            Kind::DuplicateId => {
                format!("in {journey}, {producer} gives users of different workers the same number or id")
            }
            Kind::StickyCookie => format!("in {journey}, {producer} sets a cookie that names the worker"),
            Kind::Configuration => "what is configured is read only when a worker starts".into(),
            Kind::LeftBehind => format!(
                "in {journey}, a worker that is killed after {producer} leaves something on its disk that is in the way of who is started there, \
                 and {consumer} fails"
            ),
            _ => format!("in {journey}, {producer} leaves something in its worker that {consumer} needs"),
        }
    }

    /// Where it is kept, in a few words.
    pub fn place(&self) -> String {
        match (self.kind, &self.file) {
            (Kind::Memory, _) => "in the memory of the worker".into(),
            (Kind::File, Some(file)) => {
                format!(
                    "in the file {} of the worker's disk ({}, {} bytes)",
                    file.path, file.kind, file.bytes
                )
            }
            (Kind::File, None) => "in a file on the worker's disk".into(),
            (Kind::LeftBehind, _) => "on the disk of a worker that was killed".into(),
            (Kind::BootSecret, _) => "in a secret that each worker makes for itself when it starts".into(),
            (Kind::RateLimit, _) => "in a count of requests that each worker keeps for itself".into(),
            (Kind::StaleCache, _) => "in a cache of a worker that is not told of changes elsewhere".into(),
            (Kind::Job, _) => "in the worker that did the job".into(),
            (Kind::HalfDone, _) => {
                "beside the workers, where a step that was not finished has left it".into()
            }
            (Kind::Drain, _) => "in the worker, until it is killed".into(),
            (Kind::Retry, _) => "beside the workers, where it was done twice".into(),
            (Kind::Schedule, _) => "in a timer of each worker".into(),
            (Kind::Migration, _) => "in what each worker does when it starts".into(),
            (Kind::SlowStart, _) => "in what the first request of a worker has to do".into(),
            (Kind::Websocket | Kind::EventStream, _) => {
                "in the connections that each worker keeps to itself".into()
            }
            (Kind::DuplicateId, _) => "in a count that each worker keeps for itself".into(),
            (Kind::StickyCookie, _) => "in a cookie of the user".into(),
            (Kind::Configuration, Some(file)) => format!("in the file {}", file.path),
            (Kind::Configuration, None) => "in a file beside the program".into(),
            (Kind::Elsewhere, _) => "not known: it shows only while several workers run".into(),
        }
    }

    /// Whether it is kept in a database that is a file, which is mended otherwise than other files.
    pub(crate) fn is_in_a_database(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.kind == content::SQLITE)
    }

    /// Whether it makes the verdict a violation: a hint does not.
    pub fn is_violation(&self) -> bool {
        self.confidence < Confidence::Hint
    }
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
