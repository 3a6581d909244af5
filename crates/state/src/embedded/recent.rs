//! Sessions that were read a moment ago, as the JSON that the state API gives of them: what a worker asks for at each
//! request is answered without a look at the database.
//!
//! What is kept is never older than the last commit, by a number for each of some lots that sessions fall into by their hash.
//! Before a commit the writer makes the numbers of what it changes odd, and after it even again, each time another. A reader takes
//! the number before it looks at the database; what it read is kept under that, believed only as long as the number is the same, and
//! not kept at all under an odd one. So while a commit may be seen by one and not by another, all look at the database.
//!
//! Another process that writes to the folder knows nothing of the numbers: once there may have been one, nothing is kept.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};

use bytes::Bytes;

use super::{
    session_row::{Hash, Times},
    solitude::Solitude,
};
use crate::{Millis, sessions::SessionId};

/// Most bytes of sessions that are kept.
const BYTES_MAX: usize = 16 << 20;
/// Longer ones are read anew each time.
const SESSION_BYTES_MAX: usize = 4 << 10;
/// Places for sessions, by their random ids; of one place, those that were put there last are kept.
const PLACES: usize = 4096;
/// Sessions of one place.
const PER_PLACE: usize = 4;
/// Lots that what is doubted falls into.
const LOTS: usize = 4096;

/// The sessions that are kept.
pub(super) struct Recent {
    lots: Box<[AtomicU64]>,
    places: Box<[Mutex<Vec<Kept>>]>,
    bytes: AtomicUsize,
    /// Whether another process may write to the folder too, now or until somewhat ago.
    is_shared: Arc<AtomicBool>,
    solitude: Arc<Solitude>,
    has_ended: AtomicBool,
}

struct Kept {
    id: SessionId,
    mark: Mark,
    times: Times,
    json: Bytes,
}

/// Under what something is kept: the number of its lot before it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    lot: usize,
    number: u64,
}

/// What a group of commands changes, from before its commit until it is known to everybody.
pub(super) struct Doubt<'a> {
    recent: &'a Recent,
    lots: Vec<usize>,
}

impl Recent {
    pub(super) fn new(is_shared: Arc<AtomicBool>, solitude: Arc<Solitude>) -> Self {
        Self {
            solitude,
            lots: (0..LOTS).map(|_| AtomicU64::new(0)).collect(),
            places: (0..PLACES).map(|_| Mutex::default()).collect(),
            bytes: AtomicUsize::new(0),
            is_shared,
            has_ended: AtomicBool::new(false),
        }
    }

    /// A session that was read and is the same now, if it can be given without a write: most of its idle time is left.
    pub(super) fn get(&self, id: &SessionId, now: Millis) -> Option<Bytes> {
        self.solitude.disturb();
        let place = self.place(id);
        let kept = place.iter().find(|kept| kept.id == *id)?;
        let is_good = self.is_believed(kept.mark) && kept.times.is_live(now) && !kept.times.is_past_half(now);
        is_good.then(|| kept.json.clone())
    }

    /// To be called before a session is read that may be kept; `None` if it may not.
    pub(super) fn mark(&self, hash: &Hash) -> Option<Mark> {
        let lot = lot(hash);
        let mark = Mark { lot, number: self.lots[lot].load(SeqCst) };
        (mark.number.is_multiple_of(2) && self.is_open()).then_some(mark)
    }

    /// Keeps a session that was read after its mark.
    pub(super) fn keep(&self, id: &SessionId, mark: Mark, times: Times, json: Bytes) {
        if json.len() > SESSION_BYTES_MAX {
            return;
        }
        let mut place = self.place(id);
        let now_kept: usize = json.len();
        self.retain(&mut place, |kept| kept.id != *id && self.is_believed(kept.mark));
        if place.len() == PER_PLACE {
            self.bytes.fetch_sub(place.remove(0).json.len(), Relaxed);
        }
        if self.bytes.fetch_add(now_kept, Relaxed) + now_kept > BYTES_MAX {
            // What is left of this place makes room for others, until there is some again.
            self.bytes.fetch_sub(now_kept, Relaxed);
            self.retain(&mut place, |_| false);
            return;
        }
        place.push(Kept { id: id.clone(), mark, times, json });
    }

    /// To be called before the commit of what changes these sessions, and to be dropped after it, before anybody is answered.
    pub(super) fn doubt(&self, changed: &[Hash]) -> Doubt<'_> {
        let mut lots: Vec<usize> = changed.iter().map(lot).collect();
        lots.sort_unstable();
        lots.dedup();
        for lot in &lots {
            self.lots[*lot].fetch_add(1, SeqCst);
        }
        Doubt { recent: self, lots }
    }

    /// Nothing is given any more.
    pub(super) fn end(&self) {
        self.has_ended.store(true, SeqCst);
    }

    fn is_open(&self) -> bool {
        !self.is_shared.load(SeqCst) && !self.has_ended.load(SeqCst)
    }

    fn is_believed(&self, mark: Mark) -> bool {
        self.lots[mark.lot].load(SeqCst) == mark.number && self.is_open()
    }

    fn retain(&self, place: &mut Vec<Kept>, stays: impl Fn(&Kept) -> bool) {
        place.retain(|kept| {
            let stays = stays(kept);
            if !stays {
                self.bytes.fetch_sub(kept.json.len(), Relaxed);
            }
            stays
        });
    }

    fn place(&self, id: &SessionId) -> MutexGuard<'_, Vec<Kept>> {
        let [first, second, ..] = id.as_bytes();
        let place = usize::from(u16::from_le_bytes([*first, *second])) % PLACES;
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        for lot in &self.lots {
            self.recent.lots[*lot].fetch_add(1, SeqCst);
        }
    }
}

