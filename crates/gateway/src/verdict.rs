//! What happens to a request whose worker was lost: the retry table, as a pure function. A request is sent again
//! only where that cannot run it twice, or where running it twice is said to be harmless.

use crate::{record::AttemptResult, stats::Retry};

/// How far an attempt had come when it ended without a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not connected, or not one byte of the request was taken by the kernel.
    Unsent,
    /// Something was sent, and no response head came.
    Sent,
    /// The response head came and is held back; the client has seen nothing of it.
    Held,
    /// The client has seen the beginning of the response. It may be repeated if the rest can be asked for.
    Streamed,
}

/// Why the attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The connection could not be made, or broke.
    Gone,
    /// The gateway has no descriptor, port or memory left for a connection, which is not the worker's fault.
    Starved,
    /// No response head in the route's time.
    Late,
    /// Nothing more of its response comes, though nothing is wrong with the connection.
    Stalled,
    /// It answers that it is overloaded, and the request may be tried elsewhere.
    Unavailable,
    /// It lives, and says that it did nothing with the request (REFUSED_STREAM: RFC 9113, section 8.7).
    Refused,
    /// What came back is not the HTTP that the worker is to speak, or not an answer to what was asked.
    Garbled,
}

/// An attempt that ended without a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) stage: Stage,
    pub(crate) cause: Cause,
}

impl Loss {
    /// Whether it is known that the worker did not carry the request out.
    pub(crate) fn is_harmless(self) -> bool {
        self.stage == Stage::Unsent || matches!(self.cause, Cause::Unavailable | Cause::Refused)
    }

    /// Whether the attempt counts as one: something was sent.
    pub(crate) fn is_counted(self) -> bool {
        self.stage != Stage::Unsent || self.cause == Cause::Refused
    }

    /// What it is called in logs.
    pub(crate) fn result(self) -> AttemptResult {
        match (self.cause, self.stage) {
            (Cause::Late, _) => AttemptResult::Late,
            (Cause::Garbled, _) => AttemptResult::Garbled,
            (Cause::Stalled, _) => AttemptResult::Stalled,
            (Cause::Unavailable, _) => AttemptResult::Unavailable,
            (Cause::Refused, _) => AttemptResult::Refused,
            (Cause::Gone, Stage::Unsent) | (Cause::Starved, _) => AttemptResult::Unsent,
            (Cause::Gone, Stage::Sent) => AttemptResult::Lost,
            (Cause::Gone, Stage::Held) => AttemptResult::Held,
            (Cause::Gone, Stage::Streamed) => AttemptResult::Cut,
        }
    }

    /// What another attempt after it is called.
    pub(crate) fn retry(self) -> Retry {
        match (self.cause, self.stage) {
            (Cause::Late, _) => Retry::Timeout,
            (Cause::Unavailable | Cause::Refused, _) => Retry::Unavailable,
            (_, Stage::Unsent) => Retry::Unsent,
            (_, Stage::Sent) => Retry::Lost,
            (_, Stage::Held) => Retry::Held,
            (_, Stage::Streamed) => Retry::Streamed,
        }
    }
}

/// What is known about the request, with this loss counted in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Running it twice is as good as once: by its method, by the route, or by its `Idempotency-Key`.
    pub(crate) repeatable: bool,
    /// Its body, as far as it was read, is still here.
    pub(crate) replayable: bool,
    /// Attempts in which something was sent.
    pub(crate) attempts: usize,
    /// Workers that were lost while it was inside them.
    pub(crate) deaths: usize,
    /// How often a worker that lives has refused it.
    pub(crate) refusals: usize,
}

/// The bounds that end all trying.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) attempts_max: usize,
    pub(crate) deaths_max: usize,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another attempt, at once.
    Again,
    /// Another attempt, after a pause.
    Later,
    /// 503: the workers are overloaded, and it did not run.
    Overloaded,
    /// 502: it may have run, and it may not be run again.
    Unknown,
    /// 502: it was inside too many workers when they died.
    Deadly,
    /// 502: its attempts are used up.
    Exhausted,
    /// 504.
    Late,
    /// 502: the worker does not speak HTTP.
    Garbled,
}

