//! The one place where what went wrong becomes an answer: problem details (RFC 9457) with text that is meant for
//! the public, and nothing about workers, addresses or causes, which go to the log.

use std::{
    borrow::Cow,
    task::{Context, Poll},
};

use crate::{
    allowance::{Fields, Refusal},
    downstream::{Answer, Downstream},
    head::Fault,
    record::{Outcome, Record},
    stats::Shed,
};

/// Why a request gets an answer of the gateway instead of a worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request breaks the rules of HTTP; the text says which.
    Malformed(&'static str),
    /// The request asks for a part of HTTP that is not offered; the text says which.
    Unsupported(&'static str),
    /// The request target is too long.
    LongTarget,
    /// The head is too large.
    LargeHead,
    /// The request has come through here too often.
    Circle,
    /// It asks for what can be done with its target, and is not to be forwarded: here is the end of its way, which is the
    /// answer.
    LastHop,
    /// No route matches.
    NoRoute,
    /// The queue for a worker is full, or too long for the request to be served in time.
    QueueFull {
        /// When it may be worth another try.
        retry_after_s: u32,
    },
    /// No worker could take it in time.
    NoWorker {
        /// When it may be worth another try.
        retry_after_s: u32,
    },
    /// Its service has no worker.
    NotStarted(Unstarted),
    /// A connection that would be closed at once: the gateway is stopping.
    Stopping,
    /// The workers that were asked said that they are overloaded, and did nothing with it.
    Overloaded,
    /// A worker answered a request for a WebSocket over HTTP/2 as if it were another one.
    NotUpgraded,
    /// A worker was lost, and the request may have run.
    Unknown,
    /// The request was inside too many workers when they were lost.
    Deadly,
    /// Each attempt lost its worker.
    Exhausted,
    /// No response in time.
    Late,
    /// The client was too slow in sending its body.
    Slow,
    /// The worker's response was not the HTTP that it is to speak, or not an answer to the request.
    Garbled,
    /// It could not be counted, and its route lets pass only what is.
    Uncounted,
    /// It is to be done once, and its body is larger than it may be for that.
    LargeBody,
    /// It is to be done once, and there is no memory for its body.
    NoRoom,
    /// It is to be done once, and it cannot be told whether it was done.
    Unrecorded,
}

/// Why a request is not waiting for a worker to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unstarted {
    /// As many wait as may.
    Full,
    /// It took too long.
    Late,
    /// None starts.
    Failed,
}

/// When it may be worth another try, where workers do not start: the next start is tried so late at most.
const UNSTARTED_RETRY_S: u32 = 10;

