//! Warm-up: what is asked for most is known to the tier, and a new worker has it in memory before it listens.
//!
//! Each worker adds its counts to a list now and then, one worker at a time: the list is an entry of a cache itself, always stale,
//! so that whoever has the claim on it adds to what is there. Older counts fade with each time.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    env,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{join, join_all},
};
use lethe_state::{
    cache::{Begun, Cache, Entry, Fill, HOT_CACHE, READ_KEYS_MAX, Room},
    error::Error as StateError,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{core::Core, hot::Counted, kept::Kept, registry::Registry};
use crate::State;

/// Longest time that a worker takes to warm up before it listens all the same.
pub const WARM_UP_MAX: Duration = Duration::from_secs(2);
/// How often a worker tells which keys are hot: between this and half as much more, so that they do not all come at once.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Longest time for the last report of a worker that leaves.
const LAST_REPORT_MAX: Duration = Duration::from_secs(1);
/// How long a list is kept when nobody adds to it.
const LIST_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long one worker may take to add to it.
const LIST_LEASE: Duration = Duration::from_secs(2);
/// Most keys of a list, over all caches of a service.
const LIST_KEYS_MAX: usize = 1000;
/// Most bytes of the keys of a list.
const LIST_BYTES_MAX: usize = 256 << 10;
/// Whose list it is where no service is named.
const NO_SERVICE: &str = "default";

/// A key that is asked for often.
#[derive(Debug, Serialize, Deserialize)]
struct HotKey {
    cache: String,
    key: String,
    /// How often it was, in some measure that is the same for all.
    weight: u64,
}

impl State {
    /// Reads what the other workers of this service are asked for most into memory, so that the first requests here need not wait
    /// for it; how many entries. [`serve`](crate::serve()) does that before it listens, with the state of [`State::from_env`]. It
    /// takes [`WARM_UP_MAX`] at most, and what goes wrong is only logged: a cold worker works too.
    pub async fn warm_up(&self) -> usize {
        self.caches().warm_up().await
    }

    /// Tells the other workers of this service what this one was asked for most, as it does by itself every now and then, and
    /// [`serve`](crate::serve()) when it ends. It takes a second at most.
    pub async fn report_hot_keys(&self) {
        self.caches().report_hot_keys().await;
    }
}

impl Registry {
    pub(crate) async fn warm_up(&self) -> usize {
        match timeout(WARM_UP_MAX, warm_up(self)).await {
            Ok(Ok(0)) => 0,
            Ok(Ok(entries)) => {
                tracing::info!(entries, "warmed up");
                entries
            }
            // Then nothing is kept in memory anyway, which was said.
            Ok(Err(StateError::Unsupported { .. })) => 0,
            Ok(Err(error)) => {
                tracing::warn!(%error, "this worker begins without what is asked for most");
                0
            }
            Err(_) => {
                tracing::warn!(
                    "warming up took longer than {WARM_UP_MAX:?}; the rest comes as it is asked for"
                );
                0
            }
        }
    }

    pub(crate) async fn report_hot_keys(&self) {
        if timeout(LAST_REPORT_MAX, report(self)).await.is_err() {
            tracing::debug!("the last report of hot keys took too long");
        }
    }
}

/// Starts the task that reports. It ends with the registry.
pub(super) fn start(registry: &Arc<Registry>) {
    let registry = Arc::downgrade(registry);
    tokio::spawn(async move {
        loop {
            sleep(REPORT_EVERY + REPORT_EVERY.mul_f64(spread() / 2.0)).await;
            let Some(registry) = Weak::upgrade(&registry) else { return };
            report(&registry).await;
        }
    });
}

/// Between 0 and 1, different from worker to worker.
fn spread() -> f64 {
    f64::from(std::process::id() % 97) / 97.0
}

/// Adds to the list what was counted since the last time. Without success the counts stay for the next time.
async fn report(registry: &Registry) {
    let cores = registry.all();
    let taken: Vec<_> = cores.iter().map(|core| (core, core.hot().take())).collect();
    if taken.iter().all(|(_, counts)| counts.is_empty()) {
        return;
    }
    let added = add(&**registry.joint().engine(), &taken).await;
    if !matches!(added, Ok(true)) {
        if let Err(error) = added {
            tracing::debug!(%error, "hot keys could not be told; they are the next time");
        }
        taken.into_iter().for_each(|(core, counts)| core.hot().put_back(counts));
    }
}

/// Whether it was this worker's turn.
async fn add(engine: &dyn Cache, counted: &[(&Arc<Core>, Counted)]) -> Result<bool, StateError> {
    let (list, claim) = match engine.begin(HOT_CACHE, &service(), LIST_LEASE).await? {
        Begun::Missing(claim) => (Vec::new(), claim),
        Begun::Stale(entry, Some(claim)) => (read_list(&entry), claim),
        _ => return Ok(false),
    };
    let list = merge(
        list,
        counted
            .iter()
            .flat_map(|(core, counts)| counts.iter().map(|(key, count)| (core.name(), &**key, *count))),
    );
    let json = serde_json::to_vec(&list).map_err(|error| StateError::Invalid(error.to_string()))?;
    let (fresh, room) = (Duration::ZERO, Room::default());
    engine.fill(&claim, Fill { value: Some(json.into()), fresh, stale: LIST_KEPT, room }).await
}

/// The list with these counts, the heaviest first. What was there before weighs an eighth less.
fn merge<'a>(list: Vec<HotKey>, counts: impl Iterator<Item = (&'a str, &'a str, u64)>) -> Vec<HotKey> {
    // In a finer measure than counts, so that small ones fade too.
    const MEASURE: u64 = 64;
    let mut weights = BTreeMap::<(String, String), u64>::new();
    for HotKey { cache, key, weight } in list {
        *weights.entry((cache, key)).or_default() += weight - weight.div_ceil(8);
    }
    for (cache, key, count) in counts {
        *weights.entry((cache.to_owned(), key.to_owned())).or_default() += count.saturating_mul(MEASURE);
    }
    let keys = weights.into_iter().filter(|(_, weight)| *weight > 0);
    let mut list: Vec<_> = keys.map(|((cache, key), weight)| HotKey { cache, key, weight }).collect();
    list.sort_by_key(|hot| Reverse(hot.weight));
    let mut bytes = 0;
    let fits = list.iter().take(LIST_KEYS_MAX).take_while(|hot| {
        bytes += hot.cache.len() + hot.key.len();
        bytes <= LIST_BYTES_MAX
    });
    let fits = fits.count();
    list.truncate(fits);
    list
}

