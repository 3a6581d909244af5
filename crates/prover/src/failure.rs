//! That a run differs from what one worker gives, and what ends a trial for it.

use crate::{noise::NotRepeatable, worker::Error};

/// Where and how a run first differed.
pub(crate) struct Failure {
    /// The step, from 1.
    pub(crate) step: usize,
    /// How, in words.
    pub(crate) differences: Vec<String>,
    /// Whether it differs by a count of requests.
    pub(crate) is_limit: bool,
    /// Whether it is not known what came, among more messages than are kept.
    pub(crate) is_flooded: bool,
}

impl Failure {
    /// As a row tells it.
    pub(crate) fn told(&self) -> String {
        let how = self.differences.first().map_or("something else", String::as_str);
        format!("step {} gave {how}", self.step)
    }

    /// Whether something that a worker keeps may be behind it. The first step is played by a worker that this user has not been to,
    /// in each schedule: what differs there differs for another reason.
    pub(crate) fn may_be_kept(&self) -> Result<(), NotRepeatable> {
        match self.step {
            _ if self.is_flooded => Err(NotRepeatable { step: self.step, why: self.told() }),
            0 | 1 => Err(NotRepeatable {
                step: self.step,
                why: format!(
                    "a worker that nobody had used gave {}",
                    self.differences.first().map_or("something else", String::as_str)
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// Why the schedules were not played to the last.
pub(crate) enum Halt {
    /// There are no workers.
    Broken(Error),
    /// The journey says nothing.
    NotRepeatable(NotRepeatable),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<NotRepeatable> for Halt {
    fn from(not: NotRepeatable) -> Self {
        Self::NotRepeatable(not)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_needs_nothing() {
        for (step, is_flooded, expected) in [(1, false, false), (2, false, true), (2, true, false)] {
            let differences = vec!["status: \"200\" and \"429\"".to_owned()];
            let failure = Failure { step, differences, is_limit: true, is_flooded };
            assert_eq!(failure.may_be_kept().is_ok(), expected, "step {step}");
        }
    }
}
