//! Where copies are, and the rules by which one is believed, kept and dropped.

use std::sync::Arc;

use futures_util::future::FutureExt as _;
use moka::sync::Cache;

use super::{
    Bounds, Copied, Counts,
    counts::Counters,
    failure::alike,
    flights::{Flight, Flights, Reading},
    trust::{Tick, Trust, ticks},
};
use crate::{Millis, clock::Clock, error::Error};

/// Bytes that a copy takes besides its name and value: the places in the cache's map, queues and books.
const COPY_BYTES: usize = 256;
/// From so many bytes on, a new copy has old ones removed at once, and not with the next few hundred.
const LARGE_BYTES: u32 = 16 << 10;
/// Copies that are removed in one go when all are dropped.
const PURGE_SLICE: u64 = 256;

pub(super) struct Shelf<V> {
    kept: Cache<Arc<str>, Arc<Kept<V>>>,
    flights: Flights<V>,
    pub(super) trust: Trust,
    clock: Arc<dyn Clock>,
    pub(super) bounds: Bounds,
    pub(super) counters: Counters,
}

struct Kept<V> {
    value: V,
    epoch: u64,
    /// When its reading began.
    read_at: Tick,
    /// From when on the engine is to be asked.
    due_at: Millis,
    ends_at: Millis,
    weight: u32,
}

impl<V: Copied> Shelf<V> {
    pub(super) fn new(bounds: Bounds, clock: Arc<dyn Clock>) -> Self {
        // One bound for both: a copy weighs its bytes, and at least its share of the bytes.
        let kept = Cache::builder()
            .max_capacity(if bounds.entries_max == 0 { 0 } else { bounds.bytes_max })
            .weigher(|_, kept: &Arc<Kept<V>>| kept.weight)
            .build();
        Self {
            kept,
            flights: Flights::new(),
            trust: Trust::new(),
            clock,
            bounds,
            counters: Counters::default(),
        }
    }

    /// A copy that may be believed.
    pub(super) fn get(&self, name: &str) -> Option<V> {
        let kept = self.kept.get(name)?;
        let now = self.trust.now();
        let is_good = self.trust.epoch(now) == Some(kept.epoch)
            && now.saturating_sub(kept.read_at) <= ticks(self.bounds.age_max)
            && self.is_before(kept.due_at);
        is_good.then(|| {
            self.counters.hits.add_one();
            kept.value.clone()
        })
    }

    /// A copy for the time that the engine cannot be asked.
    pub(super) fn last_resort(&self, name: &str) -> Option<V> {
        let kept = self.kept.get(name)?;
        let was_good = self.trust.was_good(kept.epoch, self.trust.now(), self.bounds.outage_max)
            && self.is_before(kept.ends_at);
        was_good.then(|| {
            self.counters.outage_hits.add_one();
            kept.value.clone()
        })
    }

    fn is_before(&self, then: Millis) -> bool {
        then == Millis::MAX || self.clock.now() < then
    }

    /// What `read` finds, or, if it `joins`, what one finds that is on its way.
    pub(super) async fn read<F>(
        self: &Arc<Self>,
        name: &str,
        joins: bool,
        read: impl FnOnce() -> F + Send,
    ) -> Result<V, Error>
    where
        F: Future<Output = Result<V, Error>> + Send + 'static,
    {
        let Some(epoch) = self.trust.epoch(self.trust.now()) else {
            // Nobody would say that what is on its way has become old, so each reads for itself.
            self.counters.misses.add_one();
            let result = read().await;
            if tells(&result) {
                self.kept.invalidate(name);
            }
            return result;
        };
        self.board(name, epoch, joins, read).await.map_err(alike)
    }

    fn board<F>(self: &Arc<Self>, name: &str, epoch: u64, joins: bool, read: impl FnOnce() -> F) -> Reading<V>
    where
        F: Future<Output = Result<V, Error>> + Send + 'static,
    {
        let mut stripe = self.flights.stripe(name);
        if joins && let Some(reading) = stripe.get(name).and_then(|flight| flight.join(epoch)) {
            self.counters.joined.add_one();
            return reading;
        }
        self.counters.misses.add_one();
        let name: Arc<str> = name.into();
        let number = self.flights.number();
        let ticket = Ticket { shelf: Arc::clone(self), name: Arc::clone(&name), number, epoch };
        let (read_at, read) = (self.trust.now(), read());
        let reading = async move {
            let result = read.await;
            ticket.land(&result, read_at);
            result.map_err(Arc::new)
        };
        let reading = reading.boxed().shared();
        if let Some(weak) = reading.downgrade() {
            stripe.insert(name, Flight { number, epoch, reading: weak });
        }
        reading
    }

