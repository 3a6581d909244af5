//! Of the proposals of some time the most cautious one counts, so that what comes and goes moves nothing
//! (`stabilizeRecommendation`, `stabilizeRecommendationWithBehaviors`).

use std::time::Duration;

use crate::{history::History, time::Time};

/// Where there is no behavior: the highest proposal of the window, its edge included.
pub fn highest(proposal: u32, history: &History, window: Duration, now: Time) -> u32 {
    let edge = now.minus(window);
    let recent = history.recommendations.iter().filter(|old| old.t >= edge).map(|old| old.replicas);
    recent.fold(proposal, u32::max)
}

/// Where there is a behavior: as many as now, unless all proposals of the way up's window are higher, or all of the
/// way down's window are lower. Then the nearest of them; the edges of the windows do not count.
pub fn nearest(
    proposal: u32,
    history: &History,
    current: u32,
    (up, down): (Duration, Duration),
    now: Time,
) -> u32 {
    let (up_edge, down_edge) = (now.minus(up), now.minus(down));
    let (mut lowest, mut highest) = (proposal, proposal);
    for old in &history.recommendations {
        if old.t > up_edge {
            lowest = lowest.min(old.replicas);
        }
        if old.t > down_edge {
            highest = highest.max(old.replicas);
        }
    }
    current.max(lowest).min(highest)
}
