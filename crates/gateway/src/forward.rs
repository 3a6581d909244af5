//! The loop of attempts: choose a worker, send, and when the worker is lost ask the retry table. A request waits
//! here while no worker is ready.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Response;
use lethe_model::gate::{Fate, Gate, Pass};

use crate::{
    attempt::{Outgoing, attempt},
    balance::{Choice, choose},
    body::Body,
    client::{Client, Phase},
    core::Core,
    problem::Failure,
    record::Record,
    route::Target,
    service::{Service, Upstream},
    stats::Retry,
    verdict::{Bounds, Cause, Facts, Loss, Stage, Verdict, verdict},
};

/// How long to wait for the word on how a worker died, before a request is blamed for it. The broken connection is
/// seen before the end of the process, mostly by less than a millisecond.
const FATE_WAIT: Duration = Duration::from_millis(100);

/// Forwards a request until it is answered or given up.
pub(crate) async fn forward(
    core: &Rc<Core>,
    client: &Rc<Client>,
    target: &Target,
    outgoing: &Outgoing,
    record: &Record,
) -> Result<Response<Body>, Failure> {
    let mut journey = Journey::default();
    loop {
        let found = find(core, client, target, &mut journey).await;
        let (upstream, pass) = found.map_err(|failure| journey.given_up(failure))?;
        record.attempt(&upstream);
        let loss = match attempt(core, client, target, outgoing, &upstream, pass, record).await {
            Ok(response) => return Ok(response),
            Err(loss) => loss,
        };
        record.attempt_ended(loss.result());
        if outgoing.upload.as_ref().is_some_and(|upload| upload.borrow().is_broken()) {
            return Err(Failure::Malformed(
                "The request's body ended early, or is not framed as HTTP demands.",
            ));
        }
        match journey.lost(core, loss, outgoing, &upstream).await {
            Verdict::Again if journey.is_over(core) => return Err(journey.given_up(Failure::NoWorker)),
            Verdict::Again => {
                record.retried(why(loss));
                journey.tried.push(upstream);
            }
            Verdict::Late if client.owes.get() => return Err(Failure::Slow),
            Verdict::Unknown => return Err(Failure::Unknown),
            Verdict::Deadly => return Err(Failure::Deadly),
            Verdict::Exhausted => return Err(Failure::Exhausted),
            Verdict::Late => return Err(Failure::Late),
            Verdict::Garbled => return Err(Failure::Garbled),
        }
    }
}

/// What another attempt after this loss is called.
fn why(loss: Loss) -> Retry {
    match loss.stage {
        Stage::Unsent => Retry::Unsent,
        Stage::Sent => Retry::Lost,
        Stage::Held => Retry::Held,
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
        *self.deadline.get_or_insert_with(|| Instant::now() + core.config.limits.queue_timeout)
    }

    /// Whether it has looked for a worker long enough. Attempts in which nothing was sent are bounded by this alone.
    fn is_over(&mut self, core: &Core) -> bool {
        self.deadline(core) <= Instant::now()
    }

    /// What its client is told when there is no worker for it: once something was sent, it may have run.
    fn given_up(&self, failure: Failure) -> Failure {
        if self.attempts == 0 { failure } else { Failure::Exhausted }
    }

    async fn lost(&mut self, core: &Core, loss: Loss, outgoing: &Outgoing, upstream: &Upstream) -> Verdict {
        upstream.stats.failures.add(1);
        if loss.stage != Stage::Unsent {
            self.attempts += 1;
            self.deadline = None;
            if loss.cause == Cause::Gone {
                self.deaths.push(Arc::clone(&upstream.gate));
            }
        }
        let mut verdict = self.judge(core, loss, outgoing);
        if verdict == Verdict::Deadly {
            self.acquit().await;
            verdict = self.judge(core, loss, outgoing);
        }
        tracing::debug!(worker = %upstream.instance, ?loss, ?verdict, "attempt lost");
        verdict
    }

    fn judge(&self, core: &Core, loss: Loss, outgoing: &Outgoing) -> Verdict {
        let replayable = outgoing.upload.as_ref().is_none_or(|upload| upload.borrow().is_replayable());
        let facts = Facts {
            repeatable: outgoing.repeatable,
            replayable,
            attempts: self.attempts,
            deaths: self.deaths.len(),
        };
        let limits = &core.config.limits;
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

/// A worker that let the request in, after a wait if need be.
async fn find(
    core: &Core,
    client: &Client,
    target: &Target,
    journey: &mut Journey,
) -> Result<(Rc<Upstream>, Pass), Failure> {
    let service = &target.service;
    match choose(service, target.route.balance, &mut journey.tried, &core.dice) {
        Choice::Worker(upstream, pass) => Ok((upstream, pass)),
        Choice::Nobody(_) => Box::pin(wait(core, client, target, journey)).await,
    }
}

/// Waits until there is a worker: for a change of the roster, or for the time of a worker that is passed over.
async fn wait(
    core: &Core,
    client: &Client,
    target: &Target,
    journey: &mut Journey,
) -> Result<(Rc<Upstream>, Pass), Failure> {
    let service = &target.service;
    let _place = Place::take(core, service).ok_or(Failure::QueueFull)?;
    tracing::debug!(service = %service.name, "a request waits for a worker");
    client.enter(Phase::Choosing);
    let begun = Instant::now();
    let deadline = journey.deadline(core);
    loop {
        let changed = service.changed.notified();
        tokio::pin!(changed);
        // Registered before the look, so that no change slips between the two.
        changed.as_mut().enable();
        let again = match choose(service, target.route.balance, &mut journey.tried, &core.dice) {
            Choice::Worker(upstream, pass) => {
                core.shard.waited(begun.elapsed());
                return Ok((upstream, pass));
            }
            Choice::Nobody(again) => again,
        };
        let now = Instant::now();
        if now >= deadline {
            core.shard.waited(begun.elapsed());
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
        if waiting >= core.queue_max {
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
