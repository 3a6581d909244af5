//! One attempt: the request on one connection to one worker, and the response on its way back to the client. A response
//! that the client has not seen anything of can still be given up for another attempt; one that it has seen can only
//! be ended, cut, or continued from where it broke off.

use std::{
    borrow::Cow,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use lethe_model::{roster::Protocol, service::InstanceId};

use crate::{
    allowance::Fields,
    body_budget::Borrowed,
    core::Core,
    downstream::{Answer, Broken, Downstream},
    headers::{self, Framing},
    link::{H2c, Halt, Http1, Link, Shape},
    moment::Moment,
    queue::Pass,
    record::{self, AttemptResult, Record},
    request::Prepared,
    resume::{Resume, Shown},
    route::Target,
    server_timing, socket, tunnel,
    upload::Upload,
    upstream::Upstream,
    verdict::{Cause, Loss, Stage},
    watch::{Phase, Watched},
};

/// What a response takes that is passed on, for a client that does not read; to hold one that is no larger costs nothing.
pub(crate) const PASSING_BYTES: usize = 64 << 10;
/// So many kept connections in a row may turn out to be closed, before the worker is taken for lost.
const CLOSED_MAX: usize = 16;

/// A request and its client, as all attempts share them.
pub(crate) struct Exchange<'a, D> {
    pub(crate) core: &'a Rc<Core>,
    pub(crate) watched: &'a Rc<Watched>,
    pub(crate) target: &'a Rc<Target>,
    pub(crate) prepared: &'a Prepared,
    pub(crate) upload: Upload,
    pub(crate) down: &'a mut D,
    pub(crate) record: &'a Record,
    /// How its client stands, which the answer tells.
    pub(crate) standing: &'a Fields,
    /// The workers that are known to have died under it, of a request with a key.
    pub(crate) lost: Vec<InstanceId>,
    /// How many attempts in which something is sent are left, with the one in hand.
    pub(crate) attempts_left: usize,
}

/// How an exchange ended, if the client got a worker's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a whole response.
    Whole,
    /// With another protocol, which has ended too.
    Upgraded,
    /// With a response that was cut half-way.
    Cut,
    /// The client had gone.
    Left,
}

/// Why an attempt ended without an [`End`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    /// The worker was lost.
    Lost(Loss),
    /// The client's request is not whole.
    Broken(Broken),
    /// It is to become a tunnel, and the gateway is stopping.
    Stopping,
    /// The worker answers an extended CONNECT as a plain request, which the client would take for a tunnel.
    NotUpgraded,
}

impl From<Halt> for Fail {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Lost(loss) => Self::Lost(loss),
            Halt::Broken(broken) => Self::Broken(broken),
        }
    }
}