impl Failure {
    /// Whether the answer says that the outcome is unknown: the request was sent, and may have been carried out.
    pub(crate) fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown | Self::Deadly | Self::Exhausted | Self::Late | Self::Garbled)
    }

    fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::QueueFull { retry_after_s } | Self::NoWorker { retry_after_s } => Some(retry_after_s),
            Self::NotStarted(Unstarted::Full | Unstarted::Late) => Some(1),
            Self::NotStarted(Unstarted::Failed) => Some(UNSTARTED_RETRY_S),
            Self::Overloaded | Self::Stopping | Self::Uncounted => Some(1),
            Self::NoRoom | Self::Unrecorded => Some(1),
            _ => None,
        }
    }

    /// How the request ended, as logs have it.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Malformed(_) => Outcome::Refused("malformed"),
            Self::Unsupported(_) => Outcome::Refused("unsupported"),
            Self::LongTarget => Outcome::Refused("long_target"),
            Self::LargeHead => Outcome::Refused("large_head"),
            Self::Circle => Outcome::Refused("circle"),
            Self::LastHop => Outcome::Refused("max_forwards"),
            Self::NoRoute => Outcome::Refused("no_route"),
            Self::Slow => Outcome::Refused("slow_client"),
            Self::NotUpgraded => Outcome::Refused("not_upgraded"),
            Self::Stopping => Outcome::Refused("stopping"),
            Self::QueueFull { .. } => Outcome::Shed(Shed::QueueFull),
            Self::NoWorker { .. } => Outcome::Shed(Shed::QueueTimeout),
            Self::NotStarted(Unstarted::Full) => Outcome::Shed(Shed::QueueFull),
            Self::NotStarted(Unstarted::Late) => Outcome::Shed(Shed::QueueTimeout),
            Self::NotStarted(Unstarted::Failed) => Outcome::Refused("not_started"),
            Self::Overloaded => Outcome::Shed(Shed::Overloaded),
            Self::Unknown => Outcome::Unknown("lost"),
            Self::Deadly => Outcome::Unknown("deadly"),
            Self::Exhausted => Outcome::Unknown("exhausted"),
            Self::Late => Outcome::Unknown("late"),
            Self::Garbled => Outcome::Unknown("garbled"),
            Self::Uncounted => Outcome::Refused("limits_away"),
            Self::LargeBody => Outcome::Refused("large_body"),
            Self::NoRoom => Outcome::Refused("no_memory"),
            Self::Unrecorded => Outcome::Refused("idempotency_away"),
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Self::LastHop => 200,
            Self::Malformed(_) => 400,
            Self::NoRoute => 404,
            Self::Slow => 408,
            Self::LargeBody => 413,
            Self::LongTarget => 414,
            Self::LargeHead => 431,
            Self::Unsupported(_) => 501,
            Self::NotUpgraded | Self::Unknown | Self::Deadly | Self::Exhausted | Self::Garbled => 502,
            Self::QueueFull { .. } | Self::NoWorker { .. } | Self::Overloaded | Self::Stopping => 503,
            Self::NotStarted(_) | Self::Uncounted | Self::NoRoom | Self::Unrecorded => 503,
            Self::Late => 504,
            Self::Circle => 508,
        }
    }

    fn title(self) -> &'static str {
        match self.status() {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            408 => "Request Timeout",
            413 => "Content Too Large",
            414 => "URI Too Long",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            508 => "Loop Detected",
            _ => "Gateway Timeout",
        }
    }

    /// After a request that could be read in two ways, or will not end, nothing more is read.
    pub(crate) fn closes(self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::Unsupported(_)
                | Self::LongTarget
                | Self::LargeHead
                | Self::LargeBody
                | Self::Slow
        )
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Malformed(detail) | Self::Unsupported(detail) => detail,
            Self::LongTarget => "The request target is too long.",
            Self::LargeHead => "The request's header fields are too large.",
            Self::Circle => {
                "The request goes round in circles: it has come through this gateway several times."
            }
            Self::LastHop => "",
            Self::NoRoute => "Nothing is served at this address.",
            Self::QueueFull { .. } => "Too many requests are waiting. Try again in a moment.",
            Self::NoWorker { .. } => "The service is not ready or busy. Try again in a moment.",
            Self::NotStarted(Unstarted::Full) => {
                "The service is starting, and as many requests as may wait for that do so. Try again in a moment."
            }
            Self::NotStarted(Unstarted::Late) => {
                "The service is starting, which takes longer than a request waits for it. Try again in a moment."
            }
            Self::NotStarted(Unstarted::Failed) => "The service does not start. Nothing was done.",
            Self::Overloaded => {
                "The service has too much to do, and did not take the request. Try again in a moment."
            }
            Self::Stopping => "The server is stopping. Connect again in a moment.",
            Self::NotUpgraded => "The service did not take up the WebSocket.",
            Self::Unknown => {
                "The request was interrupted, and it is not known whether it was carried out. Check before you \
                 send it again."
            }
            Self::Deadly => "The request was interrupted more than once and was given up.",
            Self::Exhausted => "The request was interrupted each time it was tried.",
            Self::Late => "The service did not answer in time. The request may still be carried out.",
            Self::Slow => "The request did not arrive in time.",
            Self::Garbled => "The service gave an answer that cannot be passed on.",
            Self::Uncounted => {
                "It cannot be told right now whether this was asked for too often, so nothing was done. Try again in \
                 a moment."
            }
            Self::LargeBody => "The request's body is larger than one with an Idempotency-Key may be.",
            Self::NoRoom => {
                "There is no room for the request right now, so nothing was done. Try again in a moment."
            }
            Self::Unrecorded => {
                "It cannot be told right now whether this was done before, so nothing was done. Try again in a moment, with \
                 the same Idempotency-Key."
            }
        }
    }

    /// The same, with the name of the service where it is that which cannot be had as a whole.
    fn detail_of(self, service: Option<&str>) -> Cow<'static, str> {
        match (self, service) {
            (Self::NotStarted(_), Some(name)) => {
                self.detail().replacen("The service", &format!("The service `{name}`"), 1).into()
            }
            _ => self.detail().into(),
        }
    }

    fn document(self, request_id: &[u8], service: Option<&str>) -> Vec<u8> {
        if !self.is_problem() {
            return Vec::new();
        }
        let (title, status, detail) = (self.title(), self.status(), self.detail_of(service));
        // Ids are made or checked here: they are ASCII.
        let id = String::from_utf8_lossy(request_id);
        let document =
            serde_json::json!({ "title": title, "status": status, "detail": detail, "request_id": id });
        document.to_string().into_bytes()
    }

    /// Says that nobody knows whether the request was carried out, if that is so.
    fn outcome_field(self) -> Option<(&'static [u8], &'static [u8])> {
        self.is_unknown().then_some((b"lethe-outcome", b"unknown"))
    }

    /// Whether there is anything to be said beside the status.
    fn is_problem(self) -> bool {
        self != Self::LastHop
    }

    /// Answers the client at `date` and waits until it is sent, or the client has gone. `is_head` leaves the body out;
    /// `standing` is how the client stands with the route's limits.
    pub(crate) async fn answer(
        self,
        down: &mut impl Downstream,
        request_id: &[u8],
        is_head: bool,
        standing: &Fields,
        (record, date): (&Record, &[u8]),
    ) {
        let retry_after = self.retry_after_s().map(|seconds| seconds.to_string());
        let retry_after = retry_after.iter().map(|seconds| (&b"retry-after"[..], seconds.as_bytes()));
        let standing = standing.iter().map(|(name, value)| (&name[..], &value[..]));
        let service = record.target().map(|target| target.service.name.as_str());
        let document = Document {
            status: self.status(),
            title: self.title(),
            fields: &mut self.outcome_field().into_iter().chain(retry_after).chain(standing),
            text: self.document(request_id, service),
            closes: self.closes(),
        };
        document.send(down, request_id, is_head, (record, date)).await;
    }
}

