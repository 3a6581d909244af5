//! Load, workers and latency over time, in lines of text.

use lethe_scaler::simulation::{Outcome, Second};

use crate::{curve::curve, figures};

/// How wide the curves are.
const COLUMNS: usize = 72;

/// The load, and for each policy the workers and the 99th percentile of latency. Curves of one kind have one scale;
/// that of latency is logarithmic, from the least to the most.
pub fn lines(outcomes: &[Outcome]) -> Vec<String> {
    let Some(first) = outcomes.first() else { return Vec::new() };
    let load = peaks(first, |second| second.load);
    let most = |curves: &[Vec<f64>]| curves.iter().flatten().copied().fold(0.0, f64::max);
    let workers: Vec<_> =
        outcomes.iter().map(|outcome| peaks(outcome, |s| f64::from(s.ready + s.starting))).collect();
    let times: Vec<_> = outcomes.iter().map(|outcome| peaks(outcome, |second| second.p99)).collect();
    let (workers_most, times_most) = (most(&workers), most(&times));
    let times_least = times.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let load_most = most(std::slice::from_ref(&load));
    let mut lines =
        vec![line("load", &curve(&load, |x| x / load_most), &format!("{}/s", figures::rate(load_most)))];
    for ((outcome, workers), times) in outcomes.iter().zip(&workers).zip(&times) {
        lines.push(line(
            outcome.name,
            &curve(workers, |x| x / workers_most),
            &format!("{} workers", outcome.most),
        ));
        let worst = times.iter().copied().fold(0.0, f64::max);
        let worst = figures::latency(Some((worst * 1e6) as u64));
        let log = |x: f64| (x / times_least).ln() / (times_most / times_least).ln();
        lines.push(line("", &curve(times, log), &format!("{worst} p99")));
    }
    lines
}

fn line(name: &str, curve: &str, most: &str) -> String {
    format!("{name:<7} {curve} up to {most}")
}

/// The highest of each stretch of time, so that no peak is lost.
fn peaks(outcome: &Outcome, of: impl Fn(&Second) -> f64) -> Vec<f64> {
    let stretch = outcome.seconds.len().div_ceil(COLUMNS).max(1);
    outcome.seconds.chunks(stretch).map(|seconds| seconds.iter().map(&of).fold(0.0, f64::max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_peak_is_lost() {
        let second = |at: usize| {
            let p99 = if at == 77 { 1.0 } else { 0.01 };
            Second { load: at as f64, ready: 4, starting: u32::from(at == 100) * 4, p99 }
        };
        let seconds = (0..144).map(second).collect();
        let (worker_hours, requests, over) = (0.0, 0.0, 0.0);
        let outcome = Outcome { name: "lethe", seconds, worker_hours, requests, over, changes: 0, most: 8 };
        let lines = lines(&[outcome]);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("load    ▁▁▁▁") && lines[0].ends_with("█ up to 143/s"), "{}", lines[0]);
        assert_eq!(lines[1].matches('▄').count(), 71, "{}", lines[1]);
        assert!(lines[1].ends_with(" up to 8 workers") && lines[1].matches('█').count() == 1, "{}", lines[1]);
        assert!(
            lines[2].ends_with(" up to 1.00 s p99") && lines[2].matches('█').count() == 1,
            "{}",
            lines[2]
        );
    }

    #[test]
    fn nothing_at_all_is_no_curve_but_no_failure() {
        assert_eq!(lines(&[]), [] as [String; 0]);
        assert_eq!(curve(&[0.0, 0.0], |x| x / 0.0), "  ");
    }
}
