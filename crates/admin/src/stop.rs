//! The wish to stop. Signals, `lethe down` and the end of a run all turn the same switch, and whoever ends the
//! process waits on it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

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
pub struct Stop(Arc<watch::Sender<Wish>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Wish::Run)))
    }
}

impl Stop {
    /// A switch that nobody has turned.
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns it to `wish`, unless it is there or further already.
    pub fn ask(&self, wish: Wish) {
        self.0.send_if_modified(|now| {
            let further = wish > *now;
            *now = wish.max(*now);
            further
        });
    }

    /// Turns it one further, as each Ctrl-C does, and says where it is now.
    pub fn press(&self) -> Wish {
        self.0.send_modify(|now| *now = if *now == Wish::Run { Wish::Drain } else { Wish::Now });
        self.wish()
    }

    /// Where it is.
    pub fn wish(&self) -> Wish {
        *self.0.borrow()
    }

    /// Waits until it is at `wish` or further. Cancellation safe.
    pub async fn asked(&self, wish: Wish) {
        // The sender lives as long as `self`, so that this cannot fail while it is waited for.
        let _ = self.0.subscribe().wait_for(|now| *now >= wish).await;
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
