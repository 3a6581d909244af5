//! The loop of attempts: find a worker, send, and when the worker is lost ask the retry table.

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use lethe_model::gate::{Fate, Gate};

use crate::{
    config::Class,
    downstream::{Broken, Downstream},
    exchange::{End, Exchange, Fail},
    problem::Failure,
    queue::{self, Search},
    resume::Shown,
    retry_budget::backoff,
    verdict::{Bounds, Cause, Facts, Loss, Stage, Verdict, verdict},
    watch::Watched,
};

/// How long to wait for the word on how workers died, before a request is blamed for it, or another worker is told of it. The
/// broken connection is seen before the end of the process, mostly by less than a millisecond; but where there is too much to
/// do for the processors, the word may be seconds late, and a request that is wrongly blamed is lost. Only one whose worker
/// breaks off and lives waits for so long.
const FATE_WAIT: Duration = Duration::from_secs(5);

/// Forwards a request until it is answered, given up, or its client has gone.
pub(crate) async fn forward<D: Downstream>(exchange: &mut Exchange<'_, D>) -> Result<End, Failure> {
    let core = exchange.core;
    let mut journey = Journey::new(exchange.prepared.class);
    let mut seen: Option<Shown> = None;
    exchange.target.service.retry_budget.deposit();
    loop {
        let found = queue::find(core, exchange.watched, exchange.target, &mut journey.search);
        let found = unless_gone(exchange.down, exchange.watched, found).await;
        if let Some(took) = journey.search.start_took() {
            exchange.record.waited_for_start(took);
        }
        let Some(found) = found else { return Ok(End::Left) };
        let (upstream, pass) = match (found, &seen) {
            (Ok(found), _) => found,
            (Err(failure), None) => return Err(journey.given_up(failure)),
            (Err(_), Some(_)) => return Ok(exchange.cut().await),
        };
        exchange.record.attempt(&upstream);
        exchange.attempts_left = core.limits().attempts_max.saturating_sub(journey.attempts);
        let round = upstream.refusals();
        let mut loss = match exchange.attempt(&upstream, pass, &mut seen).await {
            Ok(end) => return Ok(end),
            Err(Fail::Lost(loss)) => loss,
            Err(Fail::Stopping) => return Err(Failure::Stopping),
            Err(Fail::NotUpgraded) => return Err(Failure::NotUpgraded),
            // A response that was begun can only go on or end.
            Err(Fail::Broken(_)) if seen.is_some() => return Ok(exchange.cut().await),
            Err(Fail::Broken(Broken::Gone)) => {
                return Err(Failure::Malformed("The request's body ended early."));
            }
            Err(Fail::Broken(Broken::Malformed(fault))) => return Err(Failure::Malformed(fault)),
        };
        // Where an answer is gathered before it is given, what is lost half-way is lost unseen.
        if loss.stage == Stage::Streamed
            && let Some(bytes) = exchange.down.take_back()
        {
            exchange.record.took_back(bytes);
            (loss.stage, seen) = (Stage::Held, None);
        }
        exchange.record.attempt_ended(loss.result());
        let slow = loss.cause == Cause::Late && exchange.watched.owes.get();
        match loss.cause {
            Cause::Refused => upstream.refused(round, Instant::now()),
            // It has answered, which is counted already; and what the gateway lacks itself is not the worker's failure.
            Cause::Unavailable | Cause::Starved => {}
            // A client that does not send its body is not the worker's failure.
            _ if slow => {}
            _ => upstream.failed(Instant::now()),
        }
        journey.note(loss, &upstream.gate);
        let verdict = journey.verdict(exchange, loss, seen.as_ref()).await;
        tracing::debug!(worker = %upstream.instance, ?loss, ?verdict, "attempt lost");
        let failure = match verdict {
            Verdict::Again if journey.search.is_over(core, Instant::now()) => {
                journey.given_up(Failure::NoWorker { retry_after_s: 1 })
            }
            Verdict::Later if journey.search.is_over(core, Instant::now()) => {
                journey.given_up(journey.overloaded(loss))
            }
            verdict @ (Verdict::Again | Verdict::Later) => {
                exchange.record.retried(loss.retry());
                if exchange.prepared.is_keyed && loss.cause == Cause::Gone && loss.stage != Stage::Unsent {
                    let died = tokio::time::timeout(FATE_WAIT, upstream.gate.fate());
                    match unless_gone(exchange.down, exchange.watched, died).await {
                        Some(Ok(Fate::Killed | Fate::Fell)) => exchange.lost.push(upstream.instance.clone()),
                        // It may live, and still do it.
                        Some(Err(_)) => {}
                        None => return Ok(End::Left),
                    }
                }
                journey.search.tried.push(upstream);
                if verdict == Verdict::Later {
                    let pause = tokio::time::sleep(backoff(journey.pauses, core.dice.next()));
                    journey.pauses += 1;
                    if unless_gone(exchange.down, exchange.watched, pause).await.is_none() {
                        return Ok(End::Left);
                    }
                }
                continue;
            }
            Verdict::Late if slow => Failure::Slow,
            Verdict::Overloaded => journey.given_up(journey.overloaded(loss)),
            Verdict::Unknown => Failure::Unknown,
            Verdict::Deadly => Failure::Deadly,
            Verdict::Exhausted => Failure::Exhausted,
            Verdict::Late => Failure::Late,
            Verdict::Garbled => Failure::Garbled,
        };
        if seen.is_some() {
            tracing::warn!(worker = %upstream.instance, "response cut: the worker was lost half-way");
            return Ok(exchange.cut().await);
        }
        return Err(failure);
    }
}

