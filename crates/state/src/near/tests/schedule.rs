//! Readings, writes, notices, flushes and lost feeds in any order: what was told, or written here, is never read as it was before.

use std::collections::{HashMap, VecDeque};

use proptest::{prelude::*, test_runner::Config};
use tokio::task::JoinHandle;

use super::desk::{Desk, Number, settle};
use crate::{error::Error, near::Bounds};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Load {
        name: usize,
        through: bool,
    },
    /// Of this worker or another one; it is told later.
    Write {
        name: usize,
        here: bool,
    },
    /// The oldest change that was not told.
    Tell,
    /// The answer that has been held back for the longest time.
    Release,
    Cancel(usize),
    Flush,
    Lose,
    Follow,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        8 => (name.clone(), prop::bool::weighted(0.2)).prop_map(|(name, through)| Step::Load { name, through }),
        4 => (name, prop::bool::weighted(0.3)).prop_map(|(name, here)| Step::Write { name, here }),
        4 => Just(Step::Tell),
        6 => Just(Step::Release),
        1 => (0_usize..8).prop_map(Step::Cancel),
        1 => Just(Step::Flush),
        1 => Just(Step::Lose),
        1 => Just(Step::Follow),
    ]
}

/// What a read that begins now may see at least.
struct Model {
    desk: Desk,
    floor: HashMap<&'static str, u64>,
    untold: VecDeque<&'static str>,
    is_followed: bool,
    loads: Vec<Load>,
}

struct Load {
    name: &'static str,
    floor: u64,
    task: JoinHandle<Result<Number, Error>>,
}

impl Model {
    async fn new() -> Self {
        let desk = Desk::followed(Bounds::default()).await;
        desk.hold(true);
        Self { desk, floor: HashMap::new(), untold: VecDeque::new(), is_followed: true, loads: Vec::new() }
    }

    async fn step(&mut self, step: &Step) {
        let desk = &self.desk;
        match *step {
            Step::Load { name, through } => {
                let name = NAMES[name];
                let task = match through {
                    true => tokio::spawn(desk.load_through(name)),
                    false => tokio::spawn(desk.load(name)),
                };
                // Where nobody tells, and where it is asked for, it is the engine that answers.
                let is_told = self.is_followed && !through;
                let floor =
                    if is_told { self.floor.get(name).copied().unwrap_or(0) } else { desk.value(name) };
                self.loads.push(Load { name, floor, task });
            }
            Step::Write { name, here } => {
                let name = NAMES[name];
                let writing = here.then(|| desk.copies.writing(name));
                let value = desk.write(name);
                if writing.is_some() {
                    self.floor.insert(name, value);
                }
                if self.is_followed {
                    self.untold.push_back(name);
                }
            }
            Step::Tell => {
                if let Some(name) = self.untold.pop_front() {
                    desk.tell(name).await;
                    self.floor.insert(name, desk.value(name));
                }
            }
            Step::Release => _ = desk.release(),
            Step::Cancel(which) => {
                if which < self.loads.len() {
                    self.loads.swap_remove(which).task.abort();
                }
            }
            Step::Flush => {
                desk.copies.flush();
                self.floor.extend(NAMES.map(|name| (name, desk.value(name))));
            }
            Step::Lose if self.is_followed => {
                desk.deafen(Some(|| Error::Unavailable("cut".into())));
                desk.break_feed().await;
                self.is_followed = false;
                self.untold.clear();
            }
            Step::Follow if !self.is_followed => {
                desk.deafen(None);
                desk.copies.followed().await.unwrap();
                self.is_followed = true;
                self.floor.extend(NAMES.map(|name| (name, desk.value(name))));
            }
            Step::Lose | Step::Follow => {}
        }
        settle().await;
        self.check().await;
    }

    /// Looks at the reads that have ended.
    async fn check(&mut self) {
        let loads = std::mem::take(&mut self.loads);
        for load in loads {
            if load.task.is_finished() {
                let value = load.task.await.unwrap().unwrap().value;
                assert!(value >= load.floor, "{} was {value}, which had ended at {}", load.name, load.floor);
            } else {
                self.loads.push(load);
            }
        }
    }

    /// In the end, when all was told, all is read as it is, and kept.
    async fn finish(mut self) {
        self.step(&Step::Follow).await;
        while !self.untold.is_empty() {
            self.step(&Step::Tell).await;
        }
        self.desk.hold(false);
        while self.desk.release() {}
        settle().await;
        self.check().await;
        assert!(self.loads.is_empty(), "nothing hangs");
        for name in NAMES {
            let first = self.desk.load(name).await.unwrap().value;
            let reads = self.desk.reads();
            let second = self.desk.load(name).await.unwrap().value;
            assert_eq!([first, second], [self.desk.value(name); 2], "{name}");
            assert_eq!(self.desk.reads(), reads, "{name} is kept");
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    /// A failure prints the steps that lead to it, as few as were found.
    #[test]
    fn what_was_told_is_never_read_as_it_was(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new().await;
            for step in &steps {
                model.step(step).await;
            }
            model.finish().await;
        });
    }
}
