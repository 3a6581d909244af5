//! What is noted of one request while it is served. Filling it in costs next to nothing: texts are copied and the
//! clock is asked only if somebody wants to read them, and then into memory that an earlier request has left behind.
//!
//! Phases: Queue → Connect → Send → Wait → (Hold →) Stream, and back to Queue when an attempt was lost.

use std::{
    cell::{Cell, OnceCell, RefCell},
    io::Write,
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    observer::Observer,
    route::Target,
    stats::{Protocol, Retry, Shed},
    trace::Context,
    upstream::Upstream,
};

/// Longest path and longest `User-Agent` that are noted, in bytes; what is longer is cut.
pub(crate) const TEXT_BYTES_MAX: usize = 2048;

/// Most attempts that are noted; of more, the last one takes the place of the one before.
const ATTEMPTS_MAX: usize = 32;

/// One request. It is finished, which means counted and logged, when it is dropped: however its task ends, nothing is
/// forgotten. All methods take `&self`, so that both directions of a request can hold it.
pub(crate) struct Record {
    observer: Rc<Observer>,
    /// When its head was read.
    pub(crate) started: Instant,
    pub(crate) protocol: Protocol,
    target: OnceCell<Rc<Target>>,
    status: Cell<Option<u16>>,
    outcome: Cell<Outcome>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    resumed: Cell<u32>,
    /// How long, of the time in the queue, no worker was ready, if that was so.
    start: Cell<Option<Duration>>,
    /// Whether the clock is asked at each phase.
    is_timed: Cell<bool>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    spent: Cell<Spent>,
    detail: RefCell<Option<Box<Detail>>>,
}

/// What a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A worker is looked for, waited for or paused for before another attempt.
    Queue,
    /// A connection is made.
    Connect,
    /// The request is being sent.
    Send,
    /// The response's head is awaited.
    Wait,
    /// The response is held until it is whole.
    Hold,
    /// The response is on its way to the client.
    Stream,
}

/// Time spent in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent([Duration; 6]);

impl Spent {
    pub(crate) fn of(&self, phase: Phase) -> Duration {
        self.0[phase as usize]
    }

