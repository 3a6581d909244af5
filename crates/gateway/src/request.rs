//! One request, from its head to the end of its response: admit → route → header fields → forward → respond.

use std::{rc::Rc, time::Instant};

use lethe_model::roster;

use crate::{
    admit::{Admitted, Length, admit},
    allowance::{Fields, Head, Judgement},
    client::Client,
    config::Class,
    core::Core,
    downstream::Downstream,
    exchange::{End, Exchange},
    field::Known,
    forward::{forward, unless_gone},
    forwarded::Scheme,
    h2c,
    head::{RequestHead, Version},
    headers::{self, Passage, WorkerHead},
    keeping::Keeping,
    once::{Asked, Entry},
    problem::{self, Failure},
    queue,
    record::{Outcome, Record},
    route::Target,
    stats::Protocol,
    trace,
    upload::Upload,
    verdict::is_idempotent,
    via::Came,
    watch::{Phase, Watched},
};

/// A request that was read, as workers get it, each attempt the same. Kept and used again for the next one, for its memory.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) worker: WorkerHead,
    pub(crate) length: Length,
    pub(crate) version: Version,
    pub(crate) expects: bool,
    pub(crate) keeps_alive: bool,
    pub(crate) is_head: bool,
    /// A response that dies half-way may be continued: GET of the whole thing.
    pub(crate) is_whole_get: bool,
    /// Who goes first when workers are short.
    pub(crate) class: Class,
    /// Running it twice is as good as once.
    pub(crate) repeatable: bool,
    /// It is an extended CONNECT (RFC 8441); set before it is prepared.
    pub(crate) connects: bool,
    /// It has an `Idempotency-Key`, which is the worker's concern.
    pub(crate) is_keyed: bool,
    /// If it has one, it is the gateway's: it is done once.
    pub(crate) is_once: bool,
    /// The id of a request that was refused before it had a head for workers.
    refused_id: Vec<u8>,
}

impl Prepared {
    pub(crate) fn id(&self) -> &[u8] {
        if self.refused_id.is_empty() { self.worker.id() } else { &self.refused_id }
    }

    fn name_refused(&mut self, core: &Core, sent: Option<&[u8]>) {
        match sent.filter(|id| trace::is_sane_id(id)) {
            Some(id) => self.refused_id.extend_from_slice(id),
            None => self.refused_id.extend_from_slice(&trace::make_id(&core.dice)),
        }
    }

    /// Gives memory beyond `bytes` back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if self.worker.bytes.capacity() > bytes {
            self.worker = WorkerHead::default();
        }
        self.refused_id = Vec::new();
    }
}

/// Reads what a request says and finds its route, and begins its record. `bytes` are those that `head` was read from; they
/// are not needed afterwards. `length` is that of the body where the head does not say it.
pub(crate) fn prepare(
    core: &Core,
    client: &Client,
    (bytes, head): (&[u8], &RequestHead),
    framed: Option<Length>,
    prepared: &mut Prepared,
) -> (Record, Result<Rc<Target>, Failure>) {
    prepared.length = Length::None;
    prepared.keeps_alive = false;
    prepared.expects = false;
    prepared.version = head.version;
    prepared.is_head = head.method.of(bytes) == b"HEAD";
    prepared.refused_id.clear();
    let protocol = match (framed, head.version) {
        (Some(_), _) => Protocol::Http2,
        (None, Version::Http11) => Protocol::Http11,
        (None, Version::Http10) => Protocol::Http10,
    };
    let record = Record::begin(&core.observer, Instant::now(), protocol);
    if record.is_detailed() {
        let value = |known| values(bytes, head, known).next();
        let host = value(Known::Host).unwrap_or_default();
        let origin = client.trusted.then(|| headers::origin(bytes, head, host, client, &core.trust.borrow()));
        let (address, scheme) =
            origin.map_or((client.address, client.scheme), |origin| (origin.client, origin.scheme));
        record.client(address, scheme == Scheme::Https);
        record.request(head.method.of(bytes), host, head.target.of(bytes), value(Known::UserAgent));
    }
    let found = find(core, client, (bytes, head), framed, prepared, &record);
    (record, found)
}

