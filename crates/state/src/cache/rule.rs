//! The rules for caches, which every engine checks before it does anything.

use std::time::Duration;

use super::{
    BYTES_MAX, CACHE_NAME_BYTES_MAX, Claim, ENTRIES_MAX, Fill, KEY_BYTES_MAX, LEASE_MAX, LIFE_MAX,
    READ_KEYS_MAX, Room, VALUE_BYTES_MAX,
};
use crate::{
    error::Error,
    rules::{check_key, check_name, check_size},
};

/// Checks the name of a cache.
pub(crate) fn check_cache(cache: &str) -> Result<(), Error> {
    check_name("cache", cache, CACHE_NAME_BYTES_MAX)
}

/// Checks where an entry is.
pub(crate) fn check_place(cache: &str, key: &str) -> Result<(), Error> {
    check_cache(cache)?;
    check_key(key, KEY_BYTES_MAX)
}

/// Checks what a claim is on.
pub(crate) fn check_claim(claim: &Claim) -> Result<(), Error> {
    check_place(&claim.cache, &claim.key)
}

/// Checks the keys of a read.
pub(crate) fn check_keys(cache: &str, keys: &[String]) -> Result<(), Error> {
    check_cache(cache)?;
    if keys.is_empty() || keys.len() > READ_KEYS_MAX {
        return Err(Error::Invalid(format!("{} keys at once, expected 1 to {READ_KEYS_MAX}", keys.len())));
    }
    keys.iter().try_for_each(|key| check_key(key, KEY_BYTES_MAX))
}

/// Checks how long a claim is asked for.
pub(crate) fn check_lease(lease: Duration) -> Result<(), Error> {
    if lease < Duration::from_millis(1) || lease > LEASE_MAX {
        return Err(Error::Invalid(format!(
            "a lease of {lease:?} is not between 1 ms and {} min: take a shorter one and extend it",
            LEASE_MAX.as_secs() / 60
        )));
    }
    Ok(())
}

/// Checks how long nobody is to have a claim.
pub(crate) fn check_pause(pause: Duration) -> Result<(), Error> {
    if pause > LEASE_MAX {
        let minutes = LEASE_MAX.as_secs() / 60;
        return Err(Error::Invalid(format!("a pause of {pause:?} is longer than {minutes} min")));
    }
    Ok(())
}

/// Checks what is to be kept.
pub(crate) fn check_fill(fill: &Fill) -> Result<(), Error> {
    let Fill { value, fresh, stale, room: Room { entries, bytes } } = fill;
    check_size("a value", value.as_ref().map_or(0, bytes::Bytes::len), VALUE_BYTES_MAX)?;
    let life = fresh.saturating_add(*stale);
    if life < Duration::from_millis(1) || life > LIFE_MAX {
        let days = LIFE_MAX.as_secs() / (24 * 3600);
        return Err(Error::Invalid(format!(
            "an entry that is fresh for {fresh:?} and stale for {stale:?} lives for less than 1 ms or more than {days} days"
        )));
    }
    if *entries == 0 || *entries > ENTRIES_MAX {
        return Err(Error::Invalid(format!("room for {entries} entries, expected 1 to {ENTRIES_MAX}")));
    }
    if !(Room::BYTES_MIN..=BYTES_MAX).contains(bytes) {
        return Err(Error::Invalid(format!(
            "room for {bytes} bytes, expected {} to {BYTES_MAX}",
            Room::BYTES_MIN
        )));
    }
    Ok(())
}

/// A token that no other claim has. It is below 2^53, for readers of JSON whose numbers are doubles.
pub(crate) fn new_token() -> Result<u64, Error> {
    let random = getrandom::u64()
        .map_err(|error| Error::Unavailable(format!("the system gives no random numbers: {error}")))?;
    Ok(random >> 11 | 1)
}