fn read_list(entry: &Entry) -> Vec<HotKey> {
    // One that another version has written otherwise begins anew.
    entry.value.as_ref().and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

fn service() -> String {
    env::var("LETHE_SERVICE").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| NO_SERVICE.into())
}

async fn warm_up(registry: &Registry) -> Result<usize, StateError> {
    let engine = registry.joint().engine();
    let list = match engine.get(HOT_CACHE, &service()).await? {
        Some(entry) => read_list(&entry),
        None => return Ok(0),
    };
    let mut caches = BTreeMap::<String, Vec<String>>::new();
    for HotKey { cache, key, .. } in list {
        caches.entry(cache).or_default().push(key);
    }
    let mut entries = 0;
    for (cache, keys) in caches {
        let core = registry.core(&cache);
        // Only what is followed may be kept.
        core.copies().followed().await?;
        for keys in keys.chunks(READ_KEYS_MAX) {
            entries += read_ahead(engine, &core, keys).await?;
        }
    }
    Ok(entries)
}

/// Reads these keys in as few calls as it takes, and keeps what is there; how many.
async fn read_ahead(
    engine: &Arc<dyn Cache>,
    core: &Arc<Core>,
    mut keys: &[String],
) -> Result<usize, StateError> {
    let mut kept = 0;
    while !keys.is_empty() {
        // The reading of each key is entered before any of them is read, so that a change in between is not missed.
        let entered = Arc::new(Semaphore::new(0));
        let reading = {
            let (engine, cache, asked) = (Arc::clone(engine), core.name().to_owned(), keys.to_vec());
            let entered = Arc::clone(&entered);
            async move {
                // It is never closed.
                let _ = entered.acquire().await;
                engine.get_many(&cache, &asked).await.map_err(Arc::new)
            }
        };
        let reading = reading.boxed().shared();
        let readings = keys.iter().enumerate().map(|(at, key)| {
            let reading = reading.clone();
            core.copies().load(key, move || async move {
                match reading.await {
                    Ok(entries) => match entries.get(at) {
                        Some(Some(entry)) => Ok(Kept::read(entry.clone())),
                        _ => Err(StateError::NotFound),
                    },
                    Err(error) => Err(StateError::Unavailable(error.to_string())),
                }
            })
        });
        let enter = async { entered.add_permits(1) };
        let (read, ()) = join(join_all(readings), enter).await;
        kept += read.iter().filter(|read| read.is_ok()).count();
        let answered = match reading.await {
            Ok(entries) => entries.len(),
            Err(error) => return Err(StateError::Unavailable(error.to_string())),
        };
        keys = keys.get(answered.max(1)..).unwrap_or_default();
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(list: &[HotKey]) -> Vec<(&str, &str, u64)> {
        list.iter().map(|hot| (&*hot.cache, &*hot.key, hot.weight)).collect()
    }

    #[test]
    fn counts_add_up_and_fade() {
        let list = merge(Vec::new(), [("a", "k", 3), ("b", "k", 5), ("a", "l", 1)].into_iter());
        assert_eq!(weights(&list), [("b", "k", 320), ("a", "k", 192), ("a", "l", 64)]);
        let mut list = merge(list, [("a", "k", 3)].into_iter());
        assert_eq!(weights(&list), [("a", "k", 360), ("b", "k", 280), ("a", "l", 56)]);
        for _ in 0..100 {
            list = merge(list, [("a", "m", 1)].into_iter());
        }
        assert_eq!(weights(&list).iter().map(|(_, key, _)| *key).collect::<Vec<_>>(), ["m"]);
    }

    #[test]
    fn a_list_has_its_bounds() {
        let keys: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        let list = merge(Vec::new(), keys.iter().map(|key| ("c", &**key, key.parse().unwrap())));
        assert_eq!((list.len(), &*list[0].key), (LIST_KEYS_MAX, "1999"));
        let long: Vec<String> = (0..500).map(|n| format!("{n:01000}")).collect();
        let list = merge(Vec::new(), long.iter().map(|key| ("c", &**key, 1)));
        assert_eq!(list.len(), LIST_BYTES_MAX / 1001);
    }
}
