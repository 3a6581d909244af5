//! The wish to stop. Signals, `lethe down` and the end of a run all turn the same switch, and whoever ends the
//! process waits on it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::interruption::Terms;

/// How far the wish goes. Run → Drain → Now; it never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Nobody wants it to stop.
    #[default]
    Run,
    /// Take no new requests, end those there are, end the workers, exit.
    Drain,
    /// End the workers with SIGKILL and exit, whatever is still open.
    Now,
}

/// The switch. Cheap to clone; all clones are one switch.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    wish: watch::Sender<Wish>,
    /// It was said that the end comes, before anything is done towards it.
    is_announced: AtomicBool,
    /// What a signal that asks to drain stands for, if not for draining at once.
    terms: Option<Terms>,
}

impl Default for Stop {
    fn default() -> Self {
        Self::with(None)
    }
}

impl Stop {
    /// A switch that nobody has turned.
    pub fn new() -> Self {
        Self::default()
    }

    /// A switch that nobody has turned; a signal that asks to drain is a notice with these terms.
    pub fn with(terms: Option<Terms>) -> Self {
        let wish = watch::Sender::new(Wish::Run);
        Self(Arc::new(Switch { wish, is_announced: AtomicBool::new(false), terms }))
    }

    /// What a signal that asks to drain stands for, if not for draining at once.
    pub fn terms(&self) -> Option<Terms> {
        self.0.terms
    }

    /// Says that the end comes: nothing new should be sent here any more.
    pub fn announce(&self) {
        self.0.is_announced.store(true, Ordering::Relaxed);
    }

    /// Whether the end comes.
    pub fn is_leaving(&self) -> bool {
        self.0.is_announced.load(Ordering::Relaxed) || self.wish() != Wish::Run
    }

    /// Turns it to `wish`, unless it is there or further already.
    pub fn ask(&self, wish: Wish) {
        self.0.wish.send_if_modified(|now| {
            let further = wish > *now;
            *now = wish.max(*now);
            further
        });
    }

    /// Turns it one further, as each Ctrl-C does, and says where it is now.
    pub fn press(&self) -> Wish {
        self.0.wish.send_modify(|now| *now = if *now == Wish::Run { Wish::Drain } else { Wish::Now });
        self.wish()
    }

    /// Where it is.
    pub fn wish(&self) -> Wish {
        *self.0.wish.borrow()
    }

    /// Waits until it is at `wish` or further. Cancellation safe.
    pub async fn asked(&self, wish: Wish) {
        // The sender lives as long as `self`, so that this cannot fail while it is waited for.
        let _ = self.0.wish.subscribe().wait_for(|now| *now >= wish).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_goes_further() {
        let stop = Stop::new();
        assert_eq!(stop.wish(), Wish::Run);
        let waiter = tokio::spawn({
            let stop = stop.clone();
            async move { stop.asked(Wish::Now).await }
        });
        assert_eq!(stop.press(), Wish::Drain);
        stop.asked(Wish::Drain).await;
        assert!(!waiter.is_finished());
        assert_eq!(stop.press(), Wish::Now);
        waiter.await.unwrap();
        stop.ask(Wish::Drain);
        assert_eq!((stop.wish(), stop.press()), (Wish::Now, Wish::Now));
    }
}
