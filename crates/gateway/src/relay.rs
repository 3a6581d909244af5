//! The waker of a link. hyper's halves of a connection wake each other through channels, which is right when they
//! run in tasks of their own; here one task drives both, so such a wake-up in the middle of driving would only run
//! the whole task once more for nothing. The relay keeps those to itself, and passes on to the link's holder what
//! comes from outside, from the socket.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Rounds in one go before the task yields; a link that always wants another must not keep the core to itself.
const ROUNDS_MAX: usize = 8;

/// A link's waker, and how to drive the link with it.
pub(crate) struct Relay {
    state: Arc<State>,
    waker: Waker,
}

/// A core and all that it drives live on one thread, so the order of these accesses is the order of the program;
/// they are atomic because any waker must be.
#[derive(Default)]
struct State {
    /// The link is being driven; a wake-up asks for another round.
    driving: AtomicBool,
    again: AtomicBool,
    holder: AtomicWaker,
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.driving.load(Relaxed) {
            self.again.store(true, Relaxed);
        } else {
            self.holder.wake();
        }
    }
}

impl Relay {
    pub(crate) fn new() -> Self {
        let state = Arc::<State>::default();
        Self { waker: Arc::clone(&state).into(), state }
    }

    /// Calls `round` until it is ready or nothing happened in it that calls for another. Afterwards the task of
    /// `cx`, the link's holder, is woken by what happens outside.
    pub(crate) fn drive<T>(
        &self,
        cx: &mut Context<'_>,
        mut round: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let state = &*self.state;
        state.holder.register(cx.waker());
        state.driving.store(true, Relaxed);
        let mut result = Poll::Pending;
        for _ in 0..ROUNDS_MAX {
            state.again.store(false, Relaxed);
            result = round(&mut Context::from_waker(&self.waker));
            if result.is_ready() || !state.again.load(Relaxed) {
                break;
            }
        }
        state.driving.store(false, Relaxed);
        if result.is_pending() && state.again.load(Relaxed) {
            cx.waker().wake_by_ref();
        }
        result
    }

    /// Nobody holds the link any more; what happens to it wakes nobody.
    pub(crate) fn release(&self) {
        self.state.holder.take();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        task::{Context, Poll, Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn inner_wake_ups_are_rounds_and_outer_ones_reach_the_holder() {
        let (relay, task) = (Relay::new(), Arc::<Task>::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let mut rounds = 0;
        let result = relay.drive(&mut cx, |cx| {
            rounds += 1;
            if rounds < 3 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(result.is_pending());
        assert_eq!((rounds, task.0.load(SeqCst)), (3, 0));
        relay.waker.wake_by_ref();
        assert_eq!(task.0.load(SeqCst), 1);
        relay.release();
        relay.waker.wake_by_ref();
        assert_eq!(task.0.load(SeqCst), 1, "nobody holds it");
    }

    #[test]
    fn a_restless_link_yields() {
        let (relay, task) = (Relay::new(), Arc::<Task>::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut rounds = 0;
        let result = relay.drive(&mut Context::from_waker(&waker), |cx| {
            rounds += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(result.is_pending());
        assert_eq!((rounds, task.0.load(SeqCst)), (ROUNDS_MAX, 1));
    }
}
