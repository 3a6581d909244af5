//! Engines whose operations are counted and timed. Only what an engine is to blame for counts as an error: a conflict, or a
//! session that has ended, is an answer.

mod kinds;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    Engines,
    error::Error,
    figures::{BOUNDS, Operation},
    place::{Kind, Placement},
};

/// What was counted of all kinds.
pub struct Meter(Vec<Arc<KindMeter>>);

/// What was counted of one kind.
struct KindMeter {
    kind: Kind,
    engine: &'static str,
    /// By [`operations`].
    counts: Vec<Counts>,
}

/// What was counted of one operation.
#[derive(Default)]
struct Counts {
    took: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
    unavailable: AtomicU64,
    failed: AtomicU64,
}

/// An engine of one kind, metered.
struct Metered<T: ?Sized> {
    inner: Arc<T>,
    meter: Arc<KindMeter>,
}

/// The same engines, metered. `placement` says which they are.
pub fn metered(engines: Engines, placement: &Placement) -> (Engines, Meter) {
    let meter = |kind: Kind| {
        let counts = operations(kind).iter().map(|_| Counts::default()).collect();
        Arc::new(KindMeter { kind, engine: placement.of(kind).engine().name(), counts })
    };
    let meters = Kind::ALL.map(meter);
    let of = |kind| Arc::clone(meters.iter().find(|meter| meter.kind == kind).unwrap_or(&meters[0]));
    let Engines { sessions, tables, blobs, limits, locks, idempotency, cache } = engines;
    let engines = Engines {
        sessions: Arc::new(Metered { inner: sessions, meter: of(Kind::Sessions) }),
        tables: Arc::new(Metered { inner: tables, meter: of(Kind::Tables) }),
        blobs: Arc::new(Metered { inner: blobs, meter: of(Kind::Blobs) }),
        limits: Arc::new(Metered { inner: limits, meter: of(Kind::Limits) }),
        locks: Arc::new(Metered { inner: locks, meter: of(Kind::Locks) }),
        idempotency: Arc::new(Metered { inner: idempotency, meter: of(Kind::Idempotency) }),
        cache: Arc::new(Metered { inner: cache, meter: of(Kind::Cache) }),
    };
    (engines, Meter(meters.into()))
}

impl Meter {
    /// What was counted so far, of operations that were asked for at all.
    pub fn operations(&self) -> Vec<Operation> {
        let each = |meter: &Arc<KindMeter>| {
            let names = operations(meter.kind).iter().zip(&meter.counts);
            names.map(|(name, counts)| counts.read(meter, name)).collect::<Vec<_>>()
        };
        let all = self.0.iter().flat_map(each);
        all.filter(|operation| operation.took.iter().any(|count| *count > 0)).collect()
    }
}

impl KindMeter {
    /// Does `work` and counts it; what is dropped half-way is not counted.
    async fn time<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let result = work.await;
        self.note(operation, start.elapsed(), result.as_ref().err());
        result
    }

    fn note(&self, operation: &'static str, took: Duration, error: Option<&Error>) {
        let known = operations(self.kind).iter().position(|name| *name == operation);
        if let Some(counts) = known.and_then(|at| self.counts.get(at)) {
            counts.note(took, error);
        }
    }
}

