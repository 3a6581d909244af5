//! Where releases lie: trees that were fetched and built, each under a name that says what it was made of, so that the same
//! is never made twice and what is there is what its name says. A release is whole when its marker is there, which is
//! written last: whatever is killed half-way leaves no half release, and several `lethe` may share the folder.

pub(crate) mod book;
pub(crate) mod claim;
pub(crate) mod copy;
pub(crate) mod manifest;
mod sweep;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lethe_model::service::ServiceName;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use self::{
    book::Book,
    claim::{Beside, Claim, Fresh},
    manifest::Manifest,
};

/// The folder of the releases, in the state folder.
const RELEASES: &str = "releases";
/// The folder of the workers' own copies, in the state folder.
const WORKERS: &str = "workers";
/// The folder of the books, in that of the releases.
const BOOKS: &str = "services";
/// How what is being fetched begins.
const FRESH: &str = "fresh-";
/// How a worker's own copy begins.
const COPY: &str = "copy-";
/// How what was damaged begins.
const OLD: &str = "old-";
/// The tree of a release; a short name, since paths in it may stand in `#!` lines.
const TREE: &str = "tree";
/// What is in the tree.
const MANIFEST: &str = "manifest";
/// Says that the release is whole.
const MARKER: &str = "release.json";
/// Digits of a release's name.
const KEY_DIGITS: usize = 32;
/// How often is looked whether somebody else has finished what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After so many looks, a release that nobody makes and that is not whole is put aside, though somebody uses it.
const ABANDONED_AFTER: u32 = 20;

/// The store of one `lethe`.
#[derive(Debug)]
pub(crate) struct Store {
    releases: PathBuf,
    workers: PathBuf,
    state: PathBuf,
    /// Releases that this process may start workers from; nobody removes them.
    held: Mutex<BTreeMap<String, Claim>>,
    /// Held by who changes a book.
    noting: Mutex<()>,
}

/// A release that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Its name.
    pub(crate) key: String,
    /// Its files.
    pub(crate) tree: PathBuf,
}

/// What lies beside the tree of a whole release.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Marker {
    format: u32,
    /// Its name.
    key: String,
    /// Where it is from, without credentials.
    pub(crate) source: String,
    /// What its source calls the version.
    pub(crate) revision: String,
    /// The digest of what was fetched.
    pub(crate) fetched: String,
    /// The digest of what is there, with what was built.
    pub(crate) digest: String,
    /// How much there is.
    pub(crate) entries: usize,
    pub(crate) bytes: u64,
    /// The boot of the machine in which its content was last known to be right: what was not on disk yet may have been
    /// lost with the power.
    boot: String,
}

/// The present version of [`Marker`] and [`Manifest`].
const FORMAT: u32 = 1;

/// A release as it is found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is there.
    Whole,
    /// It is to be made now, by who got this; nobody else does.
    Absent(Making),
}

/// A release that is being made. Dropped, what there is of it is removed.
#[derive(Debug)]
pub(crate) struct Making {
    claim: Option<Claim>,
    pub(crate) key: String,
}