/// The retry table.
pub(crate) fn verdict(loss: Loss, facts: Facts, bounds: Bounds) -> Verdict {
    match (loss.stage, loss.cause) {
        // Waiting again could double the wait without end, and the worker may still be at it.
        (_, Cause::Late) => Verdict::Late,
        (_, Cause::Unavailable) if facts.attempts < bounds.attempts_max => Verdict::Later,
        (_, Cause::Unavailable) => Verdict::Exhausted,
        // Another worker's connection would fail as well, until others end.
        (_, Cause::Starved) if facts.replayable => Verdict::Later,
        (_, Cause::Starved) => Verdict::Overloaded,
        // Another worker would say the same.
        (_, Cause::Garbled) => Verdict::Garbled,
        (Stage::Unsent, Cause::Gone) if facts.replayable => Verdict::Again,
        // Another worker may take it at once; who is refused again meets an overload, and comes back later.
        (_, Cause::Refused) if facts.replayable && facts.refusals <= 1 => Verdict::Again,
        (_, Cause::Refused) if facts.replayable && facts.attempts < bounds.attempts_max => Verdict::Later,
        (_, Cause::Refused) => Verdict::Overloaded,
        (Stage::Sent | Stage::Held | Stage::Streamed, Cause::Gone | Cause::Stalled)
            if facts.repeatable && facts.replayable =>
        {
            if facts.deaths >= bounds.deaths_max {
                Verdict::Deadly
            } else if facts.attempts >= bounds.attempts_max {
                Verdict::Exhausted
            } else {
                Verdict::Again
            }
        }
        (_, Cause::Gone | Cause::Stalled) => Verdict::Unknown,
    }
}

/// Whether the method's effect is the same however often it is applied (RFC 9110, section 9.2.2).
pub(crate) fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { attempts_max: 5, deaths_max: 2 };

    fn check(stage: Stage, cause: Cause, facts: (bool, bool, usize, usize), expected: Verdict) {
        let (repeatable, replayable, attempts, deaths) = facts;
        let facts = Facts { repeatable, replayable, attempts, deaths, refusals: 1 };
        assert_eq!(verdict(Loss { stage, cause }, facts, BOUNDS), expected, "{stage:?} {cause:?} {facts:?}");
    }

    #[test]
    fn table() {
        use Cause::*;
        use Stage::*;
        // Nothing was sent: any method, however often it happens.
        check(Unsent, Gone, (false, true, 0, 0), Verdict::Again);
        check(Unsent, Gone, (true, true, 0, 0), Verdict::Again);
        check(Unsent, Gone, (false, true, 9, 9), Verdict::Again);
        // Sent, no response byte, harmless to repeat.
        check(Sent, Gone, (true, true, 1, 1), Verdict::Again);
        // Sent, no response byte, otherwise.
        check(Sent, Gone, (false, true, 1, 1), Verdict::Unknown);
        // A small response died half-way: still a retry, but only for what may be repeated.
        check(Held, Gone, (true, true, 1, 1), Verdict::Again);
        check(Held, Gone, (false, true, 1, 1), Verdict::Unknown);
        // A large one died half-way: the rest is asked for, if it can be.
        check(Streamed, Gone, (true, true, 1, 1), Verdict::Again);
        check(Streamed, Gone, (false, true, 1, 1), Verdict::Unknown);
        // As much if it merely stands still.
        check(Streamed, Stalled, (true, true, 1, 1), Verdict::Again);
        check(Streamed, Stalled, (true, true, 2, 2), Verdict::Deadly);
        check(Streamed, Stalled, (false, true, 1, 1), Verdict::Unknown);
        // The body is no longer here.
        check(Sent, Gone, (true, false, 1, 1), Verdict::Unknown);
        check(Held, Gone, (true, false, 1, 1), Verdict::Unknown);
        check(Unsent, Gone, (true, false, 0, 0), Verdict::Unknown);
        // Query of death, and the end of attempts.
        check(Sent, Gone, (true, true, 2, 2), Verdict::Deadly);
        check(Held, Gone, (true, true, 2, 2), Verdict::Deadly);
        check(Sent, Gone, (true, true, 5, 1), Verdict::Exhausted);
        // An overloaded worker is followed by another one, not without end.
        check(Held, Unavailable, (true, true, 1, 0), Verdict::Later);
        check(Held, Unavailable, (true, true, 5, 0), Verdict::Exhausted);
        // The gateway's own want is waited for.
        check(Unsent, Starved, (false, true, 0, 0), Verdict::Later);
        check(Unsent, Starved, (false, false, 0, 0), Verdict::Overloaded);
        // Late and garbled answers are never tried again.
        check(Sent, Late, (true, true, 1, 0), Verdict::Late);
        check(Held, Late, (true, true, 1, 0), Verdict::Late);
        check(Sent, Garbled, (true, true, 1, 0), Verdict::Garbled);
    }

    #[test]
    fn the_refused_come_back_later() {
        for (replayable, refusals, expected) in [
            (true, 1, Verdict::Again),
            (true, 2, Verdict::Later),
            (true, 4, Verdict::Later),
            (true, 5, Verdict::Overloaded),
            (false, 1, Verdict::Overloaded),
            (false, 2, Verdict::Overloaded),
        ] {
            let facts = Facts { repeatable: false, replayable, attempts: refusals, deaths: 0, refusals };
            let loss = Loss { stage: Stage::Unsent, cause: Cause::Refused };
            assert_eq!(verdict(loss, facts, BOUNDS), expected, "{facts:?}");
        }
    }

    #[test]
    fn methods() {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            assert!(is_idempotent(method.as_bytes()), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", "PURGE"] {
            assert!(!is_idempotent(method.as_bytes()), "{method}");
        }
    }
}
