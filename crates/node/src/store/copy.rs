//! Copies files as cheaply as the file system can: a clone that shares the blocks until one is written to, else the bytes.
//! The time of the last change stays, since compiled caches (Python's, for one) are valid for it alone.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::ioctl_ficlone;

/// Copies the file `from`, of which `there` is known, to `to`, which must not exist. The owner can read and write the copy.
pub(crate) fn file(from: &Path, to: &Path, there: &Metadata) -> io::Result<()> {
    with(from, to, (there.mode() & 0o777) | 0o600, there)
}

/// The same with these permissions.
pub(crate) fn with(from: &Path, to: &Path, mode: u32, there: &Metadata) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
    if ioctl_ficlone(&target, &source).is_err() {
        io::copy(&mut source, &mut target)?;
    }
    // What the mask for new files has taken away.
    target.set_permissions(fs::Permissions::from_mode(mode))?;
    target.set_modified(there.modified()?)
}
