//! Services that have no worker and are asked for. A request that waits for one rings; whoever runs the services hears
//! which of them it is, starts a worker, or says that none starts. Only requests that wait come here: on the usual way
//! nothing of it is looked at.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tokio::sync::Notify;

/// What all services of a gateway ring. One listens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell(Arc<Notify>);

impl Bell {
    /// Waits until it was rung since the last time. Cancellation safe.
    pub(crate) fn rung(&self) -> impl Future<Output = ()> + '_ {
        self.0.notified()
    }
}

/// Whether a worker of one service is wanted. Unwanted → Wanted (rung) → Unwanted (heard) → …
#[derive(Debug, Default)]
pub(crate) struct Want {
    bell: Bell,
    /// A worker is started for those who wait; else nobody is told.
    is_heard: AtomicBool,
    is_wanted: AtomicBool,
}

impl Want {
    /// That of a service whose wish is told by `bell`.
    pub(crate) fn new(bell: &Bell) -> Self {
        Self { bell: bell.clone(), ..Self::default() }
    }

    /// Whether somebody starts a worker for those who wait.
    pub(crate) fn configure(&self, is_heard: bool) {
        self.is_heard.store(is_heard, SeqCst);
    }

    /// Somebody waits. Rings once, however many wait, until that was heard.
    pub(crate) fn ring(&self) {
        if self.is_heard.load(SeqCst) && !self.is_wanted.swap(true, SeqCst) {
            self.bell.0.notify_one();
        }
    }

    /// Whether it has rung since it was heard last.
    pub(crate) fn hear(&self) -> bool {
        self.is_wanted.swap(false, SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn is_rung(bell: &Bell) -> bool {
        let mut rung = pin!(bell.rung());
        rung.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn many_wait_and_one_is_heard() {
        let bell = Bell::default();
        let (shop, blog) = (Want::new(&bell), Want::new(&bell));
        shop.ring();
        assert!(!is_rung(&bell) && !shop.hear(), "nobody would start one");
        [&shop, &blog].iter().for_each(|want| want.configure(true));
        (0..100).for_each(|_| shop.ring());
        assert!(is_rung(&bell) && !is_rung(&bell));
        assert!(shop.hear() && !shop.hear() && !blog.hear());
        shop.ring();
        assert!(is_rung(&bell) && shop.hear(), "who waits after that is heard too");
    }
}
