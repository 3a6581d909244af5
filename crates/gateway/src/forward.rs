//! The loop of attempts: find a worker, send, and when the worker is lost ask the retry table.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Response;
use lethe_model::gate::{Fate, Gate};

use crate::{
    attempt::{Outgoing, attempt},
    body::Body,
    client::Client,
    core::Core,
    problem::Failure,
    queue::{self, Search},
    route::Target,
    upstream::Upstream,
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
) -> Result<Response<Body>, Failure> {
    let field = outgoing.headers.get("lethe-class").map(http::HeaderValue::as_bytes);
    let class = queue::class(field, target.route.class);
    let mut journey = Journey { search: Search::new(class), attempts: 0, deaths: Vec::new() };
    target.service.retry_budget.deposit();
    loop {
        let found = queue::find(core, client, target, &mut journey.search).await;
        let (upstream, pass) = found.map_err(|failure| journey.given_up(failure))?;
        let loss = match attempt(core, client, target, outgoing, &upstream, pass).await {
            Ok(response) => return Ok(response),
            Err(loss) => loss,
        };
        if outgoing.upload.as_ref().is_some_and(|upload| upload.borrow().is_broken()) {
            return Err(Failure::Malformed(
                "The request's body ended early, or is not framed as HTTP demands.",
            ));
        }
        // A client that does not send its body is not the worker's failure.
        if loss.cause != Cause::Late || !client.owes.get() {
            upstream.failed(Instant::now());
        }
        match journey.lost(core, loss, outgoing, &upstream).await {
            Verdict::Again if journey.search.is_over(core, Instant::now()) => {
                return Err(journey.given_up(Failure::NoWorker { retry_after_s: 1 }));
            }
            Verdict::Again => {
                core.shard.retries.add(1);
                journey.search.tried.push(upstream);
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

/// What happened to one request so far.
struct Journey {
    search: Search,
    attempts: usize,
    /// The gates of the workers that were lost while it was inside, without those that it cannot have killed.
    deaths: Vec<Arc<Gate>>,
}

impl Journey {
    /// What its client is told when there is no worker for it: once something was sent, it may have run.
    fn given_up(&self, failure: Failure) -> Failure {
        if self.attempts == 0 { failure } else { Failure::Exhausted }
    }

    async fn lost(&mut self, core: &Core, loss: Loss, outgoing: &Outgoing, upstream: &Upstream) -> Verdict {
        upstream.stats.failures.add(1);
        if loss.stage != Stage::Unsent {
            self.attempts += 1;
            self.search.begin_anew();
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
