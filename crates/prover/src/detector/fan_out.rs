//! Messages that reach those alone who are connected to the worker that sends them: WebSockets and server-sent events without anything
//! shared between workers. One step is sent to A, to B and to C in turn, each time to fresh workers, while its user listens at all three.
//! What arrives at the sender's own worker and at no other one stays in that worker; what arrives at all is told to all.

use std::{collections::BTreeSet, time::Duration};

use lethe_journey::{
    channel::{Arrival, Protocol},
    journey::Step,
};

use crate::{
    finding::{Confidence, Finding, Kind, Replay},
    noise::NotRepeatable,
    proof::{Deliveries, Progress, Row},
    repetition::TIMES,
    stage::{
        Outcome,
        fan_out::{Heard, Listening},
    },
    trial::{Found, Trial},
    worker::Error,
};

/// Most steps of a journey that are looked at.
const STEPS_MAX: usize = 5;

/// How long workers are given to subscribe for new listeners, once a message has not arrived without that …
const SETTLE: Duration = Duration::from_millis(500);
/// … within this, from which nothing is concluded.
const GLANCE: Duration = Duration::from_millis(500);

/// The workers that are sent to in turn, as often as anything must be seen to be proven.
const WORKERS: usize = TIMES;

/// What was seen of one step.
enum Seen {
    /// Who heard it, by who sent it.
    Matrix(Vec<Vec<bool>>),
    /// Nothing can be said, and why.
    Unclear(String),
}

/// What a matrix says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All hear it.
    All,
    /// Those at the sender's worker hear it each time, and nobody else ever.
    Own,
    /// Who listens at the sender's worker does not hear it either: it is for one connection alone.
    One,
    /// Sometimes one, sometimes the other.
    Unsteady,
}

impl Trial<'_> {
    /// Looks at each step that expects something to arrive at a channel, and adds what is found.
    pub(crate) fn fan_outs(&mut self, found: &mut Found) -> Result<(), Error> {
        let expecting = |step: &Step| Some((step.number, step.arrives.clone()?));
        let is_told =
            |(number, arrival): &(usize, Arrival)| self.journey.opening(&arrival.on, *number).is_some();
        let steps: Vec<_> = self.journey.steps.iter().filter_map(expecting).filter(is_told).collect();
        if steps.len() > STEPS_MAX {
            self.notices.push(format!(
                "{}: of {} steps that tell something, the first {STEPS_MAX} were looked at from other workers",
                self.journey.name,
                steps.len()
            ));
        }
        // One message that stays in its worker says it of all that go the same way.
        let mut stays = BTreeSet::new();
        for (at, arrival) in steps.into_iter().take(STEPS_MAX) {
            if !stays.contains(&arrival.on) && self.fan_out(at, &arrival, found)? == Some(Reach::Own) {
                stays.insert(arrival.on);
            }
        }
        Ok(())
    }

    /// Who hears of one step; `None` where that cannot be seen.
    fn fan_out(&mut self, at: usize, arrival: &Arrival, found: &mut Found) -> Result<Option<Reach>, Error> {
        let title = format!("who hears of step {at}");
        (self.progress)(Progress::Begins { title: &title });
        let mut seen = self.senders(at, arrival, false)?;
        // Who wants to hear may have to say so first, and a journey may do that in a step of its own.
        let is_silent = matches!(&seen, Seen::Matrix(delivered) if reach(delivered) == Reach::One);
        if is_silent && self.journey.said(&arrival.on, at).next().is_some() {
            seen = self.senders(at, arrival, true)?;
        }
        let delivered = match seen {
            Seen::Matrix(delivered) => delivered,
            Seen::Unclear(why) => {
                self.heard_row(title, Some(why.clone()));
                let why = format!("who hears of it cannot be looked at: {why}");
                found.unseen.push(NotRepeatable { step: at, why });
                return Ok(None);
            }
        };
        let reach = reach(&delivered);
        let told = match reach {
            // An answer to one is as it is on one worker.
            Reach::All | Reach::One => None,
            Reach::Own => Some("it arrives at the sender's own worker, and at no other".to_owned()),
            Reach::Unsteady => Some(format!("it does not arrive each time: {}", text(&delivered))),
        };
        self.heard_row(title, told.clone());
        match (reach, told) {
            (Reach::Own, _) => found.findings.push(self.fan_out_finding(at, arrival, &delivered)),
            (Reach::One, _) => self.notices.push(format!(
                "{}: what step {at} tells arrives at one connection alone, also at the same worker: fan-out was not looked at. If others \
                 should hear it, send what a client sends to take part in the step that opens the connection",
                self.journey.name
            )),
            (Reach::Unsteady, Some(why)) => found.unseen.push(NotRepeatable { step: at, why }),
            _ => {}
        }
        let (journey, channel) = (self.journey.name.clone(), arrival.on.clone());
        if delivered.len() == WORKERS {
            self.deliveries.push(Deliveries { journey, step: at, channel, delivered });
        }
        Ok(Some(reach))
    }

    fn heard_row(&mut self, schedule: String, why: Option<String>) {
        let (journey, workers) = (self.journey.name.clone(), "each in turn, heard at all".to_owned());
        let row = Row { journey, schedule, workers, failed_at: None, why };
        (self.progress)(Progress::Row(&row));
        self.rows.push(row);
    }

    /// Sends the step to each worker in turn, and after each time to one that is alone, where it must arrive.
    fn senders(&self, at: usize, arrival: &Arrival, repeats: bool) -> Result<Seen, Error> {
        let mut delivered = Vec::new();
        let mut is_patient = false;
        for sender in 0..WORKERS {
            let (workers, within) = (WORKERS, arrival.within);
            let patient = Listening { workers, sender, settle: SETTLE, repeats, within };
            let hasty = Listening { settle: Duration::ZERO, within: arrival.within.min(GLANCE), ..patient };
            let at_once = if is_patient { None } else { Some(self.listen(at, hasty)?) };
            let heard = match at_once.filter(|heard| *heard == Heard::At(vec![true; WORKERS])) {
                Some(heard) => heard,
                None => {
                    is_patient = true;
                    self.listen(at, patient)?
                }
            };
            match heard {
                Heard::At(row) => delivered.push(row),
                Heard::Unclear(why) => return Ok(Seen::Unclear(why)),
            }
            if reach(&delivered) == Reach::One {
                break;
            }
            // Where all is told to all there is nothing to compare.
            if reach(&delivered) == Reach::Own {
                let alone = self.listen(at, Listening { workers: 1, sender: 0, ..patient })?;
                if alone != Heard::At(vec![true]) {
                    let why = "what it tells does not always arrive on one worker either".to_owned();
                    return Ok(Seen::Unclear(why));
                }
            }
        }
        Ok(Seen::Matrix(delivered))
    }

    fn listen(&self, at: usize, listening: Listening) -> Result<Heard, Error> {
        let ends = |step: usize, outcome: &Outcome| !self.noise.differences(step, outcome, false).is_empty();
        self.stage.listen(&self.journey, at, listening, &ends)
    }

    fn fan_out_finding(&self, at: usize, arrival: &Arrival, delivered: &[Vec<bool>]) -> Finding {
        let opening = self.journey.opening(&arrival.on, at);
        let is_stream = opening.is_some_and(|(_, opening)| opening.protocol == Protocol::EventStream);
        let kind = if is_stream { Kind::EventStream } else { Kind::Websocket };
        let producer = opening.map_or(at, |(step, _)| step.number);
        Finding {
            producer: self.place(producer),
            ..Finding::new(
                kind,
                Confidence::Proven,
                self.place(at),
                format!(
                    "step {at} was sent to A, to B and to C, to fresh workers each time, while its user listened at all three: it arrived \
                 within {} ms at the worker that it was sent to ({TIMES} of {TIMES} times, and on one worker alone), and never at \
                 another one; {}",
                    arrival.within.as_millis(),
                    text(delivered)
                ),
                // No schedule plays that: it is seen again when all is proven again.
                Replay {
                    journey: self.journey.name.clone(),
                    workers: "A, B, C in turn, heard at all of them".into(),
                    fails_at: at,
                },
            )
        }
    }
}

