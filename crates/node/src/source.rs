//! A service's `source`: where its program comes from when it is not in the folder already. It is fetched whole into a
//! fresh folder, whose digest says what it is; `release` makes of it what workers are started from.

mod archive;
mod download;
mod error;
mod git;
mod pin;
mod snapshot;
mod tool;
pub(crate) mod url;

use std::{
    fmt, fs,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use lethe_state::blobs::Blobs;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

pub use self::error::Error;
pub(crate) use self::error::{BOUNDS, Bounds};
use self::{download::Ended, error::Fault, git::Resolved, tool::Failure, url::Url};
use crate::store::{self, Store, claim::Fresh, hex, manifest::Manifest};

/// What a `source` may look like, for people.
pub(crate) const EXPECTED: &str = "a git URL such as `\"https://example.org/shop.git#v1.2\"`, an archive such as \
     `\"https://example.org/shop.tar.gz\"` or `\"dist/shop.tar.gz\"`, a folder such as `\"../shop\"`, or a blob such as \
     `\"blob:releases/shop.tar.gz\"`";

/// Endings of archives that are unpacked.
const ARCHIVES: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2"];
/// How the hash of an archive begins after `#`.
const PIN: &str = "sha256=";
/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Where a program comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A git repository, at a branch, tag or commit; its default branch when none is named.
    Git {
        /// What `git fetch` takes.
        url: Url,
        /// The branch, tag or commit.
        reference: Option<String>,
    },
    /// A tar archive to download.
    Download {
        /// Where it is.
        url: Url,
        /// What its SHA-256 must be, as lower-case hexadecimal digits.
        sha256: Option<String>,
    },
    /// A tar archive on this machine.
    Archive {
        /// The file.
        file: PathBuf,
        /// What its SHA-256 must be, as lower-case hexadecimal digits.
        sha256: Option<String>,
    },
    /// A folder on this machine, of which a copy is taken.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the digest of its tree must be.
        digest: Option<String>,
    },
    /// A tar archive in the blobs of the state tier.
    Blob {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
        /// What its entity tag must be.
        etag: Option<String>,
    },
}

/// What was fetched; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Fetched {
    fresh: Fresh,
    /// What its source calls the version: a commit, or the hash of an archive.
    pub(crate) revision: String,
    /// What tells the version without fetching it, where something does.
    pub(crate) mark: Option<String>,
    /// The digest of its tree.
    pub(crate) digest: String,
}

impl Fetched {
    /// Where its files are.
    pub(crate) fn tree(&self) -> PathBuf {
        tree(&self.fresh)
    }
}

