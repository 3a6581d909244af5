//! The first request of a worker that takes many times what later ones take: each new worker makes somebody wait, as often as one is added or
//! replaced. A hint, since nobody loses anything.

use std::time::Duration;

use crate::{
    finding::{Confidence, Finding, Kind, Replay},
    proof::Progress,
    repetition::TIMES,
    schedule::Schedule,
    stage::{Outcome, Run, Watch},
    trial::{Found, Trial},
    worker::Error,
};

/// By how much a fresh worker must take longer: so many times, and so much.
const TIMES_LONGER: u32 = 5;
const LONGER: Duration = Duration::from_millis(250);

impl Trial<'_> {
    /// Compares fresh workers with those that have served somebody, where a step takes long enough for that.
    pub(crate) fn slow_starts(&mut self, found: &mut Found) -> Result<(), Error> {
        let steps = self.journey.steps.len();
        let is_candidate = |step: &usize| took(self.noise.reference(), *step) >= Some(LONGER);
        if !(1..=steps).any(|step| is_candidate(&step)) {
            return Ok(());
        }
        (self.progress)(Progress::Begins { title: "slow start" });
        let (mut fresh, mut warm) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            for (schedule, runs) in [
                (Schedule::single(steps), &mut fresh),
                (Schedule { title: "one warm worker".into(), ..Schedule::warm_single(steps, 1) }, &mut warm),
            ] {
                runs.push(self.stage.play(&self.journey, &schedule, &Watch::default())?);
            }
        }
        let slow = (1..=steps).find_map(|step| {
            let times = |runs: &[Run]| runs.iter().map(|run| took(run, step)).collect::<Option<Vec<_>>>();
            let (fresh, warm) = (times(&fresh)?.into_iter().min()?, times(&warm)?.into_iter().max()?);
            is_slow(fresh, warm).then_some((step, fresh, warm))
        });
        found.findings.extend(slow.map(|(step, fresh, warm)| self.slow_finding(step, fresh, warm)));
        Ok(())
    }

    fn slow_finding(&self, step: usize, fresh: Duration, warm: Duration) -> Finding {
        let workers = Schedule::single(step).text();
        Finding::new(
            Kind::SlowStart,
            Confidence::Hint,
            self.place(step),
            format!(
                "step {step} took {} ms or more at each of {TIMES} fresh workers, and {} ms or less at {TIMES} that had served another user",
                fresh.as_millis(),
                warm.as_millis()
            ),
            Replay {
                journey: self.journey.name.clone(),
                workers: format!("{workers}, fresh and warm"),
                fails_at: step,
            },
        )
    }
}

/// How long a step took; `None` for one without an answer, one that never ends, and one that was asked until it was done.
fn took(run: &Run, step: usize) -> Option<Duration> {
    match run.outcomes.get(step - 1)? {
        Outcome::Answered(observed) if !observed.is_cut && observed.is_met() => Some(observed.took),
        _ => None,
    }
}

fn is_slow(fresh: Duration, warm: Duration) -> bool {
    fresh >= warm * TIMES_LONGER && fresh >= warm + LONGER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::tests::answered;

    #[test]
    fn much_longer_in_both_ways() {
        let ms = Duration::from_millis;
        for (fresh, warm, expected) in
            [(300, 10, true), (240, 1, false), (1000, 300, false), (2000, 400, true), (0, 0, false)]
        {
            assert_eq!(is_slow(ms(fresh), ms(warm)), expected, "{fresh} {warm}");
        }
    }

    #[test]
    fn what_has_no_answer_took_no_time() {
        let outcomes = vec![answered(1, LONGER), Outcome::Lost("gone".into())];
        let run = Run { outcomes, ..Run::default() };
        assert_eq!((took(&run, 1), took(&run, 2), took(&run, 3)), (Some(LONGER), None, None));
    }
}
