//! Which keys are asked for most: counters for so many, where a key that has none takes that of the least (the space-saving
//! algorithm of Metwally, Agrawal and El Abbadi, 2005), so that what is asked for often is always among them. Only one request in
//! some is looked at.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Most keys of a cache that are counted.
const KEYS_MAX: usize = 1000;
/// One request in `1 << SAMPLE_BITS` is counted, so that counting costs next to nothing.
const SAMPLE_BITS: u32 = 3;

/// How often each key was asked for.
pub(super) type Counted = HashMap<Arc<str>, u64>;

/// Counts requests by key.
#[derive(Default)]
pub(super) struct Hot {
    requests: AtomicU32,
    keys: Mutex<Counted>,
}

impl Hot {
    /// A request for this key.
    pub(super) fn count(&self, key: &str) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        // Spread by the golden ratio (Knuth, TAOCP 3, 6.4), so that no pattern of requests is in step with it.
        if number.wrapping_mul(0x9e37_79b1) >> (u32::BITS - SAMPLE_BITS) == 0 {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut keys, key, 1);
        }
    }

    /// What was counted since this was last called.
    pub(super) fn take(&self) -> Counted {
        std::mem::take(&mut self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back what was taken.
    pub(super) fn put_back(&self, taken: Counted) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, count) in taken {
            add(&mut keys, &key, count);
        }
    }
}

fn add(keys: &mut Counted, key: &str, count: u64) {
    if let Some(counted) = keys.get_mut(key) {
        *counted += count;
        return;
    }
    let mut before = 0;
    if keys.len() >= KEYS_MAX
        && let Some((least, counted)) = keys.iter().min_by_key(|(_, counted)| **counted)
    {
        before = *counted;
        let least = Arc::clone(least);
        keys.remove(&least);
    }
    keys.insert(key.into(), before + count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_often_is_found_among_many_others() {
        let hot = Hot::default();
        for round in 0..50_000_u32 {
            for key in 0..5 {
                hot.count(&format!("hot {key}"));
            }
            hot.count(&format!("once {round}"));
            hot.count(&format!("once more {round}"));
        }
        let taken = hot.take();
        assert_eq!(taken.len(), KEYS_MAX);
        let mut order: Vec<_> = taken.iter().map(|(key, count)| (*count, key)).collect();
        order.sort_unstable_by(|one, other| other.cmp(one));
        for key in 0..5 {
            assert!(taken.contains_key(&*format!("hot {key}")), "{key}: {:?}", &order[..10]);
        }
        assert!(hot.take().is_empty());
        hot.put_back(taken);
        assert_eq!(hot.take().len(), KEYS_MAX);
    }
}