impl Source {
    /// Reads what a file says; a path is relative to `folder`. The text of the error goes on after the value.
    pub(crate) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let text = text.trim();
        // What begins with a dash would be read as an option by the program that fetches.
        if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
            return Err(format!("is no source: write {EXPECTED}"));
        }
        if let Some(blob) = text.strip_prefix("blob:") {
            return Self::blob(blob);
        }
        let (location, after) = match text.split_once('#') {
            Some((location, after)) => (location, Some(after)),
            None => (text, None),
        };
        let is_archive = is_archive(location);
        match (is_archive, after) {
            (true, Some(after)) => {
                let pin = after.strip_prefix(PIN).ok_or(
                    "is an archive, which has no branches: after `#` may only stand `sha256=` and its hash",
                )?;
                Self::archive(location, Some(pin), folder)
            }
            (true, None) => Self::archive(location, None, folder),
            (false, reference)
                if is_git(location) || reference.is_some() && folder.join(location).is_dir() =>
            {
                Self::git(location, reference, folder)
            }
            (false, None) if !location.contains("://") && folder.join(location).is_dir() => {
                Ok(Self::Folder { folder: folder.join(location), digest: None })
            }
            (false, _) => Err(format!("is neither a git URL nor an archive nor a folder: write {EXPECTED}")),
        }
    }

    /// A repository, which may be on this machine.
    pub(crate) fn git(location: &str, reference: Option<&str>, folder: &Path) -> Result<Self, String> {
        if reference.is_some_and(|reference| !is_reference(reference)) {
            return Err("has no branch, tag or commit after `#`".into());
        }
        if location.contains("://") && location.contains('?') {
            return Err("has a query, which git would show to all on this machine: give a login".into());
        }
        Ok(Self::Git {
            url: Url::parse(&from_folder(location, folder))?,
            reference: reference.map(Into::into),
        })
    }

    /// An archive, at a URL or on this machine.
    pub(crate) fn archive(location: &str, sha256: Option<&str>, folder: &Path) -> Result<Self, String> {
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if sha256.is_some_and(|pin| !is_hash(pin)) {
            return Err(
                "has no SHA-256 after `sha256=`: 64 hexadecimal digits, as `sha256sum` prints them".into()
            );
        }
        let sha256 = sha256.map(str::to_ascii_lowercase);
        if location.starts_with("http://") || location.starts_with("https://") {
            return Ok(Self::Download { url: Url::parse(location)?, sha256 });
        }
        if location.contains("://") {
            return Err("is an archive at a URL that is neither http:// nor https://".into());
        }
        Ok(Self::Archive { file: folder.join(location), sha256 })
    }

    /// `BUCKET/KEY`.
    pub(crate) fn blob(text: &str) -> Result<Self, String> {
        let (bucket, key) = text
            .split_once('/')
            .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
            .ok_or("names no blob: write \"blob:BUCKET/KEY\"")?;
        Ok(Self::Blob { bucket: bucket.into(), key: key.into(), etag: None })
    }

    /// Why there would be nothing to follow; `None` if there may be.
    pub(crate) fn stands_still(&self) -> Option<&'static str> {
        match self {
            Self::Git { reference: Some(reference), .. } if git::is_commit(reference) => {
                Some("a commit never changes: name a branch in `ref`")
            }
            Self::Download { sha256: Some(_), .. } => Some("an archive with a `sha256` never changes"),
            Self::Git { .. } | Self::Download { .. } => None,
            Self::Archive { .. } | Self::Folder { .. } | Self::Blob { .. } => {
                Some("only a git repository or an archive at a URL is followed")
            }
        }
    }

    /// Tells it apart from every other one, whoever asks. Says nothing that is secret.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Download { url, .. } => format!("{self} {}", store::key([url.bare()])),
            _ => self.to_string(),
        }
    }

    /// What tells the present version without fetching it; `None` where nothing does, and it is to be fetched.
    pub(crate) async fn mark(&self) -> Result<Option<String>, Error> {
        match self {
            _ if self.pin().is_some() => Ok(self.pin().map(str::to_ascii_lowercase)),
            Self::Git { url, reference } => Ok(Some(self.resolve(url, reference.as_deref()).await?.commit)),
            // A server may refuse a look and give the archive.
            Self::Download { url, .. } => match download::look(url).await {
                Err(Failure::Ended(status, _)) if status.code() == Some(CURL_REFUSED) => Ok(None),
                looked => looked.map_err(|failure| self.failed("curl", failure)),
            },
            Self::Archive { .. } | Self::Folder { .. } | Self::Blob { .. } => Ok(None),
        }
    }

    /// Fetches it into a fresh folder of the store; where there are several versions, that which is called `revision`, or
    /// the present one. Dropping the future ends the programs that fetch.
    pub(crate) async fn fetch(
        &self,
        revision: Option<&str>,
        store: &Store,
        blobs: &dyn Blobs,
    ) -> Result<Fetched, Error> {
        let failed = |error| Error::Folder(store.folder().into(), error);
        let fresh = store.fresh().map_err(failed)?;
        let tree = tree(&fresh);
        fs::create_dir(&tree).map_err(failed)?;
        let (revision, mark) = match self {
            Self::Git { url, reference } => {
                let wanted = match revision {
                    Some(commit) => Resolved { commit: commit.into(), name: commit.into() },
                    None => self.resolve(url, reference.as_deref()).await?,
                };
                let fetched = git::fetch(url, &wanted, fresh.path(), &tree).await;
                let commit = fetched.map_err(|failure| self.failed("git", failure))?;
                if tree.join(".gitmodules").exists() {
                    tracing::warn!("{self} has submodules, which are not fetched: their folders are empty");
                }
                (commit.clone(), Some(commit))
            }
            Self::Download { url, sha256 } => {
                let file = fresh.path().join("archive");
                let downloaded = download::download(url, &file, fresh.path()).await;
                let downloaded = match downloaded.map_err(|failure| self.failed("curl", failure))? {
                    Ended::Whole(downloaded) => downloaded,
                    Ended::TooLarge => {
                        let most = download::DOWNLOAD_BYTES_MAX;
                        return Err(self.refused(format!("it has more than {most} bytes")));
                    }
                    Ended::NotWritten(error) => return Err(Error::Folder(file, error)),
                };
                self.check_pin(sha256.as_deref(), &downloaded.sha256)?;
                self.unpack(&file, &tree).await?;
                let mark = sha256.clone().or(downloaded.mark);
                (downloaded.sha256, mark)
            }
            Self::Archive { file, sha256 } => {
                let hash = self.hash(file).await?;
                self.check_pin(sha256.as_deref(), &hash)?;
                self.unpack(file, &tree).await?;
                (hash, None)
            }
            Self::Folder { folder, .. } => {
                let (folder, to, state) = (folder.clone(), tree.clone(), store.state().to_owned());
                self.blocking(&tree, move || snapshot::take(&folder, &to, &state, BOUNDS)).await?;
                (String::new(), None)
            }
            Self::Blob { bucket, key, etag: pin } => {
                let file = fresh.path().join("archive");
                let etag = self.read_blob(blobs, bucket, key, &file).await?;
                self.check_version(pin.as_deref(), &etag)?;
                self.unpack(&file, &tree).await?;
                (etag, None)
            }
        };
        let _ = fs::remove_file(fresh.path().join("archive"));
        let digest = {
            let tree = tree.clone();
            let manifest = tokio::task::spawn_blocking(move || Manifest::of(&tree)).await;
            let manifest = manifest.map_err(io::Error::other).and_then(|manifest| manifest);
            let manifest = manifest.map_err(|error| Error::Folder(fresh.path().into(), error))?;
            BOUNDS
                .check(manifest.len() as u64, manifest.bytes())
                .map_err(|fault| self.fault(&fresh, fault))?;
            manifest.digest()
        };
        if let Self::Folder { digest: pin, .. } = self {
            self.check_version(pin.as_deref(), &digest)?;
        }
        // A folder has no other name for what is in it.
        let revision = if revision.is_empty() { digest.clone() } else { revision };
        Ok(Fetched { fresh, revision, mark, digest })
    }

    /// What a program said, without what is secret of this source.
    pub(crate) fn masked(&self, text: &str) -> String {
        match self {
            Self::Git { url, .. } | Self::Download { url, .. } => url.masked(text),
            Self::Archive { .. } | Self::Folder { .. } | Self::Blob { .. } => text.into(),
        }
    }

    /// What nobody is shown.
    pub(crate) fn secrets(&self) -> &[String] {
        match self {
            Self::Git { url, .. } | Self::Download { url, .. } => url.secrets(),
            Self::Archive { .. } | Self::Folder { .. } | Self::Blob { .. } => &[],
        }
    }

    async fn resolve(&self, url: &Url, reference: Option<&str>) -> Result<Resolved, Error> {
        let resolved = git::resolve(url, reference).await.map_err(|failure| self.failed("git", failure))?;
        resolved.ok_or_else(|| {
            let why = match reference {
                None => "there is no commit in it yet".into(),
                Some(reference) => format!(
                    "there is no branch or tag `{reference}`; a commit is named by its whole hash of 40 digits"
                ),
            };
            self.refused(why)
        })
    }

    async fn unpack(&self, archive: &Path, tree: &Path) -> Result<(), Error> {
        let (archive, to) = (archive.to_owned(), tree.to_owned());
        self.blocking(tree, move || archive::unpack(&archive, &to, BOUNDS)).await
    }

    async fn blocking(
        &self,
        tree: &Path,
        work: impl FnOnce() -> Result<(), Fault> + Send + 'static,
    ) -> Result<(), Error> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|error| Fault::Written(io::Error::other(error))).and_then(|done| done);
        done.map_err(|fault| self.fault_in(tree, fault))
    }

    async fn hash(&self, file: &Path) -> Result<String, Error> {
        let path = file.to_owned();
        let hashed = tokio::task::spawn_blocking(move || {
            let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; PIECE_BYTES]);
            loop {
                match file.read(&mut piece)? {
                    0 => return Ok(hex(&hash.finalize())),
                    read => hash.update(&piece[..read]),
                }
            }
        });
        let hashed = hashed.await.map_err(io::Error::other).and_then(|hashed| hashed);
        hashed.map_err(|error| self.refused(format!("it cannot be read: {error}; check the path")))
    }

    fn check_pin(&self, pin: Option<&str>, found: &str) -> Result<(), Error> {
        match pin {
            Some(pin) if pin != found => Err(self.refused(format!(
                "its SHA-256 is {found} and not {pin}: it is another archive than was meant; if it is the right one, \
                 change `sha256`"
            ))),
            _ => Ok(()),
        }
    }

    fn check_version(&self, pin: Option<&str>, found: &str) -> Result<(), Error> {
        match pin {
            Some(pin) if pin != found => Err(self.refused(
                "what was released of it is not kept any more, and it is something else now; deploy it anew"
                    .into(),
            )),
            _ => Ok(()),
        }
    }

    /// Gives its entity tag.
    async fn read_blob(
        &self,
        blobs: &dyn Blobs,
        bucket: &str,
        key: &str,
        file: &Path,
    ) -> Result<String, Error> {
        let blob =
            blobs.get(bucket, key, None).await.map_err(|error| Error::State(self.to_string(), error))?;
        let blob = blob.ok_or_else(|| Error::NoBlob(self.to_string()))?;
        let mut body = blob.body;
        let write = async {
            let mut file = tokio::fs::File::create(file).await?;
            while let Some(piece) = body.try_next().await? {
                file.write_all(&piece).await?;
            }
            file.flush().await
        };
        write.await.map_err(|error| Error::Folder(file.into(), error))?;
        Ok(blob.info.etag)
    }

    fn refused(&self, why: String) -> Error {
        Error::Refused { source_name: self.to_string(), why }
    }

    fn fault(&self, fresh: &Fresh, fault: Fault) -> Error {
        self.fault_in(&tree(fresh), fault)
    }

    fn fault_in(&self, tree: &Path, fault: Fault) -> Error {
        match fault {
            Fault::Refused(why) => self.refused(why),
            Fault::Missing(program, source) => {
                Error::Missing { program, source_name: self.to_string(), source }
            }
            Fault::Written(error) => Error::Folder(tree.into(), error),
        }
    }

    fn failed(&self, program: &'static str, failure: Failure) -> Error {
        let source_name = self.to_string();
        match failure {
            Failure::Missing(source) => Error::Missing { program, source_name, source },
            Failure::Slow(after) => Error::Slow { source_name, program, after },
            Failure::Ended(status, text) => {
                let text = self.masked(&text);
                Error::Failed { source_name, program, status, text }
            }
        }
    }
}

