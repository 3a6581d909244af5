//! Locks: one worker at a time does something, over all workers of all services. A lock that is held renews itself for as
//! long as its [`Held`] lives, and says when it was lost; what must not be written by an earlier holder is written
//! through its fence.

mod keeper;

use std::{env, future::Future, sync::Arc, time::Duration};

pub use lethe_state::locks::{Lease, Token};
use lethe_state::{
    error::Error as StateError,
    locks::{LEASE_MAX, Locks},
    tables::{Action, Condition, Write},
};
use tokio::time::{Instant, sleep};

use self::keeper::Keeper;
use crate::{Error, State};

/// How long a lease lasts unless it is said: for so long nobody else has the lock after its holder was killed.
pub const LEASE: Duration = Duration::from_secs(15);
/// The shortest lease: less is over before it can be renewed on a busy machine.
pub const LEASE_MIN: Duration = Duration::from_millis(100);
/// The table in which [`Batch::fence`](crate::batch::Batch::fence) keeps the tokens that it has seen, one row a lock.
pub const FENCES_TABLE: &str = lethe_state::locks::FENCES_TABLE;
/// How often a lock that somebody holds is asked for: at first soon, then each time after twice as long.
const ASK_FIRST: Duration = Duration::from_millis(10);
const ASK_LAST: Duration = Duration::from_millis(250);

/// A lock, by its name. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lethe::Error> {
/// # let state = lethe::State::ephemeral()?;
/// let reports = state.table::<String>("reports");
/// if let Some(held) = state.lock("nightly-report").try_acquire().await? {
///     // What is written with the fence is refused once a later holder has written.
///     state.batch().fence(&held).put(&reports, "today", &"all is well".into())?.commit().await?;
///     held.release().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lock {
    state: State,
    name: Arc<str>,
    lease: Duration,
}

impl Lock {
    pub(crate) fn new(state: State, name: &str) -> Self {
        Self { state, name: name.into(), lease: LEASE }
    }

    /// How long a lease lasts, from [`LEASE_MIN`] to a day; it is renewed after a third of that. It is the time for which
    /// nobody has the lock after its holder was killed.
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease: lease.clamp(LEASE_MIN, LEASE_MAX), ..self }
    }

    /// Takes the lock if nobody holds it, else `None`. Dropped while it waits, the lock may be taken until its lease ends.
    pub async fn try_acquire(&self) -> Result<Option<Held>, Error> {
        // The lease begins no earlier than this, by whichever clock.
        let asked = Instant::now();
        let locks = Arc::clone(&self.state.engines().locks);
        let lease = locks.acquire(&self.name, &holder(), self.lease).await?;
        Ok(lease.map(|lease| Held::new(locks, lease, asked, self.lease)))
    }

    /// Takes the lock, and waits for it for so long; then `None`. Those who wait are not served in any order.
    pub async fn acquire(&self, wait: Duration) -> Result<Option<Held>, Error> {
        let begun = Instant::now();
        let mut pause = ASK_FIRST;
        loop {
            if let Some(held) = self.try_acquire().await? {
                return Ok(Some(held));
            }
            let left = wait.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(ASK_LAST);
        }
    }

    /// Who holds it now.
    pub async fn look(&self) -> Result<Option<Lease>, Error> {
        Ok(self.state.engines().locks.look(&self.name).await?)
    }
}

/// Who is said to hold a lock.
fn holder() -> String {
    let instance = env::var("LETHE_INSTANCE").ok().filter(|name| !name.is_empty());
    instance.unwrap_or_else(|| format!("pid {}", std::process::id()))
}

/// A lock that is held. It is renewed in the background, and let go when this is dropped.
///
/// A lease can end under its holder all the same: when the machine sleeps, the process is stopped, or the state cannot be
/// reached for as long as the lease lasts. [`lost`](Self::lost) says so, and [`run`](Self::run) ends the work then. Neither
/// can help a process that is stopped between a look and a write: what an earlier holder must never write goes through
/// [`Batch::fence`](crate::batch::Batch::fence) or [`Bucket::fenced`](crate::bucket::Bucket::fenced).
#[derive(Debug)]
#[must_use = "a lock is let go when its guard is dropped"]
pub struct Held {
    lease: Lease,
    keeper: Keeper,
}

impl Held {
    fn new(locks: Arc<dyn Locks>, lease: Lease, asked: Instant, length: Duration) -> Self {
        let keeper = Keeper::start(locks, lease.name.clone(), lease.token, asked, length);
        Self { lease, keeper }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.lease.name
    }

    /// The fencing token: larger than those of all earlier holders.
    pub fn token(&self) -> Token {
        self.lease.token
    }

    /// Whether the lock was not lost yet, as far as this process can know.
    pub fn is_held(&self) -> bool {
        self.keeper.is_held()
    }

    /// Ends when the lock is lost. Cancellation safe.
    pub async fn lost(&self) {
        self.keeper.lost().await;
    }

    /// Does the work for as long as the lock is held. When it is lost first, the work is dropped where it waits, and this
    /// fails with [`Error::LockLost`].
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Error> {
        tokio::select! {
            biased;
            () = self.lost() => Err(Error::LockLost { name: self.lease.name.clone() }),
            done = work => Ok(done),
        }
    }

    /// Lets the lock go, and says whether it was still held. When it is dropped instead, that happens in the background.
    pub async fn release(self) -> Result<bool, Error> {
        self.keeper.release().await.map_err(Error::from)
    }

    pub(crate) fn fence_write(&self) -> Write {
        Write {
            table: FENCES_TABLE.to_owned(),
            key: self.lease.name.clone(),
            condition: Condition::Any,
            action: Action::Fence { token: self.lease.token },
        }
    }
}

/// What a release is told when its task is gone, as when the runtime ends.
fn interrupted() -> StateError {
    StateError::Unavailable("the task that keeps the lock is gone; its lease ends by itself".into())
}
