//! Which worker plays which step, and who is killed in between. Schedules decide nothing and start nothing: they are lists,
//! made here for any number of steps.

use std::collections::BTreeSet;

/// What stays on the disk of a worker that is killed and started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// What it has written.
    SameDisk,
    /// Nothing.
    NewDisk,
}

/// When a worker is killed that is at work on a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The whole request was given to it, and nothing is known of what it has done.
    Delivered,
    /// Something beside has answered it so many times, from 1; the last answer does not reach it any more.
    Exchange(u32),
    /// The first of its response has come; nobody reads the rest.
    Answered,
    /// Never: it answers, and nobody reads that. What a step sent twice comes to is seen so.
    Unheard,
}

/// A step that is sent to a worker without an answer, and then again to the one that plays it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tear {
    /// The worker that it is sent to first. Once killed, it plays nothing more.
    pub worker: usize,
    /// When that one is killed.
    pub moment: Moment,
}

/// One way to play a journey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What it is called, in the words of the documentation.
    pub title: String,
    /// The worker of each step, from 0. May be shorter than the journey, which then ends sooner.
    pub workers: Vec<usize>,
    /// Whether the worker of a step is killed after it, and how it comes back.
    pub kills: Vec<Option<Restart>>,
    /// Whether a step is sent to a worker before that is killed at work on it.
    pub tears: Vec<Option<Tear>>,
    /// How many workers there are, also those that play nothing.
    pub width: usize,
    /// How often the whole journey was played before, by other users, at one worker after the other.
    pub warm_ups: usize,
}

impl Schedule {
    fn new(title: impl Into<String>, workers: Vec<usize>) -> Self {
        let (kills, tears) = (vec![None; workers.len()], vec![None; workers.len()]);
        let width = workers.iter().max().map_or(1, |last| last + 1);
        Self { title: title.into(), workers, kills, tears, width, warm_ups: 0 }
    }

    /// All steps at one worker.
    pub fn single(steps: usize) -> Self {
        Self::new("one worker", vec![0; steps])
    }

    /// All steps at one of `workers`.
    pub fn pinned(steps: usize, workers: usize) -> Self {
        Self { width: workers, ..Self::new("pinned", vec![0; steps]) }
    }

    /// Each step at the next of `workers`.
    pub fn round_robin(steps: usize, workers: usize) -> Self {
        Self::new("round robin", (0..steps).map(|step| step % workers).collect())
    }

    /// The same after each worker has served somebody else.
    pub fn warm(steps: usize, workers: usize) -> Self {
        Self { title: "warm round robin".into(), warm_ups: workers, ..Self::round_robin(steps, workers) }
    }

    /// The same at one worker that has served as many others.
    pub fn warm_single(steps: usize, workers: usize) -> Self {
        Self { title: "one warm worker".into(), warm_ups: workers, ..Self::single(steps) }
    }

    /// The first `after` steps at A, the rest at B.
    pub fn cut(steps: usize, after: usize) -> Self {
        Self::new(format!("cut after {after}"), (1..=steps).map(|step| usize::from(step > after)).collect())
    }

    /// Step `at` at B, all others at A.
    pub fn detour(steps: usize, at: usize) -> Self {
        Self::new(format!("A-B-A at {at}"), (1..=steps).map(|step| usize::from(step == at)).collect())
    }

    /// Only step `producer` at A, all others up to `consumer` at B.
    pub fn pair(producer: usize, consumer: usize) -> Self {
        let workers = (1..=consumer).map(|step| usize::from(step != producer)).collect();
        Self::new(format!("only step {producer} at A"), workers)
    }

    /// Only the steps `kept` at A, all others up to `last` at B.
    pub fn only(kept: &BTreeSet<usize>, last: usize) -> Self {
        let workers = (1..=last).map(|step| usize::from(!kept.contains(&step))).collect();
        let steps = kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Self::new(format!("only steps {steps} at A"), workers)
    }

    /// As many steps at one worker, which has served as many others.
    pub fn control(&self) -> Self {
        match self.warm_ups {
            0 => Self::single(self.workers.len()),
            warm_ups => Self::warm_single(self.workers.len(), warm_ups),
        }
    }

    /// One worker, killed after every step and started again with what it has written.
    pub fn kill_after_every(steps: usize) -> Self {
        let mut schedule = Self::new("kill -9 after every step", vec![0; steps]);
        // After the last one nobody would notice.
        schedule.kills[..steps.saturating_sub(1)].fill(Some(Restart::SameDisk));
        schedule
    }

    /// One worker, killed once, after step `after`.
    pub fn kill_after(after: usize, steps: usize, restart: Restart) -> Self {
        let disk = match restart {
            Restart::SameDisk => "the same disk",
            Restart::NewDisk => "a new disk",
        };
        let mut schedule = Self::new(format!("kill -9 after {after}, {disk}"), vec![0; steps]);
        // Before the first step there is nothing to lose.
        if let Some(kill) = after.checked_sub(1).and_then(|at| schedule.kills.get_mut(at)) {
            *kill = Some(restart);
        }
        schedule
    }