fn find(
    core: &Core,
    client: &Client,
    (bytes, head): (&[u8], &RequestHead),
    framed: Option<Length>,
    prepared: &mut Prepared,
    record: &Record,
) -> Result<Rc<Target>, Failure> {
    let mut admitted = admit(bytes, head).inspect_err(|_| prepared.name_refused(core, None))?;
    admitted.length = framed.unwrap_or(admitted.length);
    prepared.length = admitted.length;
    prepared.expects = admitted.expects && admitted.length != Length::None;
    prepared.keeps_alive = !admitted.close && (head.version == Version::Http11 || admitted.keep_alive);
    let Some(target) = route(core, &admitted) else {
        prepared.name_refused(core, admitted.request_id);
        return Err(Failure::NoRoute);
    };
    record.routed(&target);
    if target.service.home.protocol.get() == roster::Protocol::H2c {
        // HTTP/2 changes protocols in another way, which workers are not asked for.
        if prepared.connects {
            prepared.name_refused(core, admitted.request_id);
            return Err(Failure::Unsupported("The service takes no WebSockets: it speaks HTTP/2."));
        }
        admitted.upgrade = None;
        admitted.passes_te = true;
    }
    let (trust, via) = (core.trust.borrow(), core.via.borrow());
    if let Some(via) = &*via
        && via.is_circle(values(bytes, head, Known::Via))
    {
        prepared.name_refused(core, admitted.request_id);
        return Err(Failure::Circle);
    }
    let came = match (framed, head.version) {
        (Some(_), _) => Came::Http2,
        (None, Version::Http11) => Came::Http11,
        (None, Version::Http10) => Came::Http10,
    };
    let via = via.as_ref().map(|via| via.value(came));
    let context = core.observer.trace(admitted.traceparent, &core.dice);
    let worker = &mut prepared.worker;
    headers::to_worker(
        bytes,
        head,
        &admitted,
        Passage { client, trust: &trust, via },
        &context,
        &core.dice,
        worker,
    );
    if admitted.passes_te && !h2c::is_told(&worker.bytes) {
        prepared.name_refused(core, admitted.request_id);
        return Err(Failure::Malformed("The request cannot be told in HTTP/2, which the service speaks."));
    }
    record.names(worker.id(), context);
    prepared.is_once = is_once(&target, admitted.method);
    // Where the gateway keeps what was answered, workers need not know of keys.
    prepared.is_keyed = admitted.has_idempotency_key && !prepared.is_once;
    prepared.repeatable = is_idempotent(admitted.method) || target.route.idempotent || prepared.is_keyed;
    prepared.class = queue::class(admitted.class, target.route.class, client.trusted);
    prepared.is_whole_get = admitted.method == b"GET" && !admitted.has_range;
    Ok(target)
}

/// Whether requests with this method are done once on their route.
fn is_once(target: &Target, method: &[u8]) -> bool {
    target.clerk.is_some() && target.route.once.as_ref().is_some_and(|once| once.is_for(method))
}

/// The values of a field, in the order of the head.
fn values<'a>(bytes: &'a [u8], head: &'a RequestHead, known: Known) -> impl Iterator<Item = &'a [u8]> {
    head.fields.iter().filter(move |field| field.known == known).map(|field| field.value.of(bytes))
}

fn route(core: &Core, admitted: &Admitted<'_>) -> Option<Rc<Target>> {
    // What is not ASCII matches no host and no prefix that a route can name.
    let host = std::str::from_utf8(admitted.host.unwrap_or_default()).unwrap_or_default();
    let path = match std::str::from_utf8(admitted.path) {
        Ok(path) => path,
        Err(error) => std::str::from_utf8(&admitted.path[..error.valid_up_to()]).unwrap_or("/"),
    };
    core.table.borrow().find(host, path)
}

/// Answers a request to the end of its response.
pub(crate) async fn answer<D: Downstream>(
    core: &Rc<Core>,
    watched: &Rc<Watched>,
    down: &mut D,
    target: &Rc<Target>,
    prepared: &Prepared,
    record: Record,
) {
    let allowed = may_pass(core, watched, down, target, prepared, &record).await;
    let Some(standing) = &allowed else { return };
    let asked = Asked { core, watched, target, prepared, record: &record, standing };
    if prepared.is_once {
        // Kept apart, so that other requests do not have room for what these need.
        match Box::pin(do_once(&asked, down)).await {
            Entry::Keyless => {}
            Entry::First(..) | Entry::Over => return,
        }
    }
    let replay_bytes_max = core.limits().replay_bytes_max;
    let upload = Upload::new(prepared.length, replay_bytes_max, &core.replay_share);
    carry(&asked, down, upload).await;
}

