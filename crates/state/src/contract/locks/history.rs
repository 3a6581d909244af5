//! What locks promise when many call at once: at no moment two holders, and tokens that grow. Random calls are noted with
//! their beginnings, ends and answers, and must have an order in which a lock could have given these.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Fixture, MINUTE};
use crate::{
    contract::{
        chance::{Random, seed},
        linear::{Call, Moments, has_an_order},
    },
    locks::{Locks, Token},
};

const CLIENTS: u64 = 6;
const CALLS: usize = 40;
/// How many calls of a client are between two moments at which all leases end.
const CALLS_IN_A_LEASE: usize = 8;

/// A call with its answer.
#[derive(Clone, Debug)]
enum Spoken {
    Acquired(Token),
    Busy,
    Renewed(Token, bool),
    Released(Token, bool),
    Looked(Option<Token>),
    /// The clock went on, past the end of all leases.
    LeasesEnded,
}

/// What a lock is: who holds it, and the largest token that was given.
type State = (Option<Token>, Token);

/// The lock after a call; `None` when the call could not have been answered so.
fn step((holder, largest): &State, spoken: &Spoken) -> Option<State> {
    let (holder, largest) = (*holder, *largest);
    let agrees = |token: Token, said: bool| said == (holder == Some(token));
    match *spoken {
        Spoken::Acquired(token) => (holder.is_none() && token > largest).then_some((Some(token), token)),
        Spoken::Busy => holder.is_some().then_some((holder, largest)),
        Spoken::Renewed(token, said) => agrees(token, said).then_some((holder, largest)),
        Spoken::Released(token, said) => {
            agrees(token, said).then_some((if said { None } else { holder }, largest))
        }
        Spoken::Looked(seen) => (seen == holder).then_some((holder, largest)),
        Spoken::LeasesEnded => Some((None, largest)),
    }
}

/// One call of a client that knows `token` from its last lease.
async fn call(locks: &Arc<dyn Locks>, token: &mut Option<Token>, random: &mut Random) -> Spoken {
    match (random.below(10), *token) {
        (0..=1, _) => Spoken::Looked(locks.look("l").await.unwrap().map(|lease| lease.token)),
        (2..=4, Some(token)) => {
            Spoken::Renewed(token, locks.renew("l", token, MINUTE).await.unwrap().is_some())
        }
        (5..=7, Some(token)) => Spoken::Released(token, locks.release("l", token).await.unwrap()),
        _ => match locks.acquire("l", "client", MINUTE).await.unwrap() {
            Some(lease) => {
                *token = Some(lease.token);
                Spoken::Acquired(lease.token)
            }
            None => Spoken::Busy,
        },
    }
}

/// The calls of all clients. `end_leases` moves the clock past the end of all leases, if it can.
async fn history(locks: &Arc<dyn Locks>, seed: u64, end_leases: Option<impl Fn()>) -> Vec<Vec<Call<Spoken>>> {
    let moments = Arc::new(Moments::default());
    let (late, mut lateness) = mpsc::channel(1);
    let clients = (1..=CLIENTS).map(|client| {
        let (locks, moments, late) = (locks.clone(), moments.clone(), late.clone());
        tokio::spawn(async move {
            let (mut random, mut token, mut calls) = (Random::new(seed, client), None, Vec::new());
            for n in 1..=CALLS {
                calls.push(moments.note(call(&locks, &mut token, &mut random)).await);
                if n % CALLS_IN_A_LEASE == 0 {
                    // Nobody listens in a history without a clock.
                    let _ = late.send(()).await;
                }
            }
            calls
        })
    });
    let clients: Vec<_> = clients.collect();
    drop(late);
    let mut ends = Vec::new();
    match end_leases {
        None => lateness.close(),
        Some(end_leases) => {
            while lateness.recv().await.is_some() {
                let ended = async {
                    end_leases();
                    Spoken::LeasesEnded
                };
                ends.push(moments.note(ended).await);
            }
        }
    }
    let mut histories = vec![ends];
    for client in clients {
        histories.push(client.await.unwrap());
    }
    histories
}

/// Whatever clients do at once, it is as if they had done it one after the other.
pub async fn calls_at_once_have_an_order(fixture: Fixture) {
    let calls = history(&fixture.engines.locks, seed(), None::<fn()>).await;
    assert!(has_an_order(&calls, (None, 0), step), "{calls:#?}");
}

