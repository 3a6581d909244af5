//! The files of blobs. A file gets its bytes first and its row in the database last, in one commit; only
//! the row makes it a blob. The folder `doubt` holds an empty marker for each file whose row may or may not be
//! there: made before the file, or before the row is taken away, and removed once that is settled. After a
//! crash only the few files with a marker have to be looked up, however many blobs there are.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{failure::Failure, schema::sync_folder};
use crate::error::Error;

/// Random bytes in a file's name.
const NAME_BYTES: usize = 16;

/// The folder of blobs: `<two hexadecimal digits>/<name>` and `doubt/<name>`.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// Opens the folder, made if it is not there.
    pub(super) fn open(folder: PathBuf) -> Result<Arc<Self>, Failure> {
        let files = Self { folder };
        let doubt = files.folder.join("doubt");
        make_folder(&files.folder)
            .and_then(|()| make_folder(&doubt))
            .map_err(|error| Failure::io("create", &doubt, &error))?;
        Ok(Arc::new(files))
    }

    /// Settles what a crash left in doubt: files that `has_row` denies are removed. Returns how many were.
    pub(super) fn settle(
        &self,
        mut has_row: impl FnMut(&str) -> Result<bool, Failure>,
    ) -> Result<usize, Failure> {
        let doubt = self.folder.join("doubt");
        let failure = |error: io::Error| Failure::io("read", &doubt, &error);
        let mut removed = 0;
        for entry in fs::read_dir(&doubt).map_err(failure)? {
            let name = entry.map_err(failure)?.file_name();
            let Some(name) = name.to_str().filter(|name| is_name(name)) else { continue };
            if !has_row(name)? {
                let path = self.path(name);
                remove(&path).map_err(|error| Failure::io("remove", &path, &error))?;
                removed += 1;
            }
            let marker = self.marker(name);
            remove(&marker).map_err(|error| Failure::io("remove", &marker, &error))?;
        }
        Ok(removed)
    }

    /// A new, empty file, in doubt. Blocks for the time of a few calls to the file system.
    pub(super) fn create(self: &Arc<Self>) -> Result<Incoming, Error> {
        let mut random = [0; NAME_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| Error::Unavailable(format!("the system gives no random numbers: {error}")))?;
        let name = hex(&random);
        let path = self.path(&name);
        let make = || {
            create_file(&self.marker(&name))?;
            make_folder(path.parent().unwrap_or(&self.folder))?;
            create_file(&path)
        };
        match make() {
            Ok(file) => Ok(Incoming {
                files: self.clone(),
                name,
                file: Some(file),
                hash: Sha256::new(),
                size: 0,
                settled: false,
            }),
            Err(error) => {
                // Without a file, a marker that cannot be removed either does no harm.
                let _ = remove(&self.marker(&name));
                Err(Failure::io("create", &path, &error).into())
            }
        }
    }

    /// Marks a file whose row is about to be taken away.
    pub(super) fn outgoing(self: &Arc<Self>, name: String) -> Result<Outgoing, Error> {
        let marker = self.marker(&name);
        create_file(&marker).map_err(|error| Failure::io("create", &marker, &error))?;
        Ok(Outgoing { files: self.clone(), name })
    }

    /// Where the file of that name is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name.get(..2).unwrap_or("")).join(name)
    }

    fn marker(&self, name: &str) -> PathBuf {
        self.folder.join("doubt").join(name)
    }
}

/// A file that gets the bytes of a blob that is not one yet. Dropped, it is removed.
pub(super) struct Incoming {
    files: Arc<Files>,
    name: String,
    file: Option<File>,
    hash: Sha256,
    size: u64,
    settled: bool,
}

impl Incoming {
    /// Adds bytes. Blocks.
    pub(super) fn write(&mut self, pieces: &[Bytes]) -> Result<(), Error> {
        let file = self.file.as_mut().ok_or_else(super::command::closing)?;
        for piece in pieces {
            file.write_all(piece)
                .map_err(|error| Error::from(Failure::io("write", &self.files.path(&self.name), &error)))?;
            self.hash.update(piece);
            self.size += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes the bytes durable, and says how many there are and their entity tag. Blocks until the disk has them.
    pub(super) fn finish(&mut self) -> Result<(u64, String), Error> {
        let path = self.files.path(&self.name);
        let sync = |file: File| {
            file.sync_all()?;
            sync_folder(path.parent().unwrap_or(&self.files.folder))
        };
        if let Some(file) = self.file.take() {
            sync(file).map_err(|error| Failure::io("write", &path, &error))?;
        }
        Ok((self.size, hex(&std::mem::take(&mut self.hash).finalize())))
    }

    /// Its name, for the row.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The row is committed: the file stays.
    pub(super) fn keep(mut self) {
        self.settled = true;
        // A marker that stays is only looked at in vain by the next start.
        let _ = remove(&self.files.marker(&self.name));
    }

    /// Nobody knows whether the row is committed: the file stays, and so does the doubt, until the next start.
    pub(super) fn leave_in_doubt(mut self) {
        self.settled = true;
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.settled {
            Outgoing { files: self.files.clone(), name: std::mem::take(&mut self.name) }.unlink();
        }
    }
}

/// A file that has, or is about to have, no row. Dropped, it stays until the next start.
pub(super) struct Outgoing {
    files: Arc<Files>,
    name: String,
}

impl Outgoing {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Removes the file. Readers that have it open read on. Blocks, long for a large file.
    pub(super) fn unlink(self) {
        let path = self.files.path(&self.name);
        match remove(&path) {
            Ok(()) => drop(remove(&self.files.marker(&self.name))),
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "a blob's old file stays until the next start");
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    text.len() == 2 * NAME_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn create_file(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes a folder that only its owner reads, durably. One that is there already is left as it is.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
