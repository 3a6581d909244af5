//! What becomes of sessions, counted for metrics and told to the log. A session is named there by a hash of its id, so that
//! lines about one can be found together and nobody who reads them can act as its user (OWASP Session Management Cheat
//! Sheet, "Logging Sessions Life Cycle").

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{address::ClientAddress, metrics::Page};

/// What log lines about sessions have as their target, so that they can be sent elsewhere, or nowhere.
pub const LOG_TARGET: &str = "lethe::session";
/// How often the log says at most that cookies came which name no session.
const UNKNOWN_LOG_EVERY: Duration = Duration::from_secs(10);

/// What can happen to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// One began without anybody being signed in.
    Begun,
    /// Somebody signed in, with a new id.
    SignedIn,
    /// It got a new id for the same user.
    Renewed,
    /// Somebody signed out.
    SignedOut,
    /// A cookie came whose session is over: signed out, renewed, revoked or expired.
    Ended,
    /// A cookie came that nobody has given out: guessed, planted or forged, or of a session that has been forgotten.
    Unknown,
}

impl Event {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Begun, Self::SignedIn, Self::Renewed, Self::SignedOut, Self::Ended, Self::Unknown];

    /// Its name, for a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::SignedIn => "signed_in",
            Self::Renewed => "renewed",
            Self::SignedOut => "signed_out",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
        }
    }
}

/// What became of the sessions of a layer since the worker began.
#[derive(Debug, Default)]
pub struct Life {
    counts: [AtomicU64; Event::ALL.len()],
    unknown: Mutex<Unknown>,
}

/// Cookies that name no session, and were not told yet.
#[derive(Debug, Default)]
struct Unknown {
    untold: u64,
    told_at: Option<Instant>,
}

impl Life {
    /// How often it happened.
    pub fn of(&self, event: Event) -> u64 {
        self.counts[event as usize].load(Ordering::Relaxed)
    }

    fn count(&self, event: Event) {
        self.counts[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what became of a session of this public name, and says it: who signs in and out to everybody who reads the log,
    /// the rest to who wants to know it all.
    pub(super) fn tell(&self, event: Event, session: Option<&str>, user: Option<&str>) {
        self.count(event);
        match event {
            Event::SignedIn => tracing::info!(target: LOG_TARGET, session, user, "signed in"),
            Event::Renewed => tracing::info!(target: LOG_TARGET, session, user, "renewed"),
            Event::SignedOut => tracing::info!(target: LOG_TARGET, session, user, "signed out"),
            Event::Begun => tracing::debug!(target: LOG_TARGET, session, "begun"),
            Event::Ended => {
                tracing::debug!(target: LOG_TARGET, session, "a cookie of a session that is over")
            }
            Event::Unknown => {}
        }
    }

    /// Counts a cookie that nobody has given out, and warns of them, not more often than [`UNKNOWN_LOG_EVERY`].
    pub(super) fn unknown(&self, from: ClientAddress) {
        self.count(Event::Unknown);
        let cookies = {
            // Nothing that could panic half-way is done under the lock.
            let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
            unknown.untold += 1;
            if unknown.told_at.is_some_and(|at| at.elapsed() < UNKNOWN_LOG_EVERY) {
                return;
            }
            unknown.told_at = Some(Instant::now());
            std::mem::take(&mut unknown.untold)
        };
        let last_from = from.0.map(tracing::field::display);
        tracing::warn!(target: LOG_TARGET, cookies, last_from, "cookies came that name no session");
    }

    /// Adds the counts to a page, for the cookie of this name.
    pub(super) fn count_on(&self, page: &mut Page, cookie: &str) {
        for event in Event::ALL {
            page.counter(
                "lethe_session_events_total",
                "What became of sessions, by event.",
                &[("cookie", cookie), ("event", event.name())],
                self.of(event),
            );
        }
    }
}