/// The same while leases end under their holders.
pub async fn calls_at_once_have_an_order_while_leases_end(fixture: Fixture) {
    if !fixture.advance(MINUTE) {
        return;
    }
    let end_leases = || {
        fixture.advance(2 * MINUTE);
    };
    let calls = history(&fixture.engines.locks, seed(), Some(end_leases)).await;
    assert!(has_an_order(&calls, (None, 0), step), "{calls:#?}");
}

/// Of many that ask at once for a free lock, one gets it.
pub async fn one_of_many_gets_the_lock(fixture: Fixture) {
    let locks = &fixture.engines.locks;
    for round in 0..10 {
        let name = format!("l{round}");
        let tasks = (0..12).map(|task| {
            let (locks, name) = (locks.clone(), name.clone());
            tokio::spawn(async move { locks.acquire(&name, &format!("task {task}"), MINUTE).await.unwrap() })
        });
        let mut winners = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            winners.extend(task.await.unwrap());
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(locks.look(&name).await.unwrap(), winners.pop());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use async_trait::async_trait;

    use super::*;
    use crate::{
        error::Error,
        locks::{Lease, Page},
    };

    /// What is wrong with a lock, now and then.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        None,
        /// Two may hold it.
        SecondHolder,
        /// A token comes again after it was let go.
        TokenAgain,
        /// An old holder is told that it still holds it.
        StaleRenewal,
        /// A release is acknowledged and not done.
        ReleaseLost,
        /// A look sees the holder before.
        StaleLook,
    }

    #[derive(Default)]
    struct Kept {
        holder: Option<Token>,
        before: Option<Token>,
        tokens: Token,
        calls: u32,
    }

    /// A lock in memory with a planted fault.
    struct Planted(Fault, Mutex<Kept>);

    impl Planted {
        /// Does a call after others had the chance to come between, and says whether this is one that goes wrong.
        async fn turn<T>(&self, fault: Fault, work: impl FnOnce(&mut Kept, bool) -> T) -> T {
            tokio::task::yield_now().await;
            let mut kept = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            kept.calls += 1;
            let wrong = self.0 == fault && kept.calls > 20;
            work(&mut kept, wrong)
        }
    }

    fn lease(token: Token) -> Lease {
        Lease { name: "l".into(), holder: "client".into(), token, expires_at: i64::MAX }
    }

    #[async_trait]
    impl Locks for Planted {
        async fn acquire(&self, _: &str, _: &str, _: Duration) -> Result<Option<Lease>, Error> {
            let fault = if self.0 == Fault::TokenAgain { Fault::TokenAgain } else { Fault::SecondHolder };
            let acquired = self.turn(fault, |kept, wrong| {
                if kept.holder.is_some() && !(wrong && fault == Fault::SecondHolder) {
                    return None;
                }
                kept.tokens += u64::from(!(wrong && fault == Fault::TokenAgain));
                (kept.before, kept.holder) = (kept.holder, Some(kept.tokens));
                kept.holder
            });
            Ok(acquired.await.map(lease))
        }

        async fn renew(&self, _: &str, token: Token, _: Duration) -> Result<Option<Lease>, Error> {
            let held = self.turn(Fault::StaleRenewal, |kept, wrong| wrong || kept.holder == Some(token));
            Ok(held.await.then(|| lease(token)))
        }

        async fn release(&self, _: &str, token: Token) -> Result<bool, Error> {
            let released = self.turn(Fault::ReleaseLost, |kept, wrong| {
                let held = kept.holder == Some(token);
                if held && !wrong {
                    (kept.before, kept.holder) = (kept.holder, None);
                }
                held
            });
            Ok(released.await)
        }

        async fn look(&self, _: &str) -> Result<Option<Lease>, Error> {
            let seen =
                self.turn(Fault::StaleLook, |kept, wrong| if wrong { kept.before } else { kept.holder });
            Ok(seen.await.map(lease))
        }

        async fn list(&self, _: Option<&str>, _: usize) -> Result<Page, Error> {
            Ok(Page::default())
        }
    }

    async fn is_sound(fault: Fault, seed: u64) -> bool {
        let locks: Arc<dyn Locks> = Arc::new(Planted(fault, Mutex::default()));
        has_an_order(&history(&locks, seed, None::<fn()>).await, (None, 0), step)
    }

    #[tokio::test]
    async fn planted_faults_are_found() {
        for seed in [1, 7, 2026] {
            assert!(is_sound(Fault::None, seed).await, "seed {seed}");
            for fault in [
                Fault::SecondHolder,
                Fault::TokenAgain,
                Fault::StaleRenewal,
                Fault::ReleaseLost,
                Fault::StaleLook,
            ] {
                assert!(!is_sound(fault, seed).await, "{fault:?}, seed {seed}");
            }
        }
    }
}
