//! Kills one worker after the other with -9 while visitors are at work.

use std::{collections::BTreeSet, time::Duration};

use lethe_model::roster::WorkerState;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    lethe::{Lethe, kill_9},
    seed::Random,
    visitor::Traffic,
};

/// From one kill to the next, at least.
const INTERVAL: Duration = Duration::from_millis(300);

/// Who kills. No request loses two workers: one that has is not tried again, as whatever it meets may be its own fault.
pub struct Killer<'a> {
    lethe: &'a Lethe,
    traffic: Traffic,
    random: &'a mut Random,
    tick: Interval,
    /// Requests that may have lost a worker.
    struck: BTreeSet<u64>,
    /// How many were killed.
    pub killed: usize,
}

impl<'a> Killer<'a> {
    /// One that has killed nobody yet. All visitors are in the traffic.
    pub fn new(lethe: &'a Lethe, traffic: &Traffic, random: &'a mut Random) -> Self {
        let mut tick = interval(INTERVAL);
        // One that was late delays the next ones.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { lethe, traffic: traffic.clone(), random, tick, struck: BTreeSet::new(), killed: 0 }
    }

    /// Kills one of the workers that are ready when it is time, if there is one. Cancellation safe.
    pub async fn strike(&mut self) -> anyhow::Result<()> {
        self.tick.tick().await;
        self.traffic.ended(&self.struck).await;
        let workers = self.lethe.workers().await?;
        let ready = workers.iter().filter(|worker| worker.state == WorkerState::Ready);
        let ready: Vec<u32> = ready.filter_map(|worker| worker.pid).collect();
        if !ready.is_empty() {
            kill_9(ready[self.random.below(ready.len())])?;
            self.killed += 1;
            self.struck = self.traffic.under_way();
        }
        Ok(())
    }
}
