//! Why a source is not fetched, and the bounds that it must keep.

use std::{io, path::PathBuf, time::Duration};

/// Most that a source may come to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Files, folders and links.
    pub(crate) entries_max: u64,
    /// Bytes of all files.
    pub(crate) bytes_max: u64,
}

/// What is far more than a service comes to, and not yet a full disk.
pub(crate) const BOUNDS: Bounds = Bounds { entries_max: 500_000, bytes_max: 8 << 30 };

/// Why a source was not fetched. The version that ran before, if any, is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that fetches is missing.
    #[error("`{program}` is needed to fetch {source_name} and cannot be started; install it")]
    Missing {
        /// The program.
        program: &'static str,
        /// The source, without credentials.
        source_name: String,
        /// Why it cannot be started.
        #[source]
        source: io::Error,
    },
    /// It ran and failed.
    #[error("cannot fetch {source_name}: {program} ended with {status}\n{text}")]
    Failed {
        /// The source, without credentials.
        source_name: String,
        /// The program.
        program: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said, without credentials.
        text: String,
    },
    /// It took too long.
    #[error(
        "cannot fetch {source_name}: {program} was not done after {after:?}; is the server slow, or away?"
    )]
    Slow {
        /// The source, without credentials.
        source_name: String,
        /// The program.
        program: &'static str,
        /// The bound.
        after: Duration,
    },
    /// What is there is not taken.
    #[error("cannot use {source_name}: {why}")]
    Refused {
        /// The source, without credentials.
        source_name: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The blob is not there.
    #[error("there is no {0} in the state tier; put it there first")]
    NoBlob(String),
    /// The state tier refuses.
    #[error("cannot fetch {0} from the state tier")]
    State(String, #[source] lethe_state::error::Error),
    /// The folder for it cannot be written.
    #[error("cannot write {}{}", .0.display(), advice(.1))]
    Folder(PathBuf, #[source] io::Error),
}

/// Why a tree was not made of an archive or a folder.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not taken: why, and what to do.
    Refused(String),
    /// A program is missing.
    Missing(&'static str, io::Error),
    /// The tree cannot be written.
    Written(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Written(error)
    }
}

impl Bounds {
    pub(super) fn check(self, entries: u64, bytes: u64) -> Result<(), Fault> {
        if entries > self.entries_max {
            return Err(Fault::Refused(format!("it has more than {} files", self.entries_max)));
        }
        if bytes > self.bytes_max {
            return Err(Fault::Refused(format!("its files come to more than {} bytes", self.bytes_max)));
        }
        Ok(())
    }
}

/// What to do about a folder that cannot be written.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": the disk is full; make room, or choose another folder with `state` or `--state-dir`"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": it must be a folder that lethe may write to; `--state-dir` chooses another one"
        }
        _ => "",
    }
}