    /// The steps before `at` at A, which is killed in the middle of that one; it is sent again to B, which plays all others too.
    pub fn kill_in(steps: usize, at: usize, moment: Moment) -> Self {
        let title = format!("kill -9 in {at} at {}", moment.text());
        let mut schedule = Self::new(title, (1..=steps).map(|step| usize::from(step >= at)).collect());
        if let Some(tear) = at.checked_sub(1).and_then(|at| schedule.tears.get_mut(at)) {
            *tear = Some(Tear { worker: 0, moment });
        }
        schedule
    }

    /// One worker, to which step `at` is sent twice; the first answer is not read.
    pub fn twice(steps: usize, at: usize) -> Self {
        let mut schedule = Self::new(format!("step {at} sent twice"), vec![0; steps]);
        if let Some(tear) = at.checked_sub(1).and_then(|at| schedule.tears.get_mut(at)) {
            *tear = Some(Tear { worker: 0, moment: Moment::Unheard });
        }
        schedule
    }

    /// All steps at A; each of `sent` is sent to B before, and that answer is not read.
    pub fn retried(steps: usize, sent: &BTreeSet<usize>) -> Self {
        let names = sent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut schedule =
            Self { width: 2, ..Self::new(format!("{names} sent to B before"), vec![0; steps]) };
        for at in sent {
            if let Some(tear) = at.checked_sub(1).and_then(|at| schedule.tears.get_mut(at)) {
                *tear = Some(Tear { worker: 1, moment: Moment::Unheard });
            }
        }
        schedule
    }

    /// The same, ended after step `last`, from 1.
    pub fn until(mut self, last: usize) -> Self {
        self.workers.truncate(last);
        self.kills.truncate(last);
        self.tears.truncate(last);
        self
    }

    /// Whether what step `producer` leaves in its worker is out of reach for step `consumer`, both from 1.
    pub fn separates(&self, producer: usize, consumer: usize) -> bool {
        let at = |step: usize| self.workers.get(step - 1);
        let is_other = at(producer) != at(consumer);
        let is_torn = || self.tears.iter().take(consumer).skip(producer).any(Option::is_some);
        is_other || is_torn() || self.kills.iter().take(consumer - 1).skip(producer - 1).any(Option::is_some)
    }

    /// The worker of each step as people read it: `A A B`, with `†` after a step whose worker is killed, and `A†B` for a step that is sent
    /// again to B because A was killed in the middle of it.
    pub fn steps(&self) -> String {
        let mut text = String::new();
        for (step, worker) in self.workers.iter().enumerate() {
            text.push_str(if step == 0 { "" } else { " " });
            match self.tears.get(step).copied().flatten() {
                Some(Tear { worker, moment: Moment::Unheard }) => text.extend([letter(worker), UNHEARD]),
                Some(Tear { worker, .. }) => text.extend([letter(worker), KILLED]),
                None => {}
            }
            text.push(letter(*worker));
            match self.kills.get(step).copied().flatten() {
                Some(Restart::SameDisk) => text.push(KILLED),
                Some(Restart::NewDisk) => text.push(KILLED_WITH_ITS_DISK),
                None => {}
            }
        }
        text
    }

    /// All of it: the worker of each step, when one is killed in the middle, and how many other users were there before.
    /// [`Schedule::read`] reads it again.
    pub fn text(&self) -> String {
        let mut text = self.steps();
        if let Some(tear) = self.tears.iter().flatten().find(|tear| tear.moment != Moment::Unheard) {
            text.push_str(&format!("{TORN}{}", tear.moment.text()));
        }
        if self.warm_ups > 0 {
            text.push_str(&format!("{WARM}{}", self.warm_ups));
        }
        text
    }

    /// What [`Schedule::text`] has written, called `title`; `None` if it is nothing of the kind.
    pub fn read(text: &str, title: &str) -> Option<Self> {
        let (text, warm_ups) = match text.split_once(WARM) {
            Some((text, count)) => (text, count.parse().ok()?),
            None => (text, 0),
        };
        let (text, moment) = match text.split_once(TORN) {
            Some((text, moment)) => (text, Some(Moment::read(moment)?)),
            None => (text, None),
        };
        let (mut workers, mut kills, mut tears) = (Vec::new(), Vec::new(), Vec::new());
        for step in text.split(' ') {
            let marks: Vec<char> = step.chars().collect();
            let (tear, worker, kill) = match *marks.as_slice() {
                [worker] => (None, worker, None),
                [worker, KILLED] => (None, worker, Some(Restart::SameDisk)),
                [worker, KILLED_WITH_ITS_DISK] => (None, worker, Some(Restart::NewDisk)),
                [first, KILLED, worker] => {
                    (Some(Tear { worker: number(first)?, moment: moment? }), worker, None)
                }
                [first, UNHEARD, worker] => {
                    (Some(Tear { worker: number(first)?, moment: Moment::Unheard }), worker, None)
                }
                _ => return None,
            };
            workers.push(number(worker)?);
            kills.push(kill);
            tears.push(tear);
        }
        let torn = tears.iter().flatten().map(|tear| tear.worker).max().unwrap_or_default();
        let mut schedule = Self::new(title, workers);
        schedule.width = schedule.width.max(torn + 1).max(warm_ups.min(WORKERS_MAX));
        Some(Self { kills, tears, warm_ups, ..schedule })
    }
}

