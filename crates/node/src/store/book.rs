//! What is known of a service's releases: which were made last and from what, so that they can be started from again when
//! nothing can be fetched, and which could not be made, so that they are not tried over and over. A file for each service,
//! replaced as a whole. What is written here has no credentials.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use lethe_model::service::ServiceName;
use serde::{Deserialize, Serialize};

/// Releases of a service that are kept, beside those in use.
pub(crate) const RELEASES_KEPT: usize = 5;
/// Ways in which those may be known, such as by a branch and by a commit.
const RECORDS_MAX: usize = 4 * RELEASES_KEPT;
/// The ending of a book's file.
const ENDING: &str = "json";
/// Versions that failed and are remembered.
const FAILURES_KEPT: usize = 40;

/// The book of one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Book {
    /// The last used first.
    #[serde(default)]
    pub(crate) releases: Vec<Record>,
    /// The last first.
    #[serde(default)]
    pub(crate) failures: Vec<Failure>,
}

/// A release that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What it is called in the store.
    pub(crate) key: String,
    /// Its source, as people are shown it.
    pub(crate) source: String,
    /// What was built of it, and where.
    pub(crate) recipe: String,
    /// What its source calls the version: a commit, or the hash of an archive.
    pub(crate) revision: String,
    /// What tells the version without fetching it.
    pub(crate) mark: Option<String>,
    /// The digest of what was fetched.
    pub(crate) tree: String,
    /// When it was used last, in seconds since 1970.
    pub(crate) used_at: u64,
}

/// A version that could not be made or did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) source: String,
    pub(crate) recipe: String,
    /// Its mark, or the digest of what was fetched.
    pub(crate) version: String,
}

impl Record {
    /// Whether it is this version of what is at `place`, whatever branch or tag it was asked for by.
    pub(crate) fn is(&self, place: &str, version: &str) -> bool {
        let reference = self.source.strip_prefix(place);
        reference.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
            && (self.mark.as_deref() == Some(version) || self.revision == version)
    }

    /// By what a failure of it is known.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &str> {
        self.mark.iter().chain([&self.tree]).map(String::as_str)
    }
}

impl Book {
    /// That of a service; an empty one if there is none, or one that cannot be read, which is told.
    pub(crate) fn open(books: &Path, service: &ServiceName) -> Self {
        Self::read(books, service).unwrap_or_else(|error| {
            tracing::warn!("{service}: nothing is known of its releases: {error}");
            Self::default()
        })
    }

    /// That of a service; an empty one if there is none.
    pub(crate) fn read(books: &Path, service: &ServiceName) -> io::Result<Self> {
        read(&path(books, service))
    }

    /// Those of all services. An error if one of them cannot be read: what it has would be taken for unknown.
    pub(crate) fn all(books: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(books) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        // Those that are being written have another ending.
        let books = paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == ENDING));
        books.map(|path| read(path)).collect()
    }

    /// Notes that a release is used now.
    pub(crate) fn used(&mut self, record: Record) {
        self.releases.retain(|known| (&known.key, &known.source) != (&record.key, &record.source));
        self.failures.retain(|failed| {
            let is_of_it = failed.source == record.source && failed.recipe == record.recipe;
            !(is_of_it && record.versions().any(|version| version == failed.version))
        });
        self.releases.insert(0, record);
        // One that was made may stand there by several names, and what is bad goes first.
        while self.releases.iter().map(|known| &known.key).collect::<BTreeSet<_>>().len() > RELEASES_KEPT {
            let last_bad = self.releases.iter().rposition(|known| self.is_bad(known));
            self.releases.remove(last_bad.unwrap_or(self.releases.len() - 1));
        }
        self.releases.truncate(RECORDS_MAX);
    }

    fn is_bad(&self, record: &Record) -> bool {
        record.versions().any(|version| self.has_failed(&record.source, &record.recipe, version))
    }

    /// Notes that a version failed.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.failures.retain(|known| *known != failure);
        self.failures.insert(0, failure);
        self.failures.truncate(FAILURES_KEPT);
    }

    /// Whether this version failed when it was tried last.
    pub(crate) fn has_failed(&self, source: &str, recipe: &str, version: &str) -> bool {
        self.failures
            .iter()
            .any(|failed| (&*failed.source, &*failed.recipe, &*failed.version) == (source, recipe, version))
    }

    /// Releases of this source, made in this way and not known to be bad, the last used first.
    pub(crate) fn of<'a>(&'a self, source: &'a str, recipe: &'a str) -> impl Iterator<Item = &'a Record> {
        self.releases
            .iter()
            .filter(move |record| record.source == source && record.recipe == recipe && !self.is_bad(record))
    }

    /// Writes it down, whole or not at all.
    pub(crate) fn write(&self, books: &Path, service: &ServiceName) -> io::Result<()> {
        fs::create_dir_all(books)?;
        let fresh = books.join(format!(".{service}-{}", super::distinct()));
        let mut file = fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&fresh, path(books, service))
    }
}

fn read(path: &Path) -> io::Result<Book> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::default()),
        text => text.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?,
    };
    serde_json::from_slice(&text).map_err(|error| {
        io::Error::other(format!(
            "{} is damaged ({error}): remove it, and releases are made anew",
            path.display()
        ))
    })
}

fn path(books: &Path, service: &ServiceName) -> PathBuf {
    books.join(format!("{service}.{ENDING}"))
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
