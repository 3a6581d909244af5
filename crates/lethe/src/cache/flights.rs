//! One flight for all requests of this worker that need the same value at the same time. It goes on when those who wait for it
//! leave, since others may need what it brings, and it bears the claim.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tracing::Instrument as _;

use super::{
    error::{Cause, Failure},
    kept::Kept,
};

/// What a flight has brought.
#[derive(Clone, Debug)]
pub(super) struct Landed {
    pub(super) kept: Kept,
    /// Whether it was removed while it was computed: it was true for who asked first, but not for who came later.
    pub(super) is_overtaken: bool,
}

/// A place in a flight.
pub(super) struct Seat {
    pub(super) flight: Shared<BoxFuture<'static, Result<Landed, Failure>>>,
    /// Whether it is the first one's, for whom it has begun.
    pub(super) is_first: bool,
}

/// The flights of a cache, by key.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<Arc<str>, Flight>>,
    numbers: AtomicU64,
}

struct Flight {
    number: u64,
    landing: Shared<BoxFuture<'static, Result<Landed, Failure>>>,
}

impl Flights {
    /// A seat in the flight that is under way, or in one that `fly` makes.
    pub(super) fn board<F>(self: &Arc<Self>, key: &str, fly: impl FnOnce(Arc<str>) -> F) -> Seat
    where
        F: Future<Output = Result<Landed, Failure>> + Send + 'static,
    {
        let mut under_way = self.under_way();
        if let Some(flight) = under_way.get(key) {
            return Seat { flight: flight.landing.clone(), is_first: false };
        }
        let (key, number) = (Arc::<str>::from(key), self.numbers.fetch_add(1, Ordering::Relaxed));
        let ticket = Ticket { flights: Arc::clone(self), key: Arc::clone(&key), number };
        let flying = fly(Arc::clone(&key));
        let task = tokio::spawn(
            async move {
                let landed = flying.await;
                drop(ticket);
                landed
            }
            .in_current_span(),
        );
        let lost = || Err(Failure::Compute(Cause::new("the task that computes it has ended")));
        let landing = async move { task.await.unwrap_or_else(|_| lost()) }.boxed().shared();
        under_way.insert(key, Flight { number, landing: landing.clone() });
        Seat { flight: landing, is_first: true }
    }

    /// Nobody gets into the flight any more that is under way for this key.
    pub(super) fn strike(&self, key: &str) {
        self.under_way().remove(key);
    }

    /// The same for all keys.
    pub(super) fn strike_all(&self) {
        self.under_way().clear();
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Arc<str>, Flight>> {
        // Nothing that could panic half-way is done under the lock.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flight off the list when it ends, however it does.
struct Ticket {
    flights: Arc<Flights>,
    key: Arc<str>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way();
        if under_way.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            under_way.remove(&self.key);
        }
    }
}