/// Does a request once, if it has a key.
async fn do_once<D: Downstream>(asked: &Asked<'_>, down: &mut D) -> Entry {
    let Asked { core, target, record, standing, .. } = asked;
    let (Some(clerk), Some(once)) = (&target.clerk, &target.route.once) else { return Entry::Keyless };
    let (upload, turn) = match asked.enter(down, &**clerk, once).await {
        Entry::First(upload, turn) => (upload, turn),
        other => return other,
    };
    let notes = (*record, *standing);
    let mut keeping = Keeping::new(down, turn, once.answer_bytes_max, &core.hold_share, notes);
    carry(asked, &mut keeping, upload).await;
    Entry::Over
}

/// Carries a request to the workers and what they answer back.
async fn carry<D: Downstream>(asked: &Asked<'_>, down: &mut D, upload: Upload) {
    let &Asked { core, watched, target, prepared, record, standing } = asked;
    let attempts_left = core.limits().attempts_max;
    let lost = Vec::new();
    let mut exchange =
        Exchange { core, watched, target, prepared, upload, down, record, standing, lost, attempts_left };
    let end = forward(&mut exchange).await;
    record.received(exchange.upload.received);
    match end {
        Ok(End::Whole) => record.end(Outcome::Answered),
        Ok(End::Upgraded) => record.end(Outcome::Upgraded),
        Ok(End::Cut) => {
            record.end(Outcome::Cut);
            exchange.down.cut();
        }
        // That is how a record ends of which nothing else is said.
        Ok(End::Left) => exchange.down.cut(),
        Err(failure) => {
            refuse_telling(core, watched, exchange.down, (failure, standing), prepared, record).await;
        }
    }
}

/// Whether the limits of its route let a request pass, and then how its client stands. Else it is answered already, or its
/// client has gone; its body is not read for that.
async fn may_pass<D: Downstream>(
    core: &Rc<Core>,
    watched: &Rc<Watched>,
    down: &mut D,
    target: &Rc<Target>,
    prepared: &Prepared,
    record: &Record,
) -> Option<Fields> {
    let Some(judge) = &target.judge else { return Some(Fields::new()) };
    let judging = judge.judge(Head::of(&prepared.worker.bytes));
    match unless_gone(down, watched, judging).await {
        None => down.cut(),
        Some(Judgement::Passed(standing)) => return Some(standing),
        Some(Judgement::Uncounted) => {
            target.stats.uncounted.add(1);
            return Some(Fields::new());
        }
        Some(Judgement::Refused(refusal)) => {
            target.stats.limited.add(1);
            watched.enter(Phase::Answering);
            record.end(Outcome::Refused("limited"));
            record.responded(problem::TOO_MANY, Instant::now());
            let (id, date) = (prepared.id(), core.date.get());
            problem::too_many(down, refusal, id, prepared.is_head, (record, &date)).await;
        }
        Some(Judgement::Away) => {
            target.stats.limits_away.add(1);
            refuse(core, watched, down, Failure::Uncounted, prepared, record).await;
        }
    }
    None
}

/// A record for what is no request.
pub(crate) fn unreadable(core: &Core, client: &Client, protocol: Protocol) -> Record {
    let record = Record::begin(&core.observer, Instant::now(), protocol);
    record.client(client.address, client.scheme == Scheme::Https);
    record
}

/// Answers a request with what went wrong.
pub(crate) async fn refuse<D: Downstream>(
    core: &Rc<Core>,
    watched: &Rc<Watched>,
    down: &mut D,
    failure: Failure,
    prepared: &Prepared,
    record: &Record,
) {
    refuse_telling(core, watched, down, (failure, &Fields::new()), prepared, record).await;
}

/// The same, and tells a client how it stands that has been counted.
pub(crate) async fn refuse_telling<D: Downstream>(
    core: &Rc<Core>,
    watched: &Rc<Watched>,
    down: &mut D,
    (failure, standing): (Failure, &Fields),
    prepared: &Prepared,
    record: &Record,
) {
    watched.enter(Phase::Answering);
    let made = trace::make_id(&core.dice);
    let id = if prepared.id().is_empty() { &made } else { prepared.id() };
    record.named(id);
    if failure.is_unknown() {
        tracing::warn!(?failure, id = %String::from_utf8_lossy(id), "request failed, outcome unknown");
    }
    record.end(failure.outcome());
    if !down.counts() {
        record.responded(failure.status(), Instant::now());
    }
    failure.answer(down, id, prepared.is_head, standing, (record, &core.date.get())).await;
}