/// The status of a request that came too early (RFC 6585, section 4).
pub(crate) const TOO_MANY: u16 = 429;

/// Answers a request that came too early, as [`Failure::answer`] does.
pub(crate) async fn too_many(
    down: &mut impl Downstream,
    refusal: Refusal,
    request_id: &[u8],
    is_head: bool,
    (record, date): (&Record, &[u8]),
) {
    let Refusal { fields, problem } = refusal;
    turn_away(down, (TOO_MANY, "Too Many Requests"), (fields, problem), request_id, (is_head, record, date))
        .await;
}

/// Answers a request with a problem that others have found, as [`Failure::answer`] does.
pub(crate) async fn turn_away(
    down: &mut impl Downstream,
    (status, title): (u16, &'static str),
    (fields, mut problem): (Fields, serde_json::Map<String, serde_json::Value>),
    request_id: &[u8],
    (is_head, record, date): (bool, &Record, &[u8]),
) {
    problem.insert("request_id".into(), String::from_utf8_lossy(request_id).into());
    let document = Document {
        status,
        title,
        fields: &mut fields.iter().map(|(name, value)| (&name[..], &value[..])),
        text: serde_json::Value::Object(problem).to_string().into_bytes(),
        closes: false,
    };
    document.send(down, request_id, is_head, (record, date)).await;
}

/// A problem document, as it is sent.
struct Document<'a, 'f> {
    status: u16,
    title: &'static str,
    /// Beside those that all have.
    fields: &'f mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'f),
    text: Vec<u8>,
    closes: bool,
}

