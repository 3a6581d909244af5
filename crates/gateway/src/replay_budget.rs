//! The memory for kept request bodies, which all cores share.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// The memory for kept bodies, of all cores together. Each core takes it in chunks, so that requests do not meet at
/// one counter.
pub(crate) struct Budget {
    available: Arc<AtomicUsize>,
    local: Cell<usize>,
}

impl Budget {
    const CHUNK_BYTES: usize = 256 << 10;

    pub(crate) fn new(available: Arc<AtomicUsize>) -> Self {
        Self { available, local: Cell::new(0) }
    }

    pub(crate) fn take(&self, bytes: usize) -> bool {
        let local = self.local.get();
        if local >= bytes {
            self.local.set(local - bytes);
            return true;
        }
        let more = bytes.max(Self::CHUNK_BYTES);
        let granted = |left: usize| left.checked_sub(more);
        if self.available.fetch_update(Relaxed, Relaxed, granted).is_err() {
            return false;
        }
        self.local.set(local + more - bytes);
        true
    }

    pub(crate) fn give(&self, bytes: usize) {
        let local = self.local.get() + bytes;
        let surplus = if local > 2 * Self::CHUNK_BYTES { local - Self::CHUNK_BYTES } else { 0 };
        self.local.set(local - surplus);
        if surplus > 0 {
            self.available.fetch_add(surplus, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let available = Arc::new(AtomicUsize::new(1 << 20));
        let (one, two) = (Budget::new(Arc::clone(&available)), Budget::new(Arc::clone(&available)));
        assert!(one.take(700 << 10));
        assert!(two.take(100 << 10));
        assert!(!two.take(300 << 10), "no more than there is");
        one.give(700 << 10);
        assert!(two.take(300 << 10));
        two.give(400 << 10);
        let left = available.load(Relaxed) + one.local.get() + two.local.get();
        assert_eq!(left, 1 << 20, "nothing is lost");
    }
}
