//! Passwords: Argon2id with the parameters of OWASP's Password Storage Cheat Sheet, off the async threads and
//! with a bound on how many are computed at once, since each takes 19 MiB and a whole core for a while.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use crate::error::Error;

/// Most hashes computed at once in one worker.
pub const HASHES_RUNNING_MAX: usize = 2;
/// Most hashes running or waiting in one worker; one more is refused with 503, so that a flood of sign-ins
/// cannot build a queue that outlasts the patience of those in it.
pub const HASHES_ADMITTED_MAX: usize = 64;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;

/// The rule for new passwords, in words.
pub const RULE: &str = "a password has at least 8 characters, and at most 256 bytes";

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// What the password of an unknown user is compared with, so that the answer takes as long as for a known
/// one. Its 32 bytes are random: no password is known for them.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$JNTgJm0H3w3oR4CgFK2zsw$dhUpFrGyR4uFqAMgB8Z4EjThoC9iTDLvsHz/rmaagt8";

/// Whether a new password follows the rule.
pub fn acceptable(password: &str) -> bool {
    password.len() <= PASSWORD_BYTES_MAX && password.chars().count() >= PASSWORD_CHARS_MIN
}

/// Computes and checks password hashes. Cheap to clone; clones share the bounds.
#[derive(Clone)]
pub struct Hasher {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(HASHES_RUNNING_MAX)),
            admitted: Arc::new(Semaphore::new(HASHES_ADMITTED_MAX)),
        }
    }
}

impl Hasher {
    /// A new hash of a password, in PHC string format, with its own random salt. Fails with [`Error::Busy`].
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        self.run(move || {
            let hash =
                argon2()?.hash_password(password.as_bytes()).map_err(|error| Error::internal(&error))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether a password is the one of the hash. With `None`, for an unknown user, the work is the same and
    /// the answer is no. Fails with [`Error::Busy`].
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Error> {
        self.run(move || {
            let parsed = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY))
                .map_err(|error| Error::internal(&error))?;
            let right = argon2()?.verify_password(password.as_bytes(), &parsed).is_ok();
            Ok(right && hash.is_some())
        })
        .await
    }

    /// Runs `work` on a blocking thread. The permits go with it: a request that is given up does not free
    /// the place of a computation that still runs.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| Error::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Error::Busy)?;
        tokio::task::spawn_blocking(move || {
            let _permits = (admitted, running);
            work()
        })
        .await
        .map_err(|error| Error::internal(&error))?
    }
}

fn argon2() -> Result<Argon2<'static>, Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| Error::internal(&error))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_password_is_known_and_the_hash_says_how_it_was_made() {
        let hasher = Hasher::default();
        let hash = hasher.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(hasher.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!hasher.verify("Correct horse".into(), Some(hash.clone())).await.unwrap());
        assert_ne!(hash, hasher.hash("correct horse".into()).await.unwrap(), "each hash has its own salt");
    }

    #[tokio::test]
    async fn an_unknown_user_costs_the_same_work_and_is_never_right() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let params = Params::try_from(&nobody).unwrap();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), (MEMORY_KIB, PASSES, LANES));
        assert!(!Hasher::default().verify("anything".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_flood_is_refused_at_the_bound_and_the_bound_is_given_back() {
        let hasher = Hasher::default();
        let held = Arc::clone(&hasher.admitted).acquire_many_owned(HASHES_ADMITTED_MAX as u32).await.unwrap();
        assert!(matches!(hasher.verify("x".into(), None).await, Err(Error::Busy)));
        drop(held);
        assert!(!hasher.verify("x".into(), None).await.unwrap());
        assert_eq!(hasher.admitted.available_permits(), HASHES_ADMITTED_MAX);
    }
}
