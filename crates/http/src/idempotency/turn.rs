//! A request's turn: the handler runs while its claim is kept alive, and what it answers is kept before it leaves.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream};
use http::response::Parts;
use lethe_state::{
    error::Error as StateError,
    idempotency::{ANSWER_BYTES_MAX, Answer, Claim, Idempotency},
};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::answer;
use crate::{
    problem::{OUTCOME, Problem, chain},
    session::Session,
};

/// A claim is extended after this part of its lease.
const EXTENSIONS_A_LEASE: u32 = 3;
/// How often the engine is told how a request has ended, and how long to wait before the next time.
const END_TRIES_MAX: u32 = 5;
const END_PAUSE: Duration = Duration::from_millis(200);

/// The claim on a request, and what ends it. One that is dropped leaves the claim to the end of its lease.
pub struct Turn {
    pub(super) engine: Arc<dyn Idempotency>,
    pub(super) claim: Claim,
    pub(super) lease: Duration,
    pub(super) session: Option<Session>,
}

/// A call of the engine: whether the claim still counted.
type Telling<'a> = Pin<Box<dyn Future<Output = Result<bool, StateError>> + Send + 'a>>;

/// An answer that may be kept, or not.
enum Gathered {
    /// It is whole.
    Whole(Bytes),
    /// It is larger than what is kept: its beginning, and the rest.
    Larger(Body),
    /// It broke off.
    Broken(axum::Error),
}

impl Turn {
    /// Runs the handler, and keeps its answer.
    pub(super) async fn take<E>(
        self,
        handler: impl Future<Output = Result<Response, E>>,
    ) -> Result<Response, E> {
        let handled = self.alive(AssertUnwindSafe(handler).catch_unwind()).await;
        let response = match handled {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.abandon().await;
                return Err(error);
            }
            Err(panic) => {
                self.abandon().await;
                std::panic::resume_unwind(panic);
            }
        };
        if !answer::is_kept(response.status().as_u16()) {
            self.abandon().await;
            return Ok(response);
        }
        if let Some(session) = &self.session
            && let Err(error) = session.commit().await
        {
            self.abandon().await;
            return Ok(Problem::from(&error).into_response());
        }
        Ok(self.keep(response).await)
    }

    /// Ends it with an answer that is given elsewhere, and kept if it is one of those that are: if something was done, or
    /// nobody knows. Else the next request with the key is the first. Its client is to get it in any case.
    pub async fn end(&self, parts: &Parts, body: Bytes) {
        let is_unknown = parts.headers.get(OUTCOME).is_some_and(|outcome| outcome == "unknown");
        self.conclude(answer::kept(parts.status.as_u16(), is_unknown, answer::of(parts, body))).await;
    }

    /// Ends it with an answer of this status that is too large to be kept, or has no end: later requests are told that it was
    /// given, or that nobody knows; or the next one is the first, if its status says that nothing was done.
    pub async fn end_unkept(&self, status: u16, is_unknown: bool) {
        self.conclude(answer::kept(status, is_unknown, None)).await;
    }

    async fn conclude(&self, kept: Option<Answer>) {
        match kept {
            Some(answer) => self.finish(answer).await,
            None => self.abandon().await,
        }
    }

    /// Extends the claim for as long as the work takes.
    pub async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut ticks = interval((self.lease / EXTENSIONS_A_LEASE).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first comes at once.
        ticks.tick().await;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = ticks.tick() => {}
            }
            let extended = self.engine.extend(&self.claim, self.lease);
            tokio::select! {
                biased;
                done = &mut work => return done,
                extended = extended => match extended {
                    Ok(true) => {}
                    Ok(false) => {
                        tracing::warn!("a request with an Idempotency-Key was slow to show life: another one does it too");
                        return work.await;
                    }
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "the claim on an Idempotency-Key was not extended");
                    }
                },
            }
        }
    }

    /// Keeps the answer, and gives it back to be sent.
    async fn keep(&self, response: Response) -> Response {
        if answer::is_endless(response.headers()) {
            self.finish(answer::not_kept()).await;
            return response;
        }
        let (parts, body) = response.into_parts();
        match self.alive(gather(body)).await {
            Gathered::Whole(body) => {
                if let Some(kept) = answer::of(&parts, body.clone()) {
                    self.finish(kept).await;
                } else {
                    self.finish(answer::not_kept()).await;
                }
                Response::from_parts(parts, Body::from(body))
            }
            Gathered::Larger(body) => {
                self.finish(answer::not_kept()).await;
                Response::from_parts(parts, body)
            }
            Gathered::Broken(error) => {
                tracing::error!(
                    error = chain(&error),
                    "the answer to a request with an Idempotency-Key broke off"
                );
                self.abandon().await;
                Problem::internal().into_response()
            }
        }
    }

    /// Its client gets the answer also when it cannot be kept: it has been done, and to say otherwise would have it done
    /// again.
    async fn finish(&self, answer: Answer) {
        match told(|| self.engine.finish(&self.claim, answer.clone())).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("an answer came after another one under its Idempotency-Key, and is not kept");
            }
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "an answer could not be kept under its Idempotency-Key"
                );
            }
        }
    }

    /// Lets the next request with the key be the first, since nothing was done. If that fails, it has to wait for the end of the lease.
    pub async fn abandon(&self) {
        if let Err(error) = told(|| self.engine.abandon(&self.claim)).await {
            tracing::warn!(error = chain(&error), "the claim on an Idempotency-Key was not given back");
        }
    }
}

/// Tells the engine how a request has ended, more than once if it is away for a moment.
async fn told<'a>(tell: impl Fn() -> Telling<'a>) -> Result<bool, StateError> {
    for _ in 1..END_TRIES_MAX {
        match tell().await {
            Err(error @ StateError::Unavailable(_)) => {
                tracing::debug!(
                    error = chain(&error),
                    "the end of a request could not be told; it is tried again"
                );
                sleep(END_PAUSE).await;
            }
            told => return told,
        }
    }
    tell().await
}

/// Reads an answer to its end, or as far as it may be kept.
async fn gather(body: Body) -> Gathered {
    let mut pieces = body.into_data_stream();
    let mut gathered = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Gathered::Broken(error),
        };
        gathered.extend_from_slice(&piece);
        if gathered.len() > ANSWER_BYTES_MAX {
            let begun = stream::once(async move { Ok(gathered.freeze()) });
            return Gathered::Larger(Body::from_stream(begun.chain(pieces)));
        }
    }
    Gathered::Whole(gathered.freeze())
}
