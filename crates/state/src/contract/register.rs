//! A value that is read, and written if it has still the revision that was read: what rows and fields of sessions have in common.
//! Random calls of many clients at once are noted, and must have an order in which one value could have given their answers.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    chance::{Random, seed},
    linear::{Call, Moments, has_an_order},
};
use crate::Revision;

const CLIENTS: u64 = 5;
const CALLS: u64 = 30;

/// A value with its revision; `None` while there is none.
pub(super) type Seen = Option<(Revision, u64)>;

/// What a write under a condition came to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wrote {
    /// It is done, and the value has this revision; `None` when it was removed.
    Done(Option<Revision>),
    /// The value had another revision, this one.
    Refused(Option<Revision>),
}

/// One value in an engine.
#[async_trait]
pub(super) trait Register: Send + Sync {
    async fn read(&self) -> Seen;

    /// Writes, or removes, what has this revision; `None` for what is not there.
    async fn write(&self, expect: Option<Revision>, value: Option<u64>) -> Wrote;
}

/// A call with its answer.
#[derive(Clone, Copy, Debug)]
enum Spoken {
    Read(Seen),
    Wrote(Option<Revision>, Option<u64>, Wrote),
}

/// The value after a call; `None` when the call could not have been answered so.
fn step(state: &Seen, spoken: &Spoken) -> Option<Seen> {
    let revision = state.map(|(revision, _)| revision);
    match *spoken {
        Spoken::Read(seen) => (seen == *state).then_some(*state),
        Spoken::Wrote(expect, value, Wrote::Done(new)) => {
            (expect == revision && new.is_none_or(|new| Some(new) > revision)).then(|| new.zip(value))
        }
        Spoken::Wrote(expect, _, Wrote::Refused(found)) => {
            (expect != revision && found == revision).then_some(*state)
        }
    }
}

async fn history(register: Arc<dyn Register>, seed: u64) -> Vec<Vec<Call<Spoken>>> {
    let moments = Arc::new(Moments::default());
    let clients = (1..=CLIENTS).map(|client| {
        let (register, moments) = (register.clone(), moments.clone());
        tokio::spawn(async move {
            let (mut random, mut known, mut calls) = (Random::new(seed, client), None, Vec::new());
            for n in 0..CALLS {
                let call = async {
                    let value = match random.below(10) {
                        0..=3 => return Spoken::Read(register.read().await),
                        4 if known.is_some() => None,
                        _ => Some(client * CALLS + n),
                    };
                    Spoken::Wrote(known, value, register.write(known, value).await)
                };
                let call = moments.note(call).await;
                known = match call.call {
                    Spoken::Read(seen) => seen.map(|(revision, _)| revision),
                    Spoken::Wrote(_, _, Wrote::Done(new) | Wrote::Refused(new)) => new,
                };
                calls.push(call);
            }
            calls
        })
    });
    let mut histories = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        histories.push(client.await.unwrap());
    }
    histories
}

/// Whatever clients do with it at once, it is as if they had done it one after the other.
pub(super) async fn check(register: impl Register + 'static) {
    let calls = history(Arc::new(register), seed()).await;
    let done = |call: &Call<Spoken>| matches!(call.call, Spoken::Wrote(_, _, Wrote::Done(_)));
    assert!(calls.iter().flatten().filter(|call| done(call)).count() > 1, "{calls:#?}");
    assert!(has_an_order(&calls, None, step), "{calls:#?}");
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What is wrong with a register, now and then.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        None,
        /// A read sees what was before.
        StaleRead,
        /// A write is acknowledged and not done.
        WriteLost,
        /// A write is done over a value that it did not expect.
        WriteOver,
        /// A removed value comes back.
        BackAgain,
    }

    #[derive(Default)]
    struct Kept {
        now: Seen,
        before: Seen,
        revisions: Revision,
        calls: u32,
    }

    struct Planted(Fault, Mutex<Kept>);

    #[async_trait]
    impl Register for Planted {
        async fn read(&self) -> Seen {
            tokio::task::yield_now().await;
            let mut kept = self.1.lock().unwrap();
            kept.calls += 1;
            let is_wrong = kept.calls > 20 && self.0 == Fault::StaleRead;
            if is_wrong { kept.before } else { kept.now }
        }

        async fn write(&self, expect: Option<Revision>, value: Option<u64>) -> Wrote {
            tokio::task::yield_now().await;
            let mut kept = self.1.lock().unwrap();
            kept.calls += 1;
            let is_wrong = |fault| kept.calls > 20 && self.0 == fault;
            let found = kept.now.map(|(revision, _)| revision);
            if expect != found && !is_wrong(Fault::WriteOver) {
                return Wrote::Refused(found);
            }
            let (is_lost, is_back) = (is_wrong(Fault::WriteLost), is_wrong(Fault::BackAgain));
            kept.revisions += 1;
            let new = value.map(|value| (kept.revisions, value));
            if !is_lost {
                (kept.before, kept.now) =
                    (kept.now, if is_back && new.is_none() { kept.before } else { new });
            }
            Wrote::Done(new.map(|(revision, _)| revision))
        }
    }

    #[tokio::test]
    async fn planted_faults_are_found() {
        for seed in [1, 7, 2026] {
            for fault in [Fault::None, Fault::StaleRead, Fault::WriteLost, Fault::WriteOver, Fault::BackAgain]
            {
                let calls = history(Arc::new(Planted(fault, Mutex::default())), seed).await;
                assert_eq!(has_an_order(&calls, None, step), fault == Fault::None, "{fault:?}, seed {seed}");
            }
        }
    }
}