/// curl's status for an answer of 400 or above (curl(1), `--fail`).
const CURL_REFUSED: i32 = 22;

/// Never with the credentials of a URL.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git { url, reference } => {
                url.fmt(f)?;
                reference.as_ref().map_or(Ok(()), |reference| write!(f, "#{reference}"))
            }
            Self::Download { url, .. } => url.fmt(f),
            Self::Archive { file, .. } => file.display().fmt(f),
            Self::Folder { folder, .. } => folder.display().fmt(f),
            Self::Blob { bucket, key, .. } => write!(f, "blob:{bucket}/{key}"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

fn tree(fresh: &Fresh) -> PathBuf {
    fresh.path().join("tree")
}

fn is_archive(location: &str) -> bool {
    // What stands after `?` is for the server.
    let path = location.split('?').next().unwrap_or(location);
    ARCHIVES.iter().any(|ending| path.ends_with(ending))
}

/// Whether git can mean something by it, and reads it as nothing else.
pub(crate) fn is_reference(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && !text.contains([' ', '^', '~', ':', '?', '*', '[', '\\'])
}

fn is_git(location: &str) -> bool {
    let scheme = ["https://", "http://", "ssh://", "git://", "file://"];
    let is_url = scheme.iter().any(|scheme| location.starts_with(scheme));
    // `git@host:path`, as ssh writes it.
    let is_scp = location.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    is_url || is_scp || location.ends_with(".git")
}

/// A repository on this machine is named relative to the file.
fn from_folder(location: &str, folder: &Path) -> String {
    if location.contains(':') {
        location.into()
    } else {
        folder.join(location).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests;
