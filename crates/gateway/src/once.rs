//! Requests that are done once: one with a key is read whole and shown to the [`ledger`](crate::ledger) before a worker is
//! looked for. The first goes on, and is kept (`keeping`); others are answered here.

use std::{
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use crate::{
    admit::Length,
    allowance::{Fields, Head},
    config::once::Once,
    core::Core,
    downstream::{Answer, Broken, Downstream},
    forward::unless_gone,
    ledger::{self, Begun, Clerk, Reading, Refusal, Turn},
    problem::{self, Failure},
    record::{Outcome, Record},
    request::{self, Prepared},
    route::Target,
    upload::Upload,
    watch::{Phase, Watched},
};

/// The status of an answer that says: nobody knows what became of the first request with this key.
const UNKNOWN: u16 = 502;

/// A request that may be done once, and what is known of it.
pub(crate) struct Asked<'a> {
    pub(crate) core: &'a Rc<Core>,
    pub(crate) watched: &'a Rc<Watched>,
    pub(crate) target: &'a Rc<Target>,
    pub(crate) prepared: &'a Prepared,
    pub(crate) record: &'a Record,
    /// How its client stands, which the answer tells.
    pub(crate) standing: &'a Fields,
}

/// What becomes of it.
pub(crate) enum Entry {
    /// It has no key, and goes on as any other.
    Keyless,
    /// It is the first with its key. Its body is whole.
    First(Upload, Box<dyn Turn>),
    /// It was answered, or its client has gone.
    Over,
}

impl Asked<'_> {
    /// Finds out what is to be done with it.
    pub(crate) async fn enter<D: Downstream>(&self, down: &mut D, clerk: &dyn Clerk, once: &Once) -> Entry {
        let head = Head::of(&self.prepared.worker.bytes);
        match clerk.read(head) {
            Reading::Keyless => return Entry::Keyless,
            Reading::Keyed => {}
            Reading::Refused(refusal) => return self.turn_away(down, refusal).await,
        }
        let mut upload = Upload::new(self.prepared.length, once.body_bytes_max, &self.core.replay_share);
        let collected = self.collect(down, &mut upload, once).await;
        let begun = match collected {
            Ok(()) => {
                self.watched.enter(Phase::Choosing);
                let begun = unless_gone(down, self.watched, clerk.begin(head, upload.waiting())).await;
                if let Some(Begun::First(turn)) = begun {
                    return Entry::First(upload, turn);
                }
                Ok(begun)
            }
            Err(failure) => Err(failure),
        };
        self.record.received(upload.received);
        match begun {
            Err(failure) => self.fail(down, failure).await,
            Ok(Some(Begun::Answered(answer))) => self.replay(down, answer).await,
            Ok(Some(Begun::Refused(refusal))) => self.turn_away(down, refusal).await,
            Ok(Some(Begun::Away | Begun::First(_))) => {
                self.target.stats.once_away.add(1);
                self.fail(down, Failure::Unrecorded).await
            }
            Ok(None) => {
                down.cut();
                Entry::Over
            }
        }
    }

    /// Reads all of the body.
    async fn collect<D: Downstream>(
        &self,
        down: &mut D,
        upload: &mut Upload,
        once: &Once,
    ) -> Result<(), Failure> {
        if self.prepared.worker.upgrades || self.prepared.connects {
            return Err(Failure::Unsupported("What is done once cannot change the protocol."));
        }
        let is_too_large = |bytes: u64| bytes > once.body_bytes_max as u64;
        if let Length::Sized(bytes) = self.prepared.length
            && is_too_large(bytes)
        {
            return Err(Failure::LargeBody);
        }
        self.watched.expect(Duration::MAX);
        self.watched.enter(Phase::Uploading);
        std::future::poll_fn(|cx| {
            self.watched.remember(cx.waker());
            match upload.poll_whole(cx, down, self.watched) {
                Poll::Ready(Ok(true)) => Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) if is_too_large(upload.received as u64) => {
                    Poll::Ready(Err(Failure::LargeBody))
                }
                Poll::Ready(Ok(false)) => Poll::Ready(Err(Failure::NoRoom)),
                Poll::Ready(Err(Broken::Gone)) => {
                    Poll::Ready(Err(Failure::Malformed("The request's body ended early.")))
                }
                Poll::Ready(Err(Broken::Malformed(fault))) => Poll::Ready(Err(Failure::Malformed(fault))),
                Poll::Pending if self.watched.late.get() => Poll::Ready(Err(Failure::Slow)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    async fn fail<D: Downstream>(&self, down: &mut D, failure: Failure) -> Entry {
        let Self { core, watched, prepared, record, standing, .. } = self;
        request::refuse_telling(core, watched, down, (failure, standing), prepared, record).await;
        Entry::Over
    }

    async fn turn_away<D: Downstream>(&self, down: &mut D, refusal: Refusal) -> Entry {
        self.target.stats.once_refused.add(1);
        let Refusal { status, mut fields, problem } = refusal;
        fields.extend_from_slice(self.standing);
        self.watched.enter(Phase::Answering);
        self.record.end(match status {
            UNKNOWN => Outcome::Unknown("earlier"),
            _ => Outcome::Refused("idempotency_key"),
        });
        self.record.responded(status, Instant::now());
        let (id, date) = (self.prepared.id(), self.core.date.get());
        let title = reason(status);
        problem::turn_away(
            down,
            (status, title),
            (fields, problem),
            id,
            (self.prepared.is_head, self.record, &date),
        )
        .await;
        Entry::Over
    }

    /// Gives the answer of the first request again.
    async fn replay<D: Downstream>(&self, down: &mut D, answer: ledger::Answer) -> Entry {
        self.target.stats.replayed.add(1);
        let ledger::Answer { status, fields, body } = answer;
        self.watched.enter(Phase::Answering);
        self.record.end(Outcome::Replayed);
        self.record.responded(status, Instant::now());
        let date = self.core.date.get();
        let ours = [(&b"x-request-id"[..], self.prepared.id()), (&b"date"[..], &date[..])];
        let kept = fields.iter().chain(self.standing).map(|(name, value)| (&name[..], &value[..]));
        let bodiless = self.prepared.is_head || matches!(status, 204 | 304);
        let head = Answer {
            status,
            reason: reason(status).as_bytes(),
            fields: &mut kept.chain(ours),
            length: (!matches!(status, 204 | 304)).then_some(body.len() as u64),
            has_body: !bodiless,
            close: false,
        };
        let body = if bodiless { &[][..] } else { &body };
        problem::give(down, head, body, self.record).await;
        Entry::Over
    }
}

/// What HTTP/1.1 says beside a status.
fn reason(status: u16) -> &'static str {
    let status = http::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or_default()
}
