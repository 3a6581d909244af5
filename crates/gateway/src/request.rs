//! One request, from its head to the end of its response: admit → route → header fields → forward → respond.

use std::rc::Rc;

use crate::{
    admit::{Admitted, Length, admit},
    client::Client,
    config::{Class, Protocol},
    core::Core,
    downstream::Downstream,
    exchange::{End, Exchange},
    forward::forward,
    head::{RequestHead, Version},
    headers::{self, WorkerHead},
    problem::Failure,
    queue,
    route::Target,
    trace,
    upload::Upload,
    verdict::is_idempotent,
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
    /// The id of a request that was refused before it had a head for workers.
    refused_id: Vec<u8>,
}

impl Prepared {
    fn id(&self) -> &[u8] {
        if self.refused_id.is_empty() { self.worker.id() } else { &self.refused_id }
    }

    /// Gives memory beyond `bytes` back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if self.worker.bytes.capacity() > bytes {
            self.worker = WorkerHead::default();
        }
        self.refused_id = Vec::new();
    }
}

/// Reads what a request says and finds its route. `bytes` are those that `head` was read from; they are not needed
/// afterwards. `length` is that of the body where the head does not say it.
pub(crate) fn prepare(
    core: &Core,
    client: &Client,
    bytes: &[u8],
    head: &RequestHead,
    length: Option<Length>,
    prepared: &mut Prepared,
) -> Result<Rc<Target>, Failure> {
    prepared.length = Length::None;
    prepared.keeps_alive = false;
    prepared.expects = false;
    prepared.version = head.version;
    prepared.is_head = head.method.of(bytes) == b"HEAD";
    prepared.refused_id.clear();
    let mut admitted = admit(bytes, head).inspect_err(|_| prepared.name_refused(core, None))?;
    admitted.length = length.unwrap_or(admitted.length);
    prepared.length = admitted.length;
    prepared.expects = admitted.expects && admitted.length != Length::None;
    prepared.keeps_alive = !admitted.close && (head.version == Version::Http11 || admitted.keep_alive);
    let Some(target) = route(core, &admitted) else {
        prepared.name_refused(core, admitted.request_id);
        return Err(Failure::NoRoute);
    };
    let speaks_h2c = target.service.home.protocol.get() == Protocol::H2c;
    if speaks_h2c {
        // HTTP/2 changes protocols in another way, which workers are not asked for.
        admitted.upgrade = None;
        admitted.passes_te = true;
    }
    let trust = core.trust.borrow();
    headers::to_worker(bytes, head, &admitted, (client, &trust), &core.dice, &mut prepared.worker);
    prepared.repeatable =
        is_idempotent(admitted.method) || target.route.idempotent || admitted.has_idempotency_key;
    prepared.class = queue::class(admitted.class, target.route.class);
    prepared.is_whole_get = admitted.method == b"GET" && !admitted.has_range;
    Ok(target)
}

impl Prepared {
    fn name_refused(&mut self, core: &Core, sent: Option<&[u8]>) {
        match sent.filter(|id| trace::is_sane_id(id)) {
            Some(id) => self.refused_id.extend_from_slice(id),
            None => self.refused_id.extend_from_slice(trace::make(&core.dice).id()),
        }
    }
}

fn route(core: &Core, admitted: &Admitted<'_>) -> Option<Rc<Target>> {
    // What is not ASCII matches no host and no prefix that a route can name.
    let host = std::str::from_utf8(admitted.host.unwrap_or_default()).unwrap_or_default();
    let path = match std::str::from_utf8(admitted.path) {
        Ok(path) => path,
        Err(error) => std::str::from_utf8(&admitted.path[..error.valid_up_to()]).unwrap_or("/"),
    };
    core.table.borrow().find(host, path).cloned()
}

/// Answers a request to the end of its response.
pub(crate) async fn answer<D: Downstream>(
    core: &Rc<Core>,
    watched: &Rc<Watched>,
    down: &mut D,
    target: &Rc<Target>,
    prepared: &Prepared,
) {
    let replay_bytes_max = core.limits().replay_bytes_max;
    let upload = Upload::new(prepared.length, replay_bytes_max, &core.budget);
    let mut exchange = Exchange { core, watched, target, prepared, upload, down };
    match forward(&mut exchange).await {
        Ok(End::Whole) => {}
        Ok(End::Cut | End::Left) => exchange.down.cut(),
        Err(failure) => refuse(core, watched, exchange.down, failure, prepared).await,
    }
}

/// Answers a request with what went wrong.
pub(crate) async fn refuse<D: Downstream>(
    core: &Rc<Core>,
    watched: &Rc<Watched>,
    down: &mut D,
    failure: Failure,
    prepared: &Prepared,
) {
    watched.enter(Phase::Answering);
    let made = trace::make(&core.dice);
    let id = if prepared.id().is_empty() { made.id() } else { prepared.id() };
    if failure.is_unknown() {
        core.shard.unknown.add(1);
        tracing::warn!(?failure, id = %String::from_utf8_lossy(id), "request failed, outcome unknown");
    }
    if failure.is_shed() {
        core.shard.shed.add(1);
    }
    core.shard.responded(failure.status());
    failure.answer(down, id, prepared.is_head).await;
}