impl Store {
    /// That in a state folder. Nothing is made before it is needed.
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            releases: state.join(RELEASES),
            workers: state.join(WORKERS),
            state: state.into(),
            held: Mutex::default(),
            noting: Mutex::default(),
        }
    }

    /// The state folder, which is part of no release.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Where it is, for messages.
    pub(crate) fn folder(&self) -> &Path {
        &self.releases
    }

    /// A folder to fetch into.
    pub(crate) fn fresh(&self) -> io::Result<Fresh> {
        Fresh::make(&self.releases, FRESH)
    }

    /// A folder for a worker of this name.
    pub(crate) fn worker_folder(&self, worker: &str) -> io::Result<Fresh> {
        Fresh::make(&self.workers, &format!("{COPY}{worker}-"))
    }

    /// The release that `path` is in or of, if it is one of this store.
    pub(crate) fn key_of<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let name = path.strip_prefix(&self.releases).ok()?.components().next()?.as_os_str().to_str()?;
        is_key(name).then_some(name)
    }

    /// The folder of the files of a release.
    pub(crate) fn tree(&self, key: &str) -> PathBuf {
        self.releases.join(key).join(TREE)
    }

    pub(crate) fn book(&self, service: &ServiceName) -> Book {
        Book::open(&self.releases.join(BOOKS), service)
    }

    /// Changes the book of a service. That it cannot be written is told and no more: it only helps later.
    pub(crate) fn note(&self, service: &ServiceName, change: impl FnOnce(&mut Book)) {
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let books = self.releases.join(BOOKS);
        let written = Book::read(&books, service).and_then(|mut book| {
            change(&mut book);
            book.write(&books, service)
        });
        if let Err(error) = written {
            tracing::warn!(
                "{service}: what is known of its releases cannot be written in {}: {error}",
                self.releases.display()
            );
        }
    }

    /// The release of this name, held from now on, if it is whole.
    pub(crate) fn open(&self, key: &str) -> io::Result<Option<Release>> {
        let folder = self.releases.join(key);
        let is_held = self.held().contains_key(key);
        let claim = if is_held { None } else { Claim::take(&folder, Beside::Others)? };
        if (!is_held && claim.is_none()) || !self.is_whole(key) {
            return Ok(None);
        }
        if let Some(claim) = claim {
            self.held().insert(key.into(), claim);
        }
        Ok(Some(Release { key: key.into(), tree: folder.join(TREE) }))
    }

    /// Looks for a release and waits while somebody makes it. Cancellation safe.
    pub(crate) async fn find(&self, key: &str) -> io::Result<Found> {
        let folder = self.releases.join(key);
        let mut looks = 0;
        loop {
            fs::create_dir_all(&folder)?;
            if self.open(key)?.is_some() {
                return Ok(Found::Whole);
            }
            // What is held and not whole any more is of no use.
            self.held().remove(key);
            if let Some(claim) = Claim::take(&folder, Beside::Nobody)? {
                if self.is_whole(key) {
                    continue;
                }
                empty(&folder)?;
                return Ok(Found::Absent(Making { claim: Some(claim), key: key.into() }));
            }
            looks += 1;
            if looks > ABANDONED_AFTER
                && Claim::take(&folder, Beside::Others)?.is_some()
                && !self.is_whole(key)
            {
                self.put_aside(key)?;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Says that a release that was made is whole, and holds it. `marker` has what is known of it; its digests and sizes are
    /// filled in. Blocks.
    pub(crate) fn finish(
        &self,
        mut making: Making,
        source: String,
        revision: String,
        fetched: String,
    ) -> io::Result<Release> {
        let key = making.key.clone();
        let folder = self.releases.join(&key);
        let tree = folder.join(TREE);
        let manifest = Manifest::of(&tree)?;
        manifest.make_read_only(&tree)?;
        let marker = Marker {
            format: FORMAT,
            key: key.clone(),
            source,
            revision,
            fetched,
            digest: manifest.digest(),
            entries: manifest.len(),
            bytes: manifest.bytes(),
            boot: boot(),
        };
        manifest.write(File::create(folder.join(MANIFEST))?)?;
        write_whole(&folder, &marker)?;
        let claim = making.claim.take();
        // A lock is not changed at one stroke: one who tidies up may take it away in between, but not what is in use last.
        let turned = claim.map(|claim| claim.turn(Beside::Others)).transpose()?.flatten();
        let claim = match turned {
            Some(claim) => claim,
            None => Claim::take(&folder, Beside::Others)?
                .ok_or_else(|| io::Error::other("it was removed as soon as it was made; try again"))?,
        };
        self.held().insert(key.clone(), claim);
        Ok(Release { key, tree })
    }

    /// What is said of a release beside its tree.
    pub(crate) fn marker(&self, key: &str) -> Option<Marker> {
        let text = fs::read(self.releases.join(key).join(MARKER)).ok()?;
        let marker: Marker = serde_json::from_slice(&text).ok()?;
        (marker.format == FORMAT && marker.key == key).then_some(marker)
    }

    /// What is in a release. After each boot of the machine its content is compared once. The error says what is damaged.
    /// Blocks.
    pub(crate) fn manifest(&self, key: &str) -> Result<Manifest, String> {
        let folder = self.releases.join(key);
        let marker = self.marker(key).ok_or_else(|| format!("{} is not there", folder.display()))?;
        let manifest = File::open(folder.join(MANIFEST)).and_then(Manifest::read);
        let manifest = manifest.map_err(|error| format!("{}: {error}", folder.join(MANIFEST).display()))?;
        if manifest.digest() != marker.digest {
            return Err(format!("{}: the manifest is not that of its release", folder.display()));
        }
        if marker.boot == boot() {
            return Ok(manifest);
        }
        if let Some(damage) = manifest.damage_in_full(&folder.join(TREE)) {
            return Err(damage);
        }
        // Only saves work next time.
        let _ = write_whole(&folder, &Marker { boot: boot(), ..marker });
        Ok(manifest)
    }

    /// Whether a release's tree is as it was made, by dates and sizes. The error says what is damaged. Blocks.
    pub(crate) fn check(&self, key: &str) -> Result<(), String> {
        let manifest = self.manifest(key)?;
        manifest.damage(&self.tree(key)).map_or(Ok(()), Err)
    }

    /// Puts a release aside that is damaged, whoever uses it: those who run keep what they have.
    pub(crate) fn put_aside(&self, key: &str) -> io::Result<()> {
        self.held().remove(key);
        let aside = self.releases.join(format!("{OLD}{key}-{}", distinct()));
        match fs::rename(self.releases.join(key), aside) {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
    }

    /// Gives up all releases but these. What nobody uses then is removed by [`Store::sweep`].
    pub(crate) fn hold_only(&self, used: &BTreeSet<String>) {
        self.held().retain(|key, _| used.contains(key));
    }

    /// Removes what nobody uses and what is not among the last of its service. Blocks.
    pub(crate) fn sweep(&self) {
        for folder in [&self.releases, &self.workers] {
            if let Err(error) = sweep::sweep(folder, &self.releases.join(BOOKS)) {
                tracing::warn!(
                    "{}: what is not needed any more cannot be removed: {error}",
                    folder.display()
                );
            }
        }
    }

    fn is_whole(&self, key: &str) -> bool {
        self.marker(key).is_some() && self.tree(key).is_dir()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Claim>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Making {
    /// Where its tree is to be.
    pub(crate) fn tree(&self) -> PathBuf {
        self.claim.as_ref().map(|claim| claim.folder.join(TREE)).unwrap_or_default()
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(claim) = &self.claim {
            let _ = remove(&claim.folder);
        }
    }
}

/// The name of what is made of these parts, each of which may be any text.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut key = hex(&hash.finalize());
    key.truncate(KEY_DIGITS);
    key
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A word that no other folder of this or another process has.
fn distinct() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether a name ends with such a word.
fn is_distinct(name: &str) -> bool {
    let mut words = name.rsplit('-');
    let mut is_number = || {
        words.next().is_some_and(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_number() && is_number()
}

fn is_key(name: &str) -> bool {
    name.len() == KEY_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Which boot of the machine this is (proc(5), `/proc/sys/kernel/random/boot_id`).
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}

fn write_whole(folder: &Path, marker: &Marker) -> io::Result<()> {
    let fresh = folder.join(format!(".{MARKER}-{}", distinct()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&fresh)?;
    serde_json::to_writer_pretty(&mut file, marker)?;
    fs::rename(fresh, folder.join(MARKER))
}

/// Removes a folder; a release's marker first, so that it is never half there.
fn remove(folder: &Path) -> io::Result<()> {
    let _ = fs::remove_file(folder.join(MARKER));
    let removed = match fs::remove_dir_all(folder) {
        // A build may have made folders that even their owner cannot change.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove(&entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
