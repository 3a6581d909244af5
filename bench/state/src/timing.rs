//! Closed loops, and what came of them.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long each of some calls took.
pub struct Times(Vec<Duration>);

impl Times {
    /// Calls `work` again and again for so long, from one task.
    pub async fn of<F: Future<Output = ()>>(length: Duration, mut work: impl FnMut() -> F) -> Self {
        let (mut times, begin) = (Vec::new(), Instant::now());
        let mut last = begin;
        while last - begin < length {
            work().await;
            let now = Instant::now();
            times.push(now - last);
            last = now;
        }
        Self(times)
    }

    /// Those of all, as one.
    pub fn joined(all: Vec<Self>) -> Self {
        Self(all.into_iter().flat_map(|times| times.0).collect())
    }

    /// Their quantiles in microseconds, and how many there were in a second.
    pub fn figures(mut self, length: Duration) -> Value {
        self.0.sort_unstable();
        let quantile = |share: f64| {
            let place = (self.0.len() as f64 * share) as usize;
            self.0.get(place.min(self.0.len() - 1)).map_or(0.0, |time| time.as_nanos() as f64 / 1000.0)
        };
        json!({
            "per_s": (self.0.len() as f64 / length.as_secs_f64()).round(),
            "p50_us": quantile(0.5), "p99_us": quantile(0.99),
        })
    }
}
