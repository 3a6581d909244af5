//! Sends one step again and again, to several workers in turn, and counts what is let through.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use lethe_journey::journey::Journey;

use super::{Cast, Stage};
use crate::worker::Error;

/// How long a probe may take.
const TIME_MAX: Duration = Duration::from_secs(15);

/// What became of requests that were one and the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Let through.
    pub(crate) accepted: usize,
    /// Whether there was an end to that: a status of 429 for two requests in a row at each worker.
    pub(crate) is_limited: bool,
}

impl Stage {
    /// Plays the steps before `at`, from 1, at the first of so many fresh workers, and then that step at all of them in turn, until it is
    /// refused or each has had `most` requests. A request that is lost ends it, and so does [`TIME_MAX`], as one that nobody refused.
    pub(crate) fn probe(
        &self,
        journey: &Arc<Journey>,
        at: usize,
        workers: usize,
        most: usize,
    ) -> Result<Probe, Error> {
        self.empty_what_is_beside()?;
        let mut cast = Cast { stage: self, entropy: None, workers: Vec::new() };
        for _ in 0..workers {
            let worker = cast.fresh()?;
            cast.workers.push(worker);
        }
        let mut player = self.player(journey)?;
        for step in 1..at {
            // What it answers was compared before.
            let _ = self.runtime.block_on(player.step(step, &cast.workers[0].destination));
        }
        let (mut probe, mut refused) = (Probe::default(), 0);
        let began = Instant::now();
        for number in 0..most * workers {
            // What was fast once may be slow now.
            if began.elapsed() > TIME_MAX {
                break;
            }
            // On a kept connection, a service that sends head and body apart waits 40 ms for its client's delayed ACK (RFC 1122, section
            // 4.2.3.2); on a new one it does not.
            player.hang_up();
            let destination = &cast.workers[number % workers].destination;
            let Ok(observed) = self.runtime.block_on(player.step(at, destination)) else { break };
            if observed.status != StatusCode::TOO_MANY_REQUESTS {
                (probe.accepted, refused) = (probe.accepted + 1, 0);
                continue;
            }
            refused += 1;
            if refused == 2 * workers {
                probe.is_limited = true;
                break;
            }
        }
        Ok(probe)
    }
}
