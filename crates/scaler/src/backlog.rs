//! For how much a request that waits for a worker counts, where requests at a time are what is measured.

use std::time::Duration;

/// Requests that wait are to be answered within this time.
pub const WITHIN: Duration = Duration::from_secs(1);

/// How much of a request in a worker one that waits is, if a worker takes so long for one: from 0 to 1.
///
/// Who waits is not being served. A backlog of hundreds of short requests takes few more workers to be gone within
/// [`WITHIN`] (Little's law), and one for each of them would stand idle a moment later.
pub fn part(takes: Duration) -> f64 {
    (takes.as_secs_f64() / WITHIN.as_secs_f64()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_requests_count_for_little() {
        for (millis, expected) in [(0, 0.0), (50, 0.05), (1_000, 1.0), (60_000, 1.0)] {
            assert_eq!(part(Duration::from_millis(millis)), expected, "{millis} ms");
        }
    }
}
