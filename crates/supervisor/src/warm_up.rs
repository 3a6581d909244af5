//! What a new worker is asked for before it gets requests: paths whose answers fill its caches and compile its code, one
//! after the other. It is a help and no test: what fails is told, and the worker gets requests all the same, since a page
//! that fails must not keep a service from starting. What must not fail is the `ready` path.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lethe_model::roster::{Address, Protocol};
use tokio::time::{Instant, timeout_at};

use crate::{
    ready::{self, Rest},
    service::Spec,
};

/// The longest warm-up, in all; then the worker gets requests, however far it came.
pub const TIME_MAX: Duration = Duration::from_secs(60);
/// How much of an answer is read, and for how long after its head, before the next path is asked for.
const REST: Rest = Rest { bytes_max: 16 << 20, time_max: Duration::from_secs(10) };

/// The warm-up of one worker. Not begun → Asking (path by path) → Done.
#[derive(Debug)]
pub(crate) struct WarmUp {
    paths: Vec<String>,
    /// The path that is asked for, or is next.
    next: AtomicUsize,
    began: OnceLock<Instant>,
    was_refused: AtomicBool,
    troubles: Mutex<Vec<String>>,
}

impl WarmUp {
    /// That of a worker of `spec`.
    pub(crate) fn new(spec: &Spec) -> Self {
        Self::of(spec.warm_up.clone())
    }

    pub(crate) fn of(paths: Vec<String>) -> Self {
        let (next, was_refused) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { paths, next, began: OnceLock::new(), was_refused, troubles: Mutex::default() }
    }

    /// Asks for what was not asked for yet. Cancellation safe: the path that is being asked for is asked for again.
    pub(crate) async fn run(&self, address: &Address, protocol: Protocol) {
        let deadline = *self.began.get_or_init(Instant::now) + TIME_MAX;
        while let Some(path) = self.paths.get(self.next.load(Relaxed)) {
            let Ok(answer) = timeout_at(deadline, ready::get(address, protocol, path, REST)).await else {
                let left = self.paths.len() - self.next.load(Relaxed);
                self.next.store(self.paths.len(), Relaxed);
                let text =
                    format!("warm-up: not over within {TIME_MAX:?}, at GET {path}; {left} paths were left");
                return self.troubles().push(text);
            };
            let trouble = match answer {
                Ok(200..400) => None,
                Ok(status) => Some(format!("is answered with status {status}")),
                Err(refusal) => {
                    self.was_refused.store(true, Relaxed);
                    Some(refusal.to_string())
                }
            };
            self.troubles().extend(trouble.map(|trouble| format!("warm-up: GET {path} {trouble}")));
            self.next.fetch_add(1, Relaxed);
        }
    }

    /// Whether a path had no answer at all.
    pub(crate) fn was_refused(&self) -> bool {
        self.was_refused.load(Relaxed)
    }

    /// How long ago it began, if there is one.
    pub(crate) fn took(&self) -> Option<Duration> {
        let began = self.began.get().filter(|_| !self.paths.is_empty());
        began.map(Instant::elapsed)
    }

    /// What did not go well.
    pub(crate) fn troubles(&self) -> MutexGuard<'_, Vec<String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is at, for a person who wonders why a worker is not ready; `None` if it has not begun.
    pub(crate) fn at(&self) -> Option<&str> {
        self.began.get()?;
        self.paths.get(self.next.load(Relaxed)).map(String::as_str)
    }
}
