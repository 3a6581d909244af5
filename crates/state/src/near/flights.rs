//! Readings that are on their way, by what they are of. Who wants the same joins one; what changes meanwhile strikes it out, so
//! that nobody joins it any more and what it brings is not kept. That is the fence.
//!
//! A reading belongs to all who wait for it: it goes on when the first of them has left, and is given up with the last.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::{BoxFuture, Shared, WeakShared};

use crate::error::Error;

/// Locks that the names are spread over.
const STRIPES: usize = 64;

/// What a reading comes to, for all who wait for it.
pub(super) type Reading<V> = Shared<BoxFuture<'static, Result<V, Arc<Error>>>>;

pub(super) struct Flights<V> {
    stripes: Box<[Mutex<Stripe<V>>]>,
    hasher: RandomState,
    begun: AtomicU64,
}

/// The readings of some names.
pub(super) type Stripe<V> = HashMap<Arc<str>, Flight<V>>;

/// One reading.
pub(super) struct Flight<V> {
    /// No other one has it.
    pub(super) number: u64,
    /// Under which it began.
    pub(super) epoch: u64,
    /// Weak, since it holds its place here until it ends.
    pub(super) reading: WeakShared<BoxFuture<'static, Result<V, Arc<Error>>>>,
}

impl<V> Flights<V> {
    pub(super) fn new() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { stripes, hasher: RandomState::new(), begun: AtomicU64::new(0) }
    }

    /// The number of the next one.
    pub(super) fn number(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed)
    }

    /// The readings of what has this name, and of others. What is decided about a copy's name is decided while this is held: that
    /// a reading is joined, that what it brought is kept, that it is struck out.
    pub(super) fn stripe(&self, name: &str) -> MutexGuard<'_, Stripe<V>> {
        let index = self.hasher.hash_one(name) as usize % STRIPES;
        // Each change of it is one step, so one that a panic left is as good as another.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Clone> Flight<V> {
    /// The reading, for one who wants what has changed last in this epoch.
    pub(super) fn join(&self, epoch: u64) -> Option<Reading<V>> {
        (self.epoch == epoch).then(|| self.reading.upgrade()).flatten()
    }
}
