//! The answer to those who ask too often: 429 (RFC 6585, section 4) with the problem type that the draft of the `RateLimit`
//! fields has for it (draft-ietf-httpapi-ratelimit-headers-11, section 5.1).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use lethe_state::limits::{Quota, Verdict};

use super::fields::{self, Standing};
use crate::problem::Problem;

/// Names the problem, as it is to be registered with IANA.
const TYPE: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// A request that was refused, as an answer for its client.
#[derive(Clone, Debug)]
pub struct Refusal {
    standings: Vec<Standing>,
}

impl Refusal {
    /// Made of the verdicts of some limits; `None` if all of them allow it.
    pub fn of<'a>(verdicts: impl IntoIterator<Item = (&'a str, Quota, Verdict)>) -> Option<Self> {
        let standings = verdicts.into_iter().filter_map(|(name, quota, verdict)| {
            // A quota that an engine has judged by makes sense.
            let pace = quota.pace().ok()?;
            Some(Standing { name: name.to_owned(), quota, pace, verdict })
        });
        let standings: Vec<_> = standings.collect();
        let is_refused = standings.iter().any(|standing| !standing.verdict.allowed);
        is_refused.then_some(Self { standings })
    }

    pub(super) fn new(standings: Vec<Standing>) -> Self {
        Self { standings }
    }

    /// The names of the limits that refuse.
    pub fn limits(&self) -> impl Iterator<Item = &str> {
        self.refusing().map(|standing| standing.name.as_str())
    }

    /// How long until all of them would allow it; [`Duration::MAX`] when waiting does not help.
    pub fn retry_after(&self) -> Duration {
        self.refusing().map(|standing| standing.verdict.retry_after).max().unwrap_or_default()
    }

    fn refusing(&self) -> impl Iterator<Item = &Standing> {
        self.standings.iter().filter(|standing| !standing.verdict.allowed)
    }

    /// The problem document, without the `RateLimit` fields.
    pub fn problem(&self) -> Problem {
        let retry_after = self.retry_after();
        let names: Vec<&str> = self.limits().collect();
        let text = match retry_after {
            Duration::MAX => "This is more than is ever allowed at once. Ask for less.".to_owned(),
            _ => format!(
                "This was asked for too often. Try again in {}.",
                in_words(fields::seconds(retry_after))
            ),
        };
        let problem =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota-exceeded", "Too many requests", text)
                .of_type(TYPE)
                .with("violated-policies", names);
        match retry_after {
            Duration::MAX => problem,
            _ => problem.retry_after(u32::try_from(fields::seconds(retry_after)).unwrap_or(u32::MAX)),
        }
    }

    /// The answer for the client that sent these request headers: a page when it is a browser that loads one.
    pub fn response_for(&self, request_headers: &HeaderMap) -> Response {
        self.finish(self.problem().response_for(request_headers))
    }

    /// Adds the `RateLimit` fields.
    pub fn put(&self, headers: &mut HeaderMap) {
        fields::put(headers, self.standings.iter());
    }

    fn finish(&self, mut response: Response) -> Response {
        self.put(response.headers_mut());
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.finish(self.problem().into_response())
    }
}

fn in_words(seconds: u64) -> String {
    match seconds {
        0..=1 => "a second".to_owned(),
        2..=119 => format!("{seconds} seconds"),
        120..=7199 => format!("{} minutes", seconds.div_ceil(60)),
        7200..=172_799 => format!("{} hours", seconds.div_ceil(3600)),
        _ => format!("{} days", seconds.div_ceil(24 * 3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(allowed: bool, retry_after: Duration) -> Verdict {
        Verdict { allowed, remaining: 0, retry_after, reset_after: Duration::from_secs(60) }
    }

    #[test]
    fn it_asks_to_come_back_when_all_limits_allow_it() {
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        let quota = Quota::per(5, minute);
        let allowed = ("a", quota, verdict(true, Duration::ZERO));
        assert!(Refusal::of([allowed]).is_none());
        let refusal = Refusal::of([
            allowed,
            ("b", quota, verdict(false, 12 * second + Duration::from_micros(1))),
            ("c", quota, verdict(false, 3 * second)),
        ])
        .unwrap();
        assert_eq!(refusal.limits().collect::<Vec<_>>(), ["b", "c"]);
        let response = refusal.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "13");
        let never = Refusal::of([("d", quota, verdict(false, Duration::MAX))]).unwrap().into_response();
        assert!(!never.headers().contains_key("retry-after"), "no waiting helps");
    }

    #[test]
    fn waits_are_said_as_people_say_them() {
        for (seconds, text) in [
            (0, "a second"),
            (1, "a second"),
            (2, "2 seconds"),
            (119, "119 seconds"),
            (121, "3 minutes"),
            (7200, "2 hours"),
            (172_801, "3 days"),
        ] {
            assert_eq!(in_words(seconds), text);
        }
    }
}
