//! What idempotency promises when many requests come at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{Fixture, answer, beginning};
use crate::idempotency::{Beginning, Begun, Claim, Idempotency};

const TASKS: usize = 12;
const ROUNDS: usize = 10;

/// Of many that begin at once, one is the first; the others wait for its answer and get it.
pub async fn one_of_many_beginners_gets_the_key(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    for round in 0..ROUNDS {
        let done = Arc::new(AtomicUsize::new(0));
        let tasks = (0..TASKS).map(|task| {
            let (keys, done) = (keys.clone(), done.clone());
            tokio::spawn(async move {
                let owner = format!("web-{task}");
                loop {
                    let beginning = Beginning { owner: owner.clone(), ..beginning(&format!("k{round}")) };
                    match keys.begin(beginning).await.unwrap() {
                        Begun::Claimed(claim) => {
                            done.fetch_add(1, Ordering::SeqCst);
                            assert!(keys.finish(&claim, answer(&owner)).await.unwrap());
                        }
                        Begun::Running(_) => tokio::task::yield_now().await,
                        Begun::Answered(answer) => return answer,
                        other @ (Begun::Mismatched | Begun::Lost) => {
                            panic!("it is the same request: {other:?}")
                        }
                    }
                }
            })
        });
        let mut answers = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            answers.push(task.await.unwrap());
        }
        assert_eq!(done.load(Ordering::SeqCst), 1, "it was done once");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
}

/// Owners that die one after the other, and come back to answer all the same, while their successors displace them: the key
/// has one answer, of the one who was told that it counts.
pub async fn retries_of_dying_owners_have_one_answer(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    for round in 0..ROUNDS {
        let key = format!("k{round}");
        let mut finishing = Vec::new();
        for attempt in 0..TASKS {
            let beginning = Beginning {
                owner: format!("web-{attempt}"),
                displaces: attempt.checked_sub(1).map(|dead| format!("web-{dead}")).into_iter().collect(),
                ..beginning(&key)
            };
            match keys.begin(beginning).await.unwrap() {
                Begun::Claimed(claim) => finishing.push(tokio::spawn(finish(keys.clone(), claim, attempt))),
                // One that counts as dead has answered before it was displaced.
                Begun::Answered(_) => break,
                other => panic!("{other:?}"),
            }
        }
        let mut counted = Vec::new();
        for task in finishing {
            counted.extend(task.await.unwrap());
        }
        assert_eq!(counted.len(), 1, "{counted:?}");
        let kept = keys.begin(beginning(&key)).await.unwrap();
        assert_eq!(kept, Begun::Answered(answer(&counted[0].to_string())));
    }
}

/// Answers, and returns the attempt if its answer counts.
async fn finish(keys: Arc<dyn Idempotency>, claim: Claim, attempt: usize) -> Option<usize> {
    keys.finish(&claim, answer(&attempt.to_string())).await.unwrap().then_some(attempt)
}
