//! Decides which places of a service leave, and when a new one has proved itself. Pure. How one version takes another's
//! place is in the files below: [`steps`] decides, [`rolling`] does it.

pub mod policy;
pub mod rolling;
pub mod steps;

use std::time::Duration;

use lethe_model::roster::WorkerState;

/// Starts of a new place that may fail before the command that asked for it gives up.
pub(crate) const STARTS_MAX: u32 = 3;
/// How long a new place may take to become ready, over all its starts, before the command gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a place has come to since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether its worker is ready now.
    pub(crate) ready: bool,
    /// Starts that failed, since the last one that did not.
    pub(crate) failures: u32,
    /// Workers that ended by their own fault after they had served.
    pub(crate) falls: u32,
    /// Whether it has left: there will be no further worker.
    pub(crate) gone: bool,
}

/// Whether a new place has proved itself (`Some(true)`), has failed (`Some(false)`), or neither yet.
pub(crate) fn proved(progress: Progress) -> Option<bool> {
    match progress {
        Progress { gone: true, .. } => Some(false),
        Progress { ready: true, .. } => Some(true),
        Progress { failures, .. } => (failures >= STARTS_MAX).then_some(false),
    }
}

/// One place, as the choice of those that leave sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// What may be asked of its worker.
    pub(crate) state: WorkerState,
    /// Starts that failed, since the last one that did not.
    pub(crate) failures: u32,
}

/// Which of `seats` (oldest first) leave so that `wanted` are left, as indices: first those that fail, then
/// those that are not ready, then the youngest.
pub(crate) fn surplus(seats: &[Seat], wanted: usize) -> Vec<usize> {
    let usefulness = |seat: &Seat| match seat.state {
        WorkerState::Ready => 2,
        _ if seat.failures == 0 => 1,
        _ => 0,
    };
    let mut order: Vec<usize> = (0..seats.len()).rev().collect();
    order.sort_by_key(|&index| usefulness(&seats[index]));
    order.truncate(seats.len().saturating_sub(wanted));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_useful_leave_first() {
        let seat = |state, failures| Seat { state, failures };
        let (ready, starting, gone) = (WorkerState::Ready, WorkerState::Starting, WorkerState::Gone);
        let seats = [
            seat(ready, 0),
            seat(starting, 0),
            seat(ready, 1),
            seat(gone, 4),
            seat(starting, 2),
            seat(ready, 0),
        ];
        let cases: [(usize, &[usize]); 8] = [
            (9, &[]),
            (6, &[]),
            (5, &[4]),
            (4, &[4, 3]),
            (3, &[4, 3, 1]),
            (2, &[4, 3, 1, 5]),
            (1, &[4, 3, 1, 5, 2]),
            (0, &[4, 3, 1, 5, 2, 0]),
        ];
        for (wanted, leaving) in cases {
            assert_eq!(surplus(&seats, wanted), leaving, "{wanted} wanted");
        }
    }

    #[test]
    fn proofs() {
        let cases = [
            ((false, 0, false), None),
            ((false, 2, false), None),
            ((true, 2, false), Some(true)),
            ((false, 3, false), Some(false)),
            ((true, 0, true), Some(false)),
        ];
        for ((ready, failures, gone), expected) in cases {
            assert_eq!(proved(Progress { ready, failures, gone, falls: 0 }), expected);
        }
    }
}
