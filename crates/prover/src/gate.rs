//! Workers that start at the same moment, kept in step: what services beside answer to one of them reaches it when all others have
//! been answered as often. So each has looked before any of them acts on what it saw, which is chance otherwise.
//!
//! Who waits for a lock that another one has is not answered, and the other one would wait for that: the first time that it takes too long,
//! the gate stays open.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long the first answer is held: workers need that much at most until all of them ask something.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// How long each later one is held.
const NEXT_MAX: Duration = Duration::from_secs(2);

/// Answers to each that are held; what comes later is no start any more.
const ANSWERS_MAX: u32 = 32;

/// Holds answers.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// How often each worker was answered.
    answers: Vec<u32>,
    is_open: bool,
}

impl Gate {
    /// One for so many workers.
    pub fn new(workers: usize) -> Self {
        let state = State { answers: vec![0; workers], is_open: workers < 2 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Something has answered the worker of this number, from 0. Returns when that may reach it.
    pub fn pass(&self, worker: usize) {
        let mut state = self.lock();
        let Some(answers) = state.answers.get_mut(worker) else { return };
        *answers += 1;
        let round = *answers;
        self.changed.notify_all();
        let end = Instant::now() + if round == 1 { FIRST_MAX } else { NEXT_MAX };
        while !state.is_open && round <= ANSWERS_MAX && state.answers.iter().any(|other| *other < round) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.is_open = true;
                self.changed.notify_all();
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets all through from now on, as when a worker has ended or all of them have started.
    pub fn open(&self) {
        self.lock().is_open = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{TryRecvError, channel},
        thread,
    };

    use super::*;

    #[test]
    fn nobody_is_ahead() {
        let gate = Gate::new(2);
        thread::scope(|scope| {
            let (told, passed) = channel();
            let (gate, first) = (&gate, told.clone());
            scope.spawn(move || {
                gate.pass(0);
                let _ = first.send(0);
            });
            while gate.lock().answers[0] == 0 {
                thread::yield_now();
            }
            assert_eq!(passed.try_recv(), Err(TryRecvError::Empty));
            gate.pass(1);
            assert_eq!(passed.recv(), Ok(0));
        });
    }

    #[test]
    fn an_open_gate_holds_nobody() {
        let gate = Gate::new(3);
        gate.open();
        gate.pass(0);
        gate.pass(7);
        Gate::new(1).pass(0);
    }
}