    /// What has this name has changed: its copy is dropped, and a reading that is on its way is struck out.
    pub(super) fn change(&self, name: &str) {
        self.counters.changes.add_one();
        let mut stripe = self.flights.stripe(name);
        stripe.remove(name);
        self.kept.invalidate(name);
    }

    /// Anything may have changed.
    pub(super) fn flush(&self) {
        self.counters.flushes.add_one();
        self.trust.drop_all();
        self.kept.invalidate_all();
    }

    /// Frees the memory of all copies there are now, in slices.
    pub(super) async fn purge(&self) {
        self.kept.invalidate_all();
        for _ in 0..=self.kept.entry_count() / PURGE_SLICE {
            self.kept.run_pending_tasks();
            tokio::task::yield_now().await;
        }
    }

    fn keep(&self, name: Arc<str>, value: &V, epoch: u64, read_at: Tick) -> u32 {
        let bytes = COPY_BYTES.saturating_add(name.len()).saturating_add(value.bytes());
        let share = self.bounds.bytes_max / self.bounds.entries_max.max(1);
        let weight = u32::try_from(share.max(bytes as u64)).unwrap_or(u32::MAX);
        let ends_at = value.ends_at().unwrap_or(Millis::MAX);
        let due_at = value.due_at().map_or(ends_at, |due_at| due_at.min(ends_at));
        let kept = Kept { value: value.clone(), epoch, read_at, due_at, ends_at, weight };
        self.kept.insert(name, Arc::new(kept));
        weight
    }

    pub(super) fn counts(&self) -> Counts {
        // The cache enters what was done into its books now and then; here they are to be right.
        self.kept.run_pending_tasks();
        let counters = &self.counters;
        Counts {
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            joined: counters.joined.get(),
            outage_hits: counters.outage_hits.get(),
            fenced: counters.fenced.get(),
            changes: counters.changes.get(),
            flushes: counters.flushes.get(),
            entries: self.kept.entry_count(),
            bytes: self.kept.weighted_size(),
            is_followed: self.trust.epoch(self.trust.now()).is_some(),
        }
    }
}

/// Whether it says how things are, and not only that one cannot know.
fn tells<V>(result: &Result<V, Error>) -> bool {
    matches!(result, Ok(_) | Err(Error::NotFound | Error::Gone))
}

/// The place of a reading among those on their way. Dropped, it is free.
struct Ticket<V: Copied> {
    shelf: Arc<Shelf<V>>,
    name: Arc<str>,
    number: u64,
    epoch: u64,
}

impl<V: Copied> Ticket<V> {
    /// Keeps what was read, if nothing has struck the reading out.
    fn land(&self, result: &Result<V, Error>, read_at: Tick) {
        let shelf = &self.shelf;
        let mut stripe = shelf.flights.stripe(&self.name);
        if stripe.get(&self.name).is_none_or(|flight| flight.number != self.number) {
            shelf.counters.fenced.add_one();
            return;
        }
        stripe.remove(&self.name);
        let is_current = shelf.trust.epoch(shelf.trust.now()) == Some(self.epoch);
        let weight = match result {
            Ok(value) if is_current => shelf.keep(Arc::clone(&self.name), value, self.epoch, read_at),
            result => {
                if tells(result) {
                    shelf.kept.invalidate(&self.name);
                }
                return;
            }
        };
        drop(stripe);
        if weight >= LARGE_BYTES {
            shelf.kept.run_pending_tasks();
        }
    }
}

impl<V: Copied> Drop for Ticket<V> {
    fn drop(&mut self) {
        let mut stripe = self.shelf.flights.stripe(&self.name);
        if stripe.get(&self.name).is_some_and(|flight| flight.number == self.number) {
            stripe.remove(&self.name);
        }
    }
}