/// Most workers that have a letter.
const WORKERS_MAX: usize = 26;
const KILLED: char = '†';
const KILLED_WITH_ITS_DISK: char = '‡';
const UNHEARD: char = '~';
/// Before the moment at which the worker of a step is killed.
const TORN: &str = ", killed at ";
/// Before the number of users that were there first.
const WARM: &str = ", other users before: ";
/// Before the number of the answer that a killed worker did not get.
const ANSWER: &str = "answer ";

impl Moment {
    /// As people read it: the worker is killed at the request, at an answer from beside, or at its response.
    pub fn text(self) -> String {
        match self {
            Self::Delivered => "request".into(),
            Self::Exchange(number) => format!("{ANSWER}{number}"),
            Self::Answered => "response".into(),
            Self::Unheard => "never".into(),
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text {
            "request" => Some(Self::Delivered),
            "response" => Some(Self::Answered),
            _ => Some(Self::Exchange(text.strip_prefix(ANSWER)?.parse().ok()?)),
        }
    }
}

fn letter(worker: usize) -> char {
    char::from(b'A' + u8::try_from(worker % WORKERS_MAX).unwrap_or_default())
}

fn number(letter: char) -> Option<usize> {
    letter.is_ascii_uppercase().then(|| (letter as usize) - usize::from(b'A'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_plays_what() {
        for (schedule, text, width) in [
            (Schedule::pinned(3, 2), "A A A", 2),
            (Schedule::round_robin(5, 3), "A B C A B", 3),
            (Schedule::cut(4, 1), "A B B B", 2),
            (Schedule::detour(4, 2), "A B A A", 2),
            (Schedule::pair(2, 4), "B A B B", 2),
            (Schedule::only(&BTreeSet::from([1, 3, 6]), 4), "A B A B", 2),
            (Schedule::cut(4, 1).until(3).control(), "A A A", 1),
            (Schedule::kill_after(0, 2, Restart::NewDisk), "A A", 1),
            (Schedule::kill_after_every(3), "A† A† A", 1),
            (Schedule::kill_after(2, 3, Restart::NewDisk), "A A‡ A", 1),
            (Schedule::kill_in(3, 2, Moment::Delivered), "A A†B B, killed at request", 2),
            (Schedule::twice(2, 1), "A~A A", 1),
            (Schedule::retried(4, &BTreeSet::from([1, 3])), "B~A A B~A A", 2),
        ] {
            assert_eq!((schedule.text().as_str(), schedule.width), (text, width), "{}", schedule.title);
        }
        assert_eq!((Schedule::warm(2, 2).warm_ups, Schedule::warm_single(2, 2).width), (2, 1));
        assert_eq!(Schedule::warm(4, 2).until(3).control(), Schedule::warm_single(3, 2));
        assert_eq!(Schedule::cut(4, 1).until(2).text(), "A B");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for schedule in [
            Schedule::pair(2, 4),
            Schedule::warm(4, 3),
            Schedule::warm_single(2, 2),
            Schedule::kill_after(1, 3, Restart::SameDisk),
            Schedule::kill_after(1, 3, Restart::NewDisk),
            Schedule::kill_in(4, 1, Moment::Exchange(2)),
            Schedule::kill_in(4, 4, Moment::Answered),
            Schedule::twice(2, 2),
            Schedule::retried(3, &BTreeSet::from([1, 2])),
        ] {
            let read = Schedule::read(&schedule.text(), &schedule.title).unwrap();
            // Workers that play nothing but for others are no fewer than those others.
            assert_eq!((read.text(), &read.tears), (schedule.text(), &schedule.tears));
            assert!(read.width >= schedule.width, "{}", schedule.title);
        }
        for text in ["", "A b", "A††", "A†B B", "A A†B, killed at leisure", "A, other users before: x"]
        {
            assert_eq!(Schedule::read(text, "x"), None, "{text}");
        }
    }

    #[test]
    fn what_is_out_of_reach() {
        for (schedule, producer, consumer, expected) in [
            (Schedule::cut(4, 2), 2, 3, true),
            (Schedule::cut(4, 2), 1, 2, false),
            (Schedule::detour(4, 2), 1, 3, false),
            (Schedule::kill_after(2, 4, Restart::SameDisk), 1, 2, false),
            (Schedule::kill_after(2, 4, Restart::SameDisk), 2, 3, true),
            (Schedule::kill_after(2, 4, Restart::SameDisk), 3, 4, false),
            (Schedule::kill_in(4, 3, Moment::Answered), 2, 3, true),
            (Schedule::kill_in(4, 3, Moment::Answered), 3, 4, false),
        ] {
            assert_eq!(schedule.separates(producer, consumer), expected, "{} {producer}", schedule.title);
        }
    }
}