fn reach(delivered: &[Vec<bool>]) -> Reach {
    let cells = || {
        let rows = delivered.iter().enumerate();
        rows.flat_map(|(sender, row)| row.iter().enumerate().map(move |(at, heard)| (sender == at, *heard)))
    };
    let own = || cells().filter(|(is_own, _)| *is_own);
    let others = || cells().filter(|(is_own, _)| !is_own);
    match (own().all(|(_, heard)| heard), others().any(|(_, heard)| heard)) {
        (true, _) if others().all(|(_, heard)| heard) => Reach::All,
        (true, false) => Reach::Own,
        (false, false) if own().all(|(_, heard)| !heard) => Reach::One,
        _ => Reach::Unsteady,
    }
}

/// `A to A; B to B`: who sends and who hears it.
fn text(delivered: &[Vec<bool>]) -> String {
    let row = |(sender, row): (usize, &Vec<bool>)| {
        let hears = row
            .iter()
            .enumerate()
            .filter(|(_, heard)| **heard)
            .map(|(at, _)| Deliveries::worker(at).to_string());
        let hears: Vec<String> = hears.collect();
        let hears = if hears.is_empty() { "nobody".to_owned() } else { hears.join(", ") };
        format!("from {} to {hears}", Deliveries::worker(sender))
    };
    delivered.iter().enumerate().map(row).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_matrix_says() {
        for (matrix, expected) in [
            ([[true, true, true]; 3], Reach::All),
            ([[true, false, false], [false, true, false], [false, false, true]], Reach::Own),
            ([[false; 3]; 3], Reach::One),
            // Who hears only now and then does so by chance.
            ([[true, false, false], [false, true, true], [false, false, true]], Reach::Unsteady),
            ([[false, false, false], [false, true, false], [false, false, true]], Reach::Unsteady),
            // Somebody else's listener hears it, and one's own does not.
            ([[false, true, true]; 3], Reach::Unsteady),
        ] {
            let matrix: Vec<Vec<bool>> = matrix.iter().map(|row| row.to_vec()).collect();
            assert_eq!(reach(&matrix), expected, "{matrix:?}");
        }
        assert_eq!(text(&[vec![true, false], vec![false, false]]), "from A to A; from B to nobody");
    }
}
