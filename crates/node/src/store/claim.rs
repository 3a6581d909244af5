//! A folder that somebody uses or makes. The claim is the kernel's lock (flock(2)) on the folder itself, so that it ends with
//! the process however that ends, and two `lethe` that share a state folder see each other's.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) folder: PathBuf,
    lock: File,
}

/// Beside whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Others who use it.
    Others,
    /// Nobody.
    Nobody,
}

impl Claim {
    /// Claims an existing folder; `None` if others do, or if it is not there (any more).
    pub(crate) fn take(folder: &Path, beside: Beside) -> io::Result<Option<Self>> {
        let lock = match File::open(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock?,
        };
        let claim = Self { folder: folder.into(), lock };
        claim.turn(beside)
    }

    /// Changes it; `None` if others stand against that, and then it is given up.
    pub(crate) fn turn(self, beside: Beside) -> io::Result<Option<Self>> {
        let locked = match beside {
            Beside::Others => self.lock.try_lock_shared(),
            Beside::Nobody => self.lock.try_lock(),
        };
        match locked {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        // Somebody may have removed or replaced it between opening and locking.
        let is_it = std::fs::metadata(&self.folder).is_ok_and(|there| {
            self.lock.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
        });
        Ok(is_it.then_some(self))
    }
}

/// A folder that is made from nothing and removed again when this is dropped.
#[derive(Debug)]
pub(crate) struct Fresh {
    claim: Claim,
}

impl Fresh {
    /// Makes one in `parent`, whose name begins so.
    pub(crate) fn make(parent: &Path, prefix: &str) -> io::Result<Self> {
        std::fs::create_dir_all(parent)?;
        loop {
            let folder = parent.join(format!("{prefix}{}", super::distinct()));
            match std::fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            // One who tidies up may have come in between.
            if let Some(claim) = Claim::take(&folder, Beside::Nobody)? {
                return Ok(Self { claim });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.claim.folder
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // What is left is removed by who tidies up next.
        let _ = super::remove(&self.claim.folder);
    }
}
