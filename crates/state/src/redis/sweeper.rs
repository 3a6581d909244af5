//! The sweeper: removes rows that have expired, which nobody can see any more, in small steps between other calls. Sessions
//! need none: the server forgets them by itself.

use std::{sync::Arc, time::Duration};

use super::Store;
use crate::{clock::jittered, error::Error};

/// How often expired rows are looked for, at the most; the first time as soon.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Most rows that one step removes, so that no other call waits long behind it.
const STEP_ROWS_MAX: usize = 256;

/// Starts it. It ends with the store.
pub(super) fn start(store: &Store) {
    let (router, keys, clock) = (Arc::downgrade(&store.router), store.keys.clone(), store.clock.clone());
    tokio::spawn(async move {
        loop {
            // All workers sweep the same rows: they take turns by chance.
            tokio::time::sleep(jittered(SWEEP_EVERY)).await;
            let Some(router) = router.upgrade() else { return };
            let (keys, clock) = (keys.clone(), clock.clone());
            let store = Store { router, keys, feeds: Arc::default(), clock };
            if let Err(error) = sweep(&store).await {
                tracing::debug!(%error, "expired rows could not be removed; it is tried again");
            }
        }
    });
}

/// Removes all rows that have expired by now; how many it did.
pub(super) async fn sweep(store: &Store) -> Result<usize, Error> {
    let mut removed = 0;
    loop {
        let step = store.sweep_rows(STEP_ROWS_MAX).await?;
        removed += step;
        if step < STEP_ROWS_MAX {
            return Ok(removed);
        }
    }
}
