//! What the engines have in common that keep blobs in a bucket of an object store: each blob is one object, under the name of its
//! bucket and key, and can be read with any tool; what the engine adds is in the object's metadata.
//!
//! What is acknowledged is the store's, and as durable as that is. A blob that fits into one part is put by one request; a larger
//! one is uploaded in parts of which two are in memory at a time, and appears when all are there. `docs/engines.md` says what a
//! store must be able to do.
//!
//! A call goes `blobs` → `upload`, `download` or `list` → `object_store`, which signs it → `link`, where connections, timeouts
//! and retries are; `failure` says what an error means, and [`crate::breaker`] when the store is left alone. What the stores say in
//! their own ways is in `dialect`.

pub(crate) mod address;
mod blobs;
mod body;
mod conditions;
pub(crate) mod dialect;
mod download;
pub(crate) mod failure;
pub(crate) mod key;
pub(crate) mod link;
mod list;
pub(crate) mod object;
mod portable;
pub(crate) mod shelf;
mod tls;
mod upload;

use std::sync::{Arc, atomic::AtomicBool};

use tokio::sync::OnceCell;

pub use self::failure::Refusal;
use self::{
    address::{Place, Settings},
    blobs::Bucket,
    link::Link,
    shelf::{Read, Shelf, Write},
};
use crate::{Engines, clock::Clock};

/// A folder of a bucket, as the engine of blobs that it is.
pub(crate) struct Objects {
    bucket: Bucket,
    link: Link,
}

impl Objects {
    /// The engine on a store that sends its requests over this link.
    pub(crate) fn new(
        reads: Arc<dyn Read>,
        writes: Arc<dyn Write>,
        link: Link,
        place: &Place,
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let shelf = Shelf {
            reads,
            writes,
            names: place.names.clone(),
            part_bytes: settings.part_bytes,
            clock,
            dialect: link.dialect(),
            server: link.server().to_owned(),
            has_bucket: AtomicBool::new(false),
            heeded: OnceCell::new(),
        };
        Self { bucket: Bucket(Arc::new(shelf)), link }
    }

    /// What it is doing, for who watches.
    pub(crate) fn watch(&self, figures: &mut crate::figures::Figures) {
        self.link.watch(figures);
    }

    /// The engine, by kind of state: blobs alone.
    pub(crate) fn engines(&self) -> Engines {
        let engine = self.link.dialect().engine.name();
        Engines { blobs: Arc::new(self.bucket.clone()), ..Engines::absent(engine) }
    }
}