/// Waits for `future`, but no longer than the client waits.
pub(crate) async fn unless_gone<D: Downstream, F: Future>(
    down: &mut D,
    watched: &Watched,
    future: F,
) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        watched.remember(cx.waker());
        match future.as_mut().poll(cx) {
            Poll::Pending if down.poll_gone(cx).is_ready() => Poll::Ready(None),
            found => found.map(Some),
        }
    })
    .await
}

/// What happened to one request so far.
struct Journey {
    search: Search,
    attempts: usize,
    /// How often it has paused.
    pauses: u32,
    /// A worker may have carried it out, as far as is known.
    may_have_run: bool,
    /// How often a worker that lives has refused it.
    refusals: usize,
    /// The gates of the workers that were lost, or stood still, while it was inside, without those that it cannot have killed.
    deaths: Vec<Arc<Gate>>,
}

impl Journey {
    fn new(class: Class) -> Self {
        Self {
            search: Search::new(class),
            attempts: 0,
            pauses: 0,
            may_have_run: false,
            refusals: 0,
            deaths: Vec::new(),
        }
    }

    /// What its client is told when no worker takes it: that it may have run, if a worker was lost with it.
    fn given_up(&self, failure: Failure) -> Failure {
        if self.may_have_run { Failure::Exhausted } else { failure }
    }

    /// Who has too much to do.
    fn overloaded(&self, loss: Loss) -> Failure {
        match loss.cause {
            Cause::Starved => Failure::NoWorker { retry_after_s: 1 },
            _ => Failure::Overloaded,
        }
    }

    /// Counts a loss in.
    fn note(&mut self, loss: Loss, gate: &Arc<Gate>) {
        self.may_have_run |= !loss.is_harmless();
        self.refusals += usize::from(loss.cause == Cause::Refused);
        if loss.is_counted() {
            self.attempts += 1;
        }
        if loss.stage != Stage::Unsent {
            self.search.begin_anew();
            if matches!(loss.cause, Cause::Gone | Cause::Stalled) {
                self.deaths.push(Arc::clone(gate));
            }
        }
    }

    /// What follows a loss that is counted in already. Where it hangs on how the workers died, word of that is waited for.
    async fn verdict<D: Downstream>(
        &mut self,
        exchange: &Exchange<'_, D>,
        loss: Loss,
        seen: Option<&Shown>,
    ) -> Verdict {
        let mut verdict = self.judge(exchange, loss, seen);
        if verdict == Verdict::Late && seen.is_none() && self.retries_late(exchange) {
            verdict = Verdict::Again;
        }
        if loss.cause == Cause::Refused && verdict == Verdict::Later && !exchange.may_retry() {
            verdict = Verdict::Overloaded;
        }
        if verdict == Verdict::Deadly {
            self.acquit().await;
            verdict = self.judge(exchange, loss, seen);
        }
        verdict
    }

    /// Whether a late worker is followed by another one, as the route may want it.
    fn retries_late<D: Downstream>(&self, exchange: &Exchange<'_, D>) -> bool {
        exchange.target.route.retry_on.timeout
            && exchange.prepared.repeatable
            && exchange.upload.is_replayable()
            && !exchange.watched.owes.get()
            && self.attempts < exchange.core.limits().attempts_max
            && exchange.may_retry()
    }

    fn judge<D: Downstream>(&self, exchange: &Exchange<'_, D>, loss: Loss, seen: Option<&Shown>) -> Verdict {
        let facts = Facts {
            // What the client has seen must be continued, whatever else could be repeated.
            repeatable: seen.map_or(exchange.prepared.repeatable, |seen| seen.rest.is_some()),
            replayable: exchange.upload.is_replayable(),
            attempts: self.attempts,
            deaths: self.deaths.len(),
            refusals: self.refusals,
        };
        let limits = exchange.core.limits();
        let bounds = Bounds { attempts_max: limits.attempts_max, deaths_max: limits.deaths_max };
        verdict(loss, facts, bounds)
    }

    /// Takes from the deaths those that came from outside, as far as that is known in time: a worker that an operator,
    /// a spot notice or a test has killed was not killed by what it was doing. One that takes a connection once more
    /// while it dies has died once; one that lives is lost as often as it breaks off.
    async fn acquit(&mut self) {
        let deadline = tokio::time::Instant::now() + FATE_WAIT;
        for gate in std::mem::take(&mut self.deaths) {
            let fate = tokio::time::timeout_at(deadline, gate.fate()).await;
            let is_counted = || self.deaths.iter().any(|counted| Arc::ptr_eq(counted, &gate));
            match fate {
                Ok(Fate::Killed) => {}
                Ok(Fate::Fell) if is_counted() => {}
                Ok(Fate::Fell) | Err(_) => self.deaths.push(gate),
            }
        }
    }
}
