//! The machine is to go: what follows from a notice. Not ready at once, so that load balancers stop sending; after a time for them
//! to notice, no new requests, and open ones end; whatever is left shortly before the deadline is ended by force.
//!
//! Announced → Drain → Now, on the switch of [`crate::stop`]. Several notices may come, and the soonest of each step counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::stop::{Stop, Wish};

/// Of the time there is, no more than this part is given to who sends requests.
const SETTLE_PART: u32 = 4;
/// What is kept of the time for the end itself, at most: a tenth, if that is less.
const MARGIN_MAX: Duration = Duration::from_secs(5);

/// How long a machine that is to go takes for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// From the notice on, requests are still taken for so long, while `/readyz` says that it is not ready.
    pub settle: Duration,
    /// All has ended by then, if the notice itself names no time.
    pub deadline: Duration,
}

/// [`Terms`] when nothing else is said: what EC2 gives to spot instances.
impl Default for Terms {
    fn default() -> Self {
        Self { settle: Duration::from_secs(5), deadline: Duration::from_secs(120) }
    }
}

/// When what happens after a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Steps {
    drain_after: Duration,
    end_after: Duration,
}

impl Terms {
    fn steps(self) -> Steps {
        let end_after = self.deadline - MARGIN_MAX.min(self.deadline / 10);
        Steps { drain_after: self.settle.min(self.deadline / SETTLE_PART), end_after }
    }
}

/// Turns `stop` step by step. Called within a tokio runtime.
pub fn heed(stop: &Stop, why: &str, terms: Terms) -> JoinHandle<()> {
    let Steps { drain_after, end_after } = terms.steps();
    stop.announce();
    tracing::warn!(
        "{why}: not ready from now on, draining in {drain_after:?}, ended within {:?} whatever is open",
        terms.deadline
    );
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(drain_after).await;
        stop.ask(Wish::Drain);
        tokio::time::sleep(end_after.saturating_sub(drain_after)).await;
        tracing::warn!("the time is over; what is left is ended now");
        stop.ask(Wish::Now);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        let seconds = Duration::from_secs;
        for (settle, deadline, drain_after, end_after) in [
            (seconds(5), seconds(120), seconds(5), seconds(115)),
            (seconds(5), seconds(10), Duration::from_millis(2500), seconds(9)),
            (seconds(0), seconds(2), seconds(0), Duration::from_millis(1800)),
            (seconds(5), seconds(0), seconds(0), seconds(0)),
        ] {
            assert_eq!(Terms { settle, deadline }.steps(), Steps { drain_after, end_after });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_soonest_of_each_step_counts() {
        let stop = Stop::new();
        let seconds = Duration::from_secs;
        heed(&stop, "a notice", Terms { settle: seconds(20), deadline: seconds(120) });
        assert!(stop.is_leaving());
        assert_eq!(stop.wish(), Wish::Run);
        heed(&stop, "another", Terms { settle: seconds(10), deadline: seconds(300) });
        let began = tokio::time::Instant::now();
        stop.asked(Wish::Drain).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        stop.asked(Wish::Now).await;
        assert_eq!(began.elapsed().as_secs(), 115);
    }
}