impl Counts {
    fn note(&self, took: Duration, error: Option<&Error>) {
        self.took[BOUNDS.partition_point(|bound| *bound < took)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        match error {
            Some(Error::Unavailable(_)) => self.unavailable.fetch_add(1, Relaxed),
            Some(Error::Engine(_)) => self.failed.fetch_add(1, Relaxed),
            _ => 0,
        };
    }

    fn read(&self, meter: &KindMeter, operation: &'static str) -> Operation {
        Operation {
            kind: meter.kind.name(),
            engine: meter.engine,
            operation,
            took: std::array::from_fn(|at| self.took[at].load(Relaxed)),
            sum: Duration::from_micros(self.sum_us.load(Relaxed)),
            unavailable: self.unavailable.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

/// What may be asked of a kind.
fn operations(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Sessions => {
            &["create", "load", "load_through", "patch", "renew", "destroy", "list", "revoke", "follow"]
        }
        Kind::Tables => &["get", "scan", "apply", "follow"],
        Kind::Blobs => &["put", "head", "get", "list", "delete"],
        Kind::Limits => &["take", "reset", "list"],
        Kind::Locks => &["acquire", "renew", "release", "look", "list"],
        Kind::Idempotency => &["begin", "extend", "finish", "abandon"],
        Kind::Cache => &["begin", "extend", "fill", "abandon", "get", "remove", "clear", "usage", "follow"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_counted_by_how_long_it_took() {
        let counts = Counts::default();
        counts.note(Duration::from_micros(50), None);
        counts.note(Duration::from_micros(51), Some(&Error::NotFound));
        counts.note(Duration::from_secs(11), Some(&Error::Unavailable("away".into())));
        counts.note(Duration::ZERO, Some(&Error::Engine("broken".into())));
        let meter = KindMeter { kind: Kind::Locks, engine: "paper", counts: Vec::new() };
        let operation = counts.read(&meter, "look");
        assert_eq!((operation.kind, operation.engine, operation.operation), ("locks", "paper", "look"));
        assert_eq!((operation.took[0], operation.took[1], operation.took[BOUNDS.len()]), (2, 1, 1));
        assert_eq!((operation.unavailable, operation.failed), (1, 1));
        assert_eq!(operation.sum, Duration::from_micros(11_000_101));
        assert!(BOUNDS.is_sorted());
    }

    /// A name that is misspelt would never be counted.
    #[tokio::test]
    async fn each_operation_is_counted_under_its_name() {
        let (engines, meter) = metered(Engines::absent("paper"), &Placement::default());
        let Engines { sessions, tables, blobs, limits, locks, idempotency, cache } = &engines;
        let id = &crate::sessions::SessionId::random().unwrap();
        let (none, minute) = (Default::default, Duration::from_secs(60));
        drop(sessions.create(none()).await);
        drop((sessions.load(id).await, sessions.load_through(id).await));
        #[cfg(feature = "server")]
        drop(sessions.load_json(id).await);
        drop(sessions.patch(id, Default::default()).await);
        drop(sessions.renew(id, None, Default::default()).await);
        drop((sessions.destroy(id).await, sessions.list("u").await, sessions.revoke("u", None).await));
        drop((tables.get("t", "k").await, tables.scan("t", &Default::default()).await));
        drop(tables.apply(Vec::new()).await);
        let body = Box::pin(futures_util::stream::empty());
        drop(blobs.put("b", "k", body, Default::default()).await);
        drop((blobs.head("b", "k").await, blobs.get("b", "k", None).await));
        drop(blobs.list("b", "", None, 1).await);
        drop(blobs.delete("b", "k", Default::default(), None).await);
        drop((limits.take_all(Vec::new()).await, limits.reset("l", "k").await));
        drop(limits.list("l", None, 1).await);
        drop((locks.acquire("n", "h", minute).await, locks.renew("n", 1, minute).await));
        drop((locks.release("n", 1).await, locks.look("n").await, locks.list(None, 1).await));
        let claim = Default::default();
        drop((idempotency.extend(&claim, minute).await, idempotency.abandon(&claim).await));
        drop(idempotency.finish(&claim, Default::default()).await);
        drop((cache.begin("c", "k", minute).await, cache.get("c", "k").await));
        drop((cache.remove("c", "k").await, cache.clear("c").await, cache.usage("c").await));
        drop((sessions.follow().await, tables.follow("t").await, cache.follow("c").await));
        let counted: Vec<String> =
            meter.operations().iter().map(|one| format!("{} {}", one.kind, one.operation)).collect();
        let expected = Kind::ALL.iter().flat_map(|kind| {
            operations(*kind).iter().map(move |operation| format!("{} {operation}", kind.name()))
        });
        // Those whose arguments cannot be made of nothing.
        let left_out = ["idempotency begin", "cache extend", "cache fill", "cache abandon"];
        let expected: Vec<String> = expected.filter(|name| !left_out.contains(&name.as_str())).collect();
        assert_eq!(counted, expected);
        let loads = meter.operations().into_iter().find(|one| one.operation == "load").unwrap();
        assert_eq!(loads.took.iter().sum::<u64>(), 1 + u64::from(cfg!(feature = "server")));
    }
}
