//! The embedded engine's own failures: what is wrong with which file, and what to do about it.

use std::{io, path::Path};

use rusqlite::ErrorCode;

use crate::error::Error;

/// What is wrong with the engine's files. It is what `source()` of [`Error::Engine`] says.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No room to write.
    #[error(
        "no room left to write {file}: free some disk space and try again; what was acknowledged is safe"
    )]
    Full {
        /// The file that could not grow.
        file: String,
    },
    /// The database's bytes make no sense.
    #[error(
        "{file} is damaged ({detail}): it is left as it is; keep a copy of the folder, then restore a backup \
         of it, or save what can be read with `sqlite3 {file} .recover`"
    )]
    Damaged {
        /// The database.
        file: String,
        /// What SQLite says.
        detail: String,
    },
    /// The database belongs to another program.
    #[error("{file} is an SQLite database, but not one of lethe: choose another state folder")]
    Foreign {
        /// The database.
        file: String,
    },
    /// The database was written by a newer version.
    #[error(
        "{file} has schema version {found}, and this lethe knows none after {known}: run the newer lethe \
         that wrote it, or choose another state folder"
    )]
    Newer {
        /// The database.
        file: String,
        /// Its version.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The database is to be brought to a newer version while an older lethe still works with it.
    #[error(
        "{file} has schema version {found}, and this lethe brings it to {known}, with which the running one cannot go \
         on: stop that one, then start this one"
    )]
    Older {
        /// The database.
        file: String,
        /// Its version.
        found: i64,
        /// What this program needs.
        known: i64,
    },
    /// Another engine holds the folder.
    #[error(
        "the state folder {folder} is in use by pid {holder}: stop that process, or choose another folder"
    )]
    InUse {
        /// The folder.
        folder: String,
        /// The process that holds it, as it wrote itself down.
        holder: String,
    },
    /// Anything else that the operating system or SQLite refuses.
    #[error("cannot {doing} {file}: {detail}")]
    Other {
        /// What was to be done.
        doing: &'static str,
        /// The file or folder.
        file: String,
        /// Why not.
        detail: String,
    },
}

impl Failure {
    /// What an SQLite error on this database means.
    pub(super) fn sqlite(database: &Path, error: &rusqlite::Error) -> Self {
        let file = database.display().to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { file },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { file, detail: error.to_string() }
            }
            _ => Self::Other { doing: "use", file, detail: error.to_string() },
        }
    }

    /// What an error of the file system means.
    pub(super) fn io(doing: &'static str, path: &Path, error: &io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let file = path.display().to_string();
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::Full { file },
            _ => Self::Other { doing, file, detail: error.to_string() },
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Engine(Box::new(failure))
    }
}

/// Why a command or a read gives no result: it was refused by a rule, or SQLite failed.
#[derive(Debug)]
pub(super) enum Stop {
    /// A rule of the kind does not allow it; the caller is told so.
    Refused(Error),
    /// SQLite failed; the caller is told a [`Failure`].
    Sqlite(rusqlite::Error),
}

impl Stop {
    /// The error for the caller.
    pub(super) fn into_error(self, database: &Path) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Sqlite(error) => Failure::sqlite(database, &error).into(),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}
