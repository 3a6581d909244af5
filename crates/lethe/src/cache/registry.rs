//! The caches of a worker, by name: however many handles there are of one, it has one memory and one flight for a key.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    core::{Core, Joint},
    warm,
};

/// Most caches of a worker that are remembered. Names are few and fixed in a program; one that makes them up pays for it with a
/// cache that has no memory of its own from one handle to the next.
pub const CACHES_MAX: usize = 256;

/// All caches of a worker.
pub(crate) struct Registry {
    joint: Arc<Joint>,
    cores: Mutex<BTreeMap<String, Arc<Core>>>,
    /// Whether a task tells the others which keys are hot here.
    is_reporting: AtomicBool,
}

impl Registry {
    pub(crate) fn new(engine: Arc<dyn lethe_state::cache::Cache>) -> Self {
        let (joint, cores) = (Arc::new(Joint::new(engine)), Mutex::default());
        Self { joint, cores, is_reporting: AtomicBool::new(false) }
    }

    pub(super) fn joint(&self) -> &Arc<Joint> {
        &self.joint
    }

    /// The cache of this name.
    pub(super) fn core(&self, name: &str) -> Arc<Core> {
        let mut cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = cores.get(name) {
            return Arc::clone(core);
        }
        let core = Arc::new(Core::new(name, Arc::clone(&self.joint)));
        if cores.len() < CACHES_MAX {
            cores.insert(name.to_owned(), Arc::clone(&core));
        } else {
            tracing::warn!(name, "there are {CACHES_MAX} caches already: this one is not remembered");
        }
        core
    }

    /// All there are.
    pub(super) fn all(&self) -> Vec<Arc<Core>> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// From now on, others are told which keys are hot here. To be called within a runtime.
    pub(super) fn report(self: &Arc<Self>) {
        if !self.is_reporting.swap(true, Ordering::Relaxed) {
            warm::start(self);
        }
    }
}
