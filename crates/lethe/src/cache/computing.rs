//! A computation, whatever its type: called at most once, within bounds, and whatever happens in it, with an end.

use std::{
    error::Error,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};

use super::{error::Cause, kept::Kept};

/// Most computations at one time in this worker, over all caches, those in the background aside. Others wait for their turn.
pub(super) const COMPUTING_MAX: usize = 256;

type Compute = Box<dyn FnOnce() -> BoxFuture<'static, Result<Kept, Cause>> + Send>;

/// A computation that whoever needs it first takes. Clones are the same.
#[derive(Clone)]
pub(super) struct Slot(Arc<Mutex<Option<Compute>>>);

/// A computation that makes a `T`, or finds that there is none.
pub(super) fn slot<T, E, Fut>(compute: impl FnOnce() -> Fut + Send + 'static) -> Slot
where
    T: Serialize + Send + Sync + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
    Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
{
    let computing = || {
        async move {
            let Some(value) = compute().await.map_err(Cause::new)? else {
                return Ok(Kept::computed(None, None));
            };
            let json = serde_json::to_vec(&value).map_err(Cause::new)?;
            Ok(Kept::computed(Some(json.into()), Some(Arc::new(value))))
        }
        .boxed()
    };
    Slot(Arc::new(Mutex::new(Some(Box::new(computing)))))
}

impl Slot {
    /// Computes it, once there is room among those that compute; both together within `most`.
    pub(super) async fn run(&self, room: Option<&Semaphore>, most: Duration) -> Result<Kept, Cause> {
        let computing = async {
            let _turn = match room {
                Some(room) => room.acquire().await.ok(),
                None => None,
            };
            let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(compute) = taken else { return Err(Cause::new("it was computed already")) };
            // What is left behind by a panic is dropped.
            let computed = AssertUnwindSafe(async { compute().await }).catch_unwind().await;
            computed.unwrap_or_else(|_| Err(Cause::new("the computation has panicked")))
        };
        let late = |_| Err(Cause::new(format!("it took longer than {most:?}")));
        timeout(most, computing).await.unwrap_or_else(late)
    }
}
