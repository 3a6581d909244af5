//! The loop of attempts: choose a worker, send, and when the worker is lost ask the retry table. A request waits
//! here while no worker is ready.

use std::{
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use lethe_model::gate::{Fate, Gate, Pass};

use crate::{
    balance::{Choice, choose},
    core::Core,
    downstream::{Broken, Downstream},
    exchange::{End, Exchange, Fail},
    problem::Failure,
    resume::Seen,
    route::Target,
    service::{Service, Upstream},
    verdict::{Bounds, Cause, Facts, Loss, Stage, Verdict, verdict},
    watch::{Phase, Watched},
};

/// How long to wait for the word on how a worker died, before a request is blamed for it. The broken connection is
/// seen before the end of the process, mostly by less than a millisecond.
const FATE_WAIT: Duration = Duration::from_millis(100);

/// Forwards a request until it is answered, given up, or its client has gone.
pub(crate) async fn forward<D: Downstream>(exchange: &mut Exchange<'_, D>) -> Result<End, Failure> {
    let core = exchange.core;
    let mut journey = Journey::default();
    let mut seen: Option<Seen> = None;
    loop {
        let found = find(core, exchange, &mut journey).await;
        let Some(found) = found else { return Ok(End::Left) };
        let (upstream, pass) = match (found, &seen) {
            (Ok(found), _) => found,
            (Err(failure), None) => return Err(journey.given_up(failure)),
            (Err(_), Some(_)) => {
                core.shard.cut.add(1);
                return Ok(End::Cut);
            }
        };
        let loss = match exchange.attempt(&upstream, pass, &mut seen).await {
            Ok(end) => return Ok(end),
            Err(Fail::Lost(loss)) => loss,
            Err(Fail::Broken(Broken::Gone)) => {
                return Err(Failure::Malformed("The request's body ended early."));
            }
            Err(Fail::Broken(Broken::Malformed(fault))) => return Err(Failure::Malformed(fault)),
        };
        let verdict = journey.lost(exchange, loss, &upstream, seen.as_ref()).await;
        match (verdict, &seen) {
            (Verdict::Again, None) if journey.is_over(core) => {
                return Err(journey.given_up(Failure::NoWorker));
            }
            (Verdict::Again, _) => {
                core.shard.retries.add(1);
                journey.tried.push(upstream);
            }
            (_, Some(_)) => {
                tracing::warn!(worker = %upstream.instance, "response cut: the worker was lost half-way");
                core.shard.cut.add(1);
                return Ok(End::Cut);
            }
            (Verdict::Late, None) if exchange.watched.owes.get() => return Err(Failure::Slow),
            (Verdict::Unknown, None) => return Err(Failure::Unknown),
            (Verdict::Deadly, None) => return Err(Failure::Deadly),
            (Verdict::Exhausted, None) => return Err(Failure::Exhausted),
            (Verdict::Late, None) => return Err(Failure::Late),
            (Verdict::Garbled, None) => return Err(Failure::Garbled),
        }
    }
}

/// What happened to one request so far.
#[derive(Default)]
struct Journey {
    /// Workers that it was lost with, not to be asked again while there are others.
    tried: Vec<Rc<Upstream>>,
    attempts: usize,
    /// The gates of the workers that were lost while it was inside, without those that it cannot have killed.
    deaths: Vec<Arc<Gate>>,
    /// When its looking for a worker ends, from the first loss or wait on; anew after each attempt that sent something.
    deadline: Option<Instant>,
}

impl Journey {
    fn deadline(&mut self, core: &Core) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + core.limits().queue_timeout)
    }

    /// Whether it has looked for a worker long enough. Attempts in which nothing was sent are bounded by this alone.
    fn is_over(&mut self, core: &Core) -> bool {
        self.deadline(core) <= Instant::now()
    }

    /// What its client is told when there is no worker for it: once something was sent, it may have run.
    fn given_up(&self, failure: Failure) -> Failure {
        if self.attempts == 0 { failure } else { Failure::Exhausted }
    }

    async fn lost<D>(
        &mut self,
        exchange: &Exchange<'_, D>,
        loss: Loss,
        upstream: &Upstream,
        seen: Option<&Seen>,
    ) -> Verdict {
        upstream.stats.failures.add(1);
        if loss.stage != Stage::Unsent {
            self.attempts += 1;
            self.deadline = None;
            if loss.cause == Cause::Gone {
                self.deaths.push(Arc::clone(&upstream.gate));
            }
        }
        let mut verdict = self.judge(exchange, loss, seen);
        if verdict == Verdict::Deadly {
            self.acquit().await;
            verdict = self.judge(exchange, loss, seen);
        }
        tracing::debug!(worker = %upstream.instance, ?loss, ?verdict, "attempt lost");
        verdict
    }

    fn judge<D>(&self, exchange: &Exchange<'_, D>, loss: Loss, seen: Option<&Seen>) -> Verdict {
        let facts = Facts {
            // What the client has seen must be continued, whatever else could be repeated.
            repeatable: seen.map_or(exchange.prepared.repeatable, |seen| seen.rest.is_some()),
            replayable: exchange.upload.is_replayable(),
            attempts: self.attempts,
            deaths: self.deaths.len(),
        };
        let limits = exchange.core.limits();
        let bounds = Bounds { attempts_max: limits.attempts_max, deaths_max: limits.deaths_max };
        verdict(loss, facts, bounds)
    }

    /// Takes from the deaths those that came from outside, as far as that is known in time: a worker that an operator,
    /// a spot notice or a test has killed was not killed by what it was doing.
    async fn acquit(&mut self) {
        for gate in std::mem::take(&mut self.deaths) {
            if tokio::time::timeout(FATE_WAIT, gate.fate()).await != Ok(Fate::Killed) {
                self.deaths.push(gate);
            }
        }
    }
}

