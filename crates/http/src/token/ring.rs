//! The ring of keys: which signs now, which still check, and when it turns. A new key is in the ring for a while before
//! it signs, so that all workers and all who read the published keys have it by then; an old one stays until the last
//! token that it signed has expired.

use std::time::Duration;

use lethe_state::{Millis, error::Error as StateError};
use serde::{Deserialize, Serialize};

use super::key::{Algorithm, Key, Stored};

/// How a ring turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turning {
    /// The algorithm of new keys. Those that are there keep theirs.
    pub algorithm: Algorithm,
    /// How long a key signs.
    pub every: Duration,
    /// How long a new key is known before it signs. Longer than all who read the published keys may keep them.
    pub ahead: Duration,
    /// The longest life of a token: so long an old key still checks.
    pub life_max: Duration,
}

impl Default for Turning {
    /// `EdDSA`; a new key each 30 days, known an hour before; tokens of at most a day.
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            every: Duration::from_secs(30 * 24 * 3600),
            ahead: Duration::from_secs(3600),
            life_max: Duration::from_secs(24 * 3600),
        }
    }
}

/// The keys as the state tier keeps them, in the order of their time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct StoredRing {
    pub(super) keys: Vec<Stored>,
}

impl StoredRing {
    /// What the ring should be at the time `now`; `None` when it is as it should be.
    pub(super) fn turned(&self, turning: &Turning, now: Millis) -> Result<Option<Self>, StateError> {
        let mut keys = self.keys.clone();
        match keys.last() {
            None => keys.push(Stored::random(turning.algorithm, now)?),
            Some(newest) => {
                let due = newest.signs_from.saturating_add(millis(turning.every));
                let ahead = millis(turning.ahead);
                if now >= due.saturating_sub(ahead) {
                    keys.push(Stored::random(turning.algorithm, due.max(now.saturating_add(ahead)))?);
                }
            }
        }
        // A key has signed its last token when the next one began to.
        let is_over = |next: &Stored| next.signs_from.saturating_add(millis(turning.life_max)) <= now;
        let spent = keys.windows(2).take_while(|pair| is_over(&pair[1])).count();
        keys.drain(..spent);
        let same = keys.len() == self.keys.len() && keys.iter().zip(&self.keys).all(|(a, b)| a.kid == b.kid);
        Ok((!same).then_some(Self { keys }))
    }

    /// The same with a new key that signs at once, as after an old one was stolen: all that others have signed is refused
    /// from now on.
    pub(super) fn replaced(turning: &Turning, now: Millis) -> Result<Self, StateError> {
        Ok(Self { keys: vec![Stored::random(turning.algorithm, now)?] })
    }
}

/// The keys, ready for use.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) keys: Vec<Key>,
}

impl Ring {
    /// Opens what is stored. A key that cannot be read is left out, and said so.
    pub(super) fn open(stored: &StoredRing) -> Self {
        let open = |stored: &Stored| {
            let key = stored.open();
            if key.is_none() {
                tracing::error!(kid = stored.kid, "a key of the token ring cannot be read; it is left out");
            }
            key
        };
        Self { keys: stored.keys.iter().filter_map(open).collect() }
    }

    /// The key of this name. Names are public, so how long this takes tells nothing.
    pub(super) fn key(&self, kid: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.kid == kid)
    }

    /// The key that signs at the time `now`: the newest whose time has come, or the first, if a clock was set back.
    pub(super) fn signer(&self, now: Millis) -> Option<&Key> {
        self.keys.iter().rev().find(|key| key.signs_from <= now).or(self.keys.first())
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::token) fn ring_of(keys: Vec<Stored>) -> Ring {
        Ring::open(&StoredRing { keys })
    }

    const TURNING: Turning = Turning {
        algorithm: Algorithm::EdDSA,
        every: Duration::from_secs(1000),
        ahead: Duration::from_secs(100),
        life_max: Duration::from_secs(50),
    };

    #[test]
    fn a_ring_turns_with_an_overlap() {
        let turned = |ring: &StoredRing, now_s: i64| ring.turned(&TURNING, now_s * 1000).unwrap();
        let first = turned(&StoredRing::default(), 0).unwrap();
        assert_eq!((first.keys.len(), first.keys[0].signs_from), (1, 0));
        assert!(turned(&first, 899).is_none());
        let both = turned(&first, 900).unwrap();
        assert_eq!((both.keys.len(), both.keys[1].signs_from), (2, 1_000_000));
        let ring = Ring::open(&both);
        assert_eq!(ring.signer(999_999).unwrap().kid, first.keys[0].kid);
        assert_eq!(ring.signer(1_000_000).unwrap().kid, both.keys[1].kid);
        assert!(turned(&both, 1049).is_none());
        let second = turned(&both, 1050).unwrap();
        assert_eq!((second.keys.len(), &second.keys[0].kid), (1, &both.keys[1].kid));
    }

    #[test]
    fn a_ring_that_was_left_alone_still_gives_notice() {
        let first = StoredRing::default().turned(&TURNING, 0).unwrap().unwrap();
        let late = first.turned(&TURNING, 5_000_000).unwrap().unwrap();
        assert_eq!((late.keys.len(), late.keys[1].signs_from), (2, 5_100_000));
        assert_eq!(Ring::open(&late).signer(5_000_000).unwrap().kid, first.keys[0].kid);
    }

    #[test]
    fn a_clock_that_was_set_back_finds_a_key() {
        let ring = StoredRing::default().turned(&TURNING, 1_000_000).unwrap().unwrap();
        assert!(Ring::open(&ring).signer(0).is_some());
        assert!(Ring::open(&StoredRing::default()).signer(0).is_none());
    }
}
