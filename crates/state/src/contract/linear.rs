//! The checker of histories: whether calls that were made at the same time have an order in which each could have given
//! the answer that it gave, none moved out of the time between its beginning and its end (linearizability; Herlihy and
//! Wing 1990). The search is that of Wing and Gong (1993), with the states it has seen remembered, as Lowe has it (2017).

use std::{
    collections::HashSet,
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
};

/// A call that was made, with its answer in it.
#[derive(Clone, Debug)]
pub struct Call<C> {
    /// When it began.
    pub began: u64,
    /// When it was answered.
    pub ended: u64,
    /// What was asked and answered.
    pub call: C,
}

/// Tells moments apart: each is later than those told before.
#[derive(Debug, Default)]
pub struct Moments(AtomicU64);

impl Moments {
    /// Now.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes a call, and notes its beginning and its end.
    pub async fn note<C>(&self, call: impl Future<Output = C>) -> Call<C> {
        let began = self.next();
        let call = call.await;
        Call { began, ended: self.next(), call }
    }
}

/// Whether the calls have such an order. `clients` has the calls of each client, who made one after the other; `step` is
/// the state after a call, or `None` when it could not have had that answer in that state.
pub fn has_an_order<S, C>(clients: &[Vec<Call<C>>], first: S, step: impl Fn(&S, &C) -> Option<S>) -> bool
where
    S: Clone + Eq + Hash,
{
    let all: Vec<usize> = clients.iter().map(Vec::len).collect();
    // How many calls of each client are done, and the state after them.
    let mut open = vec![(vec![0; clients.len()], first)];
    let mut seen = HashSet::new();
    while let Some((done, state)) = open.pop() {
        if done == all {
            return true;
        }
        if !seen.insert((done.clone(), state.clone())) {
            continue;
        }
        let next = || clients.iter().zip(&done).map(|(calls, done)| calls.get(*done));
        // Whoever began after another call had ended comes after it.
        let first_end = next().flatten().map(|call| call.ended).min().unwrap_or(u64::MAX);
        for (client, call) in next().enumerate() {
            let Some(call) = call.filter(|call| call.began <= first_end) else { continue };
            if let Some(state) = step(&state, &call.call) {
                let mut done = done.clone();
                done[client] += 1;
                open.push((done, state));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register: what was written last is read.
    #[derive(Clone, Debug)]
    enum Register {
        Write(u8),
        Read(u8),
    }

    fn check(clients: &[&[(u64, u64, Register)]], expected: bool) {
        let call = |(began, ended, call): &(u64, u64, Register)| Call {
            began: *began,
            ended: *ended,
            call: call.clone(),
        };
        let calls: Vec<Vec<_>> = clients.iter().map(|calls| calls.iter().map(call).collect()).collect();
        let ordered = has_an_order(&calls, 0, |state, call| match call {
            Register::Write(value) => Some(*value),
            Register::Read(value) => (value == state).then_some(*state),
        });
        assert_eq!(ordered, expected, "{clients:?}");
    }

    #[test]
    fn histories_are_told_apart() {
        use Register::{Read, Write};
        check(&[], true);
        check(&[&[(0, 1, Write(1)), (2, 3, Read(1))]], true);
        check(&[&[(0, 1, Write(1)), (2, 3, Read(0))]], false);
        // At the same time as a write, either value may be read.
        check(&[&[(0, 9, Write(1))], &[(1, 2, Read(0)), (3, 4, Read(1))]], true);
        check(&[&[(0, 9, Write(1))], &[(1, 2, Read(1)), (3, 4, Read(0))]], false);
        // What one has read after a write, another cannot miss later.
        check(&[&[(0, 9, Write(1))], &[(1, 2, Read(1))], &[(3, 4, Read(0))]], false);
        check(&[&[(0, 9, Write(1))], &[(1, 3, Read(1))], &[(2, 4, Read(0))]], true);
        check(&[&[(0, 1, Write(1))], &[(2, 3, Write(2))], &[(4, 5, Read(1))]], false);
        check(&[&[(0, 3, Write(1))], &[(2, 4, Write(2))], &[(5, 6, Read(1))]], true);
    }
}