type Found = Result<(Rc<Upstream>, Pass), Failure>;

/// A worker that let the request in, after a wait if need be; nothing if the client has gone meanwhile.
async fn find<D: Downstream>(
    core: &Core,
    exchange: &mut Exchange<'_, D>,
    journey: &mut Journey,
) -> Option<Found> {
    let target = exchange.target;
    match choose(&target.service, target.route.balance, &mut journey.tried, &core.dice) {
        Choice::Worker(upstream, pass) => Some(Ok((upstream, pass))),
        Choice::Nobody(_) => {
            let mut waiting = Box::pin(wait(core, exchange.watched, target, journey));
            let (down, watched) = (&mut *exchange.down, exchange.watched);
            std::future::poll_fn(move |cx| {
                watched.remember(cx.waker());
                match waiting.as_mut().poll(cx) {
                    Poll::Pending if down.poll_gone(cx).is_ready() => Poll::Ready(None),
                    found => found.map(Some),
                }
            })
            .await
        }
    }
}

/// Waits until there is a worker: for a change of the roster, or for the time of a worker that is passed over.
async fn wait(core: &Core, watched: &Watched, target: &Target, journey: &mut Journey) -> Found {
    let service = &target.service;
    let _place = Place::take(core, service).ok_or(Failure::QueueFull)?;
    tracing::debug!(service = %service.name, "a request waits for a worker");
    watched.enter(Phase::Choosing);
    let deadline = journey.deadline(core);
    loop {
        let changed = service.changed.notified();
        tokio::pin!(changed);
        // Registered before the look, so that no change slips between the two.
        changed.as_mut().enable();
        let again = match choose(service, target.route.balance, &mut journey.tried, &core.dice) {
            Choice::Worker(upstream, pass) => return Ok((upstream, pass)),
            Choice::Nobody(again) => again,
        };
        let now = Instant::now();
        if now >= deadline {
            return Err(Failure::NoWorker);
        }
        let pause = again.unwrap_or(deadline).min(deadline).saturating_duration_since(now);
        // A change or the end of the pause: both mean another look.
        let _ = tokio::time::timeout(pause.max(Duration::from_millis(1)), changed).await;
    }
}

/// A place in a service's queue, left when dropped.
struct Place<'a> {
    core: &'a Core,
    service: &'a Service,
}

impl<'a> Place<'a> {
    fn take(core: &'a Core, service: &'a Service) -> Option<Self> {
        let waiting = service.waiting.get();
        if waiting >= core.queue_max.get() {
            return None;
        }
        service.waiting.set(waiting + 1);
        core.shard.queued.add(1);
        Some(Self { core, service })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.service.waiting.set(self.service.waiting.get() - 1);
        self.core.shard.queued.subtract(1);
    }
}
