//! What a run is: whose journeys, where, how many users, and what they may take.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use lethe_journey::{destination::Destination, journey::Journey, player::Limits};

use crate::schedule::Schedule;

/// A run that is to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What users do, in turn; at least one.
    pub journeys: Vec<Arc<Journey>>,
    /// Where.
    pub destination: Destination,
    /// What is sent as `Host`; `None` for the journeys' own.
    pub host: Option<String>,
    /// When users come.
    pub schedule: Schedule,
    /// What each request may take.
    pub limits: Limits,
    /// Users at a time; who comes when there are so many is turned away, and the run is not valid.
    pub users_max: usize,
    /// If one in a hundred users is let in later than this after the planned instant, the run is not valid: it measured the generator.
    pub lag_max: Duration,
    /// Threads that play journeys, at least one.
    pub threads: usize,
    /// How a response says which worker gave it.
    pub worker: WorkerName,
}

/// How a response says which worker gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerName {
    /// By `worker;desc="…"` in `Server-Timing`, as Lethe's gateway says it on a route with `server-timing = true`.
    ServerTiming,
    /// By this header field of its own.
    Header(HeaderName),
}

impl WorkerName {
    /// The worker that gave a response.
    pub fn find<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        match self {
            Self::Header(name) => headers.get(name)?.to_str().ok(),
            Self::ServerTiming => {
                let fields = headers.get_all("server-timing").iter().filter_map(|value| value.to_str().ok());
                let metrics = fields.flat_map(|field| field.split(','));
                metrics
                    .filter_map(|metric| metric.trim().strip_prefix("worker;desc="))
                    .next_back()
                    .map(|name| name.trim_matches('"'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answered() {
        let mut headers = HeaderMap::new();
        headers.append("server-timing", "db;dur=1".parse().unwrap());
        headers.append("server-timing", "queue;dur=0.1, worker;desc=\"shop-2\"".parse().unwrap());
        headers.append("x-served-by", "a".parse().unwrap());
        assert_eq!(WorkerName::ServerTiming.find(&headers), Some("shop-2"));
        assert_eq!(WorkerName::Header(HeaderName::from_static("x-served-by")).find(&headers), Some("a"));
        assert_eq!(WorkerName::Header(HeaderName::from_static("x-none")).find(&headers), None);
    }
}