    fn add(&mut self, phase: Phase, time: Duration) {
        self.0[phase as usize] += time;
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The client got a worker's whole response.
    Answered,
    /// The connection was upgraded, and has ended.
    Upgraded,
    /// The gateway answered itself, and no worker has carried the request out; the text says why, in a word.
    Refused(&'static str),
    /// The gateway answered itself, as a request with the same `Idempotency-Key` was answered before.
    Replayed,
    /// The gateway turned it away for want of capacity.
    Shed(Shed),
    /// It may have been carried out or not, which the client was told; the text says why, in a word.
    Unknown(&'static str),
    /// The response ended half-way.
    Cut,
    /// The client went away before it had the whole response.
    ClientGone,
}

impl Outcome {
    /// Its name, and the reason if it has several.
    pub(crate) fn words(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Answered => ("answered", None),
            Self::Upgraded => ("upgraded", None),
            Self::Refused(why) => ("refused", Some(why)),
            Self::Replayed => ("replayed", None),
            Self::Shed(why) => ("shed", Some(why.as_str())),
            Self::Unknown(why) => ("unknown", Some(why)),
            Self::Cut => ("cut", None),
            Self::ClientGone => ("client_gone", None),
        }
    }
}

/// One attempt at one worker.
pub(crate) struct Attempt {
    pub(crate) upstream: Rc<Upstream>,
    /// It went over a connection that had served another one before.
    pub(crate) reused: bool,
    /// What the worker answered.
    pub(crate) status: Option<u16>,
    pub(crate) result: AttemptResult,
    pub(crate) spent: Spent,
    /// From the request's start.
    #[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only spans need it"))]
    pub(crate) begun: Duration,
    /// From the request's start; `None` while it goes on.
    pub(crate) ended: Option<Duration>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptResult {
    /// Not yet; at the end of the request it means that the client went away.
    Open,
    /// With a whole response, or an upgrade.
    Answered,
    /// Without anything of the request being sent.
    Unsent,
    /// The worker was lost before its response began.
    Lost,
    /// The worker was lost in the middle of a response that was held back.
    Held,
    /// The worker was lost in the middle of a response that the client was reading.
    Cut,
    /// No response in time.
    Late,
    /// What came was no response.
    Garbled,
    /// The worker stopped in the middle of a response that the client was reading.
    Stalled,
    /// A 503 that was not passed on.
    Unavailable,
    /// The worker said that it did nothing with the request.
    Refused,
}

impl AttemptResult {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "abandoned",
            Self::Answered => "answered",
            Self::Unsent => "unsent",
            Self::Lost => "lost",
            Self::Held => "held",
            Self::Cut => "cut",
            Self::Late => "late",
            Self::Garbled => "garbled",
            Self::Stalled => "stalled",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// What is noted only for those who read about single requests. Kept for the next one, with its memory.
#[derive(Default)]
pub(crate) struct Detail {
    pub(crate) client: Vec<u8>,
    pub(crate) is_tls: bool,
    pub(crate) method: Vec<u8>,
    pub(crate) host: Vec<u8>,
    pub(crate) path: Vec<u8>,
    pub(crate) has_query: bool,
    pub(crate) agent: Vec<u8>,
    pub(crate) id: Vec<u8>,
    pub(crate) trace: Option<Context>,
    pub(crate) attempts: Vec<Attempt>,
    /// Those that were not kept.
    pub(crate) attempts_omitted: u64,
}

impl Detail {
    /// Forgets the request, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        let Self {
            client,
            is_tls: _,
            method,
            host,
            path,
            has_query: _,
            agent,
            id,
            trace,
            attempts,
            attempts_omitted,
        } = self;
        [client, method, host, path, agent, id].into_iter().for_each(Vec::clear);
        *trace = None;
        *attempts_omitted = 0;
        attempts.clear();
    }
}

impl Record {
    /// Begins with a request whose head was read at `started`. Until [`Record::end`] says otherwise, the client is
    /// taken to have gone away.
    pub(crate) fn begin(observer: &Rc<Observer>, started: Instant, protocol: Protocol) -> Self {
        let detail = observer.detail();
        Self {
            observer: Rc::clone(observer),
            started,
            protocol,
            target: OnceCell::new(),
            status: Cell::new(None),
            outcome: Cell::new(Outcome::ClientGone),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            resumed: Cell::new(0),
            start: Cell::new(None),
            is_timed: Cell::new(detail.is_some()),
            phase: Cell::new(Phase::Queue),
            since: Cell::new(started),
            spent: Cell::default(),
            detail: RefCell::new(detail),
        }
    }

    /// Whether anybody will read what is noted of who asks for what.
    pub(crate) fn is_detailed(&self) -> bool {
        self.detail.borrow().is_some()
    }

    /// Notes who asks: the address that the gateway believes, as `X-Forwarded-For` has it.
    pub(crate) fn client(&self, address: IpAddr, is_tls: bool) {
        self.detailed(|detail| {
            // Writing to a vector cannot fail.
            let _ = write!(detail.client, "{address}");
            detail.is_tls = is_tls;
        });
    }

    /// Notes the id that its client is told, if it has none yet.
    pub(crate) fn named(&self, id: &[u8]) {
        self.detailed(|detail| {
            if detail.id.is_empty() {
                detail.id.extend_from_slice(id);
            }
        });
    }

    /// Notes what is asked. `target` is path and query; of the query only is noted that there is one, since that is
    /// where secrets are.
    pub(crate) fn request(&self, method: &[u8], host: &[u8], target: &[u8], agent: Option<&[u8]>) {
        self.detailed(|detail| {
            detail.method.extend_from_slice(method);
            detail.host.extend_from_slice(host);
            let query = target.iter().position(|&byte| byte == b'?');
            detail.has_query = query.is_some();
            let path = &target[..query.unwrap_or(target.len())];
            detail.path.extend_from_slice(&path[..path.len().min(TEXT_BYTES_MAX)]);
            let agent = agent.unwrap_or_default();
            detail.agent.extend_from_slice(&agent[..agent.len().min(TEXT_BYTES_MAX)]);
        });
    }

    /// Notes the names it is known by.
    pub(crate) fn names(&self, id: &[u8], trace: Context) {
        self.detailed(|detail| {
            detail.id.extend_from_slice(id);
            detail.trace = Some(trace);
        });
    }

    /// Notes its route.
    pub(crate) fn routed(&self, target: &Rc<Target>) {
        if target.route.server_timing {
            self.is_timed.set(true);
        }
        // A request has one route.
        let _ = self.target.set(Rc::clone(target));
    }

    /// Enters a phase.
    pub(crate) fn enter(&self, phase: Phase) {
        if self.is_timed.get() {
            self.enter_at(phase, Instant::now());
        }
    }

    /// Enters a phase at a time that is known already.
    pub(crate) fn enter_at(&self, phase: Phase, now: Instant) {
        if !self.is_timed.get() {
            return;
        }
        let before = self.phase.replace(phase);
        let time = now.saturating_duration_since(self.since.replace(now));
        let mut spent = self.spent.get();
        spent.add(before, time);
        self.spent.set(spent);
        self.attempted(|attempt| attempt.spent.add(before, time));
    }

    /// An attempt begins: a worker is chosen. [`Phase::Connect`] is entered.
    pub(crate) fn attempt(&self, upstream: &Rc<Upstream>) {
        self.enter(Phase::Connect);
        let begun = self.since.get().saturating_duration_since(self.started);
        self.detailed(|detail| {
            if detail.attempts.len() == ATTEMPTS_MAX {
                detail.attempts.pop();
                detail.attempts_omitted += 1;
            }
            detail.attempts.push(Attempt {
                upstream: Rc::clone(upstream),
                reused: false,
                status: None,
                result: AttemptResult::Open,
                spent: Spent::default(),
                begun,
                ended: None,
            });
        });
    }

    /// The attempt has a connection. [`Phase::Send`] is entered.
    pub(crate) fn connected(&self, reused: bool) {
        let shard = &self.observer.shard;
        if reused {
            shard.upstream_reused.add(1)
        } else {
            shard.upstream_opened.add(1)
        }
        self.enter(Phase::Send);
        self.attempted(|attempt| attempt.reused = reused);
    }

    /// All of the request is sent. [`Phase::Wait`] is entered, unless the attempt is further already.
    pub(crate) fn sent_all(&self) {
        if self.phase.get() == Phase::Send {
            self.enter(Phase::Wait);
        }
    }

    /// The worker's response has begun. Of its own the gateway has none, so that this is not said for those.
    pub(crate) fn worker_said(&self, status: u16) {
        self.attempted(|attempt| attempt.status = Some(status));
    }

    /// The attempt is over. After anything but an answer, [`Phase::Queue`] is entered.
    pub(crate) fn attempt_ended(&self, result: AttemptResult) {
        if result != AttemptResult::Answered {
            self.enter(Phase::Queue);
        }
        let now = if self.is_timed.get() && result == AttemptResult::Answered {
            Instant::now()
        } else {
            self.since.get()
        };
        let ended = now.saturating_duration_since(self.started);
        self.attempted(|attempt| {
            attempt.result = result;
            attempt.ended = Some(ended);
        });
    }

    /// Another attempt follows.
    pub(crate) fn retried(&self, why: Retry) {
        self.observer.shard.retried(why);
    }

    /// A response whose worker was lost is being continued from another one.
    pub(crate) fn resumed(&self) {
        self.resumed.set(self.resumed.get() + 1);
        self.observer.shard.resumed.add(1);
    }

    /// The head of the final response goes to the client, at `now`; informational ones (1xx but 101) do not count.
    pub(crate) fn responded(&self, status: u16, now: Instant) {
        self.status.set(Some(status));
        self.enter_at(Phase::Stream, now);
        let shard = &self.observer.shard;
        shard.responded(status);
        let route = self.target.get().map_or(&shard.unrouted, |target| &target.stats);
        route.responded(status, now.saturating_duration_since(self.started));
    }

    /// Notes how long it has waited for a worker to start, in all.
    pub(crate) fn waited_for_start(&self, took: Duration) {
        self.start.set(Some(took));
    }

    /// How long it has waited for a worker to start, if it had to.
    pub(crate) fn start_took(&self) -> Option<Duration> {
        self.start.get()
    }

    /// So many bytes of the request's body came.
    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
    }

    /// So many bytes of the response's body went to the client.
    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
    }