impl<D: Downstream> Exchange<'_, D> {
    /// Sends the request to the worker that was entered by `pass`, and its response to the client. `seen` is what the client
    /// has seen of it already, in which case the rest is asked for. Not cancellation safe, and need not be: a dropped
    /// attempt closes its connection.
    pub(crate) async fn attempt(
        &mut self,
        upstream: &Rc<Upstream>,
        pass: Pass,
        seen: &mut Option<Shown>,
    ) -> Result<End, Fail> {
        let rest = seen.as_ref().and_then(|seen| seen.rest.as_ref());
        let sent = self.send(upstream, rest).await;
        if self.is_workers_fault(sent.as_ref().err()) {
            upstream.stats.failures.add(1);
        }
        let Some(link) = sent? else { return Ok(End::Left) };
        pass.answered();
        // From here on it has answered, and is counted as such: once, also if that comes to nothing.
        let failed = is_failure(link.head().status);
        if failed {
            upstream.stats.errors.add(1);
            upstream.failed(Instant::now());
        }
        let ended = self.answer(upstream, pass, link, seen).await;
        if !failed && self.is_workers_fault(ended.as_ref().err()) {
            upstream.stats.errors.add(1);
        }
        ended
    }

    /// Whether an attempt has failed by what its worker did, or did not do.
    fn is_workers_fault(&self, fail: Option<&Fail>) -> bool {
        match fail {
            Some(Fail::Lost(Loss { cause: Cause::Starved, .. })) => false,
            // A client that does not send its body.
            Some(Fail::Lost(Loss { cause: Cause::Late, .. })) => !self.watched.owes.get(),
            Some(Fail::Lost(_)) => true,
            _ => false,
        }
    }

    /// Brings the response whose head is there to the client.
    async fn answer(
        &mut self,
        upstream: &Rc<Upstream>,
        pass: Pass,
        mut link: Box<Link>,
        seen: &mut Option<Shown>,
    ) -> Result<End, Fail> {
        let rest = seen.as_ref().and_then(|seen| seen.rest.as_ref());
        let garbled = Fail::Lost(Loss { stage: Stage::Sent, cause: Cause::Garbled });
        let Some(framing) = link.framing() else { return Err(garbled) };
        let shape = Shape::from(framing);
        let stall = self.target.route.response_stall.timeout(shape.is_events);
        let mut inside = Some(pass);
        // Until the client has taken it all.
        let mut _memory = None;
        let status = link.head().status;
        self.record.worker_said(status);
        if let Some(rest) = rest {
            if !rest.is_continued_by(status, framing) {
                return Err(garbled);
            }
            self.watched.answer(stall);
            self.record.resumed();
            link.begin_body(shape, false, self.core.bounds.get());
        } else if self.tries_again(status) {
            return Err(Fail::Lost(Loss { stage: Stage::Held, cause: Cause::Unavailable }));
        } else if status == 101 {
            if !self.prepared.worker.upgrades {
                return Err(garbled);
            }
            if self.core.refuses_tunnels.get() {
                self.record.attempt_ended(AttemptResult::Answered);
                return Err(Fail::Stopping);
            }
            return Ok(self.upgrade(link, inside).await);
        } else if self.prepared.connects && (200..300).contains(&status) {
            self.record.attempt_ended(AttemptResult::Answered);
            return Err(Fail::NotUpgraded);
        } else {
            let bodiless = self.prepared.is_head || matches!(status, 204 | 304);
            let rest = Resume::begin(self.prepared, self.target, status, framing);
            match self.hold(&mut link, shape, bodiless).await? {
                Held::Left => return Ok(End::Left),
                Held::Whole(memory) => {
                    _memory = memory;
                    self.record.attempt_ended(AttemptResult::Answered);
                    // The worker has done its part; how fast the client reads is not its concern.
                    if !link.is_stream() {
                        inside = None;
                    }
                }
                Held::Passing => {}
            }
            self.watched.answer(stall);
            self.respond(&link, upstream, bodiless);
            link.begin_body(shape, bodiless, self.core.bounds.get());
            *seen = Some(Shown { rest });
        }
        let rest = seen.as_mut().and_then(|seen| seen.rest.as_mut());
        if self.stream(&mut link, rest, inside).await? == Streamed::Left {
            return Ok(End::Left);
        }
        if !is_failure(status) {
            upstream.succeeded(&Moment::now());
        }
        if link.settle(&self.core.pool) {
            upstream.put_idle(link, self.core.limits().pool_idle_max);
        }
        Ok(End::Whole)
    }

    /// Whether a worker that says it is overloaded is followed by another one, as the route may want it; within the
    /// service's budget, so that an overload is not made worse by it.
    fn tries_again(&self, status: u16) -> bool {
        status == 503
            && self.target.route.retry_on.unavailable
            && self.prepared.repeatable
            && self.upload.is_replayable()
            && self.attempts_left > 1
            && self.may_retry()
    }

    /// Takes a retry for another reason than a lost worker out of the budget.
    pub(crate) fn may_retry(&self) -> bool {
        let percent = self.core.limits().retry_percent_max;
        self.target.service.retry_budget.withdraw(Instant::now(), percent)
    }

    /// Gets a connection to send on, and the head of a response on it; nothing if the client has gone. A kept connection
    /// that turns out to be closed says nothing about the worker, and is followed by another one, so many times.
    async fn send(
        &mut self,
        upstream: &Rc<Upstream>,
        resume: Option<&Resume>,
    ) -> Result<Option<Box<Link>>, Fail> {
        self.watched.expect(self.target.route.timeout);
        let mut closed = 0;
        loop {
            let mut link = match std::future::poll_fn(|cx| Poll::Ready(idle(cx, upstream))).await {
                Some(link) => link,
                None => Box::pin(self.connect(upstream)).await?,
            };
            let start = Instant::now();
            self.record.connected(link.is_reused());
            self.upload.rewind();
            let careful = !self.prepared.repeatable;
            let whole = &self.prepared.worker.bytes[..];
            let head = match resume {
                None if self.lost.is_empty() => Cow::Borrowed(whole),
                None => Cow::Owned(headers::after_deaths(whole, &self.lost)),
                Some(resume) => Cow::Owned(resume.head(self.prepared)),
            };
            let begun = link.begin(&head, self.prepared.length, careful);
            let phase = if self.upload.is_whole() { Phase::Waiting } else { Phase::Uploading };
            self.watched.enter(phase);
            let head = match begun {
                Ok(()) => std::future::poll_fn(|cx| self.poll_head(cx, &mut link)).await,
                Err(loss) => Err(Fail::Lost(loss)),
            };
            match head {
                Ok(Some(())) => {
                    let now = Instant::now();
                    upstream.answered(now - start, now);
                    return Ok(Some(link));
                }
                Ok(None) => return Ok(None),
                // The worker had closed this one before.
                Err(Fail::Lost(Loss { stage: Stage::Unsent, cause: Cause::Gone }))
                    if link.is_reused() && self.upload.is_replayable() && closed < CLOSED_MAX =>
                {
                    closed += 1;
                }
                Err(Fail::Lost(loss @ Loss { stage: Stage::Unsent, cause: Cause::Gone }))
                    if !link.is_reused() =>
                {
                    // It accepts and closes at once, which is as good as to refuse.
                    upstream.suspect(Instant::now());
                    return Err(Fail::Lost(loss));
                }
                Err(fail) => return Err(fail),
            }
        }
    }

    async fn connect(&self, upstream: &Upstream) -> Result<Box<Link>, Fail> {
        self.watched.enter(Phase::Choosing);
        let connected = match upstream.protocol {
            Protocol::Http1 => {
                let timeout = self.core.limits().connect_timeout;
                Http1::connect(&upstream.address, timeout).await.map(Link::Http1)
            }
            Protocol::H2c => {
                let limits = self.core.limits().clone();
                upstream.lane().enter(&limits).await.map(|exchange| Link::H2c(H2c::new(exchange)))
            }
        };
        connected.map(Box::new).map_err(|error| {
            tracing::debug!(worker = %upstream.instance, %error, "cannot connect");
            if socket::is_starved(&error) {
                tracing::warn!(%error, "cannot connect to workers; raise the limit of open files if it is reached");
                return Fail::Lost(Loss { stage: Stage::Unsent, cause: Cause::Starved });
            }
            upstream.suspect(Instant::now());
            Fail::Lost(Loss { stage: Stage::Unsent, cause: Cause::Gone })
        })
    }

    /// Sends, and waits for the head of the response; nothing if the client has gone.
    fn poll_head(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Poll<Result<Option<()>, Fail>> {
        self.watched.remember(cx.waker());
        let sent = link.poll_send(cx, &mut self.upload, self.down, self.watched)?;
        if sent.is_ready() {
            if self.watched.phase() == Phase::Uploading {
                self.watched.enter(Phase::Waiting);
            }
            self.record.sent_all();
        }
        if let Poll::Ready(head) = link.poll_head(cx, &self.core.pool, self.core.bounds.get(), self.down) {
            return Poll::Ready(head.map(Some).map_err(Fail::Lost));
        }
        if link.has_informed() {
            // Interim responses are of no use later.
            let _ = self.down.poll_flush(cx);
        }
        if sent.is_ready() && self.down.poll_gone(cx).is_ready() {
            return Poll::Ready(Ok(None));
        }
        if self.watched.late.get() {
            return Poll::Ready(Err(Fail::Lost(link.loss(Cause::Late))));
        }
        Poll::Pending
    }

    /// Holds a small response back until it is whole. Of another one no more than is here is waited for, but a worker that
    /// is lost right behind the head is noticed before the client has seen anything.
    async fn hold(&mut self, link: &mut Link, shape: Shape, bodiless: bool) -> Result<Held, Fail> {
        if bodiless || shape.length == Some(0) {
            return Ok(Held::Whole(None));
        }
        let limit = self.core.limits().hold_bytes_max as u64;
        let small = shape.length.filter(|&length| length <= limit && !shape.is_events);
        let takes_memory = |&length: &u64| length > PASSING_BYTES as u64;
        let mut memory =
            small.filter(takes_memory).and_then(|length| self.core.hold_share.borrow(length as usize));
        let small = small.filter(|length| !takes_memory(length) || memory.is_some());
        let is_framed = shape.chunked || shape.length.is_some();
        let wanted = small.map_or(usize::from(is_framed), |length| length as usize);
        if small.is_some() {
            self.record.enter(record::Phase::Hold);
        }
        let held = std::future::poll_fn(|cx| {
            self.watched.remember(cx.waker());
            let _ = self.keep_sending(cx, link);
            match link.poll_hold(cx, &self.core.pool, wanted) {
                Poll::Ready(Ok(())) if small.is_some() => Poll::Ready(Ok(Held::Whole(memory.take()))),
                Poll::Ready(Ok(())) => Poll::Ready(Ok(Held::Passing)),
                Poll::Ready(Err(cause)) => Poll::Ready(Err(cause)),
                Poll::Pending if small.is_none() => Poll::Ready(Ok(Held::Passing)),
                Poll::Pending if self.watched.late.get() => Poll::Ready(Err(Cause::Late)),
                Poll::Pending if self.upload.is_whole() && self.down.poll_gone(cx).is_ready() => {
                    Poll::Ready(Ok(Held::Left))
                }
                Poll::Pending => Poll::Pending,
            }
        });
        held.await.map_err(|cause| Fail::Lost(Loss { stage: Stage::Held, cause }))
    }

    /// An early response does not end the request: a worker may read on while it answers. Whether it got all of it only
    /// decides what becomes of the connection.
    fn keep_sending(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Result<bool, Broken> {
        match link.poll_send(cx, &mut self.upload, self.down, self.watched) {
            Poll::Ready(Err(Halt::Broken(broken))) => Err(broken),
            sent => Ok(sent.is_ready()),
        }
    }

    /// Begins the response to the client.
    fn respond(&mut self, link: &Link, upstream: &Upstream, bodiless: bool) {
        let bytes = link.head_bytes();
        let Some(framing) = link.framing() else { return };
        let now = Instant::now();
        if !self.down.counts() {
            self.record.responded(link.head().status, now);
        }
        let mut timing = Vec::new();
        if self.target.route.server_timing {
            server_timing::write(&mut timing, self.record, now);
            server_timing::write_worker(&mut timing, &upstream.instance);
        } else if let Some(took) = self.record.start_took() {
            server_timing::write_start(&mut timing, took);
        }
        let timing = (!timing.is_empty()).then_some((&b"server-timing"[..], &timing[..]));
        let date = self.core.date.get();
        let ours = [(&b"x-request-id"[..], self.prepared.worker.id())].into_iter();
        let date = (!framing.has_date).then_some((&b"date"[..], &date[..]));
        let standing = self.standing.iter().map(|(name, value)| (&name[..], &value[..]));
        let via = self.core.via.borrow();
        let via = via.as_ref().map(|via| (&b"via"[..], via.value(link.came())));
        let ours = ours.chain(date).chain(timing).chain(via).chain(standing);
        let mut fields = headers::to_client(bytes, link.head(), framing, ours);
        self.down.respond(Answer {
            status: link.head().status,
            reason: link.head().reason.of(bytes),
            fields: &mut fields,
            // RFC 9110, section 8.6: not with 204.
            length: framing.length.filter(|_| link.head().status != 204),
            has_body: !bodiless,
            close: false,
        });
    }

    /// Passes the body on as it comes, and notes in `rest` how far it came. The worker is left as soon as all is here.
    async fn stream(
        &mut self,
        link: &mut Link,
        mut rest: Option<&mut Resume>,
        mut inside: Option<Pass>,
    ) -> Result<Streamed, Fail> {
        let streamed = std::future::poll_fn(|cx| {
            self.watched.remember(cx.waker());
            let sent = if link.has_ended() { Ok(true) } else { self.keep_sending(cx, link) };
            let Ok(sent) = sent else { return Poll::Ready(Ok(Streamed::Left)) };
            let streamed = self.poll_stream(cx, link, &mut rest, sent);
            if link.has_ended() && inside.take().is_some() {
                self.record.attempt_ended(AttemptResult::Answered);
            }
            streamed
        });
        streamed.await.map_err(|cause| Fail::Lost(Loss { stage: Stage::Streamed, cause }))
    }

    fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        rest: &mut Option<&mut Resume>,
        sent: bool,
    ) -> Poll<Result<Streamed, Cause>> {
        loop {
            let here = match link.poll_data(cx, &self.core.pool) {
                Poll::Ready(here) => {
                    self.watched.moved();
                    here?
                }
                Poll::Pending => {
                    // What is there goes out while more is waited for; and a client that has gone is noticed.
                    let flushed = self.down.poll_flush(cx);
                    let gone = sent && self.down.poll_gone(cx).is_ready();
                    if gone || matches!(flushed, Poll::Ready(Err(_))) {
                        return Poll::Ready(Ok(Streamed::Left));
                    }
                    if self.watched.late.get() {
                        if sent || !self.watched.owes.get() {
                            return Poll::Ready(Err(Cause::Stalled));
                        }
                        // The worker may be waiting for what the client does not send, as calls do that go both ways.
                        self.watched.moved();
                    }
                    return Poll::Pending;
                }
            };
            if here == 0 {
                let finished = ready!(self.down.poll_finish(cx, link.trailers()));
                return Poll::Ready(Ok(finished.map_or(Streamed::Left, |()| Streamed::Whole)));
            }
            match ready!(self.down.poll_write(cx, &link.data()[..here])) {
                Ok(count) => {
                    link.took(count);
                    self.record.sent(count);
                    if let Some(rest) = rest {
                        rest.passed(count);
                    }
                }
                Err(_) => return Poll::Ready(Ok(Streamed::Left)),
            }
        }
    }

    /// What the client has seen can be neither completed nor taken back: after what there is of it, it ends.
    pub(crate) async fn cut(&mut self) -> End {
        self.watched.enter(Phase::Answering);
        let flushed = std::future::poll_fn(|cx| {
            self.watched.remember(cx.waker());
            self.down.poll_flush(cx)
        });
        if flushed.await.is_ok() {
            // An HTTP/2 connection writes in a task of its own, and a stream that is reset takes back what waits for that.
            tokio::task::yield_now().await;
        }
        End::Cut
    }

    /// A 101: from here on both sides speak another protocol.
    async fn upgrade(&mut self, mut link: Box<Link>, pass: Option<Pass>) -> End {
        self.agree(&link);
        link.begin_body(Shape::from(Framing::default()), true, self.core.bounds.get());
        self.down.tunnel();
        self.watched.enter(Phase::Tunnel);
        tunnel::run(self.core, self.watched, self.down, &mut link, self.record, pass).await;
        End::Upgraded
    }

    fn agree(&mut self, link: &Link) {
        self.record.attempt_ended(AttemptResult::Answered);
        self.record.responded(101, Instant::now());
        let framing = link.framing().unwrap_or_default();
        let connection = [
            (&b"connection"[..], &b"upgrade"[..]),
            (&b"upgrade"[..], framing.upgrade.unwrap_or(b"websocket")),
            (&b"x-request-id"[..], self.prepared.worker.id()),
        ];
        let fields = headers::to_client(link.head_bytes(), link.head(), framing, connection.into_iter());
        self.down.respond(Answer {
            status: 101,
            reason: b"Switching Protocols",
            fields: &mut { fields },
            length: None,
            has_body: false,
            close: false,
        });
    }
}

/// Whether the status says that the worker failed. 501 and 505 say what it does not offer.
fn is_failure(status: u16) -> bool {
    status >= 500 && !matches!(status, 501 | 505)
}

/// A kept connection on which nothing has happened since, as far as that is known without asking the kernel.
fn idle(cx: &mut Context<'_>, upstream: &Upstream) -> Option<Box<Link>> {
    loop {
        let mut link = upstream.take_idle()?;
        if !link.has_stirred(cx) {
            return Some(link);
        }
    }
}

/// What came of holding a response back.
#[derive(Debug)]
enum Held {
    /// It is whole, and takes this of what there is for that.
    Whole(Option<Borrowed>),
    /// It is not one to be held, and is passed on as it comes.
    Passing,
    /// The client had gone.
    Left,
}

/// How the passing on of a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streamed {
    Whole,
    /// The client had gone.
    Left,
}
