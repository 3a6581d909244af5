//! Work of a core that is long as a whole is done in slices, between which requests have their turn.

use std::time::{Duration, Instant};

/// After so long requests have their turn. It is the most that such work adds to what a request takes each time that it
/// waits for something.
const SLICE: Duration = Duration::from_micros(50);

/// A piece of work that is being done in slices.
pub(crate) struct Slices {
    /// When the slice in hand began.
    began: Instant,
    /// What those before took.
    spent: Duration,
}

impl Slices {
    /// Begins the first one.
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), spent: Duration::ZERO }
    }

    /// To be called after each step of the work, which is to be a short one: lets others have their turn if it is time.
    pub(crate) async fn step(&mut self) {
        let spent = self.began.elapsed();
        if spent >= SLICE {
            self.spent += spent;
            tokio::task::yield_now().await;
            self.began = Instant::now();
        }
    }

    /// The time that the work has taken so far, without that of others in between.
    pub(crate) fn spent(&self) -> Duration {
        self.spent + self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    #[test]
    fn others_have_their_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let turns = Rc::new(Cell::new(0));
            let others = tokio::task::spawn_local({
                let turns = Rc::clone(&turns);
                async move {
                    loop {
                        turns.set(turns.get() + 1);
                        tokio::task::yield_now().await;
                    }
                }
            });
            let mut slices = Slices::begin();
            // However fast the machine is: until three slices are over.
            while turns.get() < 3 {
                slices.step().await;
            }
            others.abort();
            assert!(slices.spent() >= 3 * SLICE);
        });
    }
}