impl<'a> Document<'a, '_> {
    async fn send(
        self,
        down: &mut impl Downstream,
        request_id: &'a [u8],
        is_head: bool,
        (record, date): (&Record, &'a [u8]),
    ) {
        let document = self.text;
        let kind = (!document.is_empty()).then_some((&b"content-type"[..], &b"application/problem+json"[..]));
        let always = kind.into_iter().chain([(&b"cache-control"[..], &b"no-store"[..])]);
        let mut fields = always.chain(self.fields).chain([
            (&b"x-request-id"[..], request_id),
            // A server that has a clock says it (RFC 9110, section 6.6.1).
            (b"date", date),
        ]);
        let head = Answer {
            status: self.status,
            reason: self.title.as_bytes(),
            fields: &mut fields,
            length: Some(document.len() as u64),
            has_body: !is_head,
            close: self.closes,
        };
        give(down, head, if is_head { &[] } else { &document }, record).await;
    }
}

/// Gives an answer to the client and waits until it is sent, or the client has gone.
pub(crate) async fn give(down: &mut impl Downstream, head: Answer<'_, '_>, body: &[u8], record: &Record) {
    down.respond(head);
    let mut left = body;
    {
        let sent = std::future::poll_fn(|cx: &mut Context<'_>| {
            while !left.is_empty() {
                match std::task::ready!(down.poll_write(cx, left)) {
                    Ok(count) => {
                        record.sent(count);
                        left = &left[count..];
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            down.poll_finish(cx, b"")
        });
        if let Err(error) = sent.await {
            tracing::debug!(%error, "a client did not wait for its answer");
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(detail) => Self::Malformed(detail),
            Fault::LongTarget => Self::LongTarget,
            Fault::Large => Self::LargeHead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems() {
        for (failure, status, outcome, retry, close) in [
            (Failure::Malformed("Why."), 400, false, None, true),
            (Failure::Unsupported("Why."), 501, false, None, true),
            (Failure::LongTarget, 414, false, None, true),
            (Failure::LargeHead, 431, false, None, true),
            (Failure::Slow, 408, false, None, true),
            (Failure::Circle, 508, false, None, false),
            (Failure::NoRoute, 404, false, None, false),
            (Failure::QueueFull { retry_after_s: 7 }, 503, false, Some(7), false),
            (Failure::NoWorker { retry_after_s: 7 }, 503, false, Some(7), false),
            (Failure::NotUpgraded, 502, false, None, false),
            (Failure::Overloaded, 503, false, Some(1), false),
            (Failure::Stopping, 503, false, Some(1), false),
            (Failure::Unknown, 502, true, None, false),
            (Failure::Deadly, 502, true, None, false),
            (Failure::Exhausted, 502, true, None, false),
            (Failure::Garbled, 502, true, None, false),
            (Failure::Late, 504, true, None, false),
            (Failure::Uncounted, 503, false, Some(1), false),
            (Failure::LargeBody, 413, false, None, true),
            (Failure::NoRoom, 503, false, Some(1), false),
            (Failure::Unrecorded, 503, false, Some(1), false),
            (Failure::NotStarted(Unstarted::Full), 503, false, Some(1), false),
            (Failure::NotStarted(Unstarted::Late), 503, false, Some(1), false),
            (Failure::NotStarted(Unstarted::Failed), 503, false, Some(10), false),
        ] {
            assert_eq!(failure.status(), status, "{failure:?}");
            assert_eq!(failure.outcome_field().is_some(), outcome, "{failure:?}");
            assert_eq!(failure.retry_after_s(), retry, "{failure:?}");
            assert_eq!(failure.closes(), close, "{failure:?}");
            let problem: serde_json::Value =
                serde_json::from_slice(&failure.document(b"r-1", Some("shop"))).unwrap();
            assert_eq!(problem["status"], status);
            assert_eq!(problem["request_id"], "r-1");
            let detail = problem["detail"].as_str().unwrap();
            assert!(!detail.is_empty());
            assert_eq!(detail.contains("`shop`"), matches!(failure, Failure::NotStarted(_)), "{detail}");
        }
    }

    #[test]
    fn the_last_hop_is_no_problem() {
        assert_eq!((Failure::LastHop.status(), Failure::LastHop.document(b"r-1", None)), (200, Vec::new()));
        assert!(!Failure::LastHop.closes() && Failure::LastHop.outcome_field().is_none());
    }
}