fn lot(hash: &Hash) -> usize {
    usize::from(u16::from_le_bytes([hash[0], hash[1]])) % LOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { idle_ms: 1000, idle_expires_at: 1000, absolute_expires_at: 5000 };

    fn recent() -> Recent {
        Recent::new(Arc::default(), Arc::default())
    }

    fn id(first: u8, last: u8) -> SessionId {
        let mut bytes = [first; 16];
        bytes[15] = last;
        SessionId::from_bytes(bytes)
    }

    fn json(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    #[test]
    fn what_was_read_is_given_until_it_changes() {
        let (recent, id, hash) = (recent(), id(1, 1), [7; 32]);
        assert_eq!(recent.get(&id, 0), None);
        recent.keep(&id, recent.mark(&hash).unwrap(), TIMES, json(3));
        assert_eq!(recent.get(&id, 0), Some(json(3)));
        drop(recent.doubt(&[[8; 32]]));
        assert_eq!(recent.get(&id, 0), Some(json(3)), "another one changed");
        let doubt = recent.doubt(&[hash, hash]);
        assert_eq!(recent.get(&id, 0), None, "before the commit");
        drop(doubt);
        assert_eq!(recent.get(&id, 0), None, "after it");
        recent.keep(&id, recent.mark(&hash).unwrap(), TIMES, json(4));
        assert_eq!(recent.get(&id, 0), Some(json(4)));
    }

    #[test]
    fn what_was_read_beside_a_commit_is_not_kept() {
        let (recent, id, hash) = (recent(), id(1, 1), [7; 32]);
        let before = recent.mark(&hash).unwrap();
        let doubt = recent.doubt(&[hash]);
        assert_eq!(recent.mark(&hash), None, "one reader may see the commit already, another one not yet");
        recent.keep(&id, before, TIMES, json(3));
        assert_eq!(recent.get(&id, 0), None);
        drop(doubt);
        recent.keep(&id, before, TIMES, json(3));
        assert_eq!(recent.get(&id, 0), None, "it was read before");
    }

    #[test]
    fn what_use_would_move_on_is_read_anew() {
        let (recent, id, hash) = (recent(), id(1, 1), [7; 32]);
        recent.keep(&id, recent.mark(&hash).unwrap(), TIMES, json(3));
        for (now, is_given) in
            [(0, true), (500, true), (501, false), (999, false), (1000, false), (9000, false)]
        {
            assert_eq!(recent.get(&id, now).is_some(), is_given, "at {now}");
        }
    }

    /// Use moves nothing on any more: it is given up to its last moment, and not beyond.
    #[test]
    fn the_absolute_end_is_judged_by_the_clock() {
        let (recent, id, hash) = (recent(), id(1, 1), [7; 32]);
        let last = Times { idle_ms: 1000, idle_expires_at: 5000, absolute_expires_at: 5000 };
        recent.keep(&id, recent.mark(&hash).unwrap(), last, json(3));
        for (now, is_given) in [(4000, true), (4999, true), (5000, false), (9000, false)] {
            assert_eq!(recent.get(&id, now).is_some(), is_given, "at {now}");
        }
    }

    #[test]
    fn nothing_is_given_beside_another_process_or_after_the_end() {
        for is_end in [false, true] {
            let (recent, id, hash) = (recent(), id(1, 1), [7; 32]);
            recent.keep(&id, recent.mark(&hash).unwrap(), TIMES, json(3));
            if is_end {
                recent.end()
            } else {
                recent.is_shared.store(true, SeqCst)
            }
            assert_eq!((recent.get(&id, 0), recent.mark(&hash)), (None, None));
        }
    }

    #[test]
    fn room_is_bounded() {
        let (recent, hash) = (recent(), [7; 32]);
        let mark = recent.mark(&hash).unwrap();
        recent.keep(&id(0, 0), mark, TIMES, json(SESSION_BYTES_MAX + 1));
        assert_eq!(recent.get(&id(0, 0), 0), None, "too long");
        // Of one place, the last ones.
        for last in 0..=PER_PLACE as u8 {
            recent.keep(&id(1, last), mark, TIMES, json(10));
            recent.keep(&id(1, last), mark, TIMES, json(10));
        }
        let given = (0..=PER_PLACE as u8).map(|last| recent.get(&id(1, last), 0).is_some());
        assert_eq!(given.collect::<Vec<_>>(), [false, true, true, true, true]);
        assert_eq!(recent.bytes.load(Relaxed), 10 * PER_PLACE);
        // Of all places, as many as there is room for, however they come.
        for n in 0..3 * PLACES * PER_PLACE {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&(n as u16).to_le_bytes());
            bytes[8..].copy_from_slice(&n.to_le_bytes());
            recent.keep(&SessionId::from_bytes(bytes), mark, TIMES, json(SESSION_BYTES_MAX));
            assert!(recent.bytes.load(Relaxed) <= BYTES_MAX);
        }
        let kept: usize = recent
            .places
            .iter()
            .map(|place| place.lock().unwrap().iter().map(|kept| kept.json.len()).sum::<usize>())
            .sum();
        assert_eq!(kept, recent.bytes.load(Relaxed), "each is counted once");
        assert!(kept > BYTES_MAX / 2, "{kept}");
    }
}