    /// So many of those did not, after all.
    pub(crate) fn took_back(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get().saturating_sub(bytes as u64));
    }

    /// How it ended; the last word counts. What the gateway answers itself is counted before its client can know of it.
    pub(crate) fn end(&self, outcome: Outcome) {
        let shard = &self.observer.shard;
        match outcome {
            Outcome::Shed(why) => shard.shed(why),
            Outcome::Unknown(_) => shard.unknown.add(1),
            _ => {}
        }
        self.outcome.set(outcome);
    }

    /// The route that was found.
    pub(crate) fn target(&self) -> Option<&Rc<Target>> {
        self.target.get()
    }

    /// What the client was answered, if anything.
    pub(crate) fn status(&self) -> Option<u16> {
        self.status.get()
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.get()
    }

    /// How often its response was continued from another worker.
    pub(crate) fn resumptions(&self) -> u32 {
        self.resumed.get()
    }

    /// Bytes of the bodies: of the request's, of the response's.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.get(), self.bytes_out.get())
    }

    /// The time spent in each phase until `now`, all attempts together.
    pub(crate) fn spent(&self, now: Instant) -> Spent {
        let mut spent = self.spent.get();
        if self.is_timed.get() {
            spent.add(self.phase.get(), now.saturating_duration_since(self.since.get()));
        }
        spent
    }

    fn detailed(&self, note: impl FnOnce(&mut Detail)) {
        if let Some(detail) = &mut *self.detail.borrow_mut() {
            note(detail);
        }
    }

    /// Does something to the attempt that goes on, if one does.
    fn attempted(&self, note: impl FnOnce(&mut Attempt)) {
        self.detailed(|detail| {
            if let Some(attempt) = detail.attempts.last_mut().filter(|attempt| attempt.ended.is_none()) {
                note(attempt);
            }
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let detail = self.detail.take();
        self.observer.finish(self, detail);
    }
}

#[cfg(test)]
pub(crate) mod tests;
