//! A value as it is kept in memory: its bytes, and what they are decoded to, once for all who read it.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use lethe_state::{
    Millis,
    cache::Entry,
    clock::{Clock as _, SystemClock},
    near::Copied,
};
use serde::de::DeserializeOwned;

/// How long a stale value is returned from memory before it is looked again whether somebody has to compute it.
const STALE_LOOK: Duration = Duration::from_millis(250);

/// A value, or that there is none. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Kept(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    json: Option<Bytes>,
    value: OnceLock<Arc<dyn Any + Send + Sync>>,
    /// When the engine is to be asked again, and when it is worth nothing any more, by this machine's clock.
    due_at: Millis,
    ends_at: Millis,
}

impl Kept {
    /// What the engine has given.
    pub(super) fn read(Entry { value, fresh, left }: Entry) -> Self {
        let now = SystemClock.now();
        let due = if fresh.is_zero() { STALE_LOOK.min(left) } else { fresh };
        let after = |span: Duration| now.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
        let (due_at, ends_at) = (after(due), after(left));
        Self(Arc::new(Inner { json: value, value: OnceLock::new(), due_at, ends_at }))
    }

    /// What was computed.
    pub(super) fn computed(json: Option<Bytes>, value: Option<Arc<dyn Any + Send + Sync>>) -> Self {
        let value = value.map_or_else(OnceLock::new, OnceLock::from);
        Self(Arc::new(Inner { json, value, due_at: 0, ends_at: 0 }))
    }

    /// Its JSON; `None` when there is no value.
    pub(super) fn json(&self) -> Option<Bytes> {
        self.0.json.clone()
    }

    /// The value; `None` when there is none. It is decoded for the first who asks.
    pub(super) fn get<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
    ) -> Result<Option<Arc<T>>, serde_json::Error> {
        let Some(json) = &self.0.json else { return Ok(None) };
        if let Some(value) = self.0.value.get()
            && let Ok(value) = Arc::clone(value).downcast()
        {
            return Ok(Some(value));
        }
        let value = Arc::new(serde_json::from_slice::<T>(json)?);
        // Where it is read as two types, the first one stays.
        let _ = self.0.value.set(Arc::clone(&value) as _);
        Ok(Some(value))
    }
}

impl Copied for Kept {
    fn bytes(&self) -> usize {
        // What it is decoded to takes about as much again.
        size_of::<Inner>() + 2 * self.0.json.as_ref().map_or(0, Bytes::len)
    }

    fn ends_at(&self) -> Option<Millis> {
        Some(self.0.ends_at)
    }

    fn due_at(&self) -> Option<Millis> {
        Some(self.0.due_at)
    }
}
